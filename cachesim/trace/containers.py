"""How a log keeps its rows, told by its first bytes: as JSON Lines, a JSON array, CSV or Parquet; all become lines."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from enum import StrEnum
from typing import Final

from cachesim.core.model import BadLine
from cachesim.trace.csv_rows import csv_rows, delimiter_of
from cachesim.trace.formats.base import bad_line
from cachesim.trace.json_array import ARRAY_START, WRAPPER_START, Element, elements
from cachesim.trace.open import MAX_LINE_BYTES, Line, Progress, Source, text_of
from cachesim.trace.parquet_rows import MAGIC, parquet_rows
from cachesim.trace.stored import Damage, LogBytes


class Container(StrEnum):
    """How rows are stored. LINES is also what a file is taken for that is none of the others."""

    LINES = "JSON Lines"
    ARRAY = "a JSON array"
    WRAPPED = "a JSON array in an object"
    CSV = "CSV"
    PARQUET = "Parquet"


_STARTS: Final = {Container.ARRAY: ARRAY_START, Container.WRAPPED: WRAPPER_START}
_BOM: Final = b"\xef\xbb\xbf"
_FAULTS: Final = {
    "cut": ("truncated", "the array of rows ends in the middle"),
    "too_long": ("line_too_long", f"the row is longer than {MAX_LINE_BYTES} bytes; the rest of the file is left out"),
    "junk": ("not_json", "what follows the array of rows is no other such array; the rest is left out"),
}


class Rows:
    """The rows of a source from its start, once, as lines that each hold a JSON object.

    container: what they are stored as, as said or else as the file begins; known when the first was asked for.
    """

    def __init__(self, source: Source, progress: Progress | None = None, container: Container | None = None) -> None:
        self.container = container
        self._rows = self._read(source, progress)

    def __iter__(self) -> Iterator[Line | BadLine]:
        return self._rows

    def close(self) -> None:
        """Close the file before its end."""
        self._rows.close()

    def _read(self, source: Source, progress: Progress | None) -> Generator[Line | BadLine, None, None]:
        with source.content(progress) as data:
            head = data.head.removeprefix(_BOM)
            self.container = self.container or container_of(head)
            match self.container:
                case Container.PARQUET:
                    yield from parquet_rows(source, data)
                case Container.CSV:
                    yield from csv_rows(source.file_no, source.lines_of(data), delimiter_of(head) or ",")
                case Container.LINES:
                    yield from source.lines_of(data)
                case _:
                    yield from _array_rows(source.file_no, data, _STARTS[self.container])


def container_of(head: bytes) -> Container:
    """The container of a file that starts with `head`, without a byte order mark.

    >>> container_of(b'[{"a": 1}]').value, container_of(b"id,body" + b"\\n1,x").value
    ('a JSON array', 'CSV')
    """
    if head.startswith(MAGIC):
        return Container.PARQUET
    for container, start in _STARTS.items():
        if start.match(head):
            return container
    return Container.CSV if delimiter_of(head) is not None else Container.LINES


def _array_rows(file_no: int, data: LogBytes, start: re.Pattern[bytes]) -> Iterator[Line | BadLine]:
    stream, offset = text_of(data)
    for element in elements(stream.read, offset, start, MAX_LINE_BYTES):
        if element.fault is None:
            yield element.number, element.offset, element.text + b"\n"
        else:
            yield _fault(file_no, element, data.damage)


def _fault(file_no: int, element: Element, damage: Damage | None) -> BadLine:
    reason, message = _FAULTS[element.fault or ""]
    if element.fault == "cut" and damage is not None:
        reason, message = damage.reason, damage.message
    return bad_line(file_no, element.number, element.offset, element.text, reason, message)
