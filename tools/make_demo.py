"""Writes fixtures/demo.jsonl.gz, the capture the README's first command replays; the same bytes every time.

    python tools/make_demo.py

It is `cachesim.synth.generate(7, 420, scale=0.25)`: one day, six principals, four models, prompts shortened so that the
file stays small while most of them still clear a floor of 1,024 tokens.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cachesim.synth import generate

OUT: Final = Path(__file__).resolve().parent.parent / "fixtures" / "demo.jsonl.gz"
SEED: Final = 7
REQUESTS: Final = 420
SCALE: Final = 0.25


def main() -> None:
    """Generates, compresses and writes the fixture; prints its size."""
    data = gzip.compress(b"".join(generate(SEED, REQUESTS, scale=SCALE)), 9, mtime=0)
    OUT.write_bytes(data)
    print(f"{OUT}: {len(data)} bytes")


if __name__ == "__main__":
    main()
