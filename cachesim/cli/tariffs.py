"""`cachesim tariffs`: price ledgers by themselves: every row, what is wrong with them, what two sets differ in."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.inputs import Arguments, ConfigFiles, Interval, LogFormat, MappingFile, Start, Zone
from cachesim.cli.lazy import examples, split_commas
from cachesim.cli.output import Explain, Form, Output, Quiet, emit, screen
from cachesim.errors import UsageError, unknown
from cachesim.report.formats import Format, Report, clean

if TYPE_CHECKING:
    from cachesim.config import Finding
    from cachesim.core.ledger import TariffSet
    from cachesim.tariffs.check import Request

Row = dict[str, Any]
FOUND: Final = 1
NOW: Final = "now"
CHECK_COLUMNS: Final = ("tariff", "code", "model", "source", "requests", "text")

app = typer.Typer(
    no_args_is_help=True,
    epilog=examples(
        "cachesim tariffs show                              # the prices of ./cachesim.toml",
        "cachesim tariffs show prices.csv,cache.toml --at now   # what holds today, and how old it is",
        "cachesim tariffs check new.toml --log logs.jsonl   # is every request of the log priced?",
        "cachesim tariffs diff old.csv new.csv              # exit 1 if they differ",
    ),
)


@app.callback()
def tariffs() -> None:
    """Show, check and compare price ledgers.

    A SET is a file or several joined with commas: .toml, .csv or .parquet. Without one: the configuration's own.
    """


Sets = Annotated[
    list[str] | None, typer.Argument(metavar="[SET]…", help="FILE[,FILE]: one tariff set.", show_default=False)
]
Logs = Annotated[
    list[str] | None,
    typer.Option("--log", metavar="LOG", help="A request log: its models, and its end for ages (repeatable)."),
]


@app.command(
    epilog=examples(
        "cachesim tariffs show --log logs.jsonl           # with ages as of the end of the log, and assumed prices",
        "cachesim tariffs show --at 2026-03-01            # what held then",
        "cachesim tariffs show tariffs.parquet -f csv     # a ledger as a flat table, exact",
    )
)
def show(
    sets: Sets = None,
    config: ConfigFiles = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Only what holds at TIME, or `now`; ages as of it.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", metavar="NAME", help="Only this model.")] = None,
    log: Logs = None,
    timezone: Zone = "UTC",
    log_format: LogFormat = None,
    mapping: MappingFile = None,
    start: Start = None,
    interval: Interval = None,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Every tariff: prices, multipliers, floor, when it holds, its age, and the reads that pay a write back.

    Ages are days from a tariff's beginning to --at, else to the end of the --log. Without either, a table tells them as
    of today, and the forms for programs not at all.
    """
    from cachesim.tariffs.rows import COLUMNS, tariff_rows
    from cachesim.tariffs.screen import print_set

    chosen = _sets(sets, config)
    with _log(log, timezone, log_format, mapping, start, interval, quiet=quiet) as seen:
        at_us = None if at is None else _instant(seen, at, timezone)
    as_of_us = at_us if at_us is not None else seen.last_us
    if as_of_us is None and form is Format.TABLE:
        as_of_us = _now_us()
    found = {tariff: tariff_rows(tariff, at_us=at_us, as_of_us=as_of_us, models=seen.models) for tariff in chosen}
    if wanted := split_commas(model):
        found = _of_models(found, wanted, seen.models)
    if form is Format.TABLE:
        with screen(output) as out:
            for tariff, rows in found.items():
                print_set(out, tariff, rows, as_of_us, explain=explain)
        return
    from cachesim.report.times import instant_text

    rows = [row for rows in found.values() for row in rows]
    warnings = [{"code": "tariff_warning", "text": text} for tariff in found for text in tariff.warnings]
    more = {"as_of": None if as_of_us is None else instant_text(as_of_us)}
    emit(Report("tariffs show", COLUMNS, rows, assumptions=warnings, more=more), form, output)


def _of_models(
    found: dict[TariffSet, list[Row]], wanted: Sequence[str], of_log: Sequence[str]
) -> dict[TariffSet, list[Row]]:
    """The rows of these models, and those of every model. UsageError for one that neither a set nor the log knows."""
    from cachesim.core.ledger import EVERY_MODEL

    known = sorted({row["model"] for rows in found.values() for row in rows} - {EVERY_MODEL} | set(of_log))
    for name in wanted:
        if name not in known:
            raise UsageError(unknown("--model", name, known))
    return {tariff: [r for r in rows if r["model"] in (*wanted, EVERY_MODEL)] for tariff, rows in found.items()}


