"""What a run would say if its local counts were 5 % lower or higher: rows, and one line for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.pricing import EXACT
from cachesim.errors import CannotEvaluate, UsageError
from cachesim.report.columns import BY_NAME
from cachesim.report.formats import plain
from cachesim.report.query import Filters, Variant, aggregate_sql, lead_columns, shown_variants, where
from cachesim.report.sweeps import share
from cachesim.report.tables import NONE, number, percent

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
_SUMMED: Final = (
    "requests", "decisions_changed", "fell_below_floor", "rose_above_floor", "asked", "eligible", "eligible_rate",
    "prompt_tokens", "read_tokens", "creation_tokens", "uncached_tokens", "token_hit_rate", "cacheable_hit_rate",
    "request_hit_rate", "list", "charged", "delta", "unpriced",
)  # fmt: skip
COLUMNS: Final = ("count_change", *_SUMMED, "bill_change", "bill_change_share")
"""The columns of a row behind run, policy, tariff and model."""
TOTALS: Final = ("policy", "tariff", *COLUMNS)
"""The keys of the totals that stand in the envelope of JSON."""
_CELLS: Final = (
    "requests", "asked", "below_floor", "requests_read", "prompt", "read", "c5", "c1", "c24", "uncached", "completion",
    "changed", "floor_up", "floor_down",
)  # fmt: skip
_UNMOVED: Final = 100


def moved_rows(
    con: duckdb.DuckDBPyConnection, run_no: int, *, by_model: bool, filters: Filters | None = None
) -> list[Row]:
    """Three rows, counts moved by −5 %, 0 and +5 %, for each variant of the run's first policy; by model or of all.

    Empty for a run that keeps none: a sweep, or one of an older version. Of the filters, policies, tariffs and models
    count. Money is None where a price is unknown. Raises UsageError for variants that are not in the run.
    """
    filters = filters or Filters()
    kept = _kept(con, run_no)
    shown = shown_variants(con, run_no, filters)
    variants = {v.variant_no: v for v in shown if v.variant_no in kept}
    keys = ["model", "percent"] if by_model else ["percent"]
    sums = _sums(run_no, list(variants), keys, filters)
    figures = [BY_NAME[name].sql for name in _SUMMED]
    con.execute(aggregate_sql(run_no, list(variants.values()), sums, [f"k{i}" for i in range(len(keys))], figures))
    found = con.fetchall()
    digest = con.execute("SELECT digest FROM runs WHERE run_no = ?", [run_no]).fetchone()
    names = lead_columns(shown)[1:]
    rows: list[Row] = []
    for number_, *values in found:
        lead = {"run": digest and digest[0], **{name: getattr(variants[number_], name) for name in names}}
        row = {**lead, **dict(zip([*keys, *_SUMMED], values, strict=True))}
        row["count_change"] = (row.pop("percent") - _UNMOVED) / 100
        rows.append(row)
    whose = [*names, *keys[:-1]]
    return [
        row for _, three in groupby(rows, lambda row: [row[name] for name in whose]) for row in _beside(list(three))
    ]


def _sums(run_no: int, variants: Sequence[int], keys: Sequence[str], filters: Filters) -> str:
    """SQL of the sums `s` per variant, group and price."""
    numbers = ", ".join(map(str, variants)) or "-1"
    grouped = ", ".join(f"{key} AS k{i}" for i, key in enumerate(keys))
    return (
        f"SELECT variant_no, {grouped}, price_no, 0 AS cx, {', '.join(f'sum({cell}) AS {cell}' for cell in _CELLS)}"
        f" FROM sensitivity WHERE run_no = {run_no} AND variant_no IN ({numbers})"
        f"{where(Filters(models=filters.models))} GROUP BY ALL"
    )


def _beside(rows: Sequence[Row]) -> list[Row]:
    """The three rows, each with what its bill differs from that of the run itself."""
    now = next(row["charged"] for row in rows if row["count_change"] == 0)
    found = []
    for row in rows:
        change = None if row["charged"] is None or now is None else EXACT.subtract(row["charged"], now)
        found.append({**row, "bill_change": change, "bill_change_share": share(change, now)})
    return found


def envelope(con: duckdb.DuckDBPyConnection, run_no: int) -> list[Row]:
    """The totals of the whole run as JSON, three rows for each tariff set."""
    return [plain(row, TOTALS) for row in moved_rows(con, run_no, by_model=False)]


def check_kept(con: duckdb.DuckDBPyConnection, run_no: int, filters: Filters) -> None:
    """Raises CannotEvaluate for a run that keeps nothing on moved counts, UsageError for variants it did not move."""
    kept = _kept(con, run_no)
    if not kept:
        raise CannotEvaluate(
            "--sensitivity: this run keeps nothing on moved counts: an older cachesim made it, or no request counts; "
            "replay its log again"
        )
    if not any(v.variant_no in kept for v in shown_variants(con, run_no, filters)):
        first = next(v.policy for v in shown_variants(con, run_no, Filters()) if v.variant_no in kept)
        raise UsageError(f"--sensitivity: a run moves the counts of its first policy only, here {first}")


def _kept(con: duckdb.DuckDBPyConnection, run_no: int) -> set[int]:
    """The variants whose counts were moved."""
    con.execute("SELECT DISTINCT variant_no FROM sensitivity WHERE run_no = ?", [run_no])
    return {number for (number,) in con.fetchall()}


def line(rows: Sequence[Row], *, exact: bool) -> str:
    """One line on the three totals of a variant; exact: no count of the run is an estimate, so only drift moves any."""
    low, now, high = rows
    if not now["asked"]:
        return "±5 % of the counts changes nothing: no request in the totals reached the cache"
    head = "counts are exact; drift of " if exact else "counts "
    return (
        f"{head}−5 %: hit rate {_figures(low, 'bill ')}, {number(low['fell_below_floor'])} fall below the floor; "
        f"+5 %: {_figures(high)}, {number(high['rose_above_floor'])} rise above it"
    )


def _figures(row: Row, word: str = "") -> str:
    rate = NONE if row["token_hit_rate"] is None else percent(row["token_hit_rate"])
    known = row["bill_change"] is not None
    return f"{rate}, {word + percent(row['bill_change_share'] or 0.0, signed=True) if known else 'bill unknown'}"


def line_of(con: duckdb.DuckDBPyConnection, run_no: int, variant: Variant, *, exact: bool) -> list[str]:
    """The line of one variant; none where the run keeps nothing on it."""
    chosen = Filters(policies=(variant.policy,), tariffs=(variant.tariff,) if variant.tariff else ())
    rows = moved_rows(con, run_no, by_model=False, filters=chosen)
    return [line(rows, exact=exact)] if rows else []
