"""The rows of a sweep: every variant with all its settings and figures, and how it compares with `now`, its first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import orjson

from cachesim.core.pricing import EXACT
from cachesim.errors import UsageError
from cachesim.report.columns import BY_NAME, SWEEP_COLUMNS, VERSUS
from cachesim.report.query import (
    Filters,
    aggregate_sql,
    is_sweep,
    shown_variants,
    swept_sums,
    variant_rows,
)

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
NOW: Final = 0
"""The variant that all others are compared with: the run's own first policy, markers and tariff."""
SETTINGS: Final = ("policy", "tariff", "markers", "floor", "ttl", "walk_back", "window")
"""What a sweep varies; together they name a grid point."""
LEAD: Final = ("run", "variant", "kind", *SETTINGS)
UNLIMITED: Final = "unlimited"
"""The bound that keeps entries for ever: what lies between a write and its reads, whatever the lifetimes are."""
FAR: Final = "far"
"""The bound whose walk-back has no end: how far back live entries lie."""


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """What a sweep says of itself. Times in µs or s as named.

    present_floors: the floor in force under `now` by model, None where it changes within the log; estimated_models:
    models whose tokens are not counted with their own tokenizer; hold_out_us: where the part `rest` begins.
    """

    span_us: int
    longest_ttl_s: int
    present_floors: dict[str, int | None]
    estimated_models: frozenset[str]
    hold_out_us: int | None


def sweep_facts(con: duckdb.DuckDBPyConnection, run_no: int) -> SweepFacts:
    """The facts of a stored sweep; UsageError for a run that is none."""
    if not is_sweep(con, run_no):
        raise UsageError(f"run {run_no}: not a sweep; make one with `cachesim tune`")
    row = con.execute("SELECT options FROM runs WHERE run_no = ?", [run_no]).fetchone()
    assert row is not None
    options = orjson.loads(row[0])
    return SweepFacts(
        span_us=options["span_us"],
        longest_ttl_s=options["longest_ttl_s"],
        present_floors=options["present_floors"],
        estimated_models=frozenset(options["estimated_models"]),
        hold_out_us=options.get("split_us"),
    )


def sweep_columns(by: Sequence[str]) -> list[str]:
    """The columns of `sweep_rows` in order."""
    return [*LEAD, *by, *(column.name for column in (*SWEEP_COLUMNS, *VERSUS))]


def sweep_rows(
    con: duckdb.DuckDBPyConnection, run_no: int, by: Sequence[str] = ("model",), part: str | None = None
) -> list[Row]:
    """One row per variant and group: all SETTINGS, the groups, every figure of SWEEP_COLUMNS, and VERSUS.

    by: any of model, principal, part; part: only `first` or `rest` of the log. Policies and bounds, by variant, then
    group. Figures against `now` are of the same group; None where either side is unknown. Raises UsageError for a run
    that is no sweep.
    """
    sweep_facts(con, run_no)
    by = list(dict.fromkeys(by))
    filters = Filters(bounds=True, parts=(part,) if part else ())
    variants = {v.variant_no: v for v in shown_variants(con, run_no, filters)}
    shifts = _principal_shifts(con, run_no, by, filters)
    rows = variant_rows(con, run_no, by, filters)
    now = {_key(row, by): row for variant_no, row in rows if variant_no == NOW}
    found = []
    for variant_no, row in rows:
        variant = variants[variant_no]
        lead = {"run": row["run"], "variant": variant_no, "kind": variant.kind}
        lead |= {name: getattr(variant, name) for name in SETTINGS}
        figures = {name: value for name, value in row.items() if name in BY_NAME or name in by}
        key = _key(row, by)
        found.append({**lead, **figures, **_versus(row, now.get(key), shifts.get((variant_no, *key)))})
    return found


def _key(row: Row, by: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in by)


def _versus(row: Row, now: Row | None, shift: tuple[int, int, int] | None) -> Row:
    """The figures VERSUS of a row. Revenue is what the operator takes in: charged, seen from the other side."""
    charged, listed = row["charged"], row["list"]
    charged_now = now["charged"] if now else None
    change = EXACT.subtract(charged, charged_now) if charged is not None and charged_now is not None else None
    better, worse, above = shift if shift is not None and change is not None else (None, None, None)
    return {
        "creation_tokens": sum(row[f"creation_{tier}_tokens"] for tier in ("5m", "1h", "24h", "custom")),
        "read_change": row["read_tokens"] - now["read_tokens"] if now else None,
        "delta_share": share(row["delta"], listed),
        "change": change,
        "change_share": share(change, charged_now),
        "revenue": charged,
        "revenue_change": change,
        "revenue_change_share": share(change, charged_now),
        "principals_better": better,
        "principals_worse": worse,
        "principals_above_list": above,
    }


def share(part: Decimal | None, whole: Decimal | None) -> float | None:
    """part / whole as a rate; None where either is unknown or the whole is zero."""
    return None if part is None or not whole else float(part / whole)


def _principal_shifts(
    con: duckdb.DuckDBPyConnection, run_no: int, by: Sequence[str], filters: Filters
) -> dict[tuple[Any, ...], tuple[int, int, int]]:
    """By variant and group: the principals charged less, and more, than under `now`, and more than list."""
    keys = [f"{name} AS k{i}" for i, name in enumerate((*by, "principal"))]
    figures = [f"{BY_NAME[name].sql} AS {name}" for name in ("charged", "list")]
    names = [f"k{i}" for i in range(len(by))]
    policies = [v for v in shown_variants(con, run_no, Filters()) if v.kind != "bound"]
    each = aggregate_sql(
        run_no, policies, swept_sums(run_no, policies, keys, filters), [*names, f"k{len(by)}"], figures
    )
    same = " AND ".join(f"c.k{i} IS NOT DISTINCT FROM n.k{i}" for i in range(len(by) + 1))
    groups = "".join(f", c.{name}" for name in names)
    con.execute(
        f"WITH c AS MATERIALIZED ({each}) SELECT c.variant_no{groups}, count(*) FILTER (c.charged < n.charged),"
        f" count(*) FILTER (c.charged > n.charged), count(*) FILTER (c.charged > c.list)"
        f" FROM c JOIN c n ON n.variant_no = {NOW} AND {same} GROUP BY ALL"
    )
    return {tuple(key): (better, worse, above) for *key, better, worse, above in con.fetchall()}


def along(rows: Sequence[Row], *axes: str) -> list[Row]:
    """`now` and the policy rows that differ from it in these settings alone: a slice of the grid through `now`."""
    now = next((row for row in rows if row["variant"] == NOW), None)
    if now is None:
        return []
    others = [
        row
        for row in rows
        if row["kind"] == "policy"
        and all(row[name] == now[name] for name in SETTINGS if name not in axes)
        and any(row[name] != now[name] for name in axes)
    ]
    return [*(row for row in rows if row["variant"] == NOW), *others]


def bound_rows(rows: Sequence[Row], name: str) -> list[Row]:
    """The rows of the bound called `name` (off, ideal, unlimited)."""
    return [row for row in rows if row["kind"] == "bound" and row["policy"].partition(" (")[0] == name]


def varied(rows: Sequence[Row]) -> list[str]:
    """The settings in which the policies of a sweep differ."""
    policies = [row for row in rows if row["kind"] == "policy"]
    return [name for name in SETTINGS if len({row[name] for row in policies}) > 1]
