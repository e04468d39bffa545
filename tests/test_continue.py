"""A log cut into days and replayed with `--continue` is the log replayed at once: random traces, cut anywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stored_traces import HOUR_US, VariedTrace, cut, run_stored, stored, tariffs, varied_trace
from traces import MINUTE_US

from cachesim.core.gates import AS_CAPTURED
from cachesim.core.policy import PRESETS, Policy
from cachesim.run import RunPlan
from cachesim.store.db import open_database

NEW, OLD = PRESETS["dwctl-10.13"], PRESETS["dwctl-8.63"]
POLICIES: Final[list[Policy]] = [
    NEW,
    OLD,
    replace(NEW, name="three tiers", enabled_ttls=("5m", "1h", "24h"), refresh="all_matched"),
    replace(NEW, name="at arrival", visible_at="arrival"),
    replace(NEW, name="fixed", window="fixed", floor_scope="breakpoint"),
]
_ENTRY: Final = (
    "v.policy, v.tariff, principal_id, virtual_model, tokenizer_version, prefix_hash, cumulative_token_count, ttl_tier,"
    " epoch_us(created_at), epoch_us(expires_at)"
)
_FLIGHT: Final = (
    "v.policy, v.tariff, i.kind, done_us, principal_id, virtual_model, tokenizer_version, prefix_hash, tokens, tier,"
    " expires_us, created_us"
)
Rows = list[tuple[Any, ...]]


def slow(trace: VariedTrace) -> VariedTrace:
    """Some responses take hours, so that they are still in flight over the whole of a short next log."""
    chance = random.Random(trace.seed)
    rows = []
    for row in trace.rows:
        longer = chance.choice([0] * 7 + [4 * MINUTE_US, 50 * MINUTE_US, 3 * HOUR_US])
        rows.append(row._replace(columns={**row.columns, "done_us": row.columns["done_us"] + longer}))
    return replace(trace, rows=rows)


def requests(con: duckdb.DuckDBPyConnection, run_no: int, *, first_seq: int = 0) -> Rows:
    """Every request under every policy and bound, without what names the run."""
    con.execute(
        f"SELECT policy, tariff, seq + {first_seq}, * EXCLUDE (run, run_no, variant_no, seq, policy, tariff,"
        " arrived_at, completed_at) FROM v_requests WHERE run_no = ? ORDER BY ALL",
        [run_no],
    )
    return con.fetchall()


def left(con: duckdb.DuckDBPyConnection, run_no: int) -> tuple[Rows, Rows]:
    """The index that a run leaves: its entries, and what is in flight."""
    found = [
        con.execute(
            f"SELECT {columns} FROM {table} i JOIN variants v USING (run_no, variant_no) WHERE run_no = ? ORDER BY ALL",
            [run_no],
        ).fetchall()
        for table, columns in (("index_entries", _ENTRY), ("index_in_flight", _FLIGHT))
    ]
    return found[0], found[1]


def replayed(trace: VariedTrace, cuts: Sequence[int], policies: Sequence[Policy]) -> tuple[Rows, tuple[Rows, Rows]]:
    """What a trace cut before each of `cuts` gives, every part continuing the one before."""
    _, *two = tariffs(trace.seed)
    plan = RunPlan(policies, two, AS_CAPTURED)
    found: Rows = []
    with open_database(":memory:") as con:
        run_no = None
        for start, end in pairwise([0, *cuts, len(trace.rows)]):
            run_no = run_stored(con, stored(con, cut(trace, start, end)), plan, run_no)
            found += requests(con, run_no, first_seq=start)
        assert run_no is not None
        return sorted(found, key=str), left(con, run_no)


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 10**9),
    cuts=st.lists(st.integers(1, 79), min_size=1, max_size=4, unique=True).map(sorted),
    policies=st.lists(st.sampled_from(POLICIES), min_size=1, max_size=2, unique=True),
)
def test_a_trace_cut_anywhere_is_the_trace_at_once(seed: int, cuts: list[int], policies: list[Policy]) -> None:
    trace = slow(varied_trace(seed, 80))
    whole, pieces = replayed(trace, [], policies), replayed(trace, cuts, policies)
    assert pieces[0] == whole[0]
    assert pieces[1] == whole[1]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_days_of_one_request_are_the_trace_at_once(policy: Policy) -> None:
    """Every response with a duration is in flight over whole logs, and most logs do not know most prefixes."""
    trace = slow(varied_trace(7, 30))
    assert replayed(trace, range(1, 30), [policy]) == replayed(trace, [], [policy])
