"""Billing: the worked cases, the two billing rules, exactness, and every golden case."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.conformance.pricing import run_pricing_case
from cachesim.core.pricing import (
    BilledSplit,
    BillingRule,
    Multipliers,
    Split,
    billed_split,
    break_even_hit_rate,
    charge,
    charged_cost,
    list_price,
    reads_to_pay_back,
    tier_choice_ratio,
    total_cost,
    unit_prices,
)

GOLDEN = Path(__file__).resolve().parents[2] / "fixtures" / "golden"
USUAL = Multipliers(Decimal("0.1"), Decimal("1.25"), Decimal("2.0"), Decimal("2.5"))
IN, OUT = Decimal("0.001"), Decimal("0.002")
RULES: tuple[BillingRule, ...] = ("void", "cap")

tokens = st.integers(-5, 40)
rules = st.sampled_from(RULES)
prices = st.decimals(0, 10, places=9)


def golden_cases(name: str) -> list[dict[str, Any]]:
    with gzip.open(GOLDEN / name, "rt", encoding="ascii", newline="\n") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("name", "count"), [("pricing.jsonl.gz", 2301), ("pricing_863.jsonl.gz", 1258)])
def test_every_golden_case_passes(name: str, count: int) -> None:
    cases = golden_cases(name)
    assert len(cases) == count
    assert [(case["id"], failure) for case in cases if (failure := run_pricing_case(case))] == []


def test_a_wrong_golden_expectation_is_reported() -> None:
    case = golden_cases("pricing.jsonl.gz")[0]
    wrong = case | {"expect": {"value": "1", "normalized": "1"}}
    assert run_pricing_case(wrong) == "expected {'value': '1', 'normalized': '1'} got 0.0000000"
    assert run_pricing_case(case | {"expect": None}) is not None
    assert "unknown" in str(run_pricing_case(case | {"op": "unknown"}))


def test_extreme_tolerance_needs_a_full_expectation() -> None:
    case = golden_cases("pricing.jsonl.gz")[0]
    near = case | {"tags": ["extreme"], "expect": {"value": "1", "normalized": "1"}}
    assert run_pricing_case(near) is not None, "0 is not 1, however extreme"


@pytest.mark.parametrize("rule", RULES)
def test_reference_case_with_a_split(rule: BillingRule) -> None:
    # 500 · 0.001 + 1000 · 0.001 · 0.1 + 500 · 0.001 · 2 + 100 · 0.002 = 0.5 + 0.1 + 1 + 0.2
    assert charged_cost(2000, 100, Split(1000, 0, 500, 0), IN, OUT, USUAL, rule) == Decimal("1.8")


@pytest.mark.parametrize("rule", RULES)
def test_creations_above_the_prompt_bill_the_list_price(rule: BillingRule) -> None:
    assert total_cost(100, 5, Split(0, 150, 0, 0), IN, OUT, USUAL, rule) == list_price(100, 5, IN, OUT)


def test_slightly_too_large_split_is_capped_or_voided() -> None:
    split = Split(10_000, 200, 0, 0)
    # cap: read 10,100 − 200 = 9,900: 9,900 · 0.0001 + 200 · 0.00125 + 5 · 0.002 = 0.99 + 0.25 + 0.01
    assert total_cost(10_100, 5, split, IN, OUT, USUAL, "cap") == Decimal("1.25")
    # void: 10,100 · 0.001 + 5 · 0.002
    assert total_cost(10_100, 5, split, IN, OUT, USUAL, "void") == Decimal("10.11")


def test_states_of_the_billed_split() -> None:
    assert billed_split(100, 0, 0, 0, 0, "cap") == BilledSplit(0, 0, 0, 0, 100, "ok")
    assert billed_split(100, 60, 40, 0, 0, "void") == BilledSplit(60, 40, 0, 0, 0, "ok")
    assert billed_split(100, 61, 40, 0, 0, "cap") == BilledSplit(60, 40, 0, 0, 0, "capped")
    assert billed_split(100, 61, 40, 0, 0, "void") == BilledSplit(0, 0, 0, 0, 100, "voided")
    assert billed_split(100, 0, 40, 30, 31, "cap") == BilledSplit(0, 0, 0, 0, 100, "corrupt")
    assert billed_split(100, 5, 40, 30, 30, "cap") == BilledSplit(0, 40, 30, 30, 0, "capped")
    assert billed_split(-1, -5, -6, 0, 0, "cap") == BilledSplit(0, 0, 0, 0, 0, "ok")


def test_a_missing_price_is_zero_and_two_are_unknown() -> None:
    assert list_price(10, 10, None, None) is None
    assert charged_cost(10, 10, Split(0, 0, 0, 0), None, None, USUAL, "cap") is None
    assert list_price(10, 20, IN, None) == Decimal("0.010")
    assert total_cost(10, 20, Split(0, 0, 0, 0), None, OUT, USUAL, "cap") == Decimal("0.040")


def test_without_a_tariff_reported_cache_tokens_change_nothing() -> None:
    assert charged_cost(100, 0, Split(90, 10, 0, 0), IN, OUT, None, "cap") == Decimal("0.1")
    assert set(unit_prices(IN, OUT, None)[:5]) == {IN}


def test_the_callers_decimal_context_changes_nothing() -> None:
    with localcontext() as context:
        context.prec = 2
        price = Decimal("0.00000123456789")
        got = total_cost(1001, 0, Split(1000, 0, 0, 0), price, None, USUAL, "cap")
    # 1 + 1000 · 0.1 = 101 times the price
    assert got == Decimal("0.00012469135689")


@given(tokens, tokens, tokens, tokens, tokens, rules)
def test_billed_split_adds_up_to_the_prompt(prompt: int, read: int, a: int, b: int, c: int, rule: BillingRule) -> None:
    billed = billed_split(prompt, read, a, b, c, rule)
    assert sum(billed[:5]) == max(prompt, 0)
    assert min(billed[:5]) >= 0


@given(tokens, tokens, tokens, tokens, tokens)
def test_rules_agree_where_the_split_fits(prompt: int, read: int, a: int, b: int, c: int) -> None:
    fits = sum(max(part, 0) for part in (read, a, b, c)) <= max(prompt, 0)
    void, cap = (billed_split(prompt, read, a, b, c, rule) for rule in RULES)
    assert fits == (void.state == "ok") == (cap.state == "ok")
    assert not fits or void == cap
    assert cap.read <= max(read, 0)


@given(tokens, tokens, st.tuples(tokens, tokens, tokens, tokens), prices, prices, rules)
def test_charge_is_the_sum_of_tokens_times_unit_prices(
    prompt: int,
    completion: int,
    split: tuple[int, int, int, int],
    price_in: Decimal,
    price_out: Decimal,
    rule: BillingRule,
) -> None:
    billed = billed_split(prompt, *split, rule)
    parts = (*billed[:5], max(completion, 0))
    order = (billed.uncached, *parts[:4], parts[5])
    classes = unit_prices(price_in, price_out, USUAL)
    expected = sum(Fraction(count) * Fraction(price) for count, price in zip(order, classes, strict=True))
    got = total_cost(prompt, completion, Split(*split), price_in, price_out, USUAL, rule)
    assert got is not None
    assert Fraction(got) == expected
    assert got == charge(billed, completion, classes)


def test_break_even_formulas() -> None:
    r = Decimal("0.1")
    # ⌈0.25 / 0.9⌉, ⌈1 / 0.9⌉, ⌈1.5 / 0.9⌉, and ⌈0.9 / 0.9⌉ exactly 1
    writes = [Decimal(w) for w in ("1.25", "2.0", "2.5", "1.9")]
    assert [reads_to_pay_back(w, r) for w in writes] == [1, 2, 2, 1]
    rates = [break_even_hit_rate(w, r) for w in writes[:3]]
    assert rates == [Fraction(25, 115), Fraction(10, 19), Fraction(15, 24)]
    assert [f"{100 * float(rate):.1f}" for rate in rates if rate] == ["21.7", "52.6", "62.5"]
    assert tier_choice_ratio(writes[0], writes[1], r) == Fraction(115, 190)
    assert tier_choice_ratio(writes[1], writes[2], r) == Fraction(190, 240)


def test_break_even_where_a_cache_cannot_or_need_not_pay() -> None:
    one, dear, cheap = Decimal(1), Decimal("1.25"), Decimal("0.8")
    assert reads_to_pay_back(one, cheap) == 0
    assert reads_to_pay_back(dear, one) is None
    assert break_even_hit_rate(one, cheap) == 0
    assert break_even_hit_rate(dear, one) is None
    assert break_even_hit_rate(one, dear) is None
    assert tier_choice_ratio(one, cheap, cheap) is None
