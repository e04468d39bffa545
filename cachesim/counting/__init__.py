"""Text to tokens: local HuggingFace tokenizers, each unique text counted once."""
