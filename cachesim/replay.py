"""The simulated clock: at an arrival a request is classified, at its completion the result is committed.

Every policy has a lane of its own (index, responses in flight); one pass over the requests drives all lanes, so N
policies in one pass are N single replays.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cachesim.core.classify import Classification, Tree, classify, same_run
from cachesim.core.gates import ZERO, Breakpoints, Gated, Gates, Prompt
from cachesim.core.policy import TIERS, Policy
from cachesim.index import Index
from cachesim.index.memory import MemoryIndex


class PreparedRequest(NamedTuple):
    """One request of a prepared trace, in replay order. Times are µs UTC.

    scope: number of (principal, model, tokenizer version), -1 if any is unknown; tokenizer: its number, -1 unmapped;
    succeeded: billed, in rates, and its writes count; served: it succeeded, or a 2xx answer began and was cut off.
    """

    seq: int
    at_us: int
    done_us: int
    succeeded: bool
    served: bool
    scope: int
    tokenizer: int
    principal: str | None
    model: str | None
    body_state: str
    query_marker: int


class Classified(msgspec.Struct, frozen=True, gc=False):
    """What a lane says of one request. classification: None where the cache was not asked."""

    outcome: str
    reason: str | None
    tiers: str
    classification: Classification | None
    committed: bool


class InFlight(msgspec.Struct, frozen=True, gc=False, order=True):
    """A response on its way: what it will commit, ordered by completion, then by log order."""

    done_us: int
    seq: int
    scope: int
    result: Classification


class Lane:
    """One variant being replayed: a policy under a marker strategy and one set of enablement windows and floors."""

    def __init__(self, gates: Gates, tree: Tree, cumulative: Sequence[Sequence[int]], index: Index) -> None:
        self.gates = gates
        self.policy: Policy = gates.policy
        self.index = index
        self.in_flight: list[InFlight] = []
        self._tree = tree
        self._cumulative = cumulative
        self._tier_names: dict[tuple[int, ...], str] = {}

    def arrive(self, request: PreparedRequest, prompt: Prompt, floor_tokens: int | None) -> Classified:
        """Commit what has completed by now, then classify. floor_tokens: None where no cache tariff is valid."""
        self.commit_until(request.at_us)
        gated = self.gates.check(
            prompt,
            request.body_state,
            request.query_marker,
            request.model,
            request.principal is not None,
            floor_tokens is not None,
            request.tokenizer >= 0,
        )
        if isinstance(gated, Gated):
            return Classified(gated.outcome, gated.reason, "none", None, False)
        return self._classify(request, prompt, gated, floor_tokens or 0)

    def _classify(self, request: PreparedRequest, prompt: Prompt, marks: Breakpoints, floor_tokens: int) -> Classified:
        policy = self.policy
        if policy.min_prefix_tokens is not None:
            floor_tokens = policy.min_prefix_tokens
        result = classify(
            self._tree,
            self._cumulative[request.tokenizer],
            prompt.end_node,
            prompt.block_count,
            marks,
            self.index.finder(request.scope, lambda: candidates(self._tree, prompt, marks, policy)),
            request.at_us,
            policy,
            floor_tokens,
        )
        committed = bool(result.writes or result.refreshes) and (
            request.succeeded if policy.visible_at == "completion" else request.served
        )
        if committed:
            # A response that begins is the nearest a log without first-token times comes to its arrival.
            done_us = request.done_us if policy.visible_at == "completion" else request.at_us
            heapq.heappush(self.in_flight, InFlight(done_us, request.seq, request.scope, result))
        outcome, reason = _outcome(result)
        return Classified(outcome, reason, self._tiers(marks), result, committed)

    def commit_until(self, now_us: int) -> None:
        """Apply every response that has completed by `now_us`, inclusive."""
        flight = self.in_flight
        while flight and flight[0].done_us <= now_us:
            self.commit(heapq.heappop(flight))
        index = self.index
        if isinstance(index, MemoryIndex) and index.wants_sweep:
            index.sweep(now_us, {(f.scope, r.prefix) for f in flight for r in f.result.refreshes})

    def commit(self, done: InFlight) -> None:
        """Apply one response that has completed."""
        self.index.commit(done.scope, done.result.writes, done.result.refreshes, done.done_us)

    def _tiers(self, marks: Breakpoints) -> str:
        key = tuple(tier for _, tier in marks)
        names = self._tier_names.get(key)
        if names is None:
            names = self._tier_names[key] = "+".join(TIERS[tier] for tier in sorted(set(key), reverse=True))
        return names


def _outcome(result: Classification) -> tuple[str, str | None]:
    """By token counts: an entry of 0 tokens written or refreshed is still a zero."""
    created = any(result.creation)
    if result.read:
        return ("read_and_create" if created else "read"), None
    if created:
        return "create", None
    return ZERO, "below_floor" if result.below_floor else None


def candidates(tree: Tree, prompt: Prompt, marks: Breakpoints, policy: Policy) -> list[int]:
    """Every prefix in some breakpoint's walk-back window, deepest first."""
    found: list[int] = []
    node, block = prompt.end_node, prompt.block_count - 1
    coming, left = len(marks) - 1, 0
    while node >= 0 and (left > 0 or coming >= 0):
        if coming >= 0 and marks[coming][0] == block:
            coming -= 1
            left = policy.walk_back
        parent = tree.parents[node]
        if left > 0:
            found.append(tree.prefixes[node])
            if not (policy.collapse_tool_runs and same_run(tree.kinds, node, parent)):
                left -= 1
        node = parent
        block -= 1
    return found


