"""Taking request bodies apart: what stands around the messages, and the messages, each parsed only when it is new.

A body is *rest* (everything but the content of `messages`) and messages. Both are remembered: the rest by its bytes,
the messages in a tree of raw texts. Validity stays exact, since every piece is checked when it is first seen, and
whatever cannot be taken apart with certainty is parsed as a whole, as `cachesim.core.prompt` does it.
"""

from __future__ import annotations

import re
import secrets
from typing import Final, NamedTuple

import msgspec
import orjson

from cachesim.core import ingress
from cachesim.core.canonical import MAX_DEPTH, Json, JsonError, decode
from cachesim.core.markers import MarkerFact, marker_fact
from cachesim.core.model import KNOWN_BODY, KNOWN_START
from cachesim.prepare.memo import KnownMessage, MessageMemo

# A key nobody can guess: if it comes back from the parser in the expected place, the cut was made in the right place.
_TOKEN: Final = secrets.token_hex(16)
_MARK: Final = b'"' + _TOKEN.encode() + b'"'
_SCALARS: Final = rb'(?:\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[^\s"\[\]{},]+)\s*,)*+'
_SIMPLE_HEAD: Final = re.compile(rb"\s*\{" + _SCALARS + rb'\s*"messages"\s*:\s*\[\s*(?=[{\]])')
_BIG_MEMBER_BYTES: Final = 256
_REMEMBERED_RESTS: Final = 4096
_REMEMBERED_HEADS: Final = 8
_REMEMBERED_ENDS: Final = 32
_SPACES: Final = b" \t\r\n"
_AFTER_KNOWN: Final = (b"{", b"]")
MESSAGE_ROOM: Final = MAX_DEPTH - 2
_MEMBER_ROOM: Final = MAX_DEPTH - 1


