"""Counting faster with the optional package fastokens, checked against tokenizers on the log's own texts.

Its counts are taken only while every checked text has the same count from both: of each batch a few texts, at the start
a whole one, and every text that brings a character outside ASCII not checked before, as far as a budget goes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from cachesim.counting.resolve import LoadedTokenizer, read_tokenizer
from cachesim.errors import CachesimError

PACKAGE: Final = "fastokens"
_FIRST_BYTES: Final = 100_000
_SHARE: Final = 100
"""One of so many characters is checked: tokenizers are 15 to 40 times slower, so it costs about a quarter more."""
_LONG_BYTES: Final = 20_000

# What byte-level tokenizers and their copies disagree about, if they do: white space, letters of several scripts,
# contractions, runs of digits, joined emoji, combining marks, controls.
_PROBES: Final = (
    "", " ", "   a", "a   ", "\n\n  \n", "\r\n\t x", "it's I'll WE'RE", "0123456789 3.14 1,000", "naïve café e\u0301",
    "数字 中文 ひらがな 한국어", "ไทย العربية עברית हिन्दी",
    "👩‍👩‍👧 🏳️‍🌈 ✈️", "\u00a0\u2003\u200b\ufeff", "\0\x01\x7f\ufffd",
    "<|endoftext|><|im_start|>user", "<s>[INST]</s>", "a" * 300, "ABCdefGHI_jkl-mno", "!?!?--==//\\\\", "ﬁ ① ½ Å Ⅳ",
)  # fmt: skip


class CountsDiffer(CachesimError):
    """The accelerator counts a text differently than tokenizers do, so nothing that it counted can be used."""


class Counting(Protocol):
    """A tokenizer that counts; safe to use from several threads."""

    @property
    def source(self) -> str: ...
    def count_batch(self, texts: Sequence[str]) -> list[int]: ...


def accelerator() -> str | None:
    """The accelerator's name and version, where it is installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        return None
    return f"{PACKAGE} {importlib.metadata.version(PACKAGE)}"


def load_accelerated(source: str, version: str | None = None) -> tuple[Counting, str | None]:
    """The tokenizer that `source` names, accelerated; or as it is, with the reason why it cannot be.

    Raises what `load_tokenizer` raises.
    """
    exact, data = read_tokenizer(source, version)
    try:
        import fastokens

        fast = fastokens.Tokenizer.from_json_str(data.decode())
        fast.no_truncation()
        fast.no_padding()
    except (ImportError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        return exact, f"it cannot be used for {source} ({type(error).__name__})"
    try:
        return Accelerated(exact, fast), None
    except CountsDiffer:
        return exact, f"it counts texts differently for {source}"


class Accelerated:
    """Counts with `fast`, checking it against `exact`. Raises CountsDiffer from then on where they differ."""

    def __init__(self, exact: LoadedTokenizer, fast: Any) -> None:
        self.source = exact.source
        self._exact = exact
        self._fast = fast
        self._allowed = float(_FIRST_BYTES)
        self._characters: set[str] = set()
        self._check(_PROBES, self._count(_PROBES))

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without special tokens."""
        counts = self._count(texts)
        chosen = self._sample(texts)
        self._check([texts[number] for number in chosen], [counts[number] for number in chosen])
        return counts

    def _count(self, texts: Sequence[str]) -> list[int]:
        try:
            _, offsets = self._fast.encode_batch_flat(list(texts), add_special_tokens=False)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            raise self._differ() from error
        ends = memoryview(offsets).cast("Q")
        return [end - start for start, end in pairwise(ends)]

    def _sample(self, texts: Sequence[str]) -> list[int]:
        """Which texts to check: first those with new characters, then others until the budget is used up."""
        self._allowed += sum(map(len, texts)) / _SHARE
        chosen: list[int] = []
        for number in sorted(range(len(texts)), key=lambda n: not self._brings_new(texts[n])):
            if self._allowed <= 0:
                break
            if len(texts[number]) <= _LONG_BYTES:
                chosen.append(number)
                self._allowed -= len(texts[number])
        return chosen

    def _brings_new(self, text: str) -> bool:
        if text.isascii():
            return False
        before = len(self._characters)
        self._characters.update(text)
        return len(self._characters) > before

    def _check(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        if texts and self._exact.count_batch(texts) != list(counts):
            raise self._differ()

    def _differ(self) -> CountsDiffer:
        return CountsDiffer(
            f"token counting with {self.source}: {accelerator()} counts a text differently than tokenizers do; "
            "count without it (--no-accelerator)"
        )
