"""Remembered message texts: how far the raw bytes of a `messages` array are already known.

Agent traffic sends its whole history again with every request. A tree of raw messages, compared by memcmp at the speed
of memory, finds the known part without parsing it. The tree is only an accelerator: dropping it changes no result.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cachesim.prepare.chains import Chain

MEMORY_LIMIT: Final = 128 * 1024 * 1024
"""Bytes of raw messages kept at most; beyond it the tree starts anew (histories still growing are parsed once more)."""

_OVERHEAD: Final = 800
"""Bytes that a remembered message costs besides its text."""
_ANCHOR_DEPTH: Final = 2
"""After this many messages sessions have usually parted, and one shortcut over the rest of the history pays."""

_SEPARATORS: Final = (b",", b"]")
_SPACES: Final = frozenset(b" \t\r\n")


class KnownMessage:
    """One message after one particular history. `chains[context]`: what is known after it, see `cachesim.prepare.bodies`."""

    __slots__ = ("chains", "last", "parent", "raw", "raws", "shortcut", "successors")

    def __init__(self, parent: KnownMessage | None, raw: bytes) -> None:
        self.parent = parent
        self.raw = raw
        self.chains: dict[int, tuple[Chain, ...]] = {}
        self.last: KnownMessage | None = None
        # Sorted side by side. A JSON object is never a proper prefix of another one, so the only candidate for a
        # text is its predecessor in byte order.
        self.raws: list[bytes] = []
        self.successors: list[KnownMessage] = []
        self.shortcut: tuple[bytes, KnownMessage] | None = None

    def find(self, body: bytes, position: int) -> KnownMessage | None:
        """The known message whose text stands at `position`."""
        last = self.last
        if last is not None and body.startswith(last.raw, position):
            return last
        if len(self.raws) > 1:
            index = bisect_right(self.raws, body[position:]) - 1
            if index >= 0 and body.startswith(self.raws[index], position):
                self.last = self.successors[index]
                return self.last
        return None

    def add(self, raw: bytes) -> KnownMessage:
        """Remember one more message after this history (or return it, if it is known)."""
        index = bisect_right(self.raws, raw)
        if index and self.raws[index - 1] == raw:
            return self.successors[index - 1]
        self.last = KnownMessage(self, raw)
        self.raws.insert(index, raw)
        self.successors.insert(index, self.last)
        return self.last


class MessageMemo:
    """The tree of known messages, within a bound of memory."""

    def __init__(self, memory_limit: int = MEMORY_LIMIT) -> None:
        self._limit = memory_limit
        self._used = 0
        self.root = KnownMessage(None, b"")

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
        known, position, _ = self._follow(body, known, position, len(body))
        if position > start and (anchor.shortcut is None or anchor.shortcut[1] is not known):
            self._used += position - start - (len(anchor.shortcut[0]) if anchor.shortcut else 0)
            anchor.shortcut = (body[start:position], known)
        return known, position

    def _follow(self, body: bytes, known: KnownMessage, position: int, most: int) -> tuple[KnownMessage, int, bool]:
        """At most `most` steps; the flag tells that the array ended or the next message is unknown."""
        for _ in range(most):
            found = known.find(body, position)
            if found is None:
                return known, position, True
            after = position + len(found.raw)
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

    def add(self, known: KnownMessage, raw: bytes) -> KnownMessage:
        """Remember `raw` after `known`; only complete JSON objects are worth it."""
        self._used += len(raw) + _OVERHEAD
        return known.add(raw)

    def trim(self) -> None:
        """Start anew when the memory limit is passed (between two bodies)."""
        if self._used > self._limit:
            self._used = 0
            self.root = KnownMessage(None, b"")


def _skip_spaces(body: bytes, position: int) -> int:
    while position < len(body) and body[position] in _SPACES:
        position += 1
    return position
