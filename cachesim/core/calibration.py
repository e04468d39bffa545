"""Calibration of estimated token counts: one factor per model, so that they agree with what providers report.

A factor scales *cumulative* counts, each rounded once: block counts scaled one by one would lose the factor on short
blocks (1,000 blocks of one token × 1.0874 would stay 1,000), and the floor compares cumulative counts. Rounding is
monotone, so counts still never fall along a prompt, and equal prefixes have equal counts wherever the factor is equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

UNIT: Final = 10_000
"""Factors are integers in ten-thousandths: 10,874 is 1.0874."""
LEAST_REQUESTS: Final = 20
"""Requests with reported prompt tokens that a model needs before a factor is fitted to them."""
LEAST_FACTOR: Final = UNIT // 2
MOST_FACTOR: Final = 3 * UNIT
"""Beyond these bounds the reported counts mean something else than the text of the prompt (images, another field)."""
OFF: Final = "off"
INHERITED: Final = "inherited"

_FACTOR: Final = re.compile(r"[0-9](\.[0-9]{1,4})?")


class Calibration(NamedTuple):
    """How the estimates of one model are scaled.

    origin: fitted, configured or inherited; fitted_requests: those the factor was fitted to (0 unless fitted);
    checked_requests: others, on which |estimate − reported| / reported has these quantiles (None without any).
    """

    model: str
    factor_e4: int
    origin: str
    fitted_requests: int
    checked_requests: int
    residual_median: float | None
    residual_p95: float | None


def scaled(tokens: int, factor: int, unit: int = UNIT) -> int:
    """A cumulative count times factor / unit, half up.

    >>> [scaled(n, 10_874) for n in (0, 1, 6, 1000)]    # 0, 1.0874, 6.5244, 1087.4
    [0, 1, 7, 1087]
    """
    return (tokens * factor + unit // 2) // unit


class ScaledCounts(Sequence[int]):
    """Cumulative counts times factor / unit, worked out when they are asked for: a replay asks for few of them."""

    def __init__(self, counts: Sequence[int], factor: int, unit: int = UNIT) -> None:
        self._counts = counts
        self._factor = factor
        self._unit = unit

    def __getitem__(self, node: int) -> int:  # type: ignore[override]  # nobody asks for a slice
        return scaled(self._counts[node], self._factor, self._unit)

    def __len__(self) -> int:
        return len(self._counts)


def fitted_factor(reported: int, counted: int) -> int:
    """The factor that makes sums agree, in ten-thousandths, half up: 1,100 reported over 1,003 counted is 10,967."""
    return (2 * reported * UNIT + counted) // (2 * counted)


def is_sane(factor_e4: int) -> bool:
    """Whether a factor can be one between two tokenizers."""
    return LEAST_FACTOR <= factor_e4 <= MOST_FACTOR


def factor_text(factor_e4: int) -> str:
    """10874 → '1.0874'."""
    return f"{factor_e4 // UNIT}.{factor_e4 % UNIT:04d}"


def parse_factor(text: str) -> int | None:
    """'1.0874' → 10874; None for what is no factor within the bounds or has more than four decimals."""
    if not _FACTOR.fullmatch(text):
        return None
    whole, _, decimals = text.partition(".")
    factor_e4 = int(whole) * UNIT + int(decimals.ljust(4, "0"))
    return factor_e4 if is_sane(factor_e4) else None