@app.command(
    epilog=examples(
        "cachesim tariffs check                             # gaps, overlaps, rows that never hold",
        "cachesim tariffs check new.toml --log 'logs/*.zst' # and what the log would miss",
        "cachesim tariffs check --ignore gap,no_base_tariff # what is meant to be so",
    )
)
def check(
    sets: Sets = None,
    config: ConfigFiles = None,
    log: Logs = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="CODE,…", help="Kinds of findings that are meant to be.")
    ] = None,
    timezone: Zone = "UTC",
    log_format: LogFormat = None,
    mapping: MappingFile = None,
    start: Start = None,
    interval: Interval = None,
    form: Form = Format.TABLE,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Find what is wrong with tariffs: unreadable, competing and useless rows, gaps, models and requests without one.

    Exit code 1 if anything is found.
    """
    from cachesim.report.render import say
    from cachesim.report.tables import counted
    from cachesim.tariffs.check import CODES, requests_of

    ignored = set(split_commas(ignore))
    for code in ignored - CODES.keys():
        raise UsageError(unknown("--ignore", code, CODES))
    examined = list(_examined(sets, config))
    with _log(log, timezone, log_format, mapping, start, interval, quiet=quiet) as seen:
        rows = [
            row
            for tariff, findings in examined
            for row in _finding_rows(tariff, findings, requests_of(seen.con, seen.trace_no) if seen.models else [])
            if row["code"] not in ignored
        ]
    if form is Format.TABLE:
        with screen(output) as out:
            for row in rows:
                place = row["source"] or row["tariff"]
                count = "" if row["requests"] is None else f"{counted('request', row['requests'])}: "
                say(out, f"{place}: {count}{row['text']} [{row['code']}]")
            names = ", ".join(tariff.name for tariff, _ in examined)
            say(out, f"{names}: {counted('finding', len(rows)) if rows else 'nothing found'}", "bold")
    else:
        emit(Report("tariffs check", CHECK_COLUMNS, rows), form, output)
    if rows:
        raise typer.Exit(FOUND)


def _finding_rows(tariff: TariffSet, findings: list[Finding], requests: Iterable[Request]) -> Iterator[Row]:
    """What rows that can be read lack is told only where all of them can."""
    from cachesim.tariffs.check import log_findings, set_findings

    found: list[tuple[Finding, int | None]] = [(finding, None) for finding in findings]
    if not any(finding.code == "invalid_row" for finding in findings):
        found += [(finding, None) for finding in set_findings(tariff)]
        found += log_findings(tariff, requests)
    for finding, count in found:
        yield {
            "tariff": tariff.name,
            "code": finding.code,
            "model": finding.model or None,
            "source": finding.source or None,
            "requests": count,
            "text": finding.text,
        }


@app.command(
    epilog=examples(
        "cachesim tariffs diff old.toml new.toml            # exit 1 if they differ",
        "cachesim tariffs diff cachesim.toml dump.csv,cache.csv -f json",
    )
)
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A tariff set: FILE[,FILE].")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    form: Form = Format.TABLE,
    output: Output = None,
) -> None:
    """What changed between two tariff sets: rows added and removed, and every value that changed.

    Rows are the same if model, purpose, completion window and beginning are. Exit code 1 if the sets differ.
    """
    from cachesim.config import load_tariff_set
    from cachesim.tariffs.diff import COLUMNS, tariff_changes
    from cachesim.tariffs.screen import print_changes

    rows = tariff_changes(load_tariff_set(a, a), load_tariff_set(b, b))
    if form is Format.TABLE:
        with screen(output) as out:
            print_changes(out, rows, a, b)
    else:
        emit(Report("tariffs diff", COLUMNS, rows, more={"a": a, "b": b}), form, output)
    if rows:
        raise typer.Exit(FOUND)


@dataclass(slots=True)
class _Seen:
    """What --log shows; without one nothing. last_us: its last arrival; models: those it names."""

    con: Any
    trace_no: int = 0
    last_us: int | None = None
    models: list[str] = field(default_factory=list)


@contextmanager
def _log(
    logs: Sequence[str] | None,
    timezone: str,
    log_format: str | None,
    mapping: str | None,
    start: str | None,
    interval: str | None,
    *,
    quiet: bool,
) -> Iterator[_Seen]:
    """The log read as `check` reads it, whatever the configuration: nothing is counted and nothing is stored."""
    from cachesim.config import no_config
    from cachesim.store.db import IN_MEMORY, open_database

    with open_database(IN_MEMORY) as con:
        if not logs:
            yield _Seen(con)
            return
        arguments = Arguments(
            logs, None, None, None, None, None, timezone, log_format, start, interval, None, False, False, quiet,
            mapping=mapping,
        )  # fmt: skip
        trace = arguments.read_uncounted(con, no_config(), arguments.sources())
        sql = "SELECT max(at_us), list(DISTINCT model ORDER BY model) FILTER (model IS NOT NULL) FROM requests"
        row = con.execute(f"{sql} WHERE trace_no = ?", [trace.trace_no]).fetchone()
        assert row is not None, "an aggregate has one row"
        yield _Seen(con, trace.trace_no, row[0], row[1] or [])


def _instant(seen: _Seen, text: str, timezone: str) -> int:
    from cachesim.report.times import parse_instant

    return _now_us() if text == NOW else parse_instant(seen.con, "--at", text, timezone)


def _now_us() -> int:
    return time.time_ns() // 1000


def _sets(specs: Sequence[str] | None, config: Sequence[str] | None) -> list[TariffSet]:
    from cachesim.config import load_config, load_tariff_set

    _refuse_both(specs, config)
    return [load_tariff_set(spec, spec) for spec in specs] if specs else [load_config(config or ()).tariff]


def _examined(specs: Sequence[str] | None, config: Sequence[str] | None) -> Iterator[tuple[TariffSet, list[Finding]]]:
    from cachesim.config import examine_config, examine_tariff_set

    _refuse_both(specs, config)
    if not specs:
        yield examine_config(config or ())
    for spec in specs or ():
        yield examine_tariff_set(spec)


def _refuse_both(specs: Sequence[str] | None, config: Sequence[str] | None) -> None:
    if specs and config:
        names = ", ".join(clean(spec) for spec in specs)
        raise UsageError(f"--config: not beside the tariff sets {names}; join files of one set with commas")
