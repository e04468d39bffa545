"""Runs one golden pricing case: the same arguments that upstream's code was given, compared with what it returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from cachesim.core.ledger import BaseRow, CacheRow, find_base_row, find_cache_row
from cachesim.core.pricing import BillingRule, Multipliers, Split, charged_cost, list_price, total_cost

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST: Final = 2**96 - 1
_FULL_DIGITS: Final = 28
_ROUNDINGS: Final = 6

Case = Mapping[str, Any]


def run_pricing_case(case: Case) -> str | None:
    """None if the case passes, else one line `expected … got …`. The billing rule follows from the id's prefix.

    Figures are compared as numbers. Upstream holds 96 bits of a figure: a case tagged `extreme` also passes if our
    exact figure is within upstream's roundings of the expected one, or beyond 96 bits where upstream overflows.
    """
    run = _OPS.get(case["op"])
    if run is None:
        return f"expected a known operation, got {case['op']!r}"
    got, expected = run(case), case["expect"]
    if _agrees(got, expected, extreme="extreme" in case.get("tags", ())):
        return None
    return f"expected {expected} got {_shown(got)}"


def _agrees(got: object, expected: Any, *, extreme: bool) -> bool:
    if isinstance(got, Decimal) and isinstance(expected, Mapping):
        if "error" in expected:
            return extreme and got > _LARGEST
        value = Decimal(expected["value"])
        return got == value or (extreme and _agrees_in_96_bits(got, value))
    if isinstance(got, Mapping) and isinstance(expected, Mapping):
        return got == {key: _decimal(value) for key, value in expected.items()}
    return got is None and expected is None


def _agrees_in_96_bits(got: Decimal, value: Decimal) -> bool:
    """Whether `value` fills 96 bits and is `got` up to half a unit of its last digit for each of six products."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or len(value.as_tuple().digits) < _FULL_DIGITS:
        return False
    return abs(Fraction(got) - Fraction(value)) <= _ROUNDINGS * Fraction(10) ** exponent / 2


def _shown(got: object) -> str:
    if isinstance(got, Mapping):
        return str({key: None if value is None else f"{value:f}" for key, value in got.items()})
    return f"{got:f}" if isinstance(got, Decimal) else "null"


def _rule(case: Case) -> BillingRule:
    return "void" if str(case["id"]).startswith("price863/") else "cap"


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _microseconds(text: str | None) -> int | None:
    return None if text is None else (datetime.fromisoformat(text) - _EPOCH) // datetime.resolution


def _at_us(case: Case) -> int:
    at_us = _microseconds(case["at"])
    assert at_us is not None, "every golden case names a time"
    return at_us


def _split(case: Case) -> Split:
    counts = case["counts"]
    names = ("cache_read", "cache_creation_5m", "cache_creation_1h", "cache_creation_24h")
    return Split(*(counts[name] for name in names))


def _prices(case: Case) -> tuple[Decimal | None, Decimal | None]:
    return _decimal(case["input_price"]), _decimal(case["output_price"])


def _multipliers(found: Mapping[str, str]) -> Multipliers:
    return Multipliers(*(Decimal(found[name]) for name in Multipliers._fields))


def _run_total_cost(case: Case) -> Decimal | None:
    counts, factors = case["counts"], _multipliers(case["multipliers"])
    return total_cost(counts["prompt"], counts["completion"], _split(case), *_prices(case), factors, _rule(case))


def _run_charged_cost(case: Case) -> Decimal | None:
    counts, factors = case["counts"], case["multipliers"] and _multipliers(case["multipliers"])
    return charged_cost(counts["prompt"], counts["completion"], _split(case), *_prices(case), factors, _rule(case))


def _run_list_price(case: Case) -> Decimal | None:
    return list_price(case["counts"]["prompt"], case["counts"]["completion"], *_prices(case))


def _run_resolve_multipliers(case: Case) -> dict[str, Decimal] | None:
    found = find_cache_row([_cache_row(row) for row in case["rows"]], _at_us(case))
    return None if found is None else found.multipliers._asdict()


def _run_find_tariff(case: Case) -> dict[str, Decimal | None]:
    rows = [_base_row(row) for row in case["tariffs"]]
    found = find_base_row(rows, case["purpose"], case["completion_window"], _at_us(case))
    if found is None:
        return {"input": None, "output": None}
    return {"input": found.input_price, "output": found.output_price}


def _cache_row(row: Mapping[str, Any]) -> CacheRow:
    factors = _multipliers(row)
    return CacheRow(
        "model",
        *(factors.write_5m, factors.write_1h, factors.write_24h, factors.read),
        min_prefix_tokens=0,
        valid_from_us=_microseconds(row["valid_from"]),
        valid_until_us=_microseconds(row["valid_until"]),
    )


def _base_row(row: Mapping[str, Any]) -> BaseRow:
    return BaseRow(
        "model",
        Decimal(row["input_price"]),
        Decimal(row["output_price"]),
        purpose=row["purpose"],
        completion_window=row["completion_window"],
        valid_from_us=_microseconds(row["valid_from"]),
        valid_until_us=_microseconds(row["valid_until"]),
    )


_OPS: Final[dict[str, Callable[[Case], object]]] = {
    "compute_total_cost": _run_total_cost,
    "charged_cost": _run_charged_cost,
    "list_price": _run_list_price,
    "resolve_cache_multipliers": _run_resolve_multipliers,
    "find_best_tariff": _run_find_tariff,
}
