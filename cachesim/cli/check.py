"""`cachesim check`: what was recognised in a log and what is wrong with it; nothing is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from cachesim.cli.inputs import (
    Arguments,
    BadLines,
    BadLinesRaw,
    ConfigFiles,
    Files,
    Interval,
    Jobs,
    LogFormat,
    MappingFile,
    Principal,
    Since,
    Start,
    Strict,
    Until,
    Zone,
)
from cachesim.cli.lazy import examples
from cachesim.cli.output import Form, Output, Quiet, console, emit, keep_inputs, screen
from cachesim.errors import CachesimError
from cachesim.report.formats import Format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from cachesim.check import BadLineSample, LogCheck
    from cachesim.report.formats import Report
    from cachesim.store.traces import PreparedTrace
    from cachesim.trace.open import Source

ROWS_SHOWN: Final = 20
RARE: Final = ("bad_lines", "sessions", "requests_failed", "not_cacheable", "unparseable")
"""Columns of the tables that are shown only where one of them is not zero."""

app = typer.Typer()


COLUMNS: Final = (
    "model", "requests", "requests_failed", "principals", "sessions", "parsed", "not_cacheable", "unparseable",
    "marked", "with_usage", "reported_prompt_tokens",
)  # fmt: skip


@app.command(
    epilog=examples(
        "cachesim check logs.jsonl                       # is this log usable, and how much of it?",
        "cachesim check 'logs/*.zst' --format json       # for scripts",
        "cachesim check logs.jsonl --strict              # exit 65 on any bad line",
        "zcat big.jsonl.gz | head -1000 | cachesim check -",
    )
)
def check(
    files: Files,
    config: ConfigFiles = None,
    principal: Principal = None,
    since: Since = None,
    until: Until = None,
    timezone: Zone = "UTC",
    log_format: LogFormat = None,
    mapping: MappingFile = None,
    start: Start = None,
    interval: Interval = None,
    bad_lines: BadLines = None,
    bad_lines_raw: BadLinesRaw = False,
    strict: Strict = False,
    jobs: Jobs = None,
    form: Form = Format.TABLE,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Read logs as `replay` would, and say what was recognised: formats, coverage, order, gaps, duplicates, bad lines.

    Nothing is stored and no token is counted, so it is fast. Programs get a row per model; files and gaps are in the
    JSON. Exit code 65 if nothing is usable.
    """
    from cachesim.check import BadLineSample, check_log
    from cachesim.store.db import IN_MEMORY, open_database

    keep_inputs(files, output=output, bad_lines=bad_lines)
    arguments = Arguments(
        files, config, None, principal, since, until, timezone, log_format, start, interval, bad_lines, bad_lines_raw,
        strict, quiet, jobs=jobs, mapping=mapping,
    )  # fmt: skip
    settings = arguments.config()
    seen = BadLineSample()
    with open_database(IN_MEMORY) as con:
        sources = arguments.sources()
        try:
            trace = arguments.read_uncounted(con, settings, sources, seen.add)
        except CachesimError:
            _print_bad_lines(seen, sources, console(stderr=True))
            raise
        found = check_log(con, trace, seen)
    if form is not Format.TABLE:
        emit(_report(found, sources, trace), form, output)
        return
    with screen(output) as out:
        _print(found, sources, out)


def _report(found: LogCheck, sources: Sequence[Source], trace: PreparedTrace) -> Report:
    """A row per model; the rest of what was found in the JSON envelope."""
    from cachesim.assumptions import problems
    from cachesim.report.formats import Report
    from cachesim.report.times import instant_text

    def row(values: dict[str, Any]) -> dict[str, Any]:
        """Times as RFC 3339; everything else as it is."""
        plain = {}
        for name, value in values.items():
            is_time = name.endswith("_us") and name != "gap_us" and value is not None
            plain[name.removesuffix("_us") if is_time else name] = instant_text(value) if is_time else value
        return plain

    more = {
        "files": [row(file) for file in found.files],
        "longest_gaps": [row(gap) for gap in found.gaps],
        "session_gaps": found.bands,
        "facts": {name: value for name, value in found.facts.items() if name not in ("files", "reading")},
        "bad_lines": [
            {"file": sources[b.file_no].name, "line": b.line, "offset": b.offset, "reason": b.reason}
            for b in found.bad_lines.first
        ],
    }
    return Report("check", COLUMNS, found.models, ["model"], problems=problems(trace), more=more)


