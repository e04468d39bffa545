"""Which format a log file has, told from its first rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NoReturn

import msgspec

from cachesim.core.model import BadLine
from cachesim.errors import InputError, UsageError, unknown
from cachesim.trace.containers import Container, Rows
from cachesim.trace.formats import FORMATS, Format
from cachesim.trace.formats.base import DECODE_ERRORS, Join, Row
from cachesim.trace.open import MAX_LINE_BYTES, Line, Progress, Source

SAMPLE_ROWS: Final = 20
SAMPLE_BYTES: Final = 64 << 10
SEARCH_BYTES: Final = 4 << 20
"""How far to look for a first row of JSON before the file is taken for something else than lines."""

_SHORT_BYTES: Final = 1024
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class LogFile:
    """A source and its format, None where nothing in it is a record; join: how it is read where it holds answers."""

    source: Source
    container: Container | None
    format: Format | None
    join: Join | None
    started: Iterator[Line | BadLine] | None

    def items(self, progress: Progress | None = None) -> Iterator[Line | BadLine]:
        """All rows from the start; of a pipe, once."""
        if self.started is None:
            return iter(Rows(self.source, progress, self.container))
        started, self.started = self.started, None
        return started


def named_format(name: str) -> Format:
    """The format of this name. Raises UsageError with the closest name."""
    if name in FORMATS:
        return FORMATS[name]
    raise UsageError(unknown("--log-format", name, FORMATS))


def identify(source: Source, forced: Format | None = None, progress: Progress | None = None) -> LogFile:
    """Find the format of `source`, or take the `forced` one. What a pipe gave for it is delivered again by `items`.

    Raises InputError where the content is JSON, but of no known format.
    """
    wanted = list(FORMATS.values()) if forced is None else [forced]
    stream, items, rows = _first_rows(source, wanted, progress)
    is_lines = stream.container is Container.LINES
    found = forced or _matching(rows, wanted)
    if found is None and is_lines and not rows:
        found = _document_format(source, items, stream)
    elif found is None and rows:
        _refuse(source, "its rows match no known format" + ("" if is_lines else f" (read as {stream.container})"))
    if found is not None and found.kind == "document" and not is_lines:
        _refuse(source, f"{stream.container}, but {found.name} is one document a file; store each in a file of its own")
    join = next((join for join in found.joins if join.matches(rows)), None) if found is not None else None
    if source.rereadable:
        stream.close()
        return LogFile(source, stream.container, found, join, None)
    return LogFile(source, stream.container, found, join, chain(items, stream))


def _first_rows(
    source: Source, wanted: Sequence[Format], progress: Progress | None
) -> tuple[Rows, list[Line | BadLine], list[Row]]:
    """The rows as the file begins, or as lines where only they are of a wanted format: a line may look like more."""
    stream = Rows(source, None if source.rereadable else progress)
    items, rows = _sample(stream)
    if stream.container is Container.LINES or not source.rereadable or _matching(rows, wanted):
        return stream, items, rows
    lines = Rows(source, None, Container.LINES)
    other_items, other_rows = _sample(lines)
    if _matching(other_rows, wanted):
        stream.close()
        return lines, other_items, other_rows
    lines.close()
    return stream, items, rows


def join_lines(items: Iterable[Line | BadLine]) -> bytes | BadLine:
    """A whole file as one document, or the first reason why it is none."""
    lines: list[bytes] = []
    for item in items:
        if isinstance(item, BadLine):
            return item
        lines.append(item[2])
    return b"".join(lines)


def _sample(stream: Iterable[Line | BadLine]) -> tuple[list[Line | BadLine], list[Row]]:
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


def _document_format(source: Source, items: list[Line | BadLine], stream: Iterable[Line | BadLine]) -> Format | None:
    """The format of a file without a row of its own, if it is one JSON document; extends `items` by what it reads."""
    text = b"".join(item[2] for item in items if not isinstance(item, BadLine))
    if text.lstrip()[:1] != b"{":
        return None
    size = len(text)
    for item in stream:
        items.append(item)
        size += 0 if isinstance(item, BadLine) else len(item[2])
        if size > MAX_LINE_BYTES:
            return None
    document = join_lines(items)
    row = None if isinstance(document, BadLine) else _row(document)
    if not row:
        return None
    found = _matching([row], FORMATS.values())
    if found is None:
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
    advice = "name the format with --log-format, describe it with --mapping, or convert the file"
    raise InputError(f"{source.name}: {problem}; {advice}. Known:\n{known}")


def _row(text: bytes) -> Row | None:
    """A JSON object with its members, those of its objects uninterpreted, so that a large row costs no memory."""
    try:
        return {name: _shallow(value) for name, value in _members.decode(text).items()}
    except DECODE_ERRORS:
        return None


def _shallow(value: msgspec.Raw) -> Any:
    """A member; of an object, or of the text of one as CSV has it, the members, uninterpreted."""
    view = memoryview(value)
    if bytes(view[:1]) == b"{":
        return _members.decode(view)
    if bytes(view[:2]) == b'"{':
        try:
            return _members.decode(msgspec.json.decode(view, type=str))
        except DECODE_ERRORS:
            return ""
    return msgspec.json.decode(view) if len(view) < _SHORT_BYTES else value
