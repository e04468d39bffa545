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

    def slot(self, text: str) -> int:
        """Have a text counted; -1 without a tokenizer."""
        return -1 if self.counter is None else self.counter.slot(text)

    def put(self, node: int, slot: int) -> None:
        """Note which slot holds the tokens of a node's own block."""
        by_node = self.by_node
        if node >= len(by_node):
            by_node.extend([-1] * (node + 1 - len(by_node)))
        by_node[node] = slot


class ReadBlock(NamedTuple):
    """A block as chains need it: what it is, hash input, count slot and marker fact number (-1: unmarked)."""

    kind: int
    feed: bytes
    slot: int
    marker: int


def read_block(block: Block, slots: Slots, facts: Facts) -> ReadBlock:
    """Have a block's text counted and its marker numbered."""
    marker = -1 if block.marker is None else facts.number(block.marker)
    return ReadBlock(block.kind, block.feed, slots.slot(block.text), marker)


def extend(chain: Chain, blocks: Sequence[ReadBlock], nodes: Nodes, slots: Slots) -> Chain:
    """`chain` grown by `blocks`."""
    if not blocks or chain.error is not None:
        return chain
    hasher = chain.hasher.copy()
    node, position = chain.node, chain.blocks
    marker_blocks, marker_facts = chain.marker_blocks, chain.marker_facts
    last_user, last_system, last_tool = chain.last_user, chain.last_system, chain.last_tool
    by_node = slots.by_node
    for kind, feed, slot, marker in blocks:
        hasher.update(feed)
        node = nodes.child(node, hasher.digest(), kind)
        if node == len(by_node):
            by_node.append(slot)
        elif node > len(by_node):
            by_node.extend([-1] * (node - len(by_node)))
            by_node.append(slot)
        elif slot >= 0:
            by_node[node] = slot
        if marker >= 0:
            marker_blocks += (position,)
            marker_facts += (marker,)
        if kind == _USER:
            last_user = position
        elif kind == _SYSTEM:
            last_system = position
        elif kind == TOOL_DEFINITION:
            last_tool = position
        position += 1
    return Chain(hasher, node, position, marker_blocks, marker_facts, last_user, last_system, last_tool)
