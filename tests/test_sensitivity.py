"""Moved counts against brute force: the whole log stored once more with every count moved, and replayed as any log."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stored_traces import VariedRow, VariedTrace, stored, tariffs, varied_trace

from cachesim.core.gates import AS_CAPTURED
from cachesim.core.policy import PRESETS
from cachesim.run import Run, RunPlan
from cachesim.sensitivity import moved
from cachesim.store.db import open_database, transaction
from cachesim.store.trace_reader import load_trace
from cachesim.stored_plan import plan_options
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes

NEW, OLD = PRESETS["dwctl-10.13"], PRESETS["dwctl-8.63"]
AT_FLOOR = replace(NEW, name="floor 345", min_prefix_tokens=345)
"""A floor that many totals of these traces are near: blocks have 300, 40, 5 and fewer tokens."""
POLICIES = [
    NEW,
    OLD,
    AT_FLOOR,
    replace(AT_FLOOR, name="per breakpoint", floor_scope="breakpoint", refresh="all_matched"),
    replace(NEW, name="at arrival", visible_at="arrival", enabled_ttls=("5m", "1h", "24h")),
]
PERCENTS = (95, 100, 105)
SUMS = ("requests", "asked", "below_floor", "requests_read", "prompt", "read", "c5", "c1", "c24", "uncached",
        "completion")  # fmt: skip
Sums = dict[str | None, dict[str, Any]]
few = settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def half_up(tokens: int, percent: int) -> int:
    return floor(Fraction(tokens * percent, 100) + Fraction(1, 2))


def moved_trace(trace: VariedTrace, percent: int) -> VariedTrace:
    """The same log as another tokenizer would have prepared it; what the log reports stays."""
    rows = []
    for row in trace.rows:
        counted = ["local_tokens", *(["prompt_tokens"] if row.columns["prompt_estimated"] else [])]
        own = {name: half_up(row.columns[name], percent) for name in counted if row.columns[name] is not None}
        rows.append(row._replace(columns={**row.columns, **own}))
    counts = [array("q", [half_up(tokens, percent) for tokens in own]) for own in trace.cumulative]
    return replace(trace, cumulative=counts, rows=rows)


def run(con: duckdb.DuckDBPyConnection, trace: VariedTrace, plan: RunPlan, goes_on: int | None = None) -> int:
    prepared = load_trace(con, stored(con, trace))
    with transaction(con):
        return Run(con, prepared, plan, None if goes_on is None else (goes_on, "first")).execute(
            plan_options(plan, []), lambda _: [], {}, lambda _: None
        )


def kept(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int, percent: int) -> Sums:
    """What the run says of itself with counts at `percent`, by model, and its exact charge."""
    names = [*SUMS, "changed", "floor_up", "floor_down"]
    return by_model(con, names, f"sensitivity WHERE run_no = {run_no} AND variant_no = {variant_no}"
                    f" AND percent = {percent}", run_no)  # fmt: skip


def by_model(con: duckdb.DuckDBPyConnection, names: Sequence[str], rows: str, run_no: int) -> Sums:
    con.execute(
        f"SELECT model, {', '.join(f'sum(s.{name})::BIGINT' for name in names)}, "
        "coalesce(sum(s.uncached * p.uncached + s.read * p.read + s.c5 * p.creation_5m + s.c1 * p.creation_1h "
        "+ s.c24 * p.creation_24h + s.completion * p.completion), 0) AS charged "
        f"FROM (SELECT * FROM {rows}) s LEFT JOIN unit_prices p ON p.run_no = {run_no} AND p.price_no = s.price_no "
        "GROUP BY ALL HAVING sum(s.requests) > 0"
    )
    return {row[0]: dict(zip([*names, "charged"], row[1:], strict=True)) for row in con.fetchall()}


def swept(con: duckdb.DuckDBPyConnection, run_no: int) -> Sums:
    """The sums of a run as the simulator of sweeps computes them."""
    made = sweep(con, run_no, Axes(), kernel="plain")
    rows = f"swept JOIN sweep_groups USING (run_no, group_no) WHERE run_no = {made} AND variant_no = 0"
    return by_model(con, SUMS, rows, made)


def decisions(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int = 0) -> list[tuple[Any, ...]]:
    con.execute(
        "SELECT model, billed, outcome, reason, seq FROM v_requests WHERE run_no = ? AND variant_no = ? ORDER BY seq",
        [run_no, variant_no],
    )
    return con.fetchall()


def changes(now: list[tuple[Any, ...]], then: list[tuple[Any, ...]]) -> Sums:
    """Requests that are decided otherwise, counted one by one."""
    found: Sums = {}
    for (model, billed, *before, _), (_, _, *after, _) in zip(now, then, strict=True):
        if billed:
            of = found.setdefault(model, {"changed": 0, "floor_up": 0, "floor_down": 0})
            of["changed"] += before != after
            of["floor_up"] += before[1] == "below_floor" != after[1]
            of["floor_down"] += before[1] != "below_floor" == after[1]
    return found


@few
@given(st.integers(0, 10**9), st.sampled_from(POLICIES), st.sampled_from(PERCENTS))
def test_moved_counts_are_those_of_a_log_counted_otherwise(seed: int, policy: Any, percent: int) -> None:
    """Sums by the other simulator, decisions request by request; at 100 % both are those of the run itself."""
    trace, plan = varied_trace(seed), RunPlan([policy], tariffs(seed)[:1], AS_CAPTURED)
    with open_database(":memory:") as con, open_database(":memory:") as other:
        run_no, moved_no = run(con, trace, plan), run(other, moved_trace(trace, percent), plan)
        sums, decided = swept(other, moved_no), changes(decisions(con, run_no), decisions(other, moved_no))
        found = kept(con, run_no, 0, percent)
    assert found == {model: {**sums[model], **decided[model]} for model in sums}


@few
@given(st.integers(0, 10**9), st.sampled_from(POLICIES), st.sampled_from(PERCENTS))
def test_a_continued_run_moves_what_it_inherits(seed: int, policy: Any, percent: int) -> None:
    """Brute force: the index that the first run left is moved where it is stored, and the second log continues it."""
    plan = RunPlan([policy], tariffs(seed)[:1], AS_CAPTURED)
    first, second = two_logs(varied_trace(seed))
    with open_database(":memory:") as con, open_database(":memory:") as other:
        run_no = run(con, second, plan, run(con, first, plan))
        left = run(other, first, plan)
        for table, column in (("index_entries", "cumulative_token_count"), ("index_in_flight", "tokens")):
            other.execute(f"UPDATE {table} SET {column} = ({column} * {percent} + 50) // 100")
        moved_no = run(other, moved_trace(second, percent), plan, left)
        assert kept(con, run_no, 0, percent) == {
            model: {**sums, **changes(decisions(con, run_no), decisions(other, moved_no))[model]}
            for model, sums in replayed(other, moved_no).items()
        }


def two_logs(trace: VariedTrace) -> tuple[VariedTrace, VariedTrace]:
    """The log in two, the last fifteen answers of the first still on their way, and asked for again in the second."""
    end_us = trace.rows[69].columns["at_us"] + 1
    late = [with_columns(row, done_us=end_us) for row in trace.rows[55:70]]
    again = [with_columns(row, at_us=end_us, done_us=end_us) for row in late]
    rest = [with_columns(row, at_us=max(row.columns["at_us"], end_us)) for row in trace.rows[70:]]
    rows = [with_columns(row, seq=seq) for seq, row in enumerate([*again, *rest])]
    return replace(trace, rows=[*trace.rows[:55], *late]), replace(trace, rows=rows)


def with_columns(row: VariedRow, **columns: Any) -> VariedRow:
    return row._replace(columns={**row.columns, **columns})


def replayed(con: duckdb.DuckDBPyConnection, run_no: int) -> Sums:
    """The sums of a run from its requests."""
    return by_model(
        con,
        SUMS,
        "(SELECT v.model, c.price_no, 1 AS requests, (v.tiers <> 'none')::INT AS asked, "
        "(v.reason IS NOT DISTINCT FROM 'below_floor')::INT AS below_floor, (c.billed_read_tokens > 0)::INT AS "
        "requests_read, coalesce(v.prompt_tokens, 0) AS prompt, c.billed_read_tokens AS read, "
        "c.billed_creation_5m_tokens AS c5, "
        "c.billed_creation_1h_tokens AS c1, c.billed_creation_24h_tokens AS c24, c.uncached_tokens AS uncached, "
        "v.completion_tokens AS completion FROM classified c JOIN v_requests v USING (run_no, variant_no, seq) "
        f"WHERE run_no = {run_no} AND variant_no = 0 AND billed)",
        run_no,
    )


@settings(few, max_examples=3)
@given(st.integers(0, 10**9))
def test_every_tariff_of_the_first_policy_is_moved(seed: int) -> None:
    """Three sets, two of them in one lane, and no second policy: each as in a run of its own."""
    sets = tariffs(seed)
    with open_database(":memory:") as con, open_database(":memory:") as other:
        run_no = run(con, varied_trace(seed), RunPlan([NEW, OLD], sets, AS_CAPTURED))
        con.execute("SELECT DISTINCT variant_no FROM sensitivity ORDER BY 1")
        assert con.fetchall() == [(0,), (1,), (2,)]
        for number, tariff in enumerate(sets):
            single = run(other, replace(varied_trace(seed), seed=number), RunPlan([NEW], [tariff], AS_CAPTURED))
            for percent in PERCENTS:
                assert kept(con, run_no, number, percent) == kept(other, single, 0, percent)


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.sampled_from([95, 105]))
def test_a_moved_count_is_exact_and_never_falls(tokens: int, more: int, percent: int) -> None:
    assert moved(tokens, percent) == half_up(tokens, percent)
    assert moved(tokens, percent) <= moved(tokens + more, percent)
    # A total is off by half a token at most, however many blocks it has.
    assert abs(Fraction(tokens * percent, 100) - moved(tokens, percent)) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("tokens", "percent", "expected"),
    [(1010, 95, 960), (1010, 105, 1061), (10, 95, 10), (10, 105, 11), (9, 95, 9), (0, 105, 0), (1077, 95, 1023)],
)  # 959.5, 1060.5, 9.5, 10.5, 8.55, 0, 1023.15
def test_moved_counts_by_hand(tokens: int, percent: int, expected: int) -> None:
    assert moved(tokens, percent) == expected


def test_random_traces_cross_the_floor_both_ways() -> None:
    """Or the tests above would prove little."""
    seen = {"floor_up": 0, "floor_down": 0, "changed": 0}
    for seed in range(5):
        with open_database(":memory:") as con:
            run(con, varied_trace(seed), RunPlan([AT_FLOOR], tariffs(seed), AS_CAPTURED))
            for name in seen:
                con.execute(f"SELECT coalesce(sum({name}), 0) FROM sensitivity")
                seen[name] += con.fetchall()[0][0]
    assert min(seen.values()) > 0
