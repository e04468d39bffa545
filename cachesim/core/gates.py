"""The gates before the cache is asked: does this request count at all, and which breakpoints does it declare?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from cachesim.core.markers import MarkerError, MarkerFact, breakpoints
from cachesim.core.policy import Policy

Breakpoints: TypeAlias = tuple[tuple[int, int], ...]
"""(block, tier number), in block order."""

INACTIVE: Final = "inactive"
ZERO: Final = "zero"
REJECTED: Final = "rejected"

STRATEGIES: Final = {
    "as-captured": "the markers that the clients sent",
    "automatic": "a top-level marker: a breakpoint on the last block",
    "last-user": "the last block of the last user message",
    "system": "the last block of the last system message",
    "tools": "the last tool",
    "system+last-user": "the last block of the last system message, and of the last user message",
    "tools+system+last-user": "the last tool, and the last blocks of the last system and user messages",
}


class Prompt(NamedTuple):
    """A prepared prompt under one body rule set: see the table `prompts` of `cachesim.store.schema`."""

    end_node: int
    block_count: int
    marker_blocks: tuple[int, ...]
    marker_facts: tuple[int, ...]
    automatic: int
    last_user: int
    last_system: int
    last_tool: int
    ingress_error: str | None


NO_PROMPT: Final = Prompt(-1, 0, (), (), -1, -1, -1, -1, None)
"""Of a body that is not parsed: not JSON, or not sent to an API that is classified."""


class Gated(NamedTuple):
    """A request the cache is not asked about: its outcome and why."""

    outcome: str
    reason: str


class MarkerStrategy(NamedTuple):
    """Where breakpoints are assumed to be. fact: the marker put there by every strategy but as-captured."""

    name: str
    tier: str
    fact: MarkerFact

    def __str__(self) -> str:
        return self.name if self.name == "as-captured" or self.tier == "5m" else f"{self.name}:{self.tier}"


def marker_strategy(name: str, tier: str = "5m") -> MarkerStrategy:
    """The strategy of that name (a key of STRATEGIES) with markers of `tier`."""
    return MarkerStrategy(name, tier, MarkerFact("object", "ephemeral", tier))


AS_CAPTURED: Final = marker_strategy("as-captured")


class Gates:
    """The gates of one policy under one marker strategy. facts: the trace's distinct marker facts by number.

    What a combination of marker facts resolves to is remembered, so a request costs a look-up.
    """

    def __init__(self, policy: Policy, strategy: MarkerStrategy, facts: Sequence[MarkerFact]) -> None:
        self.policy = policy
        self.strategy = strategy
        self.facts = facts
        self._resolved: dict[tuple[tuple[int, ...], int, bool, bool], Breakpoints | str] = {}

    def check(
        self,
        prompt: Prompt,
        body_state: str,
        query_marker: int,
        model: str | None,
        scoped: bool,
        enabled: bool,
        mapped: bool,
    ) -> Gated | Breakpoints:
        """In upstream's order, the first gate that applies; or the breakpoints to ask the cache about.

        query_marker: 0 none, 1 understood, 2 another value; scoped: a principal is known; enabled: the model has a
        cache tariff at the request's time; mapped: the model has a tokenizer.
        """
        policy = self.policy
        if body_state == "not_cacheable":
            return Gated(INACTIVE, body_state)
        captured = self.strategy.name == "as-captured"
        if query_marker == 2 and policy.query_marker and captured:
            return Gated(REJECTED, "bad_marker:invalid_cache_breakpoint")
        if body_state == "unparseable":
            return Gated(INACTIVE, body_state)
        if prompt.ingress_error is not None:
            return Gated(REJECTED, "unparseable")
        found = self._breakpoints(prompt, captured)
        if isinstance(found, str) and policy.reject_bad_markers:
            return Gated(REJECTED, f"bad_marker:{found}")
        if model is None:
            return Gated(INACTIVE, "no_model")
        if not scoped:
            return Gated(INACTIVE, "unscoped")
        if not enabled:
            return Gated(INACTIVE, "not_enabled")
        if isinstance(found, str):
            return Gated(ZERO, f"bad_marker:{found}")
        if not found:
            return Gated(ZERO, "no_markers")
        if not mapped:
            return Gated(ZERO, "tokenizer_unmapped")
        return found

    def _breakpoints(self, prompt: Prompt, captured: bool) -> Breakpoints | str:
        """The prompt's breakpoints, or the kind of marker error."""
        if not captured:
            return self._placed(prompt)
        blocks, facts = prompt.marker_blocks, prompt.marker_facts
        last = prompt.block_count - 1
        at_end = bool(blocks) and blocks[-1] == last
        key = (facts, prompt.automatic, at_end, last < 0)
        resolved = self._resolved.get(key)
        if resolved is None:
            # Positions stand in for blocks: marker i at i, the last block (if unmarked) right after them.
            count = 0 if last < 0 else len(facts) + (not at_end)
            automatic = self.facts[prompt.automatic] if prompt.automatic >= 0 else None
            resolved = self._resolved[key] = self._resolve(range(len(facts)), facts, automatic, count)
        if isinstance(resolved, str):
            return resolved
        return tuple((blocks[i] if i < len(blocks) else last, tier) for i, tier in resolved)

    def _resolve(
        self, blocks: Sequence[int], facts: Sequence[int], automatic: MarkerFact | None, block_count: int
    ) -> Breakpoints | str:
        try:
            return breakpoints(blocks, [self.facts[f] for f in facts], automatic, block_count, self.policy)
        except MarkerError as error:
            return str(error)

    def _placed(self, prompt: Prompt) -> Breakpoints | str:
        """Breakpoints where the strategy puts them, whatever was captured."""
        name, _, fact = self.strategy
        automatic = fact if name == "automatic" else None
        places = {"tools": prompt.last_tool, "system": prompt.last_system, "last-user": prompt.last_user}
        blocks = sorted({places[part] for part in name.split("+") if part in places and places[part] >= 0})
        try:
            return breakpoints(blocks, [fact] * len(blocks), automatic, prompt.block_count, self.policy)
        except MarkerError as error:
            return str(error)
