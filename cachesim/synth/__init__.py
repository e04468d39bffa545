"""Generated agent traffic: words, texts, applications, and the capture lines they send.

`fixtures/demo.jsonl.gz` is made from it with `python tools/make_demo.py`.
"""

from __future__ import annotations

from cachesim.synth.traffic import generate, write

__all__ = ["generate", "write"]
