"""The rows of a CSV file as lines of JSON: an object a row, every cell a string, empty cells left out."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from cachesim.core.model import BadLine
from cachesim.trace.formats.base import bad_line
from cachesim.trace.open import MAX_LINE_BYTES, Line

_DELIMITERS: Final = (",", ";")
_NAME: Final = re.compile(r"[A-Za-z_][\w .-]*", re.ASCII)


def delimiter_of(head: bytes) -> str | None:
    """What separates the cells of a file that starts with `head`; None where that is no header of a CSV file.

    A header names at least two columns, each once; what follows it is no line of JSON.
    """
    first, newline, rest = head.partition(b"\n")
    if not newline or rest.lstrip()[:1] in (b"{", b"["):
        return None
    line = first.decode("utf-8", "replace").rstrip("\r")
    for delimiter in _DELIMITERS:
        try:
            names = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:  # quoted names with another delimiter between them
            continue
        if len(names) == len(set(names)) >= 2 and all(map(_NAME.fullmatch, names)):
            return delimiter
    return None


def csv_rows(file_no: int, lines: Iterator[Line | BadLine], delimiter: str) -> Iterator[Line | BadLine]:
    """The rows below the header, with line and offset at which each begins; what cannot be read as one is a BadLine."""
    csv.field_size_limit(MAX_LINE_BYTES)
    pulled = _Pulled(lines)
    reader = csv.reader(pulled, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        problem: str | None = None
        try:
            cells = next(reader, None)
        except csv.Error as error:
            cells, problem = [], str(error)
        yield from pulled.bad
        if cells is None:
            return
        if pulled.torn:
            problem = "a line inside the row cannot be read"
        elif problem is None and header and cells and len(cells) != len(header):
            problem = f"{len(cells)} cells, the header has {len(header)}"
        if problem is not None:
            yield pulled.bad_line(file_no, problem)
        elif not header:
            header = cells
        elif cells:
            yield _as_json(file_no, header, cells, pulled)
        pulled.forget()


def _as_json(file_no: int, header: list[str], cells: list[str], pulled: _Pulled) -> Line | BadLine:
    try:
        text = msgspec.json.encode({name: cell for name, cell in zip(header, cells, strict=True) if cell})
    except UnicodeEncodeError:
        number, offset, _ = pulled.lines[0]
        return bad_line(file_no, number, offset, pulled.text, "invalid_utf8", "a byte is not UTF-8")
    number, offset, _ = pulled.lines[0]
    return number, offset, text + b"\n"


class _Pulled:
    """The lines that the reader has taken for the row it is at; `torn` if one in the middle of it was unreadable."""

    def __init__(self, source: Iterator[Line | BadLine]) -> None:
        self.source = source
        self.lines: list[Line] = []
        self.bad: list[BadLine] = []
        self.torn = False

    def __iter__(self) -> Iterator[str]:
        for item in self.source:
            if isinstance(item, BadLine):
                self.bad.append(item)
                self.torn = bool(self.lines)
            else:
                self.lines.append(item)
                yield item[2].decode("utf-8", "surrogateescape")

    @property
    def text(self) -> bytes:
        return b"".join(text for _, _, text in self.lines)

    def bad_line(self, file_no: int, problem: str) -> BadLine:
        number, offset, last = self.lines[0][0], self.lines[0][1], self.lines[-1][2]
        if not last.endswith(b"\n") or problem == "unexpected end of data":
            return bad_line(file_no, number, offset, self.text, "truncated", "the last row ends in the middle")
        return bad_line(file_no, number, offset, self.text, "bad_csv", f"not a row of this CSV file ({problem})")

    def forget(self) -> None:
        self.lines.clear()
        self.bad.clear()
        self.torn = False
