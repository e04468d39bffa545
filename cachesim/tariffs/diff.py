"""What changed between two tariff sets, row by row and value by value."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Final

from cachesim.config.ledgers import instant
from cachesim.core.ledger import BaseRow, CacheRow, TariffSet
from cachesim.report.formats import money_text
from cachesim.tariffs.rows import per_mtok, scope_order, shown_time

Row = dict[str, Any]
COLUMNS: Final = (
    *("status", "ledger", "model", "purpose", "completion_window", "valid_from"),
    *("field", "before", "after", "source_a", "source_b"),
)
LedgerRow = CacheRow | BaseRow
_Key = tuple[Any, ...]


def tariff_changes(a: TariffSet, b: TariffSet) -> list[Row]:
    """One row per value that differs, as exact text; None: no such row, or open.

    Rows are the same if model, purpose, window and beginning are. status: added (only in B), removed (only in A) or
    changed. What a set assumes for want of rows is no part of it.
    """
    of_a, of_b = _by_key(a), _by_key(b)
    changes = []
    for key in sorted(of_a.keys() | of_b.keys()):
        for left, right in zip_longest(of_a.get(key, []), of_b.get(key, [])):
            changes += _row_changes(left, right)
    return changes


def _by_key(tariff: TariffSet) -> dict[_Key, list[LedgerRow]]:
    rows: dict[_Key, list[LedgerRow]] = defaultdict(list)
    for cache in [] if tariff.by_default else tariff.all_cache_rows:
        rows[(0, cache.model, (), _begins(cache))].append(cache)
    for base in tariff.all_base_rows:
        # None and "" are two windows, which sort alike.
        scope = (*scope_order(base), base.purpose is None, base.completion_window is None)
        rows[(1, base.model, scope, _begins(base))].append(base)
    return rows


def _begins(row: LedgerRow) -> int:
    return -(2**63) if row.valid_from_us is None else row.valid_from_us


def _row_changes(left: LedgerRow | None, right: LedgerRow | None) -> list[Row]:
    row = right or left
    assert row is not None
    before, after = _values(left), _values(right)
    names = [name for name in (after or before) if before.get(name) != after.get(name)]
    head = {
        "status": "added" if left is None else "removed" if right is None else "changed",
        "ledger": "cache" if isinstance(row, CacheRow) else "base",
        "model": row.model,
        "purpose": row.purpose if isinstance(row, BaseRow) else None,
        "completion_window": row.completion_window if isinstance(row, BaseRow) else None,
        "valid_from": shown_time(row.valid_from_us),
        "source_a": left.source if left else None,
        "source_b": right.source if right else None,
    }
    return [head | {"field": name, "before": _text(before, name), "after": _text(after, name)} for name in names]


def _text(values: Row, name: str) -> str | None:
    """A value as programs and people read it."""
    value = values.get(name)
    if isinstance(value, Decimal):
        return money_text(value)
    return instant(value) if name == "valid_until" and value is not None else None if value is None else str(value)


def _values(row: LedgerRow | None) -> Row:
    if row is None:
        return {}
    if isinstance(row, CacheRow):
        figures: Row = {
            "read": row.read,
            "write_5m": row.write_5m,
            "write_1h": row.write_1h,
            "write_24h": row.write_24h,
            "min_prefix_tokens": row.min_prefix_tokens,
        }
    else:
        figures = {"input_per_mtok": per_mtok(row.input_price), "output_per_mtok": per_mtok(row.output_price)}
    return figures | {"valid_until": row.valid_until_us, "name": row.name}
