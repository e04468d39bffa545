"""The golden tables as the sweep engine computes them."""

from __future__ import annotations

import duckdb
from golden import Case, Figures, prepare_words

from cachesim.config import load_tariff_set
from cachesim.core.gates import AS_CAPTURED
from cachesim.core.policy import PRESETS
from cachesim.run import Run, RunPlan
from cachesim.store.db import open_database, transaction
from cachesim.stored_plan import plan_options
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes, parse_ttls
from cachesim.sweep.kernels import Choice

_NAMES = {
    "eligible": "asked - below_floor", "below floor": "below_floor", "near 5": "near_5", "near 10": "near_10",
    "read": "s.read", "c5": "c5", "c1": "c1", "cx": "cx", "writes": "writes", "dead": "dead_writes",
    "dead c5": "dead_c5", "dead c1": "dead_c1", "dead cx": "dead_cx",
}  # fmt: skip


def sweep_of(kernel: Choice, case: Case) -> list[Figures]:
    """One sweep over every combination of the case's floors, lifetimes and walk-backs; the points of its table."""
    axes = Axes(
        floors=tuple(dict.fromkeys(point.floor for point in case.points)),
        ttls=parse_ttls([",".join(dict.fromkeys(point.ttl for point in case.points))]),
        walk_backs=tuple(dict.fromkeys(point.walk_back for point in case.points)),
        multipliers=case.multipliers,
    )
    with open_database(":memory:") as con:
        trace = prepare_words(con, case.log)
        plan = RunPlan([PRESETS["dwctl-10.13"]], [load_tariff_set(str(case.tariff))], AS_CAPTURED)
        with transaction(con):
            base = Run(con, trace, plan).execute(plan_options(plan, []), lambda _: [], {}, lambda _: None)
        run_no = sweep(con, base, axes, kernel=kernel)
        return [_figures(con, run_no, point.floor, point.ttl, point.walk_back) for point in case.points]


def _figures(con: duckdb.DuckDBPyConnection, run_no: int, floor: int, ttl: str, walk_back: int) -> Figures:
    sums = ", ".join(f"sum({sql})" for sql in _NAMES.values())
    row = con.execute(
        f"SELECT {sums}, sum(s.uncached * p.uncached + s.read * p.read + s.c5 * p.creation_5m + s.c1 * p.creation_1h"
        " + s.c24 * p.creation_24h + s.cx * coalesce(p.creation_custom, 0) + s.completion * p.completion)"
        " FROM (SELECT * FROM swept WHERE run_no = $run AND variant_no ="
        " (SELECT variant_no FROM variants WHERE run_no = $run AND kind = 'policy' AND ttl = $ttl"
        " AND rules->>'$.min_prefix_tokens' = $floor AND rules->>'$.walk_back' = $walk_back)) s"
        " JOIN unit_prices p USING (run_no, price_no)",
        {"run": run_no, "ttl": ttl, "floor": str(floor), "walk_back": str(walk_back)},
    ).fetchone()
    assert row is not None
    assert row[0] is not None, "this point is not in the sweep"
    return {**dict(zip(_NAMES, map(int, row[:-1]), strict=True)), "charged": row[-1]}
