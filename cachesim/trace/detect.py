"""Which format a log file has, told from its first rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NoReturn

import msgspec

from cachesim.core.model import BadLine
from cachesim.errors import InputError, UsageError
from cachesim.trace.formats import FORMATS, Format
from cachesim.trace.formats.base import DECODE_ERRORS, Row
from cachesim.trace.open import MAX_LINE_BYTES, Line, Progress, Source

SAMPLE_ROWS: Final = 20
SAMPLE_BYTES: Final = 64 << 10
SEARCH_BYTES: Final = 4 << 20
"""How far to look for a first row of JSON before the file is taken for something else than lines."""

_SHORT_BYTES: Final = 1024
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(slots=True)
class LogFile:
    """A source and its format, None where nothing in it is a record; is_answers: it holds the format's answers."""

    source: Source
    format: Format | None
    is_answers: bool
    started: Iterator[Line | BadLine] | None

    def items(self, progress: Progress | None = None) -> Iterator[Line | BadLine]:
        """All lines from the start; of a pipe, once."""
        if self.started is None:
            return self.source.lines(progress)
        started, self.started = self.started, None
        return started


def named_format(name: str) -> Format:
    """The format of this name. Raises UsageError with the closest name."""
    if name in FORMATS:
        return FORMATS[name]
    close = difflib.get_close_matches(name, FORMATS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"--log-format: unknown format {name!r}{hint} (known: {', '.join(FORMATS)})")


def identify(source: Source, forced: Format | None = None, progress: Progress | None = None) -> LogFile:
    """Find the format of `source`, or take the `forced` one. What a pipe gave for it is delivered again by `items`.

    Raises InputError where the content is JSON, but of no known format.
    """
    stream = source.lines(None if source.rereadable else progress)
    items, rows = _sample(stream)
    found = forced
    if found is None:
        found = _matching(rows, FORMATS.values()) if rows else _document_format(source, items, stream)
        if found is None and rows:
            _refuse(source, "its rows match no known format")
    is_answers = found is not None and found.join is not None and 2 * sum(map(found.join.is_answer, rows)) > len(rows)
    if source.rereadable:
        stream.close()
        return LogFile(source, found, is_answers, None)
    return LogFile(source, found, is_answers, chain(items, stream))


def join_lines(items: Iterable[Line | BadLine]) -> bytes | BadLine:
    """A whole file as one document, or the first reason why it is none."""
    lines: list[bytes] = []
    for item in items:
        if isinstance(item, BadLine):
            return item
        lines.append(item[2])
    return b"".join(lines)


def _sample(stream: Iterator[Line | BadLine]) -> tuple[list[Line | BadLine], list[Row]]:
    """The first items and those of them that are JSON objects."""
    items: list[Line | BadLine] = []
    rows: list[Row] = []
    size = 0
    for item in stream:
        items.append(item)
        if isinstance(item, BadLine):
            continue
        size += len(item[2])
        row = _row(item[2])
        if row:  # an empty object is rather a line of a document printed over many
            rows.append(row)
        if len(rows) >= SAMPLE_ROWS or size >= (SAMPLE_BYTES if rows else SEARCH_BYTES):
            break
    return items, rows


def _document_format(source: Source, items: list[Line | BadLine], stream: Iterator[Line | BadLine]) -> Format | None:
    """The format of a file without a row of its own, if it is one JSON document; extends `items` by what it reads."""
    text = b"".join(item[2] for item in items if not isinstance(item, BadLine))
    if text.lstrip()[:1] not in (b"{", b"["):
        return None
    size = len(text)
    for item in stream:
        items.append(item)
        size += 0 if isinstance(item, BadLine) else len(item[2])
        if size > MAX_LINE_BYTES:
            return None
    document = join_lines(items)
    if isinstance(document, BadLine):
        return None
    rows = _elements_of(document) if text.lstrip()[:1] == b"[" else [row] if (row := _row(document)) else []
    if not rows:
        return None
    found = _matching(rows, FORMATS.values())
    if found is None or (len(rows) > 1 and found.kind == "document"):
        _refuse(source, "it is one JSON document of no known format")
    if found.kind == "lines":
        _refuse(source, f"it is one JSON document holding {found.name} records; put one on each line, as jq -c does")
    return found


def _matching(rows: Sequence[Row], formats: Iterable[Format]) -> Format | None:
    """The format that most rows have; a document is the only row of its file."""
    for candidate in formats:
        if (candidate.kind == "lines" or len(rows) == 1) and candidate.matches(rows):
            return candidate
    return None


def _refuse(source: Source, problem: str) -> NoReturn:
    known = "\n".join(f"  {known.name}: {known.description}" for known in FORMATS.values())
    raise InputError(
        f"{source.name}: {problem}; name the format with --log-format, or convert the file. Known:\n{known}"
    )


def _row(text: bytes) -> Row | None:
    """A JSON object with its members, those of its objects uninterpreted, so that a large row costs no memory."""
    try:
        return {name: _shallow(value) for name, value in _members.decode(text).items()}
    except DECODE_ERRORS:
        return None


def _elements_of(text: bytes) -> list[Row]:
    try:
        elements = _elements.decode(text)
    except DECODE_ERRORS:
        return []
    return [row for element in elements[:SAMPLE_ROWS] if (row := _row(bytes(element))) is not None]


def _shallow(value: msgspec.Raw) -> Any:
    view = memoryview(value)
    if bytes(view[:1]) == b"{":
        return _members.decode(view)
    return msgspec.json.decode(view) if len(view) < _SHORT_BYTES else value
