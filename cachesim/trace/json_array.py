"""The elements of JSON arrays, cut out byte for byte and one at a time, however large the array is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cachesim.trace.stored import HEAD_BYTES

READ_BYTES: Final = 1 << 20

ARRAY_START: Final = re.compile(rb"\s*(?P<array>\[)\s*[{\]]")
# Scalars and flat objects, as the pages of an API have them before their rows. An `id` says that this is one thing
# with parts, such as a trace with its observations, and no page of rows.
_MEMBER: Final = rb'"(?!id")[^"\\]*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[^\s"\[\]{},\\]+|\{(?:[^{}"\[\]\\]|"[^"\\]*")*+\})'
WRAPPER_START: Final = re.compile(
    rb"\s*\{\s*(?:" + _MEMBER + rb'\s*,\s*)*+"(?:data|observations|rows|items)"\s*:\s*(?P<array>\[)\s*[{\]]'
)
_TO_BRACKET: Final = re.compile(rb'(?:[^"{}\[\]]++|"[^"]*+")*+')
_SCALAR: Final = re.compile(rb'(?:"[^"]*+"|[^\s,\[\]{}"]++|\})++')
_BETWEEN: Final = re.compile(rb"[\s,]*+")


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its number, from 1 over all arrays, its byte offset and bytes, and what ends the reading there.

    number: what a record is named by; a line would not tell elements apart, as the whole text may be a single one.
    fault: "cut", the text ends in it or before the array does; "too_long", it is longer than the limit; "junk", what
    follows an array is none.
    """

    number: int
    offset: int
    text: bytes
    fault: Literal["cut", "too_long", "junk"] | None = None


def elements(read: Callable[[int], bytes], offset: int, start: re.Pattern[bytes], limit: int) -> Iterator[Element]:
    """The elements of the arrays in the text that `read` gives from byte `offset` on, in any spacing.

    start: ARRAY_START or WRAPPER_START, what every array begins with; several stand one after the other, as pages of
    an API. Memory holds one element, of at most `limit` bytes, and what was read ahead.
    """
    return _Scan(read, offset, start, limit).run()


class _Fault(Exception):
    """What ends the reading, with the name of the fault."""


class _Scan:
    """`data` is the text from byte `base` on, as far as it was read; what lies before `at` is done with.

    plain: the same without escapes, at the same positions, so that every quotation mark in it begins or ends a text.
    """

    def __init__(self, read: Callable[[int], bytes], offset: int, start: re.Pattern[bytes], limit: int) -> None:
        self.read = read
        self.start = start
        self.limit = limit
        self.data = self.plain = b""
        self.at = 0
        self.base = offset
        self.number = 1

    def run(self) -> Iterator[Element]:
        try:
            while self._enter_array():
                while (first := self._next_byte()) != b"]":
                    end = self._end_of_scalar() if first not in b"{[" else self._end_of_brackets(self.at, 0)
                    yield Element(self.number, self.base + self.at, self.data[self.at : end])
                    self.number += 1
                    self.at = end
                self.at += 1
                if self.start is WRAPPER_START:
                    self.at = self._end_of_brackets(self.at, 1)
        except _Fault as fault:
            yield Element(self.number, self.base + self.at, self.data[self.at :], fault.args[0])

    def _enter_array(self) -> bool:
        """Go behind the bracket of the next array; False at the end. Raises _Fault."""
        while len(self.data) - self.at < HEAD_BYTES and self._more():
            pass
        match = self.start.match(self.data, self.at)
        if match is not None:
            self.at = match.end("array")
            return True
        if self.data[self.at :].strip():
            raise _Fault("junk")
        return False

    def _next_byte(self) -> bytes:
        """The first byte behind spaces and commas. Raises _Fault at the end."""
        while True:
            match = _BETWEEN.match(self.data, self.at)
            assert match is not None
            self.at = match.end()
            if self.at < len(self.data):
                return self.data[self.at : self.at + 1]
            self._need_more()

    def _end_of_brackets(self, position: int, depth: int) -> int:
        """Behind the bracket that closes what is open at `position`, where `depth` are. Raises _Fault."""
        while True:
            match = _TO_BRACKET.match(self.plain, position)
            assert match is not None
            position = match.end()
            bracket = self.plain[position : position + 1]
            if bracket in (b"", b'"'):  # what was read ends here, or in a text
                position -= self._need_more()
                continue
            position += 1
            depth += 1 if bracket in b"{[" else -1
            if depth == 0:
                return position

    def _end_of_scalar(self) -> int:
        while True:
            match = _SCALAR.match(self.plain, self.at)
            if match is not None and match.end() < len(self.data):
                return match.end()
            self._need_more()

    def _need_more(self) -> int:
        """Read on; by how much all positions have moved. Raises _Fault at the end and at the limit."""
        before = self.at
        if len(self.data) - self.at > self.limit:
            raise _Fault("too_long")
        if not self._more():
            raise _Fault("cut")
        return before

    def _more(self) -> bool:
        """Read on, in steps that grow with what is pending, and forget what is done with; False at the end."""
        pending = self.data[self.at :]
        piece = self.read(max(READ_BYTES, len(pending)))
        if piece:
            self.data = pending + piece
            self.plain = self.data.replace(rb"\\", b"__").replace(rb"\"", b"__")
            self.base += self.at
            self.at = 0
        return bool(piece)
