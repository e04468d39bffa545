"""Request bodies → chains of block boundaries, parsing and hashing each distinct message history only once.

A body is taken apart as *rest* (everything but the content of `messages`) and the messages. Both are remembered: the
rest by its bytes, the messages in a tree of raw texts. What a history of messages means depends on a *context*:
tokenizer, tools, system prompt, shape of the body. Validity stays exact, since every piece is checked when it is first
seen, and whatever cannot be taken apart with certainty is parsed as a whole, as `cachesim.core.prompt` does it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
import orjson

from cachesim.core import ingress
from cachesim.core.blocks import Block, message_blocks, text_block, tool_blocks
from cachesim.core.canonical import MAX_DEPTH, Json, JsonError, decode, renumber
from cachesim.core.markers import MarkerFact, marker_fact
from cachesim.core.policy import BodyRules
from cachesim.prepare.chains import EMPTY, Chain, Facts, ReadBlock, Slots, extend, read_block
from cachesim.prepare.memo import KnownMessage, MessageMemo, Piece
from cachesim.prepare.nodes import Nodes

QUERY_FACT: Final = MarkerFact("object", "ephemeral", "1h")
"""The top-level marker that `?cacheBreakpoint=lastUserMessage` stands for."""

# A key nobody can guess: if it comes back from the parser in the expected place, the cut was made in the right place.
_TOKEN: Final = secrets.token_hex(16)
_MARK: Final = b'"' + _TOKEN.encode() + b'"'
_SCALARS: Final = rb'(?:\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[^\s"\[\]{},]+)\s*,)*+'
_SIMPLE_HEAD: Final = re.compile(rb"\s*\{" + _SCALARS + rb'\s*"messages"\s*:\s*\[\s*(?=[{\]])')
_BIG_MEMBER_BYTES: Final = 256
_REMEMBERED_RESTS: Final = 4096
_REMEMBERED_HEADS: Final = 8
_EXTENDABLE_ENDS: Final = 1
"""Chains are kept after the last message and this many before it."""

_MESSAGE_ROOM: Final = MAX_DEPTH - 2
_MEMBER_ROOM: Final = MAX_DEPTH - 1


class _Cut(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw(b"")


class _Remainder(msgspec.Struct):
    content: msgspec.Raw = msgspec.field(name=_TOKEN)


_cut: Final = msgspec.json.Decoder(_Cut).decode
_remainder: Final = msgspec.json.Decoder(_Remainder).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


_Reading: TypeAlias = "list[tuple[str, list[ReadBlock]]] | str"
"""The chat messages that one element of `messages` stands for, as (role, blocks); or why ingress refuses it."""


class Irregular(Exception):
    """The body cannot be taken apart with certainty."""


class Rest(NamedTuple):
    """What a body says outside `messages`. number: stands for tools and system; model: null if not a string."""

    number: int
    model: str | None
    automatic: MarkerFact | None
    tools: Json
    system: Json
    error: str | None


class TakenApart(NamedTuple):
    """A checked body. known: its last message in the memo, `fresh` of which were just added to it; null where it is not
    remembered, then `values` holds all messages, each with the flag of `cachesim.core.canonical.decode`."""

    rest: Rest
    known: KnownMessage | None
    fresh: int
    values: list[tuple[Json, bool]]


class Shape(NamedTuple):
    """How messages are read besides the rules: with which tokenizer, as which API, and whether upstream prints the
    body and parses it once more (`twice`) to put the query parameter's marker in."""

    number: int
    slots: Slots
    messages_api: bool
    twice: bool


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
        self.memo = MessageMemo()
        self._heads: list[bytes] = []
        self._valid_heads: set[bytes] = set()
        self._walked: tuple[bytes, int, KnownMessage] | None = None
        self._rests: dict[tuple[bytes, bytes], Rest] = {}
        self._rest_numbers: dict[tuple[bytes, bytes, str | None], int] = {}
        self._big_members: dict[bytes, Json] = {}
        self._contexts: dict[tuple[int, int], int] = {}
        self._shapes: dict[tuple[int, bool, bool], Shape] = {}
        self._roots: list[tuple[Chain, ...]] = []

    def take_apart(self, body: bytes) -> TakenApart:
        """Split and check a body. Raises JsonError where upstream could not parse it."""
        try:
            return self._take_apart(body)
        except (Irregular, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._whole(body)

    def read(self, parts: TakenApart, slots: Slots, slots_no: int, *, messages_api: bool, query: bool) -> ReadBody:
        """The chains of a body. messages_api: it came in on `…/messages`; query: its URI asks for a marker."""
        rest = parts.rest
        key = (slots_no, messages_api, query and rest.automatic is None)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(len(self._shapes), slots, messages_api, key[2])
        chains = self._chains(parts, self._context(rest, shape), shape)
        self.memo.trim()
        return ReadBody(chains, tuple(self._automatic(rest, rules, shape) for rules in self.rules))

    # -- taking apart

    def known_prefix(self, line: bytes, start: int) -> bytes:
        """The beginning of the body at line[start:] up to its first unknown message; b"" if nothing of it is known.

        It is remembered for `take_apart`, which usually gets this very body next.
        """
        self._walked = None
        content = self._content_start(line, start)
        if content < 0 or line[start:content] not in self._valid_heads:
            return b""
        known, position = self.memo.walk(line, content)
        if known is self.memo.root:
            return b""
        prefix = line[start:position]
        self._walked = (prefix, content - start, known)
        return prefix

    def _take_apart(self, body: bytes) -> TakenApart:
        walked, self._walked = self._walked, None
        if walked is not None and body.startswith(walked[0]):
            start, known, position = walked[1], walked[2], len(walked[0])
        else:
            start = self._messages_start(body)
            known, position = self.memo.walk(body, start)
        head = body[:start]
        if body[position : position + 1] == b"]":
            tail = body[position + 1 :]
            fresh: list[bytes] = []
        else:
            if start != position and body[position : position + 1] != b"{":
                raise Irregular
            content = bytes(_remainder(b'{"' + _TOKEN.encode() + b'":[' + body[position:]).content)
            tail = body[position + len(content) - 1 :]
            fresh = [bytes(raw) for raw in _elements(content)]
        rest = self._rest(head, tail)
        for raw in fresh:
            if raw[:1] != b"{":
                raise Irregular
            piece = self.memo.piece(raw)
            if piece is None:
                piece = self.memo.new_piece(raw, decode(raw, _MESSAGE_ROOM))
            known = self.memo.add(known, piece)
        return TakenApart(rest, known, len(fresh), [])

    def _messages_start(self, body: bytes) -> int:
        """Where the content of the `messages` array begins."""
        start = self._content_start(body, 0)
        if start >= 0:
            return start
        array = bytes(_cut(body).messages)
        start = body.find(array)
        if array[:1] != b"[" or start < 0:
            raise Irregular
        start += 1
        while body[start : start + 1].isspace():
            start += 1
        self._heads.insert(0, body[:start])
        del self._heads[_REMEMBERED_HEADS:]
        return start

    def _content_start(self, line: bytes, start: int) -> int:
        """The same for a body at line[start:] whose head is known or of scalars only; -1 for others."""
        for head in self._heads:
            if line.startswith(head, start):
                return start + len(head)
        simple = _SIMPLE_HEAD.match(line, start)
        return -1 if simple is None else simple.end()

    def _rest(self, head: bytes, tail: bytes) -> Rest:
        rest = self._rests.get((head, tail))
        if rest is None:
            if len(self._rests) >= _REMEMBERED_RESTS:
                self._rests.clear()
            rest = self._rests[head, tail] = self._parse_rest(head, tail)
            if len(self._valid_heads) >= _REMEMBERED_RESTS:
                self._valid_heads.clear()
            self._valid_heads.add(head)
        return rest

    def _parse_rest(self, head: bytes, tail: bytes) -> Rest:
        text = head + _MARK + b"]" + tail
        members = _members(text)
        big: dict[str, bytes] = {}
        for name in ("tools", "system"):
            raw = bytes(members.get(name, b""))
            if len(raw) >= _BIG_MEMBER_BYTES:
                big[name] = raw
                text = text.replace(raw, _MARK, 1)
        try:
            value, _ = decode(text)
        except JsonError:  # wrongly cut or really invalid: the plain reading knows
            raise Irregular from None
        if value.get("messages") != [_TOKEN] or any(value.get(name) != _TOKEN for name in big):
            raise Irregular
        for name, raw in big.items():
            value[name] = self._big_member(raw)
        return self._make_rest(value, big)

    def _big_member(self, raw: bytes) -> Json:
        """The value of a long member such as `tools`, parsed once."""
        if raw not in self._big_members:
            if len(self._big_members) >= _REMEMBERED_RESTS:
                self._big_members.clear()
            self._big_members[raw] = decode(raw, _MEMBER_ROOM)[0]
        return self._big_members[raw]

    def _make_rest(self, value: dict[str, Json], big: dict[str, bytes]) -> Rest:
        tools, system = value.get("tools"), value.get("system")
        error = _request_error(value)
        key = (big.get("tools") or orjson.dumps(tools), big.get("system") or orjson.dumps(system), error)
        number = self._rest_numbers.setdefault(key, len(self._rest_numbers))
        model = value.get("model")
        automatic = value.get("cache_control")
        return Rest(
            number,
            model if type(model) is str else None,
            None if automatic is None else marker_fact(automatic),
            tools if type(tools) is list else [],
            system,
            error,
        )

    def _whole(self, body: bytes) -> TakenApart:
        """The plain way: parse everything, remember nothing."""
        value, plain = decode(body)
        if type(value) is not dict:
            value = {}
        messages = value.get("messages")
        rest = self._make_rest(value, {})
        return TakenApart(rest, None, 0, [(message, plain) for message in messages] if type(messages) is list else [])

    # -- chains

    def _context(self, rest: Rest, shape: Shape) -> int:
        """The number of all that decides what a history means besides the messages; its roots are in `_roots`."""
        key = (rest.number, shape.number)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = len(self._roots)
            self._roots.append(tuple(self._root(rest, rules, shape) for rules in self.rules))
        return context

    def _root(self, rest: Rest, rules: BodyRules, shape: Shape) -> Chain:
        """The prompt before its first message: the tools, and in the Messages API the system prompt."""
        if shape.messages_api and rest.error is not None:
            return EMPTY._replace(error=rest.error)
        again = shape.messages_api or (shape.twice and rules.query_marker)
        blocks: list[Block] = []
        for tool in rest.tools:
            value = ingress.translate_tool(tool, rules) if shape.messages_api else tool
            blocks += tool_blocks(renumber(value) if again else value, rules)
        if shape.messages_api:
            for message in ingress.translate_system(rest.system, rules):
                blocks += message_blocks(renumber(message), rules)
        read = [read_block(block, shape.slots, self.facts) for block in blocks]
        return extend(EMPTY, read, self.nodes, shape.slots)

    def _chains(self, parts: TakenApart, context: int, shape: Shape) -> tuple[Chain, ...]:
        chains = self._roots[context]
        if parts.known is None:
            for value, plain in parts.values:
                chains = self._grow(chains, [self._readings(value, plain, shape)], shape)
            return chains
        message = parts.known
        missing: list[KnownMessage] = []
        while message.parent is not None:
            found = message.chains(context)
            if found is not None:
                chains = found
                break
            missing.append(message)
            message = message.parent
        missing.reverse()
        # Chains hold hash states, so they are kept only where a history is likely to go on: at its end (the last
        # message often comes again without its marker), and where this history left a known one.
        branch = len(missing) - parts.fresh
        keep = sorted({k for k in (branch, *range(len(missing) - _EXTENDABLE_ENDS, len(missing) + 1)) if k > 0})
        start = 0
        for end in keep:
            run = [self._piece_readings(message.piece, shape) for message in missing[start:end]]
            chains = self._grow(chains, run, shape)
            missing[end - 1].remember(context, chains)
            start = end
        return chains

    def _piece_readings(self, piece: Piece, shape: Shape) -> tuple[_Reading, ...]:
        """What a message text means under every rule set, worked out once per shape."""
        readings = piece.reads.get(shape.number)
        if readings is None:
            value, plain = piece.value or decode(piece.raw, _MESSAGE_ROOM)
            readings = piece.reads[shape.number] = self._readings(value, plain, shape)
            piece.value = None
            self.memo.keep_readings(piece)
        return readings

    def _readings(self, value: Json, plain: bool, shape: Shape) -> tuple[_Reading, ...]:
        """One reading per rule set; equal ones are one object."""
        simple = None if shape.messages_api else _simple_message(value)
        if simple is not None:
            alike: _Reading = [(simple.role, [read_block(simple, shape.slots, self.facts)])]
            return (alike,) * len(self.rules)
        same = not shape.messages_api and (plain or not shape.twice) and not _rules_matter(value)
        readings: list[_Reading] = []
        for rules in self.rules:
            reading = readings[0] if same and readings else self._reading(value, plain, rules, shape)
            readings.append(next((r for r in readings if r == reading), reading))
        return tuple(readings)

    def _reading(self, value: Json, plain: bool, rules: BodyRules, shape: Shape) -> _Reading:
        messages = [value]
        if shape.messages_api:
            try:
                messages = ingress.translate_message(value, rules)
            except ingress.IngressError as error:
                return str(error)
        if not plain and (shape.messages_api or (shape.twice and rules.query_marker)):
            messages = [renumber(message) for message in messages]
        return [
            (_role(message), [read_block(b, shape.slots, self.facts) for b in message_blocks(message, rules)])
            for message in messages
        ]

    def _grow(self, chains: tuple[Chain, ...], run: Sequence[tuple[_Reading, ...]], shape: Shape) -> tuple[Chain, ...]:
        """Every rule set's chain after a run of messages; chains that stay equal stay one object."""
        grown: list[Chain] = []
        for place, chain in enumerate(chains):
            for earlier in range(place):
                if chains[earlier] is chain and all(readings[earlier] is readings[place] for readings in run):
                    grown.append(grown[earlier])
                    break
            else:
                grown.append(self._append(chain, [readings[place] for readings in run], shape.slots))
        return tuple(grown)

    def _append(self, chain: Chain, run: Sequence[_Reading], slots: Slots) -> Chain:
        """`chain` after a run of messages; blocks are hashed together as far as nothing happens in between."""
        blocks: list[ReadBlock] = []
        for reading in run:
            if isinstance(reading, str):
                chain = extend(chain, blocks, self.nodes, slots)
                return chain if chain.error else chain._replace(error=reading)
            for role, own in reading:
                blocks += own
                if not own and role in ("user", "system"):  # the last such message has no block to carry a marker
                    chain = extend(chain, blocks, self.nodes, slots)
                    chain = chain._replace(last_user=-1) if role == "user" else chain._replace(last_system=-1)
                    blocks = []
        return extend(chain, blocks, self.nodes, slots)

    def _automatic(self, rest: Rest, rules: BodyRules, shape: Shape) -> int:
        if shape.twice and rules.query_marker:
            return self.facts.number(QUERY_FACT)
        if rest.automatic is None or (shape.messages_api and not rules.ingress_top_level_marker):
            return -1
        return self.facts.number(rest.automatic)


def _request_error(value: dict[str, Json]) -> str | None:
    try:
        ingress.check_request(value)
    except ingress.IngressError as error:
        return str(error)
    return None


def _simple_message(value: Json) -> Block | None:
    """The one block of the commonest message, a role and a text, about which no rules disagree."""
    if type(value) is dict and len(value) == 2:
        role, content = value.get("role"), value.get("content")
        if type(role) is str and type(content) is str:
            return text_block(role, content)
    return None


def _rules_matter(message: Json) -> bool:
    """Whether body rules can disagree about a chat message: telemetry in system content, tool calls."""
    if type(message) is not dict:
        return False
    return message.get("role") == "system" or "tool_calls" in message


def _role(message: Json) -> str:
    role = message.get("role") if type(message) is dict else None
    return role if type(role) is str else ""
