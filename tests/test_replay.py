"""The simulated clock and its lanes: worked examples, and invariants on random traces."""

from __future__ import annotations

from array import array
from dataclasses import replace

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import FACTS, MINUTE_US, RandomTrace, random_trace

from cachesim.core.blocks import KINDS
from cachesim.core.gates import AS_CAPTURED, Gates, Prompt, marker_strategy
from cachesim.core.policy import PRESETS, Policy
from cachesim.index import Index
from cachesim.index.duckdb_index import DuckDbIndex
from cachesim.index.memory import MemoryIndex
from cachesim.prepare.nodes import Nodes, cumulate
from cachesim.replay import Classified, IdealBound, Lane, PreparedRequest

NEW, OLD = PRESETS["dwctl-10.13"], PRESETS["dwctl-8.63"]
POLICIES = [
    NEW,
    OLD,
    replace(NEW, refresh="all_matched"),
    replace(NEW, window="fixed", walk_back=3),
    replace(NEW, floor_scope="breakpoint", collapse_tool_runs=True),
    replace(NEW, visible_at="arrival", enabled_ttls=("5m", "1h", "24h"), tier_seconds=(300, 900, 1800)),
    replace(OLD, min_prefix_tokens=50),
]


def replayed(trace: RandomTrace, policies: list[Policy], indexes: list[Index]) -> list[list[Classified]]:
    lanes = [
        Lane(Gates(policy, AS_CAPTURED, FACTS), trace.tree, trace.cumulative, index)
        for policy, index in zip(policies, indexes, strict=True)
    ]
    found: list[list[Classified]] = [[] for _ in lanes]
    for request, prompt, floor in trace.rows:
        for lane, results in zip(lanes, found, strict=True):
            results.append(lane.arrive(request, prompt, floor))
    for lane in lanes:
        lane.commit_until(2**62)
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9))
def test_many_policies_in_one_pass_are_many_single_passes(seed: int) -> None:
    trace = random_trace(seed)
    together = replayed(trace, POLICIES, [MemoryIndex() for _ in POLICIES])
    for policy, results in zip(POLICIES, together, strict=True):
        assert replayed(trace, [policy], [MemoryIndex()])[0] == results


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(POLICIES))
def test_the_index_in_memory_equals_the_one_in_duckdb(seed: int, policy: Policy) -> None:
    """Same results for every request, and the same rows at the end."""
    trace = random_trace(seed, requests=60)
    fast, plain = MemoryIndex(), DuckDbIndex(duckdb.connect())
    assert replayed(trace, [policy], [fast]) == replayed(trace, [policy], [plain])
    assert sorted(fast.entries()) == plain.entries()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(POLICIES))
def test_sweeping_changes_nothing(seed: int, policy: Policy) -> None:
    class Eager(MemoryIndex):
        @property
        def wants_sweep(self) -> bool:
            return True

    trace = random_trace(seed)
    eager = Eager()
    assert replayed(trace, [policy], [MemoryIndex()]) == replayed(trace, [policy], [eager])
    assert eager.size == len(list(eager.entries()))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(POLICIES))
def test_scopes_do_not_touch_each_other(seed: int, policy: Policy) -> None:
    """Leaving all other scopes out changes nothing in one scope."""
    trace = random_trace(seed)
    all_results = replayed(trace, [policy], [MemoryIndex()])[0]
    own = [(row, result) for row, result in zip(trace.rows, all_results, strict=True) if row[0].scope == 1]
    alone = replayed(RandomTrace(trace.tree, trace.cumulative, [row for row, _ in own]), [policy], [MemoryIndex()])[0]
    assert alone == [result for _, result in own]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9))
def test_ideal_is_an_upper_bound(seed: int) -> None:
    """For policies that show entries at completion no request reads more than `ideal`."""
    trace = random_trace(seed)
    policies = [p for p in POLICIES if p.visible_at == "completion"]
    for results in replayed(trace, policies, [MemoryIndex() for _ in policies]):
        ideal = IdealBound(trace.tree, trace.cumulative)
        for (request, prompt, _), result in zip(trace.rows, results, strict=True):
            best = ideal.arrive(request, prompt)
            assert result.classification is None or result.classification.read <= best


def test_ideal_equals_its_definition() -> None:
    """The longest boundary contained in an earlier completed successful request, by brute force."""
    trace = random_trace(7, requests=80)

    def path(node: int) -> list[int]:
        found = []
        while node >= 0:
            found.append(node)
            node = trace.tree.parents[node]
        return found

    ideal = IdealBound(trace.tree, trace.cumulative)
    for place, (request, prompt, _) in enumerate(trace.rows):
        contained = {
            node
            for earlier, other, _ in trace.rows[:place]
            if earlier.scope == request.scope and earlier.succeeded and earlier.done_us <= request.at_us
            for node in path(other.end_node)
        }
        expected = max((trace.cumulative[0][n] for n in path(prompt.end_node) if n in contained), default=0)
        assert ideal.arrive(request, prompt) == expected


