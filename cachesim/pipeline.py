"""From log files to a prepared trace in the run database, reusing what was prepared before."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from cachesim.collector import no_collection
from cachesim.config import Config, model_config
from cachesim.core.calibration import OFF
from cachesim.core.model import BadLine
from cachesim.core.policy import PRESETS, BodyRules, Policy
from cachesim.counting.accelerator import Counting, CountsDiffer, accelerator, load_accelerated
from cachesim.counting.resolve import DEFAULT_TOKENIZER, load_tokenizer, tokenizer_version
from cachesim.errors import ConfigError, InputError, NothingUsable
from cachesim.parallel.gather import gather
from cachesim.parallel.merge import Merger
from cachesim.parallel.share import Task
from cachesim.prepare.builder import TraceBuilder
from cachesim.prepare.tokenizers import UNMAPPED, ModelTokenizer, Tokenizers
from cachesim.store.bad_lines import BadLines, TellOnce
from cachesim.store.db import transaction
from cachesim.store.trace_reader import find_trace, has_input_of_size, known_counts, load_trace
from cachesim.store.traces import PreparedTrace, TraceInput, TraceWriter
from cachesim.trace.detect import LogFile
from cachesim.trace.facts import as_json
from cachesim.trace.open import Source
from cachesim.trace.ranges import Kind, Part, divide
from cachesim.trace.reader import FileFacts, ReadFacts, ReadOptions, find_formats, read_files
from cachesim.trace.stored import digest_file

if TYPE_CHECKING:
    import duckdb

PREPARED_AS: Final = 4
"""Changes when preparation gives other results, so that older prepared traces are not reused."""

WORTH_PROCESSES: Final = 128 << 20
"""Bytes of log from which on several reading processes pay for being started."""

_NO_FACTS: Final = ReadFacts()

Progress = Callable[[int], None]


@dataclass(slots=True)
class Preparation:
    """What to read, how, and for which rules. on_bad_line: sees every bad line with its raw bytes, as it is met.

    strict: any bad line is an error; fresh: read again even if the same was prepared before; jobs: reading processes,
    None for as many as there are cores where the log is large enough for them to pay; accelerate: count with the
    accelerator where it is installed and counts alike. Neither changes a number. on_remark: told what went another way;
    calibrated: False leaves every estimate as it is; inherited: calibrations of the run that is continued, see
    `trace_reader.calibrations`.
    """

    sources: Sequence[Source]
    options: ReadOptions
    config: Config
    rules: Sequence[BodyRules]
    strict: bool = False
    fresh: bool = False
    on_bad_line: Callable[[BadLine], None] | None = None
    jobs: int | None = 1
    accelerate: bool = True
    on_remark: Callable[[str], None] | None = None
    calibrated: bool = True
    inherited: Mapping[str, str] = field(default_factory=dict)

    def calibration(self, model: str) -> tuple[str, str | None]:
        """What is decided in advance about scaling a model's estimates, see `cachesim.store.calibrate.Choose`."""
        if not self.calibrated:
            return "configured", OFF
        configured = model_config(self.config, model).calibration
        if configured is not None:
            return "configured", configured
        return ("inherited", self.inherited[model]) if model in self.inherited else ("fitted", None)


def body_rule_sets(policies: Sequence[Policy]) -> list[BodyRules]:
    """The distinct body rules to prepare for: always both presets', so that comparing them reads nothing again."""
    return list(dict.fromkeys(p.body_rules for p in [*PRESETS.values(), *policies]))


def missing_rules(known: Sequence[BodyRules], wanted: Sequence[BodyRules]) -> list[BodyRules]:
    """Those of `wanted` that a trace prepared for `known` does not have, each once."""
    return [rules for rules in dict.fromkeys(wanted) if rules not in known]


def same_preparation(job: Preparation, digest: str) -> bool:
    """Whether the job, whose sources know their SHA-256, prepares the trace called `digest`. Raises InputError."""
    return _digest(job, [source.sha256 or "" for source in job.sources]) == digest


def prepare(con: duckdb.DuckDBPyConnection, job: Preparation, progress: Progress | None = None) -> PreparedTrace:
    """The prepared trace of the job's logs, stored (or found) in the database.

    Raises NothingUsable where no record is usable, or for any bad line under `strict`, and ConfigError for a tokenizer
    of a configuration that is not there; then nothing is stored.
    """
    _check_tokenizers(job.config)
    stored = None if job.fresh else _find_prepared(con, job)
    if stored is not None:
        trace = load_trace(con, stored)
        _refuse_unusable(job, trace.request_count, Counter(trace.facts["bad"]))
        return trace
    bad_lines = TellOnce(job.on_bad_line)
    job = replace(job, on_bad_line=bad_lines)
    try:
        return _prepare(con, job, progress)
    except CountsDiffer as difference:
        if not all(source.rereadable for source in job.sources):
            raise
        _remark(job, f"{difference}; done now, from the start")
        bad_lines.again()
        return _prepare(con, replace(job, accelerate=False), progress)