def _print(found: LogCheck, sources: Sequence[Source], out: Console) -> None:
    from cachesim.report.render import note_dropped, say
    from cachesim.report.tables import table

    total = sum(model["requests"] for model in found.models)
    parsed = sum(model["parsed"] for model in found.models)
    marked = sum(model["marked"] for model in found.models)
    bad = sum(found.facts["bad"].values())
    say(
        out,
        f"{total:,} requests, {parsed:,} of them classifiable, {marked:,} with cache markers; {bad:,} bad lines.",
        "bold",
    )
    dropped: list[str] = []
    files = [{name.removesuffix("_us"): value for name, value in row.items()} for row in found.files]
    for what, rows, keep in (("files", files, ("name", "log_format")), ("models", found.models, ("model",))):
        names = [n for n in rows[0] if n not in RARE or any(row[n] for row in rows)]
        grid, left = table(names, rows[:ROWS_SHOWN], out.width, keep=keep)
        say(out, f"\n{what}", "bold")
        out.print(grid)
        dropped += left
        if len(rows) > ROWS_SHOWN:
            say(out, f"{len(rows) - ROWS_SHOWN:,} more {what} (--format json has them)")
    note_dropped(out, dropped, "--format json")
    out.print()
    for line in _remarks(found):
        say(out, line)
    _print_bad_lines(found.bad_lines, sources, out)


def _remarks(found: LogCheck) -> Iterator[str]:
    """Order, duplicates, gaps and what would have to be assumed, one line each; what is fine is not mentioned."""
    from cachesim.report.formats import clean
    from cachesim.report.times import instant_text

    facts = found.facts
    counts = {
        "duplicates": "duplicates, identical byte for byte to an earlier record and counted once",
        "repeated_ids": "ids repeated with different content, all kept",
        "unordered": "written after a later one, replayed by time",
        "without_duration": "without a response time, completing as they arrive",
        "default_principal": f'without a principal, taken to be "{facts["principal"]}"',
        "unscoped": "without a principal and so not cached (see --principal)",
        "synthetic_times": "without a time, made up from --start and --interval",
        "unmatched_answers": "answers to no request of these files",
        "conflicting_answers": "answered in different ways, the last of which is taken",
        "failed_without_usage": "answered 2xx without a usage that others report, taken as failed",
        "completion_unknown": "billed without completion tokens, which nobody reported",
        "parted_principals": "under the digest of a key that other rows name the user of: one cache as two",
        "filtered": "outside --since and --until, left out",
    }
    for name, text in counts.items():
        if facts.get(name):  # of a log that an older version prepared, some may be missing
            yield f"{facts[name]:,} {text}"
    for reason, count in facts["left_out"].items():
        yield f"{count:,} rows that are no request to a provider ({reason}), left out"
    yield from (f"{clean(f['name'])}: written newest first" for f in facts["files"] if f["reversed"])
    for gap in found.gaps[:1]:
        length = _duration(gap["gap_us"])
        yield f"longest silence: {length}, from {instant_text(gap['from_us'])} to {instant_text(gap['until_us'])}"
    bands = found.bands
    yield (
        f"after the previous request of the session: {bands['within_5m']:,} within 5m, "
        f"{bands['within_1h']:,} within 1h, {bands['within_24h']:,} within 24h, {bands['longer']:,} later"
    )


def _duration(length_us: int) -> str:
    """A length of time in the unit people would use.

    >>> _duration(4_750_000), _duration(5_400_000_000)
    ('4.8 s', '1.5 h')
    """
    seconds = length_us / 1_000_000
    for unit, size in (("d", 172_800), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / {'d': 86_400, 'h': 3600, 'min': 60}[unit]:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def _print_bad_lines(bad_lines: BadLineSample, sources: Sequence[Source], out: Any) -> None:
    from cachesim.report.formats import clean
    from cachesim.report.render import say

    for bad in bad_lines.first:
        say(out, f"{clean(sources[bad.file_no].name)}:{bad.line}: {bad.reason}: {bad.message}")
    for reason, count in bad_lines.left_out.items():
        say(out, f"{reason}: {count:,} more lines (--bad-lines FILE lists them)")
