"""Ready-made pieces of text, already escaped for JSON and measured, from which messages are put together quickly."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Final

from cachesim.synth.text import Writer

Text = tuple[bytes, int]
"""The inside of a JSON string (UTF-8, escaped) and an estimate of its tokens."""

BLENDS: Final = {
    "prose": ("paragraph", "paragraph", "markdown"),
    "manual": ("paragraph", "markdown", "markdown", "json"),
    "code": ("python", "python", "javascript", "other"),
    "result": ("output", "output", "python", "other", "json"),
}
"""Name of a blend -> the kinds of text it is made of, in their proportions."""

_PIECE: Final = re.compile(r"\d{1,3}|[^\W\d_]+|\s*\n\s*|[^\w\s]+|_|[ \t]{2,}")


def estimate_tokens(text: str) -> int:
    """A deterministic estimate of a current tokenizer's count, within about a tenth on generated text.

    Words cost one token per started nine letters, all else one a run: `def load_all(x):` is def, load, _, all, (, x, ):
    = 7 tokens.
    """
    return sum(-(-len(piece) // 9) if piece[0].isalpha() else 1 for piece in _PIECE.findall(text))


def escape(text: str) -> bytes:
    """`text` as it stands between the quotes of a JSON string, UTF-8."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


class Pool:
    """Blends of pieces; `draw` joins random ones. Two pools of equal seed and size are equal."""

    def __init__(self, seed: int, pieces: int) -> None:
        writer = Writer(Random(seed))
        self._blends: dict[str, tuple[list[bytes], list[int], float]] = {}
        for blend, kinds in BLENDS.items():
            texts = [writer.text(kinds[number % len(kinds)]) + "\n" for number in range(pieces)]
            escaped = [escape(text) for text in texts]
            mean = sum(map(len, escaped)) / len(escaped)
            self._blends[blend] = (escaped, [estimate_tokens(text) for text in texts], mean)

    def draw(self, rng: Random, blend: str, size: float, lead: bytes = b"") -> Text:
        """About `size` bytes of a blend, at least one piece, after `lead` (escaped, made unique by the caller)."""
        escaped, tokens, mean = self._blends[blend]
        chosen = rng.choices(range(len(escaped)), k=max(1, round((size - len(lead)) / mean)))
        text = lead + b"".join([escaped[index] for index in chosen])
        return text, len(lead) // 3 + sum([tokens[index] for index in chosen])
