"""Remembered message texts: how far the raw bytes of a `messages` array are already known.

Agent traffic sends its whole history again with every request. A tree of raw messages, compared by memcmp at the speed
of memory, finds the known part without parsing it. The tree is only an accelerator: dropping it changes no result.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from cachesim.core.canonical import Json

if TYPE_CHECKING:
    from cachesim.prepare.chains import Chain

Parse: TypeAlias = Callable[[bytes], tuple[Json, bool]]

MEMORY_LIMIT: Final = 96 * 1024 * 1024
"""Bytes of raw messages kept at most; beyond it the tree starts anew (histories still growing are parsed once more)."""

READINGS_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of messages whose readings are kept at most."""

_OVERHEAD: Final = 500
"""Bytes that a remembered message costs besides its text."""

_SEVERAL: Final = -2
_ANCHOR_DEPTH: Final = 2
"""After this many messages sessions have usually parted, and one shortcut over the rest of the history pays."""
_SHORTCUT_STEPS: Final = 4
"""So many messages are found one by one sooner than the text of a whole history is copied."""

_SEPARATORS: Final = (b",", b"]")
_SPACES: Final = frozenset(b" \t\r\n")


class Piece(msgspec.Struct, eq=False):
    """One distinct message text. value: parsed, until it has been read; readings: what it means, see `bodies`, in the
    shape in which it was last read."""

    raw: bytes
    value: tuple[Json, bool] | None
    shape: int = -1
    readings: tuple[Any, ...] = ()


class KnownMessage(msgspec.Struct, eq=False):
    """One message after one particular history: a node of the tree. `chains(context)`: what is known after it.

    depth: how many messages that history has with it. Nearly always there are one context and one successor:
    collections are made only for the rest.
    """

    parent: KnownMessage | None
    piece: Piece
    depth: int
    last: KnownMessage | None = None
    shortcut: tuple[bytes, KnownMessage] | None = None
    _context: int = -1
    _chains: Any = None
    _branches: _Branches | None = None

    def chains(self, context: int) -> tuple[Chain, ...] | None:
        """The chains after this message in a context, if they are known."""
        if self._context == context:
            return self._chains  # type: ignore[no-any-return]
        return self._chains.get(context) if self._context == _SEVERAL else None

    def remember(self, context: int, chains: tuple[Chain, ...]) -> None:
        """Keep the chains after this message in a context."""
        if self._context == -1:
            self._context, self._chains = context, chains
            return
        if self._context != _SEVERAL:
            self._context, self._chains = _SEVERAL, {self._context: self._chains}
        self._chains[context] = chains

    def find(self, body: bytes, position: int) -> KnownMessage | None:
        """The known message whose text stands at `position`."""
        last = self.last
        if last is not None and body.startswith(last.piece.raw, position):
            return last
        branches = self._branches
        if branches is not None:
            # A JSON object is never a proper prefix of another one, so the only candidate for a text is its
            # predecessor in byte order.
            index = bisect_right(branches.raws, body[position : position + branches.longest]) - 1
            if index >= 0 and body.startswith(branches.raws[index], position):
                self.last = branches.messages[index]
                return self.last
        return None

    def add(self, piece: Piece) -> KnownMessage:
        """Remember one more message after this history (or return it, if it is known)."""
        last = self.last
        if last is not None and last.piece is piece:
            return last
        made = KnownMessage(self, piece, self.depth + 1)
        if last is not None:
            if self._branches is None:
                self._branches = _Branches([last.piece.raw], [last], len(last.piece.raw))
            made = self._branches.add(made)
        self.last = made
        return made


class _Branches(msgspec.Struct, eq=False):
    """The messages after a history, and their texts in byte order, the longest of so many bytes."""

    raws: list[bytes]
    messages: list[KnownMessage]
    longest: int

    def add(self, made: KnownMessage) -> KnownMessage:
        """Remember one more, or return the one with the same text."""
        raw = made.piece.raw
        index = bisect_right(self.raws, raw)
        if index and self.raws[index - 1] == raw:
            return self.messages[index - 1]
        self.raws.insert(index, raw)
        self.messages.insert(index, made)
        self.longest = max(self.longest, len(raw))
        return made


