"""A share of the log: what whoever reads it must know, and the reading of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachesim.core.model import BadLine, LogRecord
from cachesim.parallel.merge import Merger
from cachesim.parallel.messages import PartFacts
from cachesim.prepare.tokenizers import ModelTokenizer
from cachesim.trace.formats.base import KnownPart
from cachesim.trace.open import Progress, Source
from cachesim.trace.ranges import Kind, Part, log_file
from cachesim.trace.reader import ReadFacts, ReadOptions, forced_format, read_files

if TYPE_CHECKING:
    from cachesim.core.policy import BodyRules

_HEAR_EVERY: Final = 64
"""Lines between two looks at what other processes sent: some milliseconds, for which a full pipe makes them wait."""

Choose = Callable[[str | None], ModelTokenizer]


@dataclass(frozen=True, slots=True)
class Task:
    """What a process has to read. sources: all files of the log; kinds: what they are.

    choose: the tokenizer of a model alias; known: see `messages.Known`, not filled in where the task is sent.
    """

    parts: Sequence[Part]
    sources: Sequence[Source]
    kinds: Sequence[Kind]
    options: ReadOptions
    rules: Sequence[BodyRules]
    choose: Choose
    known: Mapping[ModelTokenizer, bytes]


class PartReading:
    """One pass over a part; its facts are complete when it has ended."""

    def __init__(self, task: Task, part: Part, progress: Progress) -> None:
        forced = forced_format(task.options)
        self._options = task.options
        self._read = ReadFacts()
        self._file, self._lines = log_file(task.sources[part.file_no], part, task.kinds[part.file_no], forced, progress)

    def items(self, known: KnownPart, *, name_records: bool) -> Iterator[LogRecord | BadLine]:
        """Its records and bad lines, numbered from 1. Raises what `read_files` does."""
        return read_files([self._file], self._options, None, self._read, known, name_records=name_records)

    def facts(self) -> PartFacts:
        """What was found."""
        read, source = self._read, self._file.source
        return PartFacts(
            read.files[0],
            self._lines.count,
            source.size,
            source.sha256,
            read.usage_reported,
            read.default_principal,
        )


def read_first(task: Task, merger: Merger, hear: Callable[[], None], progress: Progress) -> Iterator[BadLine]:
    """Prepare the first share of the log in this process, straight into `merger`; gives its bad lines.

    The first share begins where its files begin, so that lines, nodes and rows have their numbers from the start.
    hear: called often, to take in what other processes send meanwhile.
    """
    builder = merger.first
    for part in task.parts:
        reading = PartReading(task, part, progress)
        for number, item in enumerate(reading.items(builder.reader.parts.known_part, name_records=True)):
            if number % _HEAR_EVERY == 0:
                hear()
            if type(item) is BadLine:
                yield item
            else:
                builder.add(item)  # type: ignore[arg-type]  # mypy does not narrow by `type(…) is`
        builder.flush()
        merger.end_part(part.file_no, reading.facts())
    builder.reader.parts.memo.clear()
    merger.finish_first()
