"""Growing prompts: the running hash, boundary and marker facts after each message, for every body rule set at once."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from cachesim.core.blocks import KINDS, TOOL_DEFINITION, Block
from cachesim.core.gates import Prompt
from cachesim.core.markers import MarkerFact
from cachesim.prepare.nodes import Nodes

_SYSTEM: Final = KINDS.index("system")
_USER: Final = KINDS.index("user")

Step: TypeAlias = tuple[int, bytes, int, int]
"""What a prompt grows by: a block's kind, hash input, count slot and marker fact number (-1: unmarked).

Kinds below 0 are no blocks. NO_USER, NO_SYSTEM: a message of that role without blocks, as the last of its role nothing
can carry its marker; REFUSED: why upstream's ingress answers 400, in place of the hash input.
"""
NO_USER: Final = -1
NO_SYSTEM: Final = -2
REFUSED: Final = -3


class Counter(Protocol):
    """Whoever counts tokens: hands out a slot per text, whose count is known later."""

    def slot(self, text: str) -> int: ...


class Chain(msgspec.Struct, frozen=True, gc=False):
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
    """Which count slot holds the tokens of each node's own block, for one tokenizer. by_node[n] is -1 where unknown.

    slot: has a text counted; -1 without a tokenizer.
    """

    def __init__(self, counter: Counter | None) -> None:
        self.slot: Callable[[str], int] = _no_slot if counter is None else counter.slot
        self.by_node = array("i")

    def put(self, known: Iterable[tuple[int, int]], nodes: int) -> None:
        """Note which slots hold the tokens of nodes' own blocks, of so many nodes in all."""
        by_node = self.by_node
        by_node.extend([-1] * (nodes - len(by_node)))
        for node, slot in known:
            by_node[node] = slot


def _no_slot(_: str) -> int:
    return -1


def read_block(block: Block, slots: Slots, facts: Facts) -> Step:
    """Have a block's text counted and its marker numbered."""
    marker = -1 if block.marker is None else facts.number(block.marker)
    return block.kind, block.feed, slots.slot(block.text), marker


def extend(chain: Chain, run: Iterable[Sequence[Sequence[Step]]], place: int, nodes: Nodes, slots: Slots) -> Chain:
    """`chain` grown by the steps of a run of messages under the rule set at `place`."""
    if chain.error is not None:
        return chain
    hasher = chain.hasher.copy()
    update, digest, child = hasher.update, hasher.digest, nodes.child
    node, position = chain.node, chain.blocks
    marker_blocks, marker_facts = chain.marker_blocks, chain.marker_facts
    last_user, last_system, last_tool = chain.last_user, chain.last_system, chain.last_tool
    by_node = slots.by_node
    for steps in run:
        for kind, feed, slot, marker in steps[place]:
            if kind < 0:
                if kind == REFUSED:
                    error = feed.decode()
                    return Chain(
                        hasher, node, position, marker_blocks, marker_facts, last_user, last_system, last_tool, error
                    )
                last_user, last_system = (-1, last_system) if kind == NO_USER else (last_user, -1)
                continue
            update(feed)
            node = child(node, digest(), kind)
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
