"""Generated agent traffic: words, texts, applications, and the capture lines they send."""
