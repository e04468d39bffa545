"""Scaled counts are whole, never fall along a prompt, stay near the exact product; a cut split fits its prompt."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.calibration import UNIT, fitted_factor, is_sane, parse_factor, scaled
from cachesim.core.calibration import factor_text as text_of
from cachesim.core.pricing import Split, fit_split

FACTORS = st.integers(UNIT // 2, 3 * UNIT)
TOKENS = st.integers(0, 2**40)


@given(st.lists(st.integers(0, 5000), max_size=50), FACTORS)
def test_cumulative_counts_never_fall_and_are_rounded_once(blocks: list[int], factor_e4: int) -> None:
    total, previous = 0, 0
    for tokens in blocks:
        total += tokens
        found = scaled(total, factor_e4)
        assert found >= previous
        assert abs(found - Fraction(total * factor_e4, UNIT)) <= Fraction(1, 2)
        previous = found


@given(TOKENS)
def test_a_factor_of_one_changes_nothing(tokens: int) -> None:
    assert scaled(tokens, UNIT) == tokens


@given(st.integers(1, 2**40), FACTORS)
def test_the_fitted_factor_is_the_one_that_scaled_the_counts(counted: int, factor_e4: int) -> None:
    """Up to the half token of rounding and the half of the fourth decimal."""
    found = fitted_factor(scaled(counted, factor_e4), counted)
    assert abs(found - factor_e4) <= Fraction(UNIT, 2 * counted) + Fraction(1, 2)


@given(FACTORS)
def test_a_factor_survives_its_text(factor_e4: int) -> None:
    assert is_sane(factor_e4)
    assert parse_factor(text_of(factor_e4)) == factor_e4


@given(st.integers(-5, 10**6), *[st.integers(0, 10**6)] * 4)
def test_a_split_is_cut_to_the_prompt_in_proportion(prompt: int, read: int, c5m: int, c1h: int, c24h: int) -> None:
    split = Split(read, c5m, c1h, c24h)
    total, room = sum(split), max(prompt, 0)
    found = fit_split(prompt, *split)
    assert sum(found) == min(total, room)
    if total <= room:
        assert found == split
        return
    assert all(abs(cut - Fraction(n * room, total)) <= 2 for cut, n in zip(found, split, strict=True))
    assert all(cut == 0 for cut, n in zip(found, split, strict=True) if n == 0)


def test_worked_examples() -> None:
    assert fit_split(10_000, 8_400, 2_100, 0, 0) == (8_000, 2_000, 0, 0)  # 10,500 are 5 % too many
    assert fit_split(10_500, 8_400, 2_100, 0, 0) == (8_400, 2_100, 0, 0)
    assert fit_split(100, 7, 50, 50, 50) == (4, 32, 32, 32)  # 700 // 157 = 4; 96 left, a third for each tier
    assert fit_split(0, 5, 5, 5, 5) == (0, 0, 0, 0)
