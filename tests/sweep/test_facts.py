"""What a sweep knows beyond the split (writes, lives, dead writes, gaps, bounds), against a plain account of it."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stored_traces import stored, tariffs, varied_trace
from test_sweep import POLICIES, base_run

from cachesim.core.blocks import KINDS
from cachesim.core.gates import AS_CAPTURED, Breakpoints, Gated, Gates, Prompt
from cachesim.core.policy import PRESETS, Policy
from cachesim.core.pricing import billed_split
from cachesim.index.memory import MemoryIndex
from cachesim.replay import Lane
from cachesim.run import RunPlan
from cachesim.store.db import open_database
from cachesim.store.trace_reader import Scopes, TraceRow, load_trace, trace_rows
from cachesim.store.traces import PreparedTrace
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes, Lifetimes
from cachesim.sweep.kernels import Choice

NEW = PRESETS["dwctl-10.13"]
MINUTE_US = 60_000_000
GAPS_US = [5 * MINUTE_US, 60 * MINUTE_US, 480 * MINUTE_US]
SLOT_CELLS = {None: ("c5", "c1", "c24"), "1h+5m": ("c1", "c5", "cx"), "15m": ("cx", "cx", "cx")}


class RetieredGates(Gates):
    """Breakpoints that close a tool definition or a system block have tier 0, all others tier 1."""

    tree: PreparedTrace

    def check(self, prompt: Prompt, *rest: Any) -> Gated | Breakpoints:
        found = super().check(prompt, *rest)
        if isinstance(found, Gated):
            return found
        kinds = []
        node = prompt.end_node
        while node >= 0:
            kinds.insert(0, KINDS[self.tree.kinds[node]])
            node = self.tree.parents[node]
        return tuple((block, int(kinds[block] not in ("system", "tool_definition"))) for block, _ in found)


@dataclass
class Life:
    """An index row: since when it lives until when, and what was created by the write nobody has read yet."""

    expires_us: int
    tier: int
    unread: int | None


def account(
    trace: PreparedTrace, rows: Sequence[TraceRow], policy: Policy, gates: Gates, floors: Sequence[int | None]
) -> Counter[str]:
    """Totals over all requests, from the results of a lane and nothing else."""
    lane = Lane(gates, trace, trace.cumulative, MemoryIndex())
    place = trace.rules.index(policy.body_rules)
    lives: dict[tuple[int, int], Life] = {}
    coming: list[tuple[int, int, Any, bool]] = []
    found: Counter[str] = Counter()
    end_us = rows[-1].request.at_us
    cells = [f"dead_slot_{tier}" for tier in range(3)]

    def die(life: Life) -> None:
        if life.unread is not None:
            found["dead_writes"] += 1
            found[cells[life.tier]] += life.unread
            life.unread = None

    def live(before_us: int, after_us: int, now_us: int) -> None:
        for sign, until_us in ((-1, before_us), (1, after_us)):
            found["live_us"] += sign * max(0, min(until_us, end_us) - now_us) if now_us < end_us else 0

    def commit(done_us: int, scope: int, split: Any, paid: bool) -> None:
        previous = split.read
        for write in split.writes:
            key = scope, write.prefix
            old = lives.get(key, Life(0, 0, None))
            die(old)
            live(old.expires_us, write.expires_us, done_us)
            created = max(0, write.tokens - previous)
            lives[key] = Life(write.expires_us, write.tier, created if paid else None)
            previous = write.tokens
        for refresh in split.refreshes:
            life = lives[scope, refresh.prefix]
            live(life.expires_us, refresh.expires_us, done_us)
            life.expires_us = refresh.expires_us

    for row, floor in zip(rows, floors, strict=True):
        request = row.request
        while coming and coming[0][0] <= request.at_us:
            done_us, _, split, paid = coming.pop(0)
            commit(done_us, *split, paid)
        result = lane.arrive(request, row.prompts[place], floor)
        split = result.classification
        if split is None:
            continue
        billed = billed_split(row.prompt_tokens or 0, split.read, *split.creation, policy.billing_rule)
        paid = request.succeeded and billed.state in ("ok", "capped")
        if matched := deepest_match(trace, row.prompts[place], lives, request, policy, gates):
            _, life = matched
            if not split.below_floor:
                life.unread = None
                if request.succeeded and billed.read:
                    age_us = request.at_us - (life.expires_us - policy.tier_seconds[life.tier] * 1_000_000)
                    band = bisect.bisect_right(GAPS_US, age_us) + 1
                    found[f"gap_{band}_requests"] += 1
                    found[f"gap_{band}_tokens"] += billed.read
        if request.succeeded if policy.visible_at == "completion" else request.served:
            found["writes"] += len(split.writes)
            done_us = request.done_us if policy.visible_at == "completion" else request.at_us
            bisect.insort(coming, (done_us, request.seq, (request.scope, split), paid), key=lambda c: c[:2])
    for done_us, _, split, paid in coming:
        commit(done_us, *split, paid)
    for life in lives.values():
        if life.unread is not None and life.expires_us > end_us:
            found["open_writes"] += 1
        else:
            die(life)
    return found


def deepest_match(
    trace: PreparedTrace, prompt: Prompt, lives: dict[tuple[int, int], Life], request: Any, policy: Policy, gates: Gates
) -> tuple[int, Life] | None:
    """By trying every boundary within the walk-back of any breakpoint."""
    marks = gates.check(
        prompt, request.body_state, request.query_marker, request.model, True, True, request.tokenizer >= 0
    )
    assert not isinstance(marks, Gated)
    path = []
    node = prompt.end_node
    while node >= 0:
        path.insert(0, node)
        node = trace.parents[node]
    reachable: set[int] = set()
    for block, _ in marks:
        left = policy.walk_back
        for place in range(block, -1, -1):
            if left == 0:
                break
            reachable.add(place)
            run = place > 0 and trace.kinds[path[place]] == trace.kinds[path[place - 1]]
            tool = KINDS[trace.kinds[path[place]]] in ("tool", "tool_call")
            left -= not (policy.collapse_tool_runs and run and tool)
    for place in sorted(reachable, reverse=True):
        life = lives.get((request.scope, trace.prefixes[path[place]]))
        if life is not None and life.expires_us > request.at_us:
            return trace.prefixes[path[place]], life
    return None


FACTS = ["writes", "live_us", "dead_writes", "open_writes",
         *(f"gap_{band}_{what}" for band in range(1, 5) for what in ("requests", "tokens"))]  # fmt: skip


def swept(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int, names: Sequence[str]) -> dict[str, int]:
    sums = ", ".join(f"sum({name})::BIGINT" for name in names)
    row = con.execute(f"SELECT {sums} FROM swept WHERE run_no = ? AND variant_no = ?", [run_no, variant_no]).fetchone()
    assert row is not None
    return dict(zip(names, row, strict=True))


@pytest.mark.parametrize("kernel", ["plain", "compiled"])
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 10**9), st.sampled_from(POLICIES), st.sampled_from(list(SLOT_CELLS)))
def test_the_fate_of_every_write_is_told(kernel: Choice, seed: int, policy: Policy, ttl: str | None) -> None:
    if kernel == "compiled":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    sets = tariffs(seed)[:1]
    lifetimes = {"1h+5m": Lifetimes("1h+5m", 3600, 300), "15m": Lifetimes("15m", 900, 900)}
    with open_database(":memory:") as con:
        trace_no = stored(con, varied_trace(seed))
        base = base_run(con, trace_no, RunPlan([policy], sets, AS_CAPTURED))
        run_no = sweep(con, base, Axes(ttls=(lifetimes[ttl],) if ttl else ()), kernel=kernel)
        trace = load_trace(con, trace_no)
        places = range(len(trace.rules))
        rows = [row for batch in trace_rows(con, trace, places, Scopes()) for row in batch]
        gates = RetieredGates(policy, AS_CAPTURED, trace.markers) if ttl else Gates(policy, AS_CAPTURED, trace.markers)
        if isinstance(gates, RetieredGates):
            gates.tree = trace
            policy = replace(policy, tier_seconds=(*lifetimes[ttl][1:], 1))  # type: ignore[index]
            gates.policy = policy
        floors = [sets[0].gate(row.request.model, row.request.at_us) if row.request.model else None for row in rows]
        expected = account(trace, rows, policy, gates, floors)
        dead = dict.fromkeys(("dead_c5", "dead_c1", "dead_c24", "dead_cx"), 0)
        for slot, cell in enumerate(SLOT_CELLS[ttl]):
            dead[f"dead_{cell}"] += expected[f"dead_slot_{slot}"]
        found = swept(con, run_no, 1 if ttl else 0, [*FACTS, *dead])
    assert found == {**{name: expected[name] for name in FACTS}, **dead}


@pytest.mark.parametrize("kernel", ["plain", "compiled"])
@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.integers(0, 10**9))
def test_bounds_are_those_of_a_replay(kernel: Choice, seed: int) -> None:
    """`off` and one `ideal` per body rule set; `unlimited` is the present policy with entries that never expire."""
    if kernel == "compiled":
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    names = ["requests", "prompt", "read", "uncached", "requests_read"]
    with open_database(":memory:") as con:
        trace_no = stored(con, varied_trace(seed))
        plan = RunPlan([NEW, PRESETS["dwctl-8.63"]], tariffs(seed)[:1], AS_CAPTURED)
        base = base_run(con, trace_no, plan)
        run_no = sweep(con, base, Axes(policies=tuple(plan.policies)), kernel=kernel)
        for policy in ("off", "ideal", "ideal (dwctl-8.63)"):
            row = con.execute(
                "SELECT count(*), sum(prompt_tokens), sum(c.billed_read_tokens), sum(c.uncached_tokens), "
                "count(*) FILTER (c.billed_read_tokens > 0) FROM classified c "
                "JOIN variants v USING (run_no, variant_no) JOIN requests r ON r.trace_no = ? AND r.seq = c.seq "
                "WHERE run_no = ? AND v.policy = ? AND r.succeeded AND c.outcome <> 'rejected'",
                [trace_no, base, policy],
            ).fetchone()
            number = con.execute(
                "SELECT variant_no FROM variants WHERE run_no = ? AND policy = ?", [run_no, policy]
            ).fetchone()
            assert row is not None
            assert number is not None
            assert swept(con, run_no, number[0], names) == dict(zip(names, map(int, row), strict=True))
        forever = base_run(
            con, trace_no, RunPlan([replace(NEW, tier_seconds=(10**9,) * 3)], tariffs(seed)[:1], AS_CAPTURED)
        )
        row = con.execute(
            "SELECT sum(billed_read_tokens) FROM v_requests WHERE run_no = ? AND kind = 'policy' AND billed", [forever]
        ).fetchone()
        number = con.execute(
            "SELECT variant_no FROM variants WHERE run_no = ? AND policy = 'unlimited'", [run_no]
        ).fetchone()
        assert row is not None
        assert number is not None
        assert swept(con, run_no, number[0], ["read"])["read"] == row[0]
