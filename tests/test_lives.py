"""Lives of index entries on random traces: they are those of the index, and their totals those of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from stored_traces import cut, run_stored, stored, tariffs, varied_trace

from cachesim.core.gates import AS_CAPTURED, Gates
from cachesim.core.policy import PRESETS, TIERS, Policy
from cachesim.index.memory import MemoryIndex
from cachesim.lives import Lives, follow_lives, keep_lives
from cachesim.replay import Lane
from cachesim.report.lives import condition, sum_lives, summary_rows
from cachesim.report.query import variants_of
from cachesim.run import RunPlan
from cachesim.store.db import open_database
from cachesim.store.index_state import Places, load_index
from cachesim.store.trace_reader import Scopes, load_trace
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes

NEW = PRESETS["dwctl-10.13"]
POLICIES = [
    NEW,
    PRESETS["dwctl-8.63"],
    replace(NEW, name="three tiers", enabled_ttls=("5m", "1h", "24h"), refresh="all_matched"),
    replace(NEW, name="per breakpoint", floor_scope="breakpoint", window="fixed"),
    replace(NEW, name="at arrival", visible_at="arrival"),
]
Live = set[tuple[str, str, str, bytes, int, int, int]]
"""Principal, model, tokenizer version, prefix hash, tokens, tier, expiry."""
checked = settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])


class Made:
    """A random trace replayed under one policy, its requests before `start` as an earlier run where there are any."""

    def __init__(self, con: duckdb.DuckDBPyConnection, seed: int, policy: Policy, start: int = 0) -> None:
        self.con, self.policy, self.tariff = con, policy, tariffs(seed)[0]
        self.trace = varied_trace(seed, 100)
        self.plan = RunPlan([policy], [self.tariff], AS_CAPTURED)
        self.earlier = run_stored(con, stored(con, cut(self.trace, 0, start)), self.plan) if start else None
        self.trace_no = stored(con, cut(self.trace, start, 100))
        self.run_no = run_stored(con, self.trace_no, self.plan, self.earlier)

    def lives(self, until_us: int | None = None) -> Lives:
        trace = load_trace(self.con, self.trace_no)
        inherited = (self.earlier, 0) if self.earlier else None
        return follow_lives(self.con, trace, self.policy, AS_CAPTURED, self.tariff, inherited, until_us)


def alive(lives: Lives, at_us: int) -> Live:
    found = [life for life in lives.all if life.until_us > max(at_us, life.from_us)]
    keys = [lives.places.key(*life.place) for life in found]
    return {(*key, life.tokens, life.tier, life.until_us) for key, life in zip(keys, found, strict=True)}


@checked
@example(2847, PRESETS["dwctl-8.63"], 0)
@given(st.integers(0, 10**9), st.sampled_from(POLICIES), st.sampled_from([0, 0, 40]))
def test_the_lives_at_the_end_are_the_stored_index(seed: int, policy: Policy, start: int) -> None:
    with open_database(":memory:") as con:
        made = Made(con, seed, policy, start)
        lives = made.lives()
        con.execute(
            "SELECT principal_id, virtual_model, tokenizer_version, prefix_hash, cumulative_token_count, ttl_tier,"
            " epoch_us(expires_at) FROM index_entries WHERE run_no = ?",
            [made.run_no],
        )
        stored_until = {(*key, TIERS.index(tier)): expires for *key, tier, expires in con.fetchall()}
        latest = {life.place: life for life in lives.all}.values()
        found = {(*lives.places.key(*life.place), life.tokens, life.tier): life.until_us for life in latest}
        # A row that a late commit sets to an expiry already past is dead from that commit on, which ends its life; and
        # stays dead where it was so before.
        late = {row.columns["done_us"] for row in made.trace.rows} | {row.columns["at_us"] for row in made.trace.rows}
        for entry, expires_us in stored_until.items():
            assert (
                found[entry] == expires_us
                or (found[entry] > expires_us and found[entry] in late)
                or found[entry] < expires_us <= max(late)
            )
        assert {entry for entry, until in found.items() if until > lives.end_us and until not in late} <= set(
            stored_until
        )


@checked
@given(st.integers(0, 10**9), st.sampled_from(POLICIES), st.integers(1, 99), st.integers(0, 6 * 60_000_000))
def test_the_lives_at_a_time_are_the_index_of_the_log_cut_there(seed: int, policy: Policy, n: int, after: int) -> None:
    """A run over the requests up to an instant, taken up again and its responses committed up to then."""
    with open_database(":memory:") as con:
        made = Made(con, seed, policy)
        at_us = made.trace.rows[n].columns["at_us"] + after
        known = sum(row.columns["at_us"] <= at_us for row in made.trace.rows)
        trace_no = stored(con, replace(cut(made.trace, 0, known), seed=seed + 1))
        run_no = run_stored(con, trace_no, made.plan)
        trace = load_trace(con, trace_no)
        places = Places(trace, Scopes())
        index = MemoryIndex()
        lane = Lane(Gates(policy, AS_CAPTURED, trace.markers), trace, trace.cumulative, index)
        load_index(con, run_no, 0, lane, places)
        lane.commit_until(at_us)
        found = [(places.key(scope, prefix), entry) for scope, prefix, entry in index.entries()]
        expected = {(*key, e.tokens, e.tier, e.expires_us) for key, e in found if e.expires_us > at_us}
        assert alive(made.lives(at_us), at_us) == expected


def told(lives: Lives, con: duckdb.DuckDBPyConnection, run_no: int, by: list[str]) -> list[dict[str, Any]]:
    keep_lives(con, lives)
    sum_lives(con, run_no, variants_of(con, run_no)[0], lives.begin_us, lives.end_us)
    return summary_rows(con, {}, by, condition([], []), lives.begin_us, lives.end_us)


@checked
@given(st.integers(0, 10**9), st.sampled_from(POLICIES))
def test_the_totals_are_those_of_a_sweep(seed: int, policy: Policy) -> None:
    """Writes, the time that entries are live, and dead writes with their tokens, per model and principal."""
    with open_database(":memory:") as con:
        made = Made(con, seed, policy)
        lives = made.lives()
        span_us = lives.end_us - lives.begin_us
        rows = told(lives, con, made.run_no, ["model", "principal"])
        found = {
            (r["model"], r["principal"], r["index_writes"], round(r["live_entries"] * span_us), r["dead_writes"],
             r["dead_tokens"])
            for r in rows
        }  # fmt: skip
        con.execute(
            "SELECT model, principal, sum(writes), sum(live_us), sum(dead_writes), sum(dead_c5 + dead_c1 + dead_c24)"
            " FROM swept JOIN sweep_groups USING (run_no, group_no) WHERE run_no = ? AND variant_no = 0 GROUP BY ALL",
            [sweep(con, made.run_no, Axes(floors=(None,)), kernel="plain")],
        )
        assert found == {row for row in con.fetchall() if any(row[2:])}


@checked
@given(st.integers(0, 10**9), st.sampled_from(POLICIES), st.sampled_from([0, 0, 40]))
def test_what_lives_cost_and_save_is_what_the_run_bills(seed: int, policy: Policy, start: int) -> None:
    """Also where the run continued another: what it reads of inherited entries is among its lives."""
    with open_database(":memory:") as con:
        made = Made(con, seed, policy, start)
        rows = told(made.lives(), con, made.run_no, ["model"])
        found = {r["model"]: (r["reads"], r["read_tokens"], r["creation_tokens"], r["delta"]) for r in rows}
        con.execute(
            "SELECT model, count(*) FILTER (read_tokens > 0), sum(billed_read_tokens) FILTER (billed),"
            " sum(billed_creation_5m_tokens + billed_creation_1h_tokens + billed_creation_24h_tokens) FILTER (billed),"
            " sum(delta) FROM v_requests WHERE run_no = ? AND variant_no = 0 GROUP BY 1",
            [made.run_no],
        )
        for model, reads, *figures in con.fetchall():
            if model in found:
                assert found[model][0] >= reads  # an entry of 0 tokens can be read too
                assert list(found[model][1:3]) == figures[:2]
                assert found[model][3] == (figures[2] if model in ("m", "n") else None)
            else:
                assert not any(figures[:2])
