"""The rows of a tariff set as report rows, with their age and the reads that pay a write back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from cachesim.core.ledger import (
    EVERY_MODEL,
    PURPOSES,
    BaseRow,
    CacheRow,
    TariffSet,
    find_base_row,
    find_cache_row,
    is_valid,
    newest_first,
)
from cachesim.core.pricing import EXACT, reads_to_pay_back

Row = dict[str, Any]
LedgerRow = TypeVar("LedgerRow", CacheRow, BaseRow)
TIERS: Final = ("5m", "1h", "24h")
LEAD: Final = ("tariff", "ledger", "model", "name")
CACHE_FIGURES: Final = ("read", *(f"write_{tier}" for tier in TIERS), "min_prefix_tokens")
BREAK_EVEN: Final = tuple(f"break_even_reads_{tier}" for tier in TIERS)
BASE_FIGURES: Final = ("input_per_mtok", "output_per_mtok")
SCOPE: Final = ("purpose", "completion_window")
TAIL: Final = ("valid_from", "valid_until", "age_days", "sets_price", "assumed", "source")
COLUMNS: Final = (*LEAD, *SCOPE, *BASE_FIGURES, *CACHE_FIGURES, *BREAK_EVEN, *TAIL)
"""Every column of a ledger row; those of the other ledger are None."""

_TOKENS: Final = Decimal(1_000_000)
_DAY_US: Final = 86_400_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH).days * _DAY_US
_FIRST_US: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH).days * _DAY_US


def tariff_rows(
    tariff: TariffSet, *, at_us: int | None = None, as_of_us: int | None = None, models: Iterable[str] = ()
) -> list[Row]:
    """One row per tariff: cache tariffs first, then by model, purpose, window and beginning.

    at_us: only the rows that hold then, with `sets_price`; as_of_us: the instant that ages are counted to, and at which
    the models of the cache tariffs and `models` without a base tariff get the price that is assumed for them.
    """
    caches = [row for row in tariff.all_cache_rows if at_us is None or is_valid(row, at_us)]
    bases = [row for row in _base_rows(tariff, as_of_us, models) if at_us is None or is_valid(row, at_us)]
    found = []
    for cache in sorted(caches, key=lambda row: (row.model, *_order(row))):
        prices = None if at_us is None else find_cache_row(_of_model(caches, cache.model), at_us) is cache
        found.append(_row(tariff, cache, as_of_us, prices))
    for base in sorted(bases, key=lambda row: (row.model, *scope_order(row), *_order(row))):
        prices = None if at_us is None else _sets_price(_of_model(bases, base.model), base, at_us)
        found.append(_row(tariff, base, as_of_us, prices))
    return found


def per_mtok(price_per_token: Decimal) -> Decimal:
    """The exact price of a million tokens."""
    return EXACT.multiply(price_per_token, _TOKENS)


def shown_time(at_us: int | None) -> int | None:
    """`at_us` if it can be written as a date of four digits; further away is as good as open."""
    return at_us if at_us is not None and _FIRST_US <= at_us <= _LAST_US else None


def scope_order(row: BaseRow) -> tuple[int, str, str]:
    """Sorts base tariffs by purpose, in upstream's order, then by window."""
    known = PURPOSES.index(row.purpose) if row.purpose in PURPOSES else len(PURPOSES)
    return known, row.purpose or "", row.completion_window or ""


def _order(row: CacheRow | BaseRow) -> tuple[int, str]:
    return (-(2**63) if row.valid_from_us is None else row.valid_from_us), row.source


def _of_model(rows: Iterable[LedgerRow], model: str) -> list[LedgerRow]:
    return [row for row in rows if row.model == model]


def _base_rows(tariff: TariffSet, as_of_us: int | None, models: Iterable[str]) -> Iterator[BaseRow]:
    own = [row for row in tariff.all_base_rows if not row.assumed]
    yield from own
    if as_of_us is None:
        return
    named = {row.model for row in tariff.all_cache_rows if row.model != EVERY_MODEL} | set(models)
    for model in sorted(named - {row.model for row in own}):
        number = tariff.base_row(model, None, None, as_of_us)
        if number is not None:
            yield tariff.all_base_rows[number]


def _sets_price(rows: list[BaseRow], row: BaseRow, at_us: int) -> bool:
    if row.purpose not in PURPOSES:
        return False
    return find_base_row(newest_first(rows), row.purpose, row.completion_window, at_us) is row


def _row(tariff: TariffSet, row: CacheRow | BaseRow, as_of_us: int | None, sets_price: bool | None) -> Row:
    begins = row.valid_from_us
    age = None if as_of_us is None or begins is None or begins > as_of_us else (as_of_us - begins) // _DAY_US
    found: Row = dict.fromkeys(COLUMNS)
    found |= {
        "tariff": tariff.name,
        "model": row.model,
        "name": row.name,
        "valid_from": shown_time(begins),
        "valid_until": shown_time(row.valid_until_us),
        "age_days": age,
        "sets_price": sets_price,
        "assumed": tariff.by_default if isinstance(row, CacheRow) else row.assumed,
        "source": row.source,
    }
    return found | (_cache_figures(row) if isinstance(row, CacheRow) else _base_figures(row))


def _cache_figures(row: CacheRow) -> Row:
    writes = dict(zip(TIERS, (row.write_5m, row.write_1h, row.write_24h), strict=True))
    return {
        "ledger": "cache",
        "read": row.read,
        **{f"write_{tier}": write for tier, write in writes.items()},
        "min_prefix_tokens": max(row.min_prefix_tokens, 0),
        **{f"break_even_reads_{tier}": reads_to_pay_back(write, row.read) for tier, write in writes.items()},
    }


def _base_figures(row: BaseRow) -> Row:
    return {
        "ledger": "base",
        "purpose": row.purpose,
        "completion_window": row.completion_window,
        "input_per_mtok": per_mtok(row.input_price),
        "output_per_mtok": per_mtok(row.output_price),
    }
