"""Dividing log files among processes: plain files into byte ranges that end at line ends, all others whole."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Final, NamedTuple

from cachesim.core.model import BadLine
from cachesim.trace.containers import Container
from cachesim.trace.detect import LogFile
from cachesim.trace.formats import FORMATS, Format
from cachesim.trace.open import BOM, MAX_LINE_BYTES, Line, Progress, Source, not_text
from cachesim.trace.stored import HEAD_BYTES, is_compressed, unreadable

_STEP: Final = 1 << 20
_COMPRESSED_WEIGHT: Final = 8
"""A compressed byte stands for about so many of the log."""
_TAKEN_IN: Final = 10
"""Taking in a share that another process has read costs about this part of reading it."""


class Part(NamedTuple):
    """Lines start ≤ offset < end of a file, by file number; end null: the whole file, whatever it is."""

    file_no: int
    start: int
    end: int | None


def divide(files: Sequence[LogFile], shares: int, least_bytes: int = 0) -> list[list[Part]]:
    """At most `shares` lists of parts of about equal work, in order of files and lines; together they are all files.

    The first one is smaller, for its reader takes in all others: of two shares it is 9 parts in 19. One share where
    that is all there is to divide: less than `least_bytes` of log, pipes, answers that every share would need. Raises
    InputError for a file that cannot be read.
    """
    sizes = [file.source.stored_bytes for file in files]
    whole = [Part(file.source.file_no, 0, None) for file in files]
    if shares == 1 or None in sizes or any(file.join is not None for file in files):
        return [whole]
    plain = [_is_plain(file) for file in files]
    weights = [(size or 0) * (1 if one else _COMPRESSED_WEIGHT) for size, one in zip(sizes, plain, strict=True)]
    total = sum(weights)
    if total < least_bytes:
        return [whole]
    first = max(1, _TAKEN_IN + 1 - shares)
    parts_in_all = first + _TAKEN_IN * (shares - 1)
    divided: list[list[Part]] = [[] for _ in range(shares)]
    before = 0
    for file, part, weight, one in zip(files, whole, weights, plain, strict=True):
        ends = [total * (first + _TAKEN_IN * number) // parts_in_all - before for number in range(shares)]
        if one:
            _cut(file.source, part.file_no, weight, ends, divided)
        else:
            middle = next(number for number, end in enumerate(ends) if end >= weight / 2 or number == shares - 1)
            divided[middle].append(part)
        before += weight
    return [parts for parts in divided if parts]


def _cut(source: Source, file_no: int, size: int, ends: Sequence[int], divided: list[list[Part]]) -> None:
    """Give each share its lines of a plain file; ends[i]: the byte of the file at which share i has enough."""
    start = 0
    for number, wanted in enumerate(ends):
        if wanted <= start and not (size == 0 and number == 0):
            continue
        end = size if wanted >= size else _line_end(source, wanted, size)
        divided[number].append(Part(file_no, start, end))
        start = end
        if start >= size:
            return


def _line_end(source: Source, position: int, size: int) -> int:
    """The end of the line that the byte before `position` belongs to."""
    assert source.path is not None
    try:
        with source.path.open("rb", buffering=0) as file:
            file.seek(position - 1)
            while position < size and (piece := file.read(_STEP)):
                found = piece.find(b"\n")
                if found >= 0:
                    return min(file.tell() - len(piece) + found + 1, size)
    except OSError as error:
        raise unreadable(source.name, error) from error
    return size


def _is_plain(file: LogFile) -> bool:
    """Whether the file is lines of text as it stands."""
    if file.container is not Container.LINES or file.format is None or file.format.kind != "lines":
        return False
    assert file.source.path is not None
    try:
        with file.source.path.open("rb", buffering=0) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(file.source.name, error) from error
    return not is_compressed(head) and not_text(head) is None


class Kind(NamedTuple):
    """What a file was found to be. log_format: by name."""

    container: Container | None
    log_format: str | None


def log_file(
    source: Source, part: Part, kind: Kind, forced: Format | None, progress: Progress
) -> tuple[LogFile, Counting]:
    """The part of a file as something to read; `source` is the file. The counter tells how many lines were read.

    forced: its format, where that was not found but said.
    """
    if part.end is not None:
        source = _Range(source, part.start, part.end)
    found = FORMATS[kind.log_format] if forced is None and kind.log_format is not None else forced
    file = LogFile(source, kind.container, found, None, None)
    lines = Counting(source.lines(progress) if part.end is not None else file.items(progress))
    file.started = iter(lines)
    return file, lines


class Counting:
    """Counts items on their way."""

    def __init__(self, items: Iterator[Line | BadLine]) -> None:
        self.count = 0
        self._items = items

    def __iter__(self) -> Iterator[Line | BadLine]:
        for item in self._items:
            self.count += 1
            yield item


class _Range(Source):
    """Some lines of a plain file. Their numbers start at 1, their offsets are those in the file."""

    damage: Final = None

    def __init__(self, whole: Source, start: int, end: int) -> None:
        try:
            super().__init__(whole.file_no, whole.name, whole.path)
        except OSError as error:
            raise unreadable(whole.name, error) from error
        self._start, self._end = start, end

    def lines(
        self, progress: Progress | None = None, max_line_bytes: int = MAX_LINE_BYTES
    ) -> Generator[Line | BadLine, None, None]:
        """The lines of the range. Raises InputError where they cannot be read any more."""
        assert self.path is not None
        position, told = self._start, self._start
        try:
            with self.path.open("rb", buffering=_STEP) as file:
                file.seek(position)

                def readline(most: int) -> bytes:
                    nonlocal position, told
                    line = file.readline(min(most, self._end - position))
                    position += len(line)
                    if progress is not None and position - told >= _STEP:
                        progress(position - told)
                        told = position
                    return line

                if position == 0:
                    position = len(BOM) if file.read(len(BOM)) == BOM else 0
                    file.seek(position)
                yield from self._split(readline, position, self, max_line_bytes)
        except OSError as error:
            raise unreadable(self.name, error) from error
        if progress is not None:
            progress(position - told)