# -- worked examples: a chain of ten blocks of 100 tokens each


def chain(
    length: int = 60, tokens: int = 100, kinds: list[int] | None = None
) -> tuple[Nodes, list[array[int]], list[int]]:
    tree, node, path = Nodes(), -1, []
    for number in range(length):
        node = tree.child(node, bytes([number]) * 32, kinds[number] if kinds else 2)
        path.append(node)
    return tree, [cumulate(tree.parents, array("q", [tokens] * length))], path


def request(seq: int, at_us: int, done_us: int | None = None, *, succeeded: bool = True) -> PreparedRequest:
    return PreparedRequest(
        seq, at_us, at_us if done_us is None else done_us, succeeded, succeeded, 0, 0, "p", "m", "ok", 0
    )


def marked(path: list[int], length: int, *marks: tuple[int, int]) -> Prompt:
    blocks, facts = tuple(b for b, _ in marks), tuple(f for _, f in marks)
    return Prompt(path[length - 1], length, blocks, facts, -1, length - 1, -1, -1, None)


def lane(policy: Policy, tree: Nodes, cumulative: list[array[int]]) -> Lane:
    return Lane(Gates(policy, AS_CAPTURED, FACTS), tree, cumulative, MemoryIndex())


def split(result: Classified) -> tuple[int, tuple[int, int, int]]:
    assert result.classification is not None
    return result.classification.read, result.classification.creation


def test_two_identical_prompts_in_flight_both_write() -> None:
    tree, cumulative, path = chain()
    one = lane(NEW, tree, cumulative)
    prompt = marked(path, 10, (9, 1))
    assert split(one.arrive(request(0, 0, 10), prompt, 0)) == (0, (1000, 0, 0))
    assert split(one.arrive(request(1, 9, 30), prompt, 0)) == (0, (1000, 0, 0))
    # At one instant completions of earlier requests come first.
    assert split(one.arrive(request(2, 10, 11), prompt, 0)) == (1000, (0, 0, 0))


def test_walk_back_reaches_nineteen_blocks() -> None:
    tree, cumulative, path = chain()
    for distance, read in ((19, 1000), (20, 0)):
        one = lane(NEW, tree, cumulative)
        one.arrive(request(0, 0), marked(path, 10, (9, 1)), 0)
        length = 10 + distance
        result = one.arrive(request(1, 1), marked(path, length, (length - 1, 1)), 0)
        assert split(result) == (read, (length * 100 - read, 0, 0))


def test_a_collapsed_run_of_tool_calls_is_one_position() -> None:
    """Thirty tool calls lie between the breakpoints: too far block by block, one position when collapsed."""
    call, user = KINDS.index("tool_call"), KINDS.index("user")
    tree, cumulative, path = chain(kinds=[user] * 10 + [call] * 30 + [user] * 20)
    for policy, read in ((NEW, 0), (replace(NEW, collapse_tool_runs=True), 1000)):
        one = lane(policy, tree, cumulative)
        one.arrive(request(0, 0), marked(path, 10, (9, 1)), 0)
        assert split(one.arrive(request(1, 1), marked(path, 41, (40, 1)), 0))[0] == read


def test_the_floor_drops_the_read_and_its_refresh() -> None:
    tree, cumulative, path = chain()
    one = lane(NEW, tree, cumulative)
    one.arrive(request(0, 0), marked(path, 5, (4, 1)), 500)
    result = one.arrive(request(1, 1), marked(path, 7, (6, 1)), 701)
    assert (split(result), result.outcome, result.reason) == ((0, (0, 0, 0)), "zero", "below_floor")
    assert result.classification is not None
    assert result.classification.refreshes == ()
    # A pure read never meets the floor.
    assert split(one.arrive(request(2, 2), marked(path, 5, (4, 1)), 701)) == (500, (0, 0, 0))


def test_floor_per_breakpoint_keeps_the_read_and_skips_small_prefixes() -> None:
    tree, cumulative, path = chain()
    one = lane(replace(NEW, floor_scope="breakpoint"), tree, cumulative)
    result = one.arrive(request(0, 0), marked(path, 10, (3, 2), (9, 1)), 600)
    assert split(result) == (0, (1000, 0, 0))
    assert result.classification is not None
    assert [w.tokens for w in result.classification.writes] == [1000]
    result = one.arrive(request(1, 1), marked(path, 12, (9, 1), (11, 1)), 5000)
    assert split(result) == (1000, (0, 0, 0))


