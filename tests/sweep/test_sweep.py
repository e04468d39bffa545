"""A sweep is many single replays: equal sums on random traces and random grids, for every cell that a replay knows."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stored_traces import stored, tariffs, varied_trace

from cachesim.core.gates import AS_CAPTURED, STRATEGIES, MarkerStrategy, marker_strategy
from cachesim.core.policy import PRESETS, Policy
from cachesim.errors import UsageError
from cachesim.report.columns import CELLS
from cachesim.run import Run, RunPlan
from cachesim.store.db import open_database, transaction
from cachesim.store.trace_reader import load_trace
from cachesim.stored_plan import plan_options
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes, Lifetimes
from cachesim.sweep.kernels import Choice
from cachesim.sweep.points import points

NEW, OLD = PRESETS["dwctl-10.13"], PRESETS["dwctl-8.63"]
THREE = replace(NEW, name="three tiers", enabled_ttls=("5m", "1h", "24h"))
POLICIES = [
    NEW,
    OLD,
    THREE,
    replace(THREE, name="all matched", refresh="all_matched"),
    replace(THREE, name="per breakpoint", floor_scope="breakpoint", collapse_tool_runs=True),
    replace(NEW, name="at arrival", visible_at="arrival"),
]
SUMS = [name for name in CELLS if not name.startswith("recorded") and name != "cx"]
CALIBRATE = """
UPDATE trace_tokenizers SET exact = false, counts_no = tokenizer_no, model = 'm', factor_e4 = ? WHERE tokenizer_no = 0
"""
"""Makes the first tokenizer of a stored trace a calibrated one."""
Group = tuple[str | None, str | None, str]


def base_run(con: duckdb.DuckDBPyConnection, trace_no: int, plan: RunPlan) -> int:
    with transaction(con):
        return Run(con, load_trace(con, trace_no), plan).execute(
            plan_options(plan, []), lambda _: [], {}, lambda _: None
        )


def replayed(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int, split_us: int) -> dict[Group, Any]:
    """The cells of one variant of a replay, and its exact charges, by model, principal and part."""
    cells = ", ".join(f"coalesce({sql}, 0)::BIGINT AS {name}" for name, sql in CELLS.items() if name in SUMS)
    con.execute(
        f"SELECT model, principal, CASE WHEN at_us < {split_us} THEN 'first' ELSE 'rest' END AS part, {cells}, "
        "count(*) FILTER (reason = 'below_floor' AND billed) AS below_floor, "
        "0 AS cx, coalesce(sum(charged), 0), coalesce(sum(list), 0) FROM ("
        "SELECT c.*, r.* EXCLUDE (seq, trace_no), v.charged, v.list, r.succeeded AND c.outcome <> 'rejected' AS billed "
        "FROM classified c JOIN v_requests v USING (run_no, variant_no, seq) JOIN runs USING (run_no) "
        "JOIN requests r ON r.trace_no = runs.trace_no AND r.seq = c.seq) "
        f"WHERE run_no = {run_no} AND variant_no = {variant_no} GROUP BY ALL"
    )
    names = [*SUMS, "below_floor", "cx", "charged", "list"]
    return {tuple(row[:3]): dict(zip(names, row[3:], strict=True)) for row in con.fetchall()}


def swept(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int) -> dict[Group, Any]:
    cells = ", ".join(f"sum(s.{name})::BIGINT" for name in [*SUMS, "below_floor", "cx"])
    con.execute(
        f"SELECT model, principal, part, {cells}, "
        "coalesce(sum(s.uncached * p.uncached + s.read * p.read + s.c5 * p.creation_5m + s.c1 * p.creation_1h "
        "+ s.c24 * p.creation_24h + s.completion * p.completion), 0), "
        "coalesce(sum(s.prompt * p.uncached + s.completion * p.completion), 0) "
        "FROM swept s JOIN sweep_groups USING (run_no, group_no) LEFT JOIN unit_prices p USING (run_no, price_no) "
        f"WHERE run_no = {run_no} AND variant_no = {variant_no} GROUP BY ALL"
    )
    names = [*SUMS, "below_floor", "cx", "charged", "list"]
    return {tuple(row[:3]): dict(zip(names, row[3:], strict=True)) for row in con.fetchall()}


def options(con: duckdb.DuckDBPyConnection, run_no: int, key: str) -> Any:
    row = con.execute("SELECT options FROM runs WHERE run_no = ?", [run_no]).fetchone()
    assert row is not None
    return json.loads(row[0])[key]


GRIDS = st.builds(
    Axes,
    floors=st.sampled_from([(), (0, 40, 41, 300, 5000), (None, 100), (1, 346, 347, 700, 2**31 - 1)]),
    ttls=st.sampled_from([(), (None, Lifetimes("15m", 900, 900)), (Lifetimes("1h", 3600, 3600),)]),
    windows=st.sampled_from([(), ("sliding", "fixed")]),
    walk_backs=st.sampled_from([(), (1, 3, 20), (40,)]),
    strategies=st.lists(
        st.builds(marker_strategy, st.sampled_from(list(STRATEGIES)), st.sampled_from(["5m", "1h"])).map(
            lambda s: AS_CAPTURED if s.name == "as-captured" else s
        ),
        max_size=2,
        unique=True,
    ).map(tuple),
    policies=st.lists(st.sampled_from(POLICIES), max_size=2, unique=True).map(tuple),
)


@pytest.mark.parametrize("kernel", ["plain", "compiled"])
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 10**9), GRIDS)
def test_a_sweep_equals_single_replays(kernel: Choice, seed: int, axes: Axes) -> None:
    if kernel == "compiled":
        pytest.importorskip("numba")
    sets = tariffs(seed)
    axes = replace(axes, tariffs=tuple(sets) if seed % 2 else ())
    with open_database(":memory:") as con:
        trace_no = stored(con, varied_trace(seed))
        if seed % 3:
            con.execute(CALIBRATE, [8_000 if seed % 3 == 1 else 13_000])
        base = base_run(con, trace_no, RunPlan([NEW], sets[:1], AS_CAPTURED))
        run_no = sweep(con, base, axes, kernel=kernel)
        split_us = options(con, run_no, "split_us")
        for number, policy, strategy, tariff, ttl in some(variants(con, run_no), seed):
            if ttl is not None:
                policy = replace(policy, tier_seconds=(ttl, ttl, ttl))
            single = base_run(con, trace_no, RunPlan([policy], [t for t in sets if t.name == tariff], strategy))
            expected, found = replayed(con, single, 0, split_us), swept(con, run_no, number)
            if ttl is not None:
                expected, found = merged(expected), merged(found)
            assert found == expected


def variants(con: duckdb.DuckDBPyConnection, run_no: int) -> list[tuple[int, Policy, MarkerStrategy, str, int | None]]:
    rows = con.execute(
        "SELECT variant_no, rules, markers, tariff, ttl FROM variants WHERE run_no = ? AND kind = 'policy'", [run_no]
    ).fetchall()
    seconds = {None: None, "15m": 900, "1h": 3600}
    found = []
    for number, rules, markers, tariff, ttl in rows:
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(rules).items()}
        name, _, tier = markers.partition(":")
        found.append((number, Policy(name="p", **values), marker_strategy(name, tier or "5m"), tariff, seconds[ttl]))
    return found


def some(everything: list[Any], seed: int, count: int = 5) -> list[Any]:
    """The first and a few others: each costs a whole replay."""
    return [everything[0], *random.Random(seed).sample(everything[1:], min(count, len(everything) - 1))]


def merged(groups: dict[Group, Any]) -> dict[Group, Any]:
    """Creation of all lifetimes together and no charge: a replay cannot price a lifetime of another name."""
    found: dict[Group, Any] = {}
    for group, row in groups.items():
        row = {k: v for k, v in row.items() if k != "charged"}
        row["created"] = sum(row.pop(name) for name in ("c5", "c1", "c24", "cx") if name in row)
        found[group] = row
    return found


def test_a_grid_that_is_too_large_is_refused_before_it_is_made() -> None:
    plan = RunPlan([NEW], tariffs(1)[:1], AS_CAPTURED)
    endless = Axes(floors=tuple(range(10_000)), walk_backs=tuple(range(1, 10_001)), windows=("sliding", "fixed"))
    with pytest.raises(UsageError, match=r"200,000,000 variants, at most 20,000"):
        points(plan, endless)


def test_the_longest_lifetime_is_one_that_now_writes_in() -> None:
    """What the policy merely offers, and what other variants give, says nothing of the evidence for `now`."""
    with open_database(":memory:") as con:
        trace = varied_trace(3)
        base = base_run(con, stored(con, trace), RunPlan([THREE], tariffs(3)[:1], marker_strategy("automatic", "5m")))
        run_no = sweep(con, base, Axes(ttls=(None, Lifetimes("24h", 86_400, 86_400))))
        assert options(con, run_no, "longest_ttl_s") == 300
        assert sum(group["c24"] for group in swept(con, run_no, 1).values()) > 0
