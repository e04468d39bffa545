"""Options that every command with log files has, and what they mean: sources, reading, tokenizers, quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesim.errors import UsageError

if TYPE_CHECKING:
    import duckdb

    from cachesim.config import Config
    from cachesim.core.model import BadLine
    from cachesim.core.policy import BodyRules
    from cachesim.store.traces import PreparedTrace
    from cachesim.trace.open import Source
    from cachesim.trace.reader import ReadOptions

_READ = "Reading"
_COUNT = "Counting and naming"


def _option(name: str, metavar: str, help_text: str, panel: str = _READ) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, rich_help_panel=panel)


Files = Annotated[
    list[str], typer.Argument(metavar="LOG…", help="Files, patterns, or - for stdin.", show_default=False)
]
ConfigFiles = Annotated[
    list[str] | None, _option("--config", "FILE", "Instead of ./cachesim.toml (repeatable).", _COUNT)
]
TokenizerOptions = Annotated[
    list[str] | None,
    _option(
        "--tokenizer",
        "MODEL=SOURCE",
        "A file, directory, hub:org/name, package:name, default or unmapped; SOURCE alone: for every model.",
        _COUNT,
    ),
]
NoCalibration = Annotated[
    bool,
    typer.Option(
        "--no-calibration",
        help="Leave estimates of the embedded tokenizer as they are, whatever prompt tokens the log reports.",
        rich_help_panel=_COUNT,
    ),
]
Principal = Annotated[str | None, _option("--principal", "NAME", "Principal of requests that name none.", _COUNT)]
Since = Annotated[str | None, _option("--since", "TIME", "Replay from this arrival on (a cold start).")]
Until = Annotated[str | None, _option("--until", "TIME", "Replay only what arrived before.")]
Zone = Annotated[str, _option("--timezone", "ZONE", "Of times without an offset in options.")]
LogFormat = Annotated[str | None, _option("--log-format", "NAME", "Instead of detecting it.")]
MappingFile = Annotated[str | None, _option("--mapping", "FILE", "Says what is what in a log of no known format.")]
Start = Annotated[str | None, _option("--start", "TIME", "Arrival of the first request of a log without times.")]
Interval = Annotated[str | None, _option("--interval", "DURATION", "Time between such requests: 250ms, 1s, 5m …")]
BadLines = Annotated[Path | None, _option("--bad-lines", "FILE", "Write file, line, offset and reason of bad lines.")]
BadLinesRaw = Annotated[
    bool, typer.Option("--bad-lines-raw", help="… and the lines themselves.", rich_help_panel=_READ)
]
NoAccelerator = Annotated[
    bool,
    typer.Option("--no-accelerator", help="Count with tokenizers alone.", rich_help_panel=_COUNT),
]
Strict = Annotated[bool, typer.Option("--strict", help="Any bad line ends with 65.", rich_help_panel=_READ)]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        metavar="N",
        help="Reading processes (default: one a core if the log is large). Same results.",
        rich_help_panel=_READ,
    ),
]


@dataclass(frozen=True, slots=True)
class Arguments:
    """The input options of one call, as typed."""

    files: Sequence[str]
    config_files: Sequence[str] | None
    tokenizers: Sequence[str] | None
    principal: str | None
    since: str | None
    until: str | None
    timezone: str
    log_format: str | None
    start: str | None
    interval: str | None
    bad_lines: Path | None
    bad_lines_raw: bool
    strict: bool
    quiet: bool
    calibrated: bool = True
    mapping: str | None = None
    jobs: int | None = None
    accelerate: bool = True

    def config(self) -> Config:
        """The configuration with the tokenizers of the command line over it."""
        from cachesim.config import ModelConfig, load_config

        config = load_config(self.config_files or ())
        models = dict(config.models)
        for text in self.tokenizers or ():
            model, equals, source = text.partition("=")
            if not equals:
                model, source = "*", text
            if not model or not source:
                raise UsageError(f"--tokenizer {text!r}: MODEL=SOURCE was expected")
            calibration = models[model].calibration if model in models else None
            models[model] = ModelConfig(source, None, calibration)
        return replace(config, models=models)

    def read_options(self, con: duckdb.DuckDBPyConnection, config: Config) -> ReadOptions:
        """How to complete and choose records. Raises UsageError for times that are none, ConfigError for a mapping."""
        from cachesim.config.mapping import load_mapping
        from cachesim.report.times import parse_instant, parse_period
        from cachesim.trace.reader import ReadOptions
        from cachesim.trace.times import parse_duration

        try:
            interval_us = None if self.interval is None else parse_duration(self.interval)
        except ValueError:
            raise UsageError(
                f"--interval {self.interval!r}: a duration was expected, such as 250ms, 1s or 5m"
            ) from None
        since_us, until_us = parse_period(con, self.since, self.until, self.timezone)
        return ReadOptions(
            log_format=self.log_format,
            principal=self.principal,
            start_us=None if self.start is None else parse_instant(con, "--start", self.start, self.timezone),
            interval_us=interval_us,
            since_us=since_us,
            until_us=until_us,
            principals=config.principals,
            strict_principals=config.strict_principals,
            mapping=None if self.mapping is None else load_mapping(self.mapping),
        )

    def sources(self) -> list[Source]:
        """The files that exist behind the arguments; remarks go to stderr."""
        from cachesim.trace.open import find_sources

        sources, remarks = find_sources(self.files)
        for remark in remarks:
            self._remark(remark)
        return sources

    def _remark(self, text: str) -> None:
        from cachesim.report.formats import clean

        if not self.quiet:
            typer.echo(f"cachesim: {clean(text)}", err=True)

    def prepare(
        self,
        con: duckdb.DuckDBPyConnection,
        config: Config,
        options: ReadOptions,
        rules: Sequence[BodyRules],
        sources: Sequence[Source],
        on_bad_line: Callable[[BadLine], None] | None = None,
        inherited: Mapping[str, str] | None = None,
    ) -> PreparedTrace:
        """The prepared trace of `sources`, with progress, quarantining bad lines on the way.

        inherited: calibrations of the run that is continued.
        """
        from cachesim.cli.progress import progress
        from cachesim.pipeline import Preparation, prepare

        if self.bad_lines_raw and self.bad_lines is None:
            raise UsageError("--bad-lines-raw needs --bad-lines FILE to write to")
        sizes = [source.stored_bytes for source in sources]
        total = sum(size or 0 for size in sizes) if None not in sizes else None
        with self._quarantine(sources) as quarantine, progress(total, "reading", self.quiet) as advance:

            def bad_line(bad: BadLine) -> None:
                for told in (quarantine, on_bad_line):
                    if told is not None:
                        told(bad)

            fresh = self.bad_lines is not None
            job = Preparation(sources, options, config, rules, self.strict, fresh, bad_line, self.jobs)
            job.accelerate, job.on_remark = self.accelerate, self._remark
            job.calibrated, job.inherited = self.calibrated, inherited or {}
            trace = prepare(con, job, advance)
        self._name_unused_tokenizers(con, trace.trace_no)
        return trace

    def _name_unused_tokenizers(self, con: duckdb.DuckDBPyConnection, trace_no: int) -> None:
        """A tokenizer for a model that no request asks for is a slip: the one that was meant is estimated."""
        found = con.execute("SELECT DISTINCT model FROM requests WHERE trace_no = ? AND model IS NOT NULL", [trace_no])
        models = sorted(model for (model,) in found.fetchall())
        for text in self.tokenizers or ():
            name, given, _ = text.partition("=")
            if given and name not in models and not any(fnmatchcase(model, name) for model in models):
                listed = ", ".join(get_close_matches(name, models, 3, 0.4) or models[:3])
                self._remark(f"--tokenizer {name}: no request is of this model; there are {listed or 'none'}")

    def read_uncounted(
        self,
        con: duckdb.DuckDBPyConnection,
        config: Config,
        sources: Sequence[Source],
        on_bad_line: Callable[[BadLine], None] | None = None,
    ) -> PreparedTrace:
        """The trace of `sources` without a single token counted, for commands that only look at a log."""
        from cachesim.config import ModelConfig
        from cachesim.pipeline import body_rule_sets

        settings = replace(config, models={"*": ModelConfig("unmapped")})
        options = self.read_options(con, settings)
        return self.prepare(con, settings, options, body_rule_sets([]), sources, on_bad_line)

    @contextmanager
    def _quarantine(self, sources: Sequence[Source]) -> Iterator[Callable[[BadLine], None] | None]:
        """Writes each bad line as one JSON object; the file appears when reading has ended."""
        if self.bad_lines is None:
            yield None
            return
        from cachesim.cli.output import whole_file

        with whole_file(self.bad_lines) as file:

            def write(bad: BadLine) -> None:
                row: dict[str, Any] = {
                    "file": sources[bad.file_no].name,
                    "line": bad.line,
                    "offset": bad.offset,
                    "reason": bad.reason,
                    "message": bad.message,
                    "digest": bad.digest,
                }
                if self.bad_lines_raw:
                    row["raw"] = bad.raw.decode("utf-8", "backslashreplace")
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

            yield write