def test_expiry_is_strict_and_a_refresh_uses_the_stored_tier() -> None:
    tree, cumulative, path = chain()
    one = lane(NEW, tree, cumulative)
    prompt = marked(path, 10, (9, 2))
    one.arrive(request(0, 0), prompt, 0)
    # Read just before the hour ends; the refresh runs for another hour although this marker says 5m.
    last = 60 * MINUTE_US - 1
    assert split(one.arrive(request(1, last), marked(path, 10, (9, 1)), 0)) == (1000, (0, 0, 0))
    assert split(one.arrive(request(2, last + 60 * MINUTE_US), prompt, 0)) == (0, (0, 1000, 0))


def test_fixed_windows_do_not_slide() -> None:
    tree, cumulative, path = chain()
    one = lane(replace(NEW, window="fixed"), tree, cumulative)
    prompt = marked(path, 10, (9, 1))
    reads = [split(one.arrive(request(n, n * 4 * MINUTE_US), prompt, 0))[0] for n in range(4)]
    assert reads == [0, 1000, 0, 1000]


def test_a_late_refresh_moves_back_and_revives() -> None:
    tree, cumulative, path = chain()
    one = lane(NEW, tree, cumulative)
    prompt = marked(path, 10, (9, 1))
    one.arrive(request(0, 0), prompt, 0)
    # Read at 4:00, the response takes an hour: its refresh (to 9:00) arrives when the entry is long dead.
    one.arrive(request(1, 4 * MINUTE_US, 64 * MINUTE_US), prompt, 0)
    assert split(one.arrive(request(2, 30 * MINUTE_US, 31 * MINUTE_US), prompt, 0))[0] == 0
    assert split(one.arrive(request(3, 32 * MINUTE_US, 33 * MINUTE_US), prompt, 0))[0] == 1000
    # At 64:00 the late refresh sets the expiry back to 9:00: dead at once.
    assert split(one.arrive(request(4, 64 * MINUTE_US), prompt, 0))[0] == 0


def test_failures_commit_nothing() -> None:
    tree, cumulative, path = chain()
    one = lane(NEW, tree, cumulative)
    prompt = marked(path, 10, (9, 1))
    result = one.arrive(request(0, 0, succeeded=False), prompt, 0)
    assert split(result) == (0, (1000, 0, 0))
    assert result.committed is False
    assert split(one.arrive(request(1, 1), prompt, 0))[0] == 0


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("automatic", [9]), ("last-user", [7]), ("system+last-user", [0, 7]), ("tools+system+last-user", [0, 2, 7])],
)
def test_marker_strategies_replace_what_was_captured(name: str, blocks: list[int]) -> None:
    tree, cumulative, path = chain()
    prompt = Prompt(path[9], 10, (5,), (2,), 2, 7, 0 if "tools" not in name else 2, 0 if "tools" in name else -1, None)
    one = Lane(Gates(NEW, marker_strategy(name, "1h"), FACTS), tree, cumulative, MemoryIndex())
    result = one.arrive(request(0, 0), prompt, 0)
    assert result.classification is not None
    assert [tree.digests[w.prefix][0] for w in result.classification.writes] == blocks
    assert result.tiers == "1h"


def test_outcomes_and_reasons_in_upstreams_order() -> None:
    tree, cumulative, path = chain()
    bad = marked(path, 10, (9, 5))
    base = request(0, 0)
    query = base._replace(query_marker=2, body_state="unparseable")
    cases = [
        (NEW, base._replace(body_state="not_cacheable"), bad, 0, ("inactive", "not_cacheable")),
        (NEW, query, bad, 0, ("rejected", "bad_marker:invalid_cache_breakpoint")),
        (OLD, query, bad, 0, ("inactive", "unparseable")),
        (NEW, base._replace(model=None, principal=None), bad, None, ("rejected", "bad_marker:unsupported_type")),
        (OLD, base._replace(model=None, principal=None), bad, None, ("inactive", "no_model")),
        (OLD, base._replace(principal=None), bad, None, ("inactive", "unscoped")),
        (OLD, base, bad, None, ("inactive", "not_enabled")),
        (OLD, base, bad, 0, ("zero", "bad_marker:unsupported_type")),
        (NEW, base._replace(tokenizer=-1), marked(path, 10), 0, ("zero", "no_markers")),
        (NEW, base._replace(tokenizer=-1), marked(path, 10, (9, 1)), 0, ("zero", "tokenizer_unmapped")),
        (NEW, base, marked(path, 10, (9, 1))._replace(ingress_error="x"), 0, ("rejected", "unparseable")),
    ]  # fmt: skip
    for policy, asked, prompt, floor, expected in cases:
        result = lane(policy, tree, cumulative).arrive(asked, prompt, floor)
        assert (result.outcome, result.reason) == expected


def test_random_traces_are_rich_enough_to_prove_something() -> None:
    """Guards the generators above: every outcome occurs, entries expire, responses overlap."""
    outcomes = {r.outcome for seed in range(5) for r in replayed(random_trace(seed), [NEW], [MemoryIndex()])[0]}
    assert outcomes == {"inactive", "zero", "read", "create", "read_and_create", "rejected"}