class IdealBound:
    """The upper bound `ideal`: the longest prefix that an earlier completed successful request of the scope had."""

    def __init__(self, tree: Tree, cumulative: Sequence[Sequence[int]]) -> None:
        self._tree = tree
        self._cumulative = cumulative
        self._seen: dict[int, set[int]] = {}
        self._walked: dict[int, set[int]] = {}
        self._in_flight: list[tuple[int, int, int, int]] = []
        self._earlier: list[tuple[int, int, int, Sequence[int]]] = []

    def inherit(self, scope: int, prefixes: Sequence[int], done_us: int) -> None:
        """A request of an earlier log had these prefixes, and completed at `done_us`."""
        heapq.heappush(self._earlier, (done_us, len(self._earlier), scope, prefixes))

    def arrive(self, request: PreparedRequest, prompt: Prompt) -> int:
        """Tokens that could have been read at best."""
        while self._earlier and self._earlier[0][0] <= request.at_us:
            _, _, scope, prefixes = heapq.heappop(self._earlier)
            self._seen.setdefault(scope, set()).update(prefixes)
        while self._in_flight and self._in_flight[0][0] <= request.at_us:
            _, _, scope, end = heapq.heappop(self._in_flight)
            self._contain(scope, end)
        if not may_hold(request, prompt):
            return 0
        if request.succeeded:
            heapq.heappush(self._in_flight, (request.done_us, request.seq, request.scope, prompt.end_node))
        seen = self._seen.get(request.scope, ())
        node = prompt.end_node
        while node >= 0 and self._tree.prefixes[node] not in seen:
            node = self._tree.parents[node]
        return self._cumulative[request.tokenizer][node] if node >= 0 else 0

    def _contain(self, scope: int, node: int) -> None:
        """Every boundary up to `node` is now contained; what lies before a boundary walked is known already."""
        seen, walked = self._seen.setdefault(scope, set()), self._walked.setdefault(scope, set())
        new = path(self._tree, node, walked)
        seen.update(self._tree.prefixes[n] for n in new)


def may_hold(request: PreparedRequest, prompt: Prompt) -> bool:
    """Whether a request has a scope and blocks, so that a cache could hold its prefixes."""
    return request.scope >= 0 and prompt.end_node >= 0 and request.body_state == "ok"


def path(tree: Tree, node: int, walked: set[int]) -> list[int]:
    """The boundaries up to `node` that have not been walked before, now among `walked`."""
    found = []
    while node >= 0 and node not in walked:
        walked.add(node)
        found.append(node)
        node = tree.parents[node]
    return found
