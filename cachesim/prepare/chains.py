"""Growing prompts: the running hash, boundary and marker facts after each message, for every body rule set at once."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from cachesim.core.blocks import KINDS, TOOL_DEFINITION, Block
from cachesim.core.gates import Prompt
from cachesim.core.markers import MarkerFact
from cachesim.prepare.nodes import Nodes

_SYSTEM: Final = KINDS.index("system")
_USER: Final = KINDS.index("user")


class Counter(Protocol):
    """Whoever counts tokens: hands out a slot per text, whose count is known later."""

    def slot(self, text: str) -> int: ...


class Chain(NamedTuple):
    """A prompt so far under one rule set. Shared between prompts, never changed.

    hasher: running SHA-256, copied before it is fed; node: boundary after the last block, -1 without blocks;
    blocks: how many; marker_blocks/marker_facts: captured markers by position and fact number;
    last_user, last_system, last_tool: block numbers, -1 for none; error: why upstream's ingress answers 400.
    """

    hasher: Any
    node: int
    blocks: int
    marker_blocks: tuple[int, ...]
    marker_facts: tuple[int, ...]
    last_user: int
    last_system: int
    last_tool: int
    error: str | None = None

    def prompt(self, automatic: int) -> Prompt:
        """What is kept of a finished prompt. automatic: fact number of its top-level marker, -1 for none."""
        return Prompt(
            self.node,
            self.blocks,
            self.marker_blocks,
            self.marker_facts,
            automatic,
            self.last_user,
            self.last_system,
            self.last_tool,
            self.error,
        )


EMPTY: Final = Chain(hashlib.sha256(), -1, 0, (), (), -1, -1, -1)


class Facts:
    """Distinct marker facts, numbered in order of appearance."""

    def __init__(self) -> None:
        self.all: list[MarkerFact] = []
        self._numbers: dict[MarkerFact, int] = {}

    def number(self, fact: MarkerFact) -> int:
        found = self._numbers.get(fact)
        if found is None:
            found = self._numbers[fact] = len(self.all)
            self.all.append(fact)
        return found


class Slots:
    """Which count slot holds the tokens of each node's own block, for one tokenizer. by_node[n] is -1 where unknown."""

    def __init__(self, counter: Counter | None) -> None:
        self.counter = counter
        self.by_node = array("i")

    def note(self, node: int, text: str) -> None:
        """Have the text of `node`'s block counted, unless it already is."""
        if self.counter is None:
            return
        missing = node + 1 - len(self.by_node)
        if missing > 0:
            self.by_node.extend([-1] * missing)
        if self.by_node[node] < 0:
            self.by_node[node] = self.counter.slot(text)


def extend(chain: Chain, blocks: Sequence[Block], nodes: Nodes, slots: Slots, facts: Facts) -> Chain:
    """`chain` grown by `blocks`."""
    if not blocks or chain.error is not None:
        return chain
    hasher = chain.hasher.copy()
    node, position = chain.node, chain.blocks
    marker_blocks, marker_facts = chain.marker_blocks, chain.marker_facts
    last_user, last_system, last_tool = chain.last_user, chain.last_system, chain.last_tool
    for kind, _, feed, text, marker in blocks:
        hasher.update(feed)
        node = nodes.child(node, hasher.digest(), kind)
        slots.note(node, text)
        if marker is not None:
            marker_blocks += (position,)
            marker_facts += (facts.number(marker),)
        if kind == _USER:
            last_user = position
        elif kind == _SYSTEM:
            last_system = position
        elif kind == TOOL_DEFINITION:
            last_tool = position
        position += 1
    return Chain(hasher, node, position, marker_blocks, marker_facts, last_user, last_system, last_tool)