class MessageMemo:
    """The tree of known messages and the distinct texts in it, within a bound of memory."""

    def __init__(self, memory_limit: int = MEMORY_LIMIT) -> None:
        self._limit = memory_limit
        self._start()

    def _start(self) -> None:
        self.root = KnownMessage(None, Piece(b"", None), 0)
        self._messages: list[KnownMessage] = []
        self._pieces: dict[bytes, Piece] = {}
        self._used = 0
        self._read: deque[Piece] = deque()
        self._read_bytes = 0

    def trim(self) -> None:
        """Start anew when the memory limit is passed (between two bodies)."""
        if self._used > self._limit:
            self.clear()

    def clear(self) -> None:
        """Forget everything and free it at once."""
        for message in self._messages:
            message.parent = None  # or they would refer to each other until the cyclic collector comes
        self._start()

    def keep_readings(self, piece: Piece) -> None:
        """Bound what readings hold: they repeat the text as hash input, and are needed again only soon or never."""
        self._read.append(piece)
        self._read_bytes += len(piece.raw)
        while self._read_bytes > READINGS_LIMIT:
            old = self._read.popleft()
            self._read_bytes -= len(old.raw)
            old.shape, old.readings = -1, ()

    def add(self, known: KnownMessage, texts: Sequence[bytes], parse: Parse) -> KnownMessage:
        """Remember messages one after the other behind `known`; returns the last. parse: for texts not seen before."""
        self._used += _OVERHEAD * len(texts)
        for raw in texts:
            piece = self._pieces.get(raw)
            if piece is None:
                piece = self._pieces[raw] = Piece(raw, parse(raw))
                self._used += len(raw)
            known = known.add(piece)
            self._messages.append(known)
        return known

    def walk(self, body: bytes, position: int) -> tuple[KnownMessage, int]:
        """Follow known messages from `position`, the first byte of the array's content.

        Returns the last known message, and the position of the first unknown message or of the closing bracket.
        Bytes that are no JSON array end the walk; whoever reads on will notice.
        """
        known, position, ended = self._follow(body, self.root, position, _ANCHOR_DEPTH)
        if ended or known is self.root:
            return known, position
        anchor, start = known, position
        if anchor.shortcut is not None and body.startswith(anchor.shortcut[0], position):
            position += len(anchor.shortcut[0])
            known = anchor.shortcut[1]
        depth = known.depth
        known, position, _ = self._follow(body, known, position, len(body))
        if known.depth - depth >= _SHORTCUT_STEPS and body[position : position + 1] == b"{":
            self._used += position - start - (len(anchor.shortcut[0]) if anchor.shortcut else 0)
            anchor.shortcut = (body[start:position], known)
        return known, position

    def _follow(self, body: bytes, known: KnownMessage, position: int, most: int) -> tuple[KnownMessage, int, bool]:
        """At most `most` steps; the flag tells that the array ended or the next message is unknown."""
        for _ in range(most):
            found = known.find(body, position)
            if found is None:
                return known, position, True
            after = position + len(found.piece.raw)
            if body.startswith(b",{", after):
                known, position = found, after + 1
                continue
            if body[after : after + 1] not in _SEPARATORS:
                after = _skip_spaces(body, after)
            if body[after : after + 1] == b"]":
                return found, after, True
            if body[after : after + 1] != b",":
                return known, position, True
            after += 1
            if body[after : after + 1] != b"{":
                after = _skip_spaces(body, after)
                if body[after : after + 1] != b"{":  # a trailing comma or no JSON at all: left to the parser
                    return known, position, True
            known, position = found, after
        return known, position, False


def _skip_spaces(body: bytes, position: int) -> int:
    while position < len(body) and body[position] in _SPACES:
        position += 1
    return position
