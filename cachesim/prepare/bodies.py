"""Request bodies → chains of block boundaries, hashing each distinct message history only once.

What a history of messages means depends on a *context*: tokenizer, tools, system prompt, shape of the body. Within one,
the prompt after a known message is known too, and only what follows is hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from cachesim.core import ingress
from cachesim.core.blocks import Block, all_blocks, is_hashed, message_blocks, role_kind, text_feed, tool_blocks
from cachesim.core.canonical import Json, decode, renumber
from cachesim.core.markers import MarkerFact
from cachesim.core.policy import BodyRules
from cachesim.prepare.chains import (
    EMPTY,
    NO_SYSTEM,
    NO_USER,
    REFUSED,
    Chain,
    Facts,
    Slots,
    Step,
    extend,
    read_block,
)
from cachesim.prepare.memo import KnownMessage, Piece
from cachesim.prepare.nodes import Nodes
from cachesim.prepare.parts import MESSAGE_ROOM, BodyParts, Rest, TakenApart

QUERY_FACT: Final = MarkerFact("object", "ephemeral", "1h")
"""The top-level marker that `?cacheBreakpoint=lastUserMessage` stands for."""

_Readings: TypeAlias = tuple[Sequence[Step], ...]
"""What one element of `messages` adds to a prompt under each rule set; equal neighbours are one object."""

_NO_BLOCKS: Final[dict[str, list[Step]]] = {"user": [(NO_USER, b"", -1, -1)], "system": [(NO_SYSTEM, b"", -1, -1)]}
"""What a chat message without blocks adds, by its role."""


class Shape(NamedTuple):
    """How messages are read besides the rules: with which tokenizer, as which API, and under which rule sets (`asks`)
    the query parameter puts its marker into the body.

    reprints[i]: how often upstream prints the body and parses it again under rule set i, once for the translation of
    the Messages API and once for the query parameter; each time numbers pass its approximate parser.
    """

    number: int
    slots: Slots
    messages_api: bool
    asks: tuple[bool, ...]
    reprints: tuple[int, ...]


class ReadBody(NamedTuple):
    """A body under every rule set: chains[i] and automatic[i] (fact number, -1 none) belong to rules[i]."""

    chains: tuple[Chain, ...]
    automatic: tuple[int, ...]


class BodyReader:
    """Reads bodies into one forest of nodes. `rules`: the distinct body rule sets to prepare for."""

    def __init__(self, rules: Sequence[BodyRules], nodes: Nodes, facts: Facts) -> None:
        self.rules = tuple(rules)
        self.nodes = nodes
        self.facts = facts
        self.parts = BodyParts()
        self._contexts: dict[tuple[int, int], int] = {}
        self._shapes: dict[tuple[int, bool, tuple[bool, ...]], Shape] = {}
        self._roots: list[tuple[Chain, ...]] = []
        self._nobody_asks = (False,) * len(self.rules)
        self._none_automatic = (-1,) * len(self.rules)

    def read(self, parts: TakenApart, slots: Slots, slots_no: int, *, messages_api: bool, query: bool) -> ReadBody:
        """The chains of a body. messages_api: it came in on `…/messages`; query: its URI asks for a marker."""
        rest = parts.rest
        asks = tuple(_asks(rest, rules, messages_api) for rules in self.rules) if query else self._nobody_asks
        key = (slots_no, messages_api, asks)
        shape = self._shapes.get(key)
        if shape is None:
            reprints = tuple(messages_api + asked for asked in asks)
            shape = self._shapes[key] = Shape(len(self._shapes), slots, messages_api, asks, reprints)
        chains = self._chains(parts, self._context(rest, shape), shape)
        self.parts.memo.trim()
        if rest.automatic is None and not query:
            return ReadBody(chains, self._none_automatic)
        return ReadBody(chains, tuple(self._automatic(rest, place, shape) for place in range(len(self.rules))))

    def _context(self, rest: Rest, shape: Shape) -> int:
        """The number of all that decides what a history means besides the messages; its roots are in `_roots`."""
        key = (rest.number, shape.number)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = len(self._roots)
            self._roots.append(tuple(self._root(rest, place, shape) for place in range(len(self.rules))))
        return context

    def _root(self, rest: Rest, place: int, shape: Shape) -> Chain:
        """The prompt before its first message: the tools, and in the Messages API the system prompt."""
        if shape.messages_api and rest.error is not None:
            return msgspec.structs.replace(EMPTY, error=rest.error)
        rules, times = self.rules[place], shape.reprints[place]
        blocks: list[Block] = []
        for tool in rest.tools:
            value = ingress.translate_tool(tool, rules) if shape.messages_api else tool
            blocks += tool_blocks(_reprinted(value, times), rules)
        if shape.messages_api:
            for message in ingress.translate_system(rest.system, rules):
                blocks += message_blocks(_reprinted(message, times), rules)
        read = [read_block(block, shape.slots, self.facts) for block in blocks]
        return extend(EMPTY, [[read]], 0, self.nodes, shape.slots)

    def _chains(self, parts: TakenApart, context: int, shape: Shape) -> tuple[Chain, ...]:
        chains = self._roots[context]
        if parts.known is None:
            values = [self._readings(value, plain, shape) for value, plain in parts.values]
            return self._grow(chains, [values], shape)[-1]
        message = parts.known
        missing: list[KnownMessage] = []
        while message.parent is not None:
            found = message.chains(context)
            if found is not None:
                chains = found
                break
            missing.append(message)
            message = message.parent
        if not missing:
            return chains
        missing.reverse()
        # Chains hold hash states, so they are kept only where a history is likely to go on: at its end (the last
        # marked message comes again without its marker), and where this history left a known one.
        ends = {len(missing) - parts.fresh, len(missing)}
        if b"cache_control" in missing[-1].piece.raw:
            ends.add(len(missing) - 1)
        ends.discard(0)
        readings = [self._piece_readings(message.piece, shape) for message in missing]
        cuts = sorted(ends)
        runs = [readings[start:end] for start, end in zip([0, *cuts], cuts, strict=False)]
        states = self._grow(chains, runs, shape)
        for end, state in zip(cuts, states, strict=True):
            missing[end - 1].remember(context, state)
        return states[-1]

    def _piece_readings(self, piece: Piece, shape: Shape) -> _Readings:
        """What a message text means under every rule set, worked out once per shape."""
        if piece.shape != shape.number:
            value, plain = piece.value or decode(piece.raw, MESSAGE_ROOM)
            piece.value, piece.shape = None, shape.number
            piece.readings = self._readings(value, plain, shape)
            self.parts.memo.keep_readings(piece)
        return piece.readings

    def _readings(self, value: Json, plain: bool, shape: Shape) -> _Readings:
        if shape.messages_api or (not plain and any(shape.asks)):
            readings: list[Sequence[Step]] = []
            for place in range(len(self.rules)):
                reading = self._reading(value, plain, place, shape)
                readings.append(readings[-1] if readings and readings[-1] == reading else reading)
            return tuple(readings)
        if type(value) is dict and "tool_calls" not in value:
            role, content = value.get("role"), value.get("content")
            if type(role) is str and type(content) is str:  # the commonest message, about which no rules disagree
                step = (role_kind(role), text_feed(role, content), shape.slots.slot(content), -1)
                return ([step],) * len(self.rules)
        return self._chat_readings(value, plain, shape)

    def _chat_readings(self, message: Json, plain: bool, shape: Shape) -> _Readings:
        """Those of a chat message of which the rules at most leave out blocks: each is read once."""
        nothing = _NO_BLOCKS.get(_role(message), [])
        blocks = all_blocks(message, plain or None)
        if not _rules_matter(message):
            return ([read_block(block, shape.slots, self.facts) for block in blocks] or nothing,) * len(self.rules)
        steps: list[Step | None] = [None] * len(blocks)
        readings: list[Sequence[Step]] = []
        for rules in self.rules:
            reading: list[Step] = []
            for number, block in enumerate(blocks):
                if is_hashed(block, message, rules):
                    step = steps[number]
                    if step is None:
                        step = steps[number] = read_block(block, shape.slots, self.facts)
                    reading.append(step)
            readings.append(readings[-1] if readings and readings[-1] == reading else reading or nothing)
        return tuple(readings)

    def _reading(self, value: Json, plain: bool, place: int, shape: Shape) -> list[Step]:
        rules = self.rules[place]
        messages = [value]
        if shape.messages_api:
            try:
                messages = ingress.translate_message(value, rules)
            except ingress.IngressError as error:
                return [(REFUSED, str(error).encode(), -1, -1)]
        if not plain:
            messages = [_reprinted(message, shape.reprints[place]) for message in messages]
        steps: list[Step] = []
        for message in messages:
            own = [read_block(block, shape.slots, self.facts) for block in message_blocks(message, rules)]
            steps += own or _NO_BLOCKS.get(_role(message), [])
        return steps

    def _grow(
        self, chains: tuple[Chain, ...], runs: Sequence[Sequence[_Readings]], shape: Shape
    ) -> list[tuple[Chain, ...]]:
        """Every rule set's chain after each run of messages; chains that stay equal stay one object.

        One rule set after the other over all runs: so the order in which nodes are first seen, which numbers them, does
        not depend on where a history is cut into runs, and that depends on what the memo knows.
        """
        grown: list[list[Chain]] = []
        for place, chain in enumerate(chains):
            states: list[Chain] = []
            for number, run in enumerate(runs):
                for earlier in range(place):
                    before = grown[earlier][number - 1] if number else chains[earlier]
                    if before is chain and all(readings[earlier] is readings[place] for readings in run):
                        chain = grown[earlier][number]
                        break
                else:
                    chain = extend(chain, run, place, self.nodes, shape.slots)
                states.append(chain)
            grown.append(states)
        return list(zip(*grown, strict=True))

    def _automatic(self, rest: Rest, place: int, shape: Shape) -> int:
        if shape.asks[place]:
            return self.facts.number(QUERY_FACT)
        own = _own_marker(rest, self.rules[place], shape.messages_api)
        return -1 if own is None else self.facts.number(own)


def _own_marker(rest: Rest, rules: BodyRules, messages_api: bool) -> MarkerFact | None:
    """The body's own top-level marker, as far as the translation passes it on."""
    return rest.automatic if rules.ingress_top_level_marker or not messages_api else None


def _asks(rest: Rest, rules: BodyRules, messages_api: bool) -> bool:
    """Whether the query parameter's marker goes into the body: only where the body brings none of its own."""
    return rules.query_marker and _own_marker(rest, rules, messages_api) is None


def _reprinted(value: Json, times: int) -> Json:
    for _ in range(times):
        value = renumber(value)
    return value


def _rules_matter(message: Json) -> bool:
    """Whether rules can leave out a block of a chat message: telemetry in system content, tool calls."""
    return type(message) is dict and (message.get("role") == "system" or "tool_calls" in message)


def _role(message: Json) -> str:
    role = message.get("role") if type(message) is dict else None
    return role if type(role) is str else ""
