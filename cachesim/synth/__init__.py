"""Generated agent traffic: words, texts, applications, and the capture lines they send.

`fixtures/demo.jsonl.gz` is made from it with `python tools/make_demo.py`.
"""

from __future__ import annotations

from cachesim.synth.plant import Plant
from cachesim.synth.traffic import MODELS, generate, requests_for, write

__all__ = ["MODELS", "Plant", "generate", "requests_for", "write"]