def _prepare(con: duckdb.DuckDBPyConnection, job: Preparation, progress: Progress | None) -> PreparedTrace:
    tokenizers = Tokenizers(partial(_tokenizer_of, job.config), partial(known_counts, con), partial(_load, job))
    try:
        with transaction(con), no_collection():
            return _read(con, job, tokenizers, progress)
    except _PreparedBefore as known:
        return load_trace(con, known.trace_no)
    finally:
        tokenizers.close()


def _load(job: Preparation, choice: ModelTokenizer) -> Counting:
    if not job.accelerate or accelerator() is None:
        return load_tokenizer(*choice)
    found, problem = load_accelerated(*choice)
    if problem is not None:
        _remark(job, f"{accelerator()}: {problem}; tokenizers counts instead")
    return found


def _remark(job: Preparation, text: str) -> None:
    if job.on_remark is not None:
        job.on_remark(text)


class _PreparedBefore(Exception):
    """What was just prepared stands in the database already: read from a pipe, or on purpose once more."""

    def __init__(self, trace_no: int) -> None:
        self.trace_no = trace_no


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worth_processes(job: Preparation) -> int:
    return WORTH_PROCESSES if job.jobs is None else 0


def _check_tokenizers(config: Config) -> None:
    """Before anything is read: a file that names a tokenizer in vain is wrong in a line of its own."""
    for model in config.models.values():
        if model.where and model.tokenizer not in (None, UNMAPPED):
            try:
                tokenizer_version(model.tokenizer)
            except InputError as error:
                raise ConfigError(f"{model.where}: {error}") from error


def _tokenizer_of(config: Config, alias: str | None) -> ModelTokenizer:
    found = model_config(config, alias or "")
    return ModelTokenizer(found.tokenizer or DEFAULT_TOKENIZER, found.tokenizer_version)


def _find_prepared(con: duckdb.DuckDBPyConnection, job: Preparation) -> int | None:
    """The number of an equal trace. Files are hashed in advance only if the database knows files of their sizes."""
    sizes = [source.stored_bytes for source in job.sources]
    paths = [source.path for source in job.sources]
    if not all(size is not None and has_input_of_size(con, size) for size in sizes):
        return None
    known = [source.sha256 for source in job.sources]
    digests = [sha or digest_file(path)[1] for path, sha in zip(paths, known, strict=True) if path is not None]
    return find_trace(con, _digest(job, digests))


def _digest(job: Preparation, inputs: Sequence[str]) -> str:
    """SHA-256 over everything that decides a prepared trace."""
    versions = {
        pattern: tokenizer_version(m.tokenizer, m.tokenizer_version) if m.tokenizer != UNMAPPED else UNMAPPED
        for pattern, m in job.config.models.items()
        if m.tokenizer is not None
    }
    what = {
        "prepared_as": PREPARED_AS,
        "inputs": [[source.name, sha] for source, sha in zip(job.sources, inputs, strict=True)],
        "options": {**asdict(job.options), "principals": sorted(job.options.principals.items())},
        "tokenizers": [tokenizer_version(DEFAULT_TOKENIZER), sorted(versions.items())],
        "calibration": [
            job.calibrated,
            sorted(job.inherited.items()),
            sorted((pattern, m.calibration) for pattern, m in job.config.models.items() if m.calibration is not None),
        ],
        "rules": [asdict(rules) for rules in job.rules],
    }
    return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _read(
    con: duckdb.DuckDBPyConnection, job: Preparation, tokenizers: Tokenizers, progress: Progress | None
) -> PreparedTrace:
    writer = TraceWriter(con)
    facts = ReadFacts()
    bad = BadLines(writer, job.on_bad_line)
    files = find_formats(job.sources, job.options, progress)
    shares = [] if job.options.start_us is not None else divide(files, job.jobs or cores(), _worth_processes(job))
    prepared: TraceBuilder | Merger
    if len(shares) > 1:
        prepared = _gathered(con, job, tokenizers, writer, facts, files, shares, bad, progress)
    else:
        prepared = _built(job, tokenizers, writer, facts, files, bad, progress)
    bad.flush()
    reasons = bad.reasons
    _refuse_unusable(job, prepared.records, reasons, facts)
    digest = _digest(job, [source.sha256 or "" for source in job.sources])
    known = find_trace(con, digest)
    if known is not None:
        raise _PreparedBefore(known)
    tokenizers.finish()
    return writer.finish(
        digest,
        prepared,
        tokenizers,
        list(_inputs(job.sources, facts)),
        {
            **as_json(facts, reasons),
            "accelerator": accelerator() if job.accelerate and tokenizers.used else None,
            "recorded_writes_assumed_5m": prepared.assumed_5m,
            "reading": _reading(job),
        },
        job.calibration,
    )


