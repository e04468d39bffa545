"""Another tariff for a stored replay, without replaying: which unit prices hold for which requests at which times."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.ledger import TariffSet
from cachesim.store.db import insert_frame
from cachesim.store.runs import Prices

if TYPE_CHECKING:
    import duckdb

# side: 0 or 1, the two sides of a comparison; a segment holds from from_us up to, not including, until_us.
_TABLES: Final = """
CREATE TEMP TABLE IF NOT EXISTS side_prices (
  side INTEGER, price_no INTEGER, assumed BOOLEAN, base_source VARCHAR, uncached DECIMAL(38,20), read DECIMAL(38,20),
  creation_5m DECIMAL(38,20), creation_1h DECIMAL(38,20), creation_24h DECIMAL(38,20), completion DECIMAL(38,20),
  creation_custom DECIMAL(38,20));
CREATE TEMP TABLE IF NOT EXISTS side_segments (
  side INTEGER, of_model VARCHAR, of_purpose VARCHAR, of_completion_window VARCHAR, from_us BIGINT, until_us BIGINT,
  price_no INTEGER);
"""
# What the price of a request depends on besides time, and the times that occur.
_KINDS: Final = """
SELECT model, purpose, completion_window, min(coalesce(batch_created_us, at_us)), max(coalesce(batch_created_us, at_us))
FROM requests WHERE trace_no = ? AND model IS NOT NULL GROUP BY ALL ORDER BY ALL
"""


def can_reprice(replayed: TariffSet, other: TariffSet) -> bool:
    """Whether a replay under `replayed` classifies every request as one under `other` would: only prices differ."""
    mine: Hashable = replayed.gates_key()
    return mine == other.gates_key()


def reprice(con: duckdb.DuckDBPyConnection, trace_no: int, tariff: TariffSet, side: int) -> Prices:
    """Make the prices of `tariff` those of a side, in temporary tables; returns what was used.

    side_segments says for each model, purpose and completion window which price holds when; requests without a segment
    have no price. Works on a database that is open for reading only.
    """
    con.execute(_TABLES)
    for table in ("side_prices", "side_segments"):
        con.execute(f"DELETE FROM {table} WHERE side = ?", [side])
    prices = Prices(tariff, 0)
    kinds = con.execute(_KINDS, [trace_no]).fetchall()
    segments = [(side, *kind[:3], *segment) for kind in kinds for segment in _segments(prices, *kind)]
    _insert(con, "side_segments", segments)
    # price_no, tariff, base source, cache source, assumed, unit prices
    rows = [(side, number, assumed, base, *units) for number, _, base, _, assumed, *units in prices.rows()]
    _insert(con, "side_prices", rows)
    return prices


def _segments(
    prices: Prices, model: str, purpose: str | None, window: str | None, first_us: int, last_us: int
) -> Iterator[tuple[int, int, int]]:
    """(from_us, until_us, price_no) over the times from `first_us` to `last_us`, where there is a price."""
    at_us: int | None = first_us
    while at_us is not None and at_us <= last_us:
        number = prices.number(model, purpose, window, at_us)
        next_us = prices.tariff.holds_until(model, purpose, window, at_us)
        if number is not None:
            yield at_us, last_us + 1 if next_us is None else next_us, number
        at_us = next_us


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    names = [name for (name,) in con.execute(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index", [table]
    ).fetchall()]  # fmt: skip
    if rows:
        insert_frame(con, table, dict(zip(names, zip(*rows, strict=True), strict=True)))
