"""`cachesim init`: a commented configuration to start from, made from a log."""

from __future__ import annotations

import sys
from dataclasses import replace

import typer

from cachesim.cli.inputs import (
    Arguments,
    BadLines,
    BadLinesRaw,
    ConfigFiles,
    Files,
    Interval,
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
from cachesim.cli.output import Quiet

app = typer.Typer()


@app.command(
    epilog=examples(
        "cachesim init logs.jsonl > cachesim.toml     # then edit it, and replay",
        "cachesim init 'logs/*.zst' --since 2026-03-01   # of the last weeks only",
    )
)
def init(
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
    quiet: Quiet = False,
) -> None:
    """Write a commented `cachesim.toml` for a log: its models, tokenizers for them, tariffs to fill in, its keys.

    It validates, and changes nothing until lines of it are uncommented. Nothing is stored. Of an earlier configuration
    only the names of keys are kept.
    """
    from cachesim.counting.resolve import installed_tokenizers
    from cachesim.report.formats import clean
    from cachesim.report.tables import counted
    from cachesim.starter import look, starter
    from cachesim.store.db import IN_MEMORY, open_database

    arguments = Arguments(
        files, config, None, principal, since, until, timezone, log_format, start, interval, bad_lines, bad_lines_raw,
        strict, quiet, mapping=mapping,
    )  # fmt: skip
    settings = arguments.config()
    with open_database(IN_MEMORY) as con:
        sources = arguments.sources()
        # Digests, not names: those of the configuration are written back beside them.
        unnamed = replace(settings, principals={}, strict_principals=False)
        trace = arguments.read_uncounted(con, unnamed, sources)
        seen = look(con, trace.trace_no, [source.name for source in sources])
    bad = sum(trace.facts["bad"].values())
    if bad and not quiet:
        names = " ".join(clean(file) for file in files)
        typer.echo(f"cachesim: {counted('bad line', bad)} left out; see `cachesim check {names}`", err=True)
    text = starter(seen, installed_tokenizers(), settings.principals, strict=settings.strict_principals)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())
