"""Fan-outs: requests whose history lies in the cache, alive, just further back than the walk-back looks.

Parallel tool calls are the usual reason: twenty calls and their twenty results are forty block boundaries between one
breakpoint and the next. The classifier's own index is asked, so what is reported is what the variant really missed;
with a larger walk-back entries would be refreshed and written differently, which only a sweep tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cachesim.core.blocks import TOOL_CALL, TOOL_RESULT
from cachesim.core.classify import Tree, same_run
from cachesim.core.gates import Breakpoints, Gated, Gates, MarkerStrategy
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import Policy
from cachesim.index.memory import MemoryIndex
from cachesim.replay import Lane
from cachesim.store.trace_reader import TraceRow, single_rows
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int], None]
CATCHING = (50, 90, 100)
"""Per cent of the missed requests for which the least sufficient walk-back is told."""


class Miss(NamedTuple):
    """A successful request that found less than lay there. needed: the least walk-back that reaches the live entry.

    tokens: how many more it would have read; tool_blocks of passed: tool calls and results among the blocks between.
    """

    model: str | None
    needed: int
    tokens: int
    passed: int
    tool_blocks: int


class FanOut(NamedTuple):
    """The misses of one model. by_tools: of these, more than half of what was passed are tool calls and results.

    walk_backs: for each share of CATCHING the least walk-back that reaches so many of the misses.
    """

    model: str | None
    requests: int
    tokens: int
    by_tools: int
    walk_backs: tuple[int, ...]


def fan_outs(
    con: duckdb.DuckDBPyConnection,
    trace: PreparedTrace,
    policy: Policy,
    strategy: MarkerStrategy,
    tariff: TariffSet,
    progress: Progress = lambda done: None,
) -> list[FanOut]:
    """The fan-outs of a variant by model, most tokens first; models without any are left out."""
    lane = FanOutLane(Gates(policy, strategy, trace.markers), trace, trace.cumulative)
    looked = (lane.look(row, floor) for row, floor in single_rows(con, trace, policy, tariff, progress))
    return summary([miss for miss in looked if miss is not None])


def summary(misses: Sequence[Miss]) -> list[FanOut]:
    """The misses by model, most tokens first."""
    by_model: dict[str | None, list[Miss]] = {}
    for miss in misses:
        by_model.setdefault(miss.model, []).append(miss)
    found = [
        FanOut(
            model,
            len(own),
            sum(miss.tokens for miss in own),
            sum(2 * miss.tool_blocks > miss.passed for miss in own),
            _least(sorted(miss.needed for miss in own)),
        )
        for model, own in by_model.items()
    ]
    return sorted(found, key=lambda one: (-one.tokens, one.model or ""))


def _least(needed: Sequence[int]) -> tuple[int, ...]:
    """needed: ascending. Of [21, 25, 40, 90] half need 25, 90 % and all need 90."""
    return tuple(needed[-(-len(needed) * share // 100) - 1] for share in CATCHING)


class FanOutLane(Lane):
    """A lane that also looks beyond the walk-back."""

    def __init__(self, gates: Gates, tree: Tree, cumulative: Sequence[Sequence[int]]) -> None:
        self._entries = MemoryIndex()
        super().__init__(gates, tree, cumulative, self._entries)

    def look(self, row: TraceRow, floor_tokens: int | None) -> Miss | None:
        """One request arrives; what it missed by the walk-back alone, if it is successful."""
        request, prompt = row.request, row.prompts[0]
        result = self.arrive(request, prompt, floor_tokens)
        split = result.classification
        if split is None or not request.succeeded:
            return None
        if split.below_floor and self.policy.floor_scope == "request":  # whatever it would read, it stays below
            return None
        marks = self.gates.check(
            prompt, request.body_state, request.query_marker, request.model, request.principal is not None, True, True
        )
        assert not isinstance(marks, Gated)
        return self._beyond(row, marks, split.read)

    def _beyond(self, row: TraceRow, marks: Breakpoints, read: int) -> Miss | None:
        """The deepest live entry at or before the last breakpoint, if no window of the walk-back reaches it."""
        tree, request, prompt = self._tree, row.request, row.prompts[0]
        node, block = prompt.end_node, prompt.block_count - 1
        coming, position, passed, tools = len(marks) - 1, 0, 0, 0
        while node >= 0:
            if coming >= 0 and marks[coming][0] == block:
                coming -= 1
                position, passed, tools = 1, 0, 0
            if position:
                entry = self._entries.get(request.scope, tree.prefixes[node])
                if entry is not None and entry.expires_us > request.at_us:
                    if position <= self.policy.walk_back or entry.tokens <= read:
                        return None
                    return Miss(request.model, position, entry.tokens - read, passed, tools)
                passed += 1
                tools += tree.kinds[node] in (TOOL_CALL, TOOL_RESULT)
                position += not (self.policy.collapse_tool_runs and same_run(tree.kinds, node, tree.parents[node]))
            node = tree.parents[node]
            block -= 1
        return None
