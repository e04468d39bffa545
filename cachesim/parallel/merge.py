"""Putting together what reading processes send, in the order of the log: the same trace as from one process."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any, Final

from cachesim.core.model import BadLine
from cachesim.core.policy import BodyRules
from cachesim.parallel.messages import Finished, PartFacts, Rows
from cachesim.prepare.builder import PROMPT_COLUMNS, REQUEST_COLUMNS, Sink, TraceBuilder
from cachesim.prepare.tokenizers import Tokenizers
from cachesim.trace.open import Source
from cachesim.trace.reader import FileFacts, ReadFacts

_DIGEST_BYTES: Final = 32
_TEXT_DIGEST_BYTES: Final = 16
_ADDED: Final = ("records", "filtered", "without_duration", "default_principal", "unscoped", "synthetic_times",
          "unanswered")  # fmt: skip
_KEPT: Final = {"name", "log_format", "first_at_us", "last_at_us", "out_of_order", "bad", "left_out", *_ADDED}


class Merger:
    """Takes the messages of all processes in order of their parts, and becomes what a `TraceBuilder` would be.

    first: prepares the log's first share, which is read here; all others go on from what it found.

    A process numbers what it sees from 0; whatever the log had before is found again here by what it is, and what is
    left gets its number in the order in which the log first shows it.
    """

    def __init__(
        self, rules: Sequence[BodyRules], tokenizers: Tokenizers, sink: Sink, sources: Sequence[Source], read: ReadFacts
    ) -> None:
        self.rules = tuple(rules)
        self.first = TraceBuilder(rules, tokenizers, self._take_first)
        self.nodes = self.first.nodes
        self.facts = self.first.facts
        self.tokenizers = tokenizers
        self.records = 0
        self.assumed_5m = 0
        self._sink = sink
        self._sources = sources
        self._read = read
        self._lines_before = [0] * len(sources)
        self._previous_us = [0] * len(sources)
        self._first_us: int | None = None
        self._last_us = 0

    def finish_first(self) -> None:
        """The first share is in."""
        self.records = self.first.records
        self.assumed_5m = self.first.assumed_5m

    def start_process(self) -> None:
        """What follows is the next process's."""
        self._nodes = array("i")
        self._facts: list[int] = []
        self._tokenizers: list[int] = []
        self._rows_before = self.records

    def add(self, rows: Rows) -> Iterator[BadLine]:
        """Take what is new, and give its bad lines as they stand in the log."""
        self._tokenizers += [self.tokenizers.of(alias).number for alias in rows.aliases]
        self._facts += [self.facts.number(fact) for fact in rows.facts]
        self._add_nodes(rows)
        if rows.requests:
            self._add_rows(rows)
        before = self._lines_before[rows.file_no]
        yield from (replace(bad, line=bad.line + before) for bad in rows.bad)
        if rows.ended is not None:
            self.end_part(rows.file_no, rows.ended)

    def finish_process(self, finished: Finished) -> None:
        """Every part of a process is in: note where its texts' counts go."""
        self.assumed_5m += finished.assumed_5m
        for number, counted in zip(self._tokenizers, finished.counted, strict=True):
            slots, counter = self.tokenizers.slots(number), self.tokenizers.counters[number]
            digests = counted.digests
            found = [
                counter.slot_of(digests[start : start + _TEXT_DIGEST_BYTES])
                for start in range(0, len(digests), _TEXT_DIGEST_BYTES)
            ]
            own = array("i")
            own.frombytes(counted.by_node)
            known = ((node, found[slot]) for node, slot in zip(self._nodes, own, strict=False) if slot >= 0)
            slots.put(known, len(self.nodes))

    def _add_nodes(self, rows: Rows) -> None:
        parents = array("i")
        parents.frombytes(rows.parents)
        digests, child, known = rows.digests, self.nodes.child, self._nodes
        start = 0
        for parent, kind in zip(parents, rows.kinds, strict=True):
            end = start + _DIGEST_BYTES
            known.append(child(known[parent] if parent >= 0 else -1, digests[start:end], kind))
            start = end

    def _add_rows(self, rows: Rows) -> None:
        requests = dict(zip(REQUEST_COLUMNS, rows.requests, strict=True))
        prompts = dict(zip(PROMPT_COLUMNS, rows.prompts, strict=True))
        first, before = self._rows_before, self._lines_before[rows.file_no]
        lines = requests["line"] = [line + before for line in requests["line"]]
        name = self._sources[rows.file_no].name
        requests["request"] = [
            f"{name}:{line}" if own is None else own for own, line in zip(requests["request"], lines, strict=True)
        ]
        requests["recorded_cost"] = [None if cost is None else Decimal(cost) for cost in requests["recorded_cost"]]
        numbers = self._tokenizers
        requests["tokenizer_no"] = [None if own is None else numbers[own] for own in requests["tokenizer_no"]]
        for columns in (requests, prompts):
            columns["row_no"] = [first + row for row in columns["row_no"]]
        nodes, facts = self._nodes, self._facts
        prompts["end_node"] = [nodes[node] if node >= 0 else -1 for node in prompts["end_node"]]
        prompts["marker_blocks"] = list(map(tuple, prompts["marker_blocks"]))
        prompts["marker_facts"] = [tuple([facts[f] for f in own]) for own in prompts["marker_facts"]]
        prompts["automatic"] = [facts[f] if f >= 0 else -1 for f in prompts["automatic"]]
        self._sink("requests", requests)
        self._sink("prompts", prompts)
        self.records += len(lines)
        self._note_times(requests["at_us"])

    def _take_first(self, kind: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Rows of the first share."""
        if kind == "requests":
            self._note_times(columns["at_us"])
        self._sink(kind, columns)

    def _note_times(self, at_us: Sequence[int]) -> None:
        if self._first_us is None:
            self._first_us = at_us[0]
        self._last_us = at_us[-1]

    def end_part(self, file_no: int, ended: PartFacts) -> None:
        """All rows of a part are in: add up its facts."""
        source, part = self._sources[file_no], ended.file
        if ended.sha256 is not None:
            source.size, source.sha256 = ended.size, ended.sha256
        if self._first_us is not None:
            # The process compared the part's first record with time 0, the log compares it with the record before.
            part.out_of_order += (self._first_us < self._previous_us[file_no]) - (self._first_us < 0)
            self._previous_us[file_no] = self._last_us
        self._first_us = None
        self._lines_before[file_no] += ended.lines
        add_facts(self._read.files[file_no], part)
        self._read.usage_reported |= ended.usage_reported
        self._read.default_principal = ended.default_principal or self._read.default_principal


def add_facts(whole: FileFacts, part: FileFacts) -> None:
    """Add the facts of a file's next part to those of what comes before it."""
    assert {field.name for field in fields(FileFacts)} - _KEPT == {"answers", "answered"}  # of files read whole
    for name in (*_ADDED, "out_of_order"):
        setattr(whole, name, getattr(whole, name) + getattr(part, name))
    for name in ("bad", "left_out"):
        counts: Counter[str] = getattr(whole, name)
        counts.update(getattr(part, name))
    whole.first_at_us = _best(min, whole.first_at_us, part.first_at_us)
    whole.last_at_us = _best(max, whole.last_at_us, part.last_at_us)


def _best(choose: Callable[[list[int]], int], *values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return choose(known) if known else None
