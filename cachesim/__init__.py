"""cachesim replays captured LLM request logs through dwctl's exact prompt-cache classifier, offline."""

__version__ = "0.1.0"
