"""Log files in, records out: formats found, principals and times completed, everything assumed written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cachesim.core.model import BadLine, LogRecord
from cachesim.errors import UsageError
from cachesim.trace.detect import LogFile, identify, join_lines, named_format
from cachesim.trace.formats import Format
from cachesim.trace.formats.base import (
    DECODE_ERRORS,
    KEY_PREFIX,
    Join,
    KnownPart,
    NotARequest,
    bad_line,
    explain,
)
from cachesim.trace.mapping import mapped_format
from cachesim.trace.open import Line, Progress, Source

DEFAULT_PRINCIPAL: Final = "default"
FEW_LINES: Final = 20
"""A file without any JSON is one bad line, unless it is so short that each line can be named."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How records are completed and chosen; times in µs UTC, `since_us` included, `until_us` not.

    log_format: by name, None to detect; principal: for records without one (formats that have none: "default");
    start_us, interval_us: times for records without one, the n-th of them at start + n · interval;
    principals: key digest -> name; strict_principals: a key that is not listed there is nobody; mapping: what
    `cachesim.config.mapping` made of the user's description of a format, then all files are of it.
    """

    log_format: str | None = None
    principal: str | None = None
    start_us: int | None = None
    interval_us: int | None = None
    since_us: int | None = None
    until_us: int | None = None
    principals: Mapping[str, str] = field(default_factory=dict)
    strict_principals: bool = False
    mapping: Mapping[str, Any] | None = None


@dataclass(slots=True)
class FileFacts:
    """What was found in one file, and what was assumed for it. Counts are of delivered records unless named otherwise.

    records: delivered; filtered: left out by since/until; bad: reason -> bad lines; first/last: earliest and latest
    arrival; out_of_order: records that arrived before the record above them; unscoped: without principal;
    default_principal, synthetic_times, without_duration: records completed by assumption, or incomplete;
    answers: rows of a file of answers; answered: records that got theirs; unanswered: those of a format with answers
    that got none and hold none; left_out: reason -> rows that are no requests to a provider.
    """

    name: str
    log_format: str | None
    records: int = 0
    filtered: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first_at_us: int | None = None
    last_at_us: int | None = None
    out_of_order: int = 0
    without_duration: int = 0
    default_principal: int = 0
    unscoped: int = 0
    synthetic_times: int = 0
    answers: int = 0
    answered: int = 0
    unanswered: int = 0

    @property
    def bad_lines(self) -> int:
        """Bad lines for all reasons."""
        return self.bad.total()

    @property
    def is_reversed(self) -> bool:
        """Whether the file is written newest first: more than half of its steps go back in time."""
        return 2 * self.out_of_order > self.records > 1


@dataclass(slots=True)
class ReadFacts:
    """Facts per file, in the order of the sources, complete when reading has ended.

    usage_reported: any record of the log carries usage, be it outside since/until; default_principal: the name that
    was used; unmatched_answers: answers that no record asked for; conflicting_answers: requests of which two rows of
    one kind say different things (the later one holds); parted_principals: records whose key is their principal, while
    answers name who else sent that key; only_answers: why there are no records, where every file holds answers.
    """

    files: list[FileFacts] = field(default_factory=list)
    usage_reported: bool = False
    default_principal: str | None = None
    unmatched_answers: int = 0
    conflicting_answers: int = 0
    parted_principals: int = 0
    only_answers: str | None = None

    @property
    def left_out(self) -> Counter[str]:
        """Rows that are no requests to a provider, by reason, of all files."""
        return sum((file.left_out for file in self.files), Counter())


def read_records(
    sources: Sequence[Source],
    options: ReadOptions,
    progress: Progress | None = None,
    facts: ReadFacts | None = None,
    known: KnownPart | None = None,
) -> Iterator[LogRecord | BadLine]:
    """Every record and bad line of `sources`, file by file and line by line, feeding `facts` on the way.

    known: parts of bodies that need no scanning; it changes nothing but the time it takes.

    Formats are found before anything is delivered. Raises UsageError for options that do not fit, InputError for a
    file of unknown format; while iterating, InputError for a file that cannot be read any more.
    """
    return read_files(find_formats(sources, options, progress), options, progress, facts, known)


def find_formats(sources: Sequence[Source], options: ReadOptions, progress: Progress | None = None) -> list[LogFile]:
    """The sources with their formats, ready to be read. Raises as `read_records` does before it delivers anything."""
    if (options.start_us is None) != (options.interval_us is None):
        raise UsageError("--start and --interval: only one of them is given; give both or none")
    forced = forced_format(options)
    files = [identify(source, forced, progress) for source in sources]
    for file in files:
        if file.format is not None and not file.format.has_times and options.start_us is None:
            raise UsageError(
                f"{file.source.name}: {file.format.name} files have no times; "
                "give --start and --interval, such as --start 2026-01-01T00:00:00Z --interval 1s"
            )
    return files


def read_files(
    files: Sequence[LogFile],
    options: ReadOptions,
    progress: Progress | None = None,
    facts: ReadFacts | None = None,
    known: KnownPart | None = None,
    *,
    name_records: bool = True,
) -> Iterator[LogRecord | BadLine]:
    """The same for files whose formats are known. name_records: give those without an id one from file and line."""
    facts = ReadFacts() if facts is None else facts
    facts.files[:] = [FileFacts(file.source.name, file.format.name if file.format else None) for file in files]
    joins = [file.join for file in files]
    facts.only_answers = joins[-1].alone if all(joins) and joins[-1] is not None else None
    return _Reading(files, options, progress, facts, known, name_records).run()


def forced_format(options: ReadOptions) -> Format | None:
    """The format that the options say all files have. Raises UsageError, and what a mapping file is refused for."""
    if options.mapping is None:
        return None if options.log_format is None else named_format(options.log_format)
    if options.log_format is not None:
        raise UsageError("--mapping and --log-format: both say what the rows are; give one of them")
    return mapped_format(options.mapping)


class _Reading:
    """One pass over all files."""

    def __init__(
        self,
        files: Sequence[LogFile],
        options: ReadOptions,
        progress: Progress | None,
        facts: ReadFacts,
        known: KnownPart | None,
        name_records: bool,
    ) -> None:
        self.files = files
        self.options = options
        self.progress = progress
        self.known = known
        self.name_records = name_records
        self.facts = facts
        self.answers: dict[tuple[str, str], dict[str, Any]] = {}
        self.used_answers: set[tuple[str, str]] = set()
        self.said: dict[tuple[Join, tuple[str, str]], Mapping[str, Any]] = {}
        self.conflicting: set[tuple[str, str]] = set()
        self.by_key: Counter[str] = Counter()
        self.named_keys: set[str] = set()
        self.joins = ""
        self.synthetic = 0
        self.principal: str | None = None
        self.previous_us = 0

    def run(self) -> Iterator[LogRecord | BadLine]:
        numbered = list(zip(self.files, self.facts.files, strict=True))
        joins = list(
            dict.fromkeys(join for file in self.files if file.format is not None for join in file.format.joins)
        )
        for join in joins:
            for file, facts in numbered:
                if file.join is join:
                    yield from self._take_answers(file, join, facts)
        for file, facts in numbered:
            if file.join is None:
                self.joins = file.format.name if file.format is not None and file.format.joins else ""
                self.principal = self._default_principal(file.format)
                self.previous_us = 0
                yield from self._records(file, facts)
        self.facts.unmatched_answers = len(self.answers) - len(self.used_answers)
        self.facts.conflicting_answers = len(self.conflicting)
        self.facts.parted_principals = sum(self.by_key[digest] for digest in self.named_keys)

    def _default_principal(self, format_: Format | None) -> str | None:
        if self.options.principal is None and format_ is not None and not format_.has_principals:
            return DEFAULT_PRINCIPAL
        return self.options.principal

    def _take_answers(self, file: LogFile, join: Join, facts: FileFacts) -> Iterator[BadLine]:
        assert file.format is not None
        for item in file.items(self.progress):
            if isinstance(item, BadLine):
                yield _counted(item, facts)
                continue
            try:
                answer = join.decode(item[2])
            except DECODE_ERRORS as error:
                if not item[2].isspace():
                    yield _counted(_bad_line(item, file.source.file_no, error), facts)
                continue
            key = (file.format.name, answer.id)
            if self.said.setdefault((join, key), answer.says) != answer.says:
                self.conflicting.add(key)
            self.answers.setdefault(key, {}).update(answer.says)
            self.facts.usage_reported |= answer.says.get("usage") is not None
            facts.answers += 1

    def _records(self, file: LogFile, facts: FileFacts) -> Iterator[LogRecord | BadLine]:
        found: Iterator[LogRecord | BadLine]
        match file.format:
            case None:
                found = _nothing_but_bad_lines(file, self.progress)
            case Format(kind="document"):
                found = self._from_document(file, file.format, facts)
            case _:
                found = self._from_lines(file, file.format, facts)
        for item in found:
            yield _counted(item, facts) if type(item) is BadLine else item

    def _from_lines(self, file: LogFile, format_: Format, facts: FileFacts) -> Iterator[LogRecord | BadLine]:
        decode, file_no = format_.decode_line, file.source.file_no
        if (known := self.known) is not None and (decode_known := format_.decode_known_line) is not None:

            def decode(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
                return decode_known(line, file_no, number, offset, known)

        assert decode is not None
        for item in file.items(self.progress):
            if type(item) is not tuple:
                yield item  # type: ignore[misc]
                continue
            number, offset, line = item
            try:
                record = decode(line, file_no, number, offset)
            except DECODE_ERRORS as error:
                if not line.isspace():
                    yield _bad_line(item, file_no, error)
                continue
            except NotARequest as other:
                facts.left_out[other.reason] += 1
                continue
            if self._complete(record, facts):
                yield record
            elif record.at_us is None:
                yield _missing_time(record, line)

    def _from_document(self, file: LogFile, format_: Format, facts: FileFacts) -> Iterator[LogRecord | BadLine]:
        assert format_.decode_document is not None
        document = join_lines(file.items(self.progress))
        if isinstance(document, BadLine):
            yield document
            return
        try:
            for item in format_.decode_document(document, file.source.file_no):
                if isinstance(item, NotARequest):
                    facts.left_out[item.reason] += 1
                elif isinstance(item, BadLine) or self._complete(item, facts):
                    yield item
                elif item.at_us is None:
                    yield _missing_time(item, item.body or b"")
        except DECODE_ERRORS as error:
            if not document.isspace():
                yield _bad_line((1, 0, document), file.source.file_no, error)

    def _complete(self, record: LogRecord, facts: FileFacts) -> bool:
        """Fill in what the log does not say, and count; False for a record without time or outside since/until."""
        options = self.options
        if record.at_us is None:
            if options.start_us is None or options.interval_us is None:
                return False
            record.at_us = options.start_us + self.synthetic * options.interval_us
            self.synthetic += 1
            facts.synthetic_times += 1
        if record.usage is not None:
            self.facts.usage_reported = True
        at_us = record.at_us
        if (options.since_us is not None and at_us < options.since_us) or (
            options.until_us is not None and at_us >= options.until_us
        ):
            facts.filtered += 1
            if (key := (self.joins, record.id or "")) in self.answers:
                self.used_answers.add(key)
            return False
        if record.id is None:
            if self.name_records:
                record.id = f"{facts.name}:{record.line}"
        elif self.joins:
            self._answer(record, facts)
        self._scope(record, facts)
        facts.records += 1
        if record.duration_us is None:
            facts.without_duration += 1
        if facts.first_at_us is None or at_us < facts.first_at_us:
            facts.first_at_us = at_us
        if facts.last_at_us is None or at_us > facts.last_at_us:
            facts.last_at_us = at_us
        if at_us < self.previous_us:
            facts.out_of_order += 1
        self.previous_us = at_us
        return True

    def _scope(self, record: LogRecord, facts: FileFacts) -> None:
        principal = record.principal
        if principal is None:
            principal = record.principal = self.principal
            if principal is not None:
                facts.default_principal += 1
                self.facts.default_principal = principal
        elif principal.startswith(KEY_PREFIX):
            unlisted = None if self.options.strict_principals else principal
            principal = record.principal = self.options.principals.get(principal, unlisted)
        if principal is None:
            facts.unscoped += 1

    def _answer(self, record: LogRecord, facts: FileFacts) -> None:
        key = (self.joins, record.id or "")
        answer = self.answers.get(key)
        sent_by = record.principal
        if answer is not None:
            for name, value in answer.items():
                setattr(record, name, value)
            self.used_answers.add(key)
            facts.answered += 1
        elif record.usage is None and record.duration_us is None:
            facts.unanswered += 1
        if sent_by is not None and sent_by.startswith(KEY_PREFIX) and sent_by not in self.options.principals:
            if record.principal == sent_by:
                self.by_key[sent_by] += 1
            else:
                self.named_keys.add(sent_by)


def _nothing_but_bad_lines(file: LogFile, progress: Progress | None) -> Iterator[LogRecord | BadLine]:
    """The bad lines of a file in which no record was found: each of a few lines, or one for all of many."""
    lines: list[Line] = []
    count = 0
    for item in file.items(progress):
        if isinstance(item, BadLine):
            yield item
        elif not item[2].isspace():
            count += 1
            lines += [item] if count <= FEW_LINES else []
    file_no = file.source.file_no
    if count <= FEW_LINES:
        for line in lines:
            try:
                msgspec.json.decode(line[2], type=dict[str, msgspec.Raw])
            except DECODE_ERRORS as error:
                yield _bad_line(line, file_no, error)
            else:
                yield _bad(line, file_no, "not_json", "part of a JSON text that spans several lines and is not whole")
    else:
        yield _bad(lines[0], file_no, "not_json", f"none of {count} lines is a JSON object, nor are they one together")


def _missing_time(record: LogRecord, raw: bytes) -> BadLine:
    message = "the record has no time; give --start and --interval for such records"
    return _bad((record.line, record.offset, raw), record.file_no, "missing_time", message)


def _bad_line(line: Line, file_no: int, error: Exception) -> BadLine:
    reason, message = explain(error)
    if reason == "not_json" and not line[2].endswith(b"\n"):
        reason, message = "truncated", "the last line ends in the middle"
    return _bad(line, file_no, reason, message)


def _bad(line: Line, file_no: int, reason: str, message: str) -> BadLine:
    return bad_line(file_no, *line, reason, message)


def _counted(item: BadLine, facts: FileFacts) -> BadLine:
    facts.bad[item.reason] += 1
    return item