class _Cut(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw(b"")


class _Remainder(msgspec.Struct):
    content: msgspec.Raw = msgspec.field(name=_TOKEN)


_cut: Final = msgspec.json.Decoder(_Cut).decode
_remainder: Final = msgspec.json.Decoder(_Remainder).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


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

    @property
    def messages(self) -> int:
        """How many messages the body has."""
        return len(self.values) if self.known is None else self.known.depth


class _Walked(NamedTuple):
    """How far the body at line[start:] was known: up to `position`, behind `known`; `fresh` and `tail` are what is
    left of it, where `position` is its end."""

    line: bytes
    start: int
    position: int
    head: bytes
    known: KnownMessage
    fresh: list[bytes]
    tail: bytes


class BodyParts:
    """Takes bodies apart, remembering what it has seen."""

    def __init__(self) -> None:
        self.memo = MessageMemo()
        self._heads: list[bytes] = []
        self._valid_heads: set[bytes] = set()
        self._walked = _Walked(b"", 0, 0, b"", self.memo.root, [], b"")
        self._tails: dict[bytes, bytes] = {}
        self._ends: list[bytes] = []
        self._rests: dict[tuple[bytes, bytes], Rest] = {}
        self._rest_numbers: dict[tuple[bytes, bytes, str | None], int] = {}
        self._big_members: dict[bytes, Json] = {}

    def take_apart(self, body: bytes) -> TakenApart:
        """Split and check a body. Raises JsonError where upstream could not parse it."""
        try:
            return self._take_apart(body)
        except (Irregular, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._whole(self.restored(body))

    def known_part(self, line: bytes, start: int) -> tuple[int, bytes]:
        """How far the body at line[start:] is known, and what may stand in place of that part in the next body.

        All of it, for which KNOWN_BODY stands, if it is the last thing in the line and ends as one did before; else
        up to its first unknown message, for which KNOWN_START stands; -1 if nothing of it is known.
        """
        head = self._find_head(line, start)
        if head is None or head not in self._valid_heads:
            return -1, b""
        known, position = self.memo.walk(line, start + len(head))
        # Nearly always a bracket and a line feed are all that stands behind the body.
        stop = len(line) - 2 if line.endswith(b"}\n") else len(line.rstrip(_SPACES)) - 1
        found = self._split(line, position, stop) if line[stop : stop + 1] == b"}" else None
        if found is not None:
            self._walked = _Walked(line, start, stop, head, known, *found)
            return stop, KNOWN_BODY
        if known is self.memo.root:
            return -1, b""
        self._walked = _Walked(line, start, position, head, known, [], b"")
        return position, KNOWN_START

    def restored(self, body: bytes) -> bytes:
        """The body as it stands in the log, whatever stands for its known part."""
        line, start, position, *_ = self._walked
        if body == KNOWN_BODY:
            return line[start:position]
        if body.startswith(KNOWN_START):
            return line[start:position] + body[len(KNOWN_START) :]
        return body

    def _take_apart(self, body: bytes) -> TakenApart:
        if body == KNOWN_BODY:
            _, _, _, head, known, fresh, tail = self._walked
        elif body.startswith(KNOWN_START):
            _, _, _, head, known, _, _ = self._walked
            fresh, tail = self._fresh(body, len(KNOWN_START))
        else:
            head = self._head(body)
            known, position = self.memo.walk(body, len(head))
            if position != len(head) and body[position : position + 1] not in _AFTER_KNOWN:
                raise Irregular
            fresh, tail = self._fresh(body, position)
        rest = self._rest(head, tail)
        return TakenApart(rest, self.memo.add(known, fresh, _parse_message), len(fresh), [])

    def _fresh(self, body: bytes, position: int) -> tuple[list[bytes], bytes]:
        """The messages from `position` on, and what stands behind the array."""
        if body[position : position + 1] == b"]":
            return [], body[position + 1 :]
        found = self._split(body, position, len(body))
        if found is not None:
            return found
        content = bytes(_remainder(b'{"' + _TOKEN.encode() + b'":[' + body[position:]).content)
        tail = body[position + len(content) - 1 :]
        if len(self._tails) >= _REMEMBERED_ENDS:
            del self._tails[next(iter(self._tails))]
        self._tails[b"]" + tail] = tail
        self._ends = sorted(self._tails, key=len, reverse=True)
        return list(map(bytes, _elements(content))), tail

    def _split(self, line: bytes, position: int, stop: int) -> tuple[list[bytes], bytes] | None:
        """The same for the body that ends at line[stop:], null where it does not end as one did before."""
        for end in self._ends:
            # What stands before a known end is all of the array if, and only if, it is one.
            if line.endswith(end, position, stop):
                try:
                    elements = _elements(b"[" + line[position : stop + 1 - len(end)])
                except msgspec.DecodeError:
                    continue
                return list(map(bytes, elements)), self._tails[end]
        return None

    def _head(self, body: bytes) -> bytes:
        """What stands before the content of the `messages` array."""
        head = self._find_head(body, 0)
        if head is not None:
            return head
        array = bytes(_cut(body).messages)
        start = body.find(array)
        if array[:1] != b"[" or start < 0:
            raise Irregular
        start += 1
        while body[start : start + 1].isspace():
            start += 1
        return self._remember_head(body[:start])

    def _find_head(self, line: bytes, start: int) -> bytes | None:
        """The same for a body at line[start:] whose head is known or of scalars only; null for others."""
        for head in self._heads:
            if line.startswith(head, start):
                return head
        simple = _SIMPLE_HEAD.match(line, start)
        return None if simple is None else self._remember_head(simple.group())

    def _remember_head(self, head: bytes) -> bytes:
        self._heads.insert(0, head)
        del self._heads[_REMEMBERED_HEADS:]
        return head

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


def _parse_message(raw: bytes) -> tuple[Json, bool]:
    if raw[:1] != b"{":
        raise Irregular
    return decode(raw, MESSAGE_ROOM)


def _request_error(value: dict[str, Json]) -> str | None:
    if not isinstance(value.get("messages", []), list):
        return "messages: not an array"
    try:
        ingress.check_request(value)
    except ingress.IngressError as error:
        return str(error)
    return None