def _built(
    job: Preparation,
    tokenizers: Tokenizers,
    writer: TraceWriter,
    facts: ReadFacts,
    files: Sequence[LogFile],
    bad: BadLines,
    progress: Progress | None,
) -> TraceBuilder:
    """The log prepared by this process."""
    builder = TraceBuilder(job.rules, tokenizers, writer.stage)
    for item in read_files(files, job.options, progress, facts, builder.reader.parts.known_part):
        if type(item) is BadLine:
            bad.add(item)
        else:
            builder.add(item)  # type: ignore[arg-type]  # mypy does not narrow by `type(…) is`, which is the fast test
    builder.flush()
    builder.reader.parts.memo.clear()
    return builder


def _gathered(
    con: duckdb.DuckDBPyConnection,
    job: Preparation,
    tokenizers: Tokenizers,
    writer: TraceWriter,
    facts: ReadFacts,
    files: Sequence[LogFile],
    shares: Sequence[Sequence[Part]],
    bad: BadLines,
    progress: Progress | None,
) -> Merger:
    """The log prepared by several processes."""
    kinds = [Kind(file.container, None if file.format is None else file.format.name) for file in files]
    facts.files[:] = [FileFacts(s.name, kind.log_format) for s, kind in zip(job.sources, kinds, strict=True)]
    merger = Merger(job.rules, tokenizers, writer.stage, job.sources, facts)
    choices = dict.fromkeys(_tokenizer_of(job.config, alias) for alias in ("", *job.config.models))
    known = {
        choice: b"".join(known_counts(con, tokenizer_version(choice.source, choice.version)))
        for choice in choices
        if choice.source != UNMAPPED
    }
    task = Task([], job.sources, kinds, job.options, job.rules, partial(_tokenizer_of, job.config), known)
    for line in gather(shares, task, job.sources, merger, progress):
        bad.add(line)
    return merger


def _reading(job: Preparation) -> dict[str, Any]:
    """How the logs were read, as JSON: with it they can be read again for other rules."""
    regular = [source.path if source.rereadable else None for source in job.sources]
    return {
        "options": {**asdict(job.options), "principals": dict(job.options.principals)},
        "models": {
            pattern: [m.tokenizer, m.tokenizer_version, m.calibration] for pattern, m in job.config.models.items()
        },
        "calibrated": job.calibrated,
        "inherited": dict(job.inherited),
        "paths": [None if path is None else str(path.absolute()) for path in regular],
    }


def _refuse_unusable(
    job: Preparation,
    records: int,
    reasons: Counter[str],
    facts: ReadFacts = _NO_FACTS,
) -> None:
    listed, left_out = _listed(reasons), facts.left_out
    filtered = sum(file.filtered for file in facts.files)
    names = ", ".join(source.name for source in job.sources)
    if job.strict and reasons:
        raise NothingUsable(
            f"{names}: {reasons.total()} bad lines ({listed}), none allowed with --strict; nothing was stored"
        )
    if not records and filtered:
        raise NothingUsable(f"{names}: all {filtered} records arrived outside --since and --until; widen them")
    if not records and facts.only_answers is not None:
        raise NothingUsable(f"{names}: {facts.only_answers}")
    if not records:
        why = f"{reasons.total()} bad lines: {listed}" if reasons else "nothing in it"
        if left_out:
            why = f"{why}; no requests to a provider: {_listed(left_out)}"
        what = "give --start and --interval" if reasons["missing_time"] else "`cachesim check` names the lines"
        raise NothingUsable(f"{names}: no usable record ({why}); {what}")


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def _inputs(sources: Sequence[Source], facts: ReadFacts) -> Iterator[TraceInput]:
    for source, file in zip(sources, facts.files, strict=True):
        size = source.size if source.size is not None else 0
        yield TraceInput(source.name, size, source.sha256 or "", file.log_format, file.records, file.bad_lines)
