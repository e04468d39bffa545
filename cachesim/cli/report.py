"""`cachesim report`: a run's hit rates and bills, grouped any way, in any form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.lazy import examples, split_commas
from cachesim.cli.output import Database, Explain, Form, Output, console, emit, screen
from cachesim.errors import UsageError, nearest
from cachesim.report.columns import kind_of
from cachesim.report.formats import Format, Report, Row
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb

    from cachesim.report.query import Filters

TABLE_ROWS: Final = 50
"""Rows per block of a table unless --top says otherwise; the other forms always hold everything."""
DEFAULT_SORT: Final = "prompt_tokens"

app = typer.Typer()
_REDUCE: Final = "Reduce"
_GROUP: Final = "Group by"


def _shortcut(name: str) -> Any:
    return typer.Option(f"--by-{name}", help=f"Same as --by {name}.", rich_help_panel=_GROUP)


def _only(name: str, what: str) -> Any:
    return typer.Option(f"--{name}", metavar="NAME", help=f"Only this {what} (repeatable).", rich_help_panel=_REDUCE)


def _when(name: str, what: str) -> Any:
    return typer.Option(f"--{name}", metavar="TIME", help=what, rich_help_panel=_REDUCE)


_BY_HELP: Final = (
    "model, principal, day, hour, session, tier, outcome, reason, log_format, tag:NAME, or request (alone);"
    " of a sweep model, principal, part; repeatable or with commas."
)
By = Annotated[list[str] | None, typer.Option("--by", metavar="NAME,…", rich_help_panel=_GROUP, help=_BY_HELP)]
ByModel = Annotated[bool, _shortcut("model")]
ByPrincipal = Annotated[bool, _shortcut("principal")]
ByDay = Annotated[bool, _shortcut("day")]
ByHour = Annotated[bool, _shortcut("hour")]
BySession = Annotated[bool, _shortcut("session")]
ByOutcome = Annotated[bool, _shortcut("outcome")]
ByReason = Annotated[bool, _shortcut("reason")]
ByTier = Annotated[bool, _shortcut("tier")]
ByRequest = Annotated[bool, _shortcut("request")]
RunName = Annotated[str, typer.Option("--run", metavar="RUN", help="Number or digest of the run.")]
PolicyNames = Annotated[list[str] | None, _only("policy", "policy or bound")]
TariffNames = Annotated[list[str] | None, _only("tariff", "tariff set")]
ModelNames = Annotated[list[str] | None, _only("model", "model")]
PrincipalNames = Annotated[list[str] | None, _only("principal", "principal")]
Since = Annotated[str | None, _when("since", "From this date or time on (what is shown, not what is replayed).")]
Until = Annotated[str | None, _when("until", "Before this date or time.")]
Zone = Annotated[str, typer.Option("--timezone", metavar="ZONE", help="For days, hours, and times without an offset.")]
Bounds = Annotated[bool, typer.Option("--bounds", help="Show the bounds off and ideal beside the policies.")]
Sensitivity = Annotated[
    bool, typer.Option("--sensitivity", help="What changes if every local count moves by ±5 %, per model and in total.")
]
Drift = Annotated[
    bool, typer.Option("--drift", help="Local counts against reported prompt tokens instead, per model and tools.")
]
Sort = Annotated[
    str | None, typer.Option("--sort", metavar="COLUMN[:asc|:desc]", help="Order of the rows; numbers: largest first.")
]
Top = Annotated[
    int | None, typer.Option("--top", min=1, metavar="N", help="Only the first N rows per policy and tariff.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No remarks on stderr.")]


@dataclass(frozen=True, slots=True)
class Sorting:
    """Which rows of a block come first, and how many are shown (None: all)."""

    column: str | None
    descending: bool
    top: int | None


@app.command(
    epilog=examples(
        "cachesim report                                            # totals of the latest run",
        "cachesim report --by model,day --timezone Europe/Berlin    # any combination of groups",
        "cachesim report --by reason                                # why requests did not use the cache",
        "cachesim report --drift                                    # are the tokens counted as the provider does?",
        "cachesim report --by request --format csv -o requests.csv  # one row per request",
        "cachesim report --sensitivity                              # if counts were 5 % lower or higher",
    )
)
def report(
    by: By = None,
    by_model: ByModel = False,
    by_principal: ByPrincipal = False,
    by_day: ByDay = False,
    by_hour: ByHour = False,
    by_session: BySession = False,
    by_outcome: ByOutcome = False,
    by_reason: ByReason = False,
    by_tier: ByTier = False,
    by_request: ByRequest = False,
    run: RunName = "latest",
    db: Database = DEFAULT_DATABASE,
    policy: PolicyNames = None,
    tariff: TariffNames = None,
    model: ModelNames = None,
    principal: PrincipalNames = None,
    since: Since = None,
    until: Until = None,
    timezone: Zone = "UTC",
    bounds: Bounds = False,
    sensitivity: Sensitivity = False,
    drift: Drift = False,
    sort: Sort = None,
    top: Top = None,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Hit rates and bills of a run, by model, principal, day, tag, request …

    Only successful requests that the policy serves are in totals and rates; failed and rejected ones are counted apart.
    """
    from cachesim.cli.moved import moved_report
    from cachesim.report.names import check_names
    from cachesim.report.query import Filters
    from cachesim.report.runs import find_replay, find_run
    from cachesim.report.times import parse_period
    from cachesim.store.db import open_database

    flags = {"model": by_model, "principal": by_principal, "day": by_day, "hour": by_hour, "session": by_session,
             "outcome": by_outcome, "reason": by_reason, "tier": by_tier, "request": by_request}  # fmt: skip
    groups = list(dict.fromkeys([*split_commas(by), *(name for name, wanted in flags.items() if wanted)]))
    with open_database(db, read_only=True) as con:
        run_no = (find_replay if sensitivity else find_run)(con, run)
        since_us, until_us = parse_period(con, since, until, timezone)
        filters = Filters(
            since_us=since_us, until_us=until_us, timezone=timezone, bounds=bounds, policies=tuple(policy or ()),
            tariffs=tuple(tariff or ()), models=tuple(model or ()), principals=tuple(principal or ()),
        )  # fmt: skip
        check_names(con, [run_no], filters)
        if sensitivity:
            moved_report(con, run_no, groups, filters, (sort, top), form, output, explain=explain, quiet=quiet)
        elif drift:
            _drift(con, run_no, groups, filters, form, output, explain=explain)
        else:
            made, totals = make_report(con, run_no, groups, filters)
            sorting = _sorting(sort, top, made.columns, default=top is not None)
            _write(made, totals, sorting, form, output, explain=explain, quiet=quiet)


def make_report(
    con: duckdb.DuckDBPyConnection, run_no: int, by: list[str], filters: Filters, command: str = "report"
) -> tuple[Report, list[Row] | None]:
    """The report, and for grouped ones the rows of its totals; a sweep has none, and a block per policy and tariff."""
    from cachesim.report.columns import COLUMNS, SWEEP_COLUMNS
    from cachesim.report.lists import REQUEST_COLUMNS
    from cachesim.report.query import is_sweep, lead_columns, report_rows, request_rows, shown_variants
    from cachesim.report.render import lead_key
    from cachesim.report.runs import show_run
    from cachesim.report.sensitivity import envelope

    lead = lead_columns(shown_variants(con, run_no, filters))
    info = show_run(con, run_no)
    rows: Iterable[Row]
    totals = None
    if by == ["request"]:
        columns = [*lead, *(name for name, _, _ in REQUEST_COLUMNS)]
        rows = request_rows(con, run_no, filters)
    elif "request" in by:
        raise UsageError("--by request: one row per request cannot be combined with other groups")
    elif is_sweep(con, run_no):
        columns = [*lead, *by, *(column.name for column in SWEEP_COLUMNS)]
        blocks: dict[Any, list[Row]] = {}
        for row in report_rows(con, run_no, by, filters):
            blocks.setdefault(lead_key(row), []).append(row)
        rows = [row for block in blocks.values() for row in block]
    else:
        columns = [*lead, *by, *(column.name for column in COLUMNS)]
        rows = report_rows(con, run_no, by, filters)
        totals = report_rows(con, run_no, [], filters) if by else None
    more = {"sensitivity": envelope(con, run_no)}
    made = Report(command, columns, rows, by, [info.entry()], info.assumptions, info.problems, more)
    return made, totals


def _drift(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    groups: list[str],
    filters: Filters,
    form: Form,
    output: Path | None,
    *,
    explain: bool,
) -> None:
    from cachesim.report.drift import COLUMNS, drift_rows, headline
    from cachesim.report.render import explain_columns, note_dropped, say
    from cachesim.report.runs import show_run
    from cachesim.report.tables import table

    if groups:
        raise UsageError("--drift: is by model and tools; it goes without --by")
    rows = drift_rows(con, run_no, filters)
    if form is not Format.TABLE:
        info = show_run(con, run_no)
        emit(Report("report", COLUMNS, rows, ["model"], [info.entry()], info.assumptions, info.problems), form, output)
        return
    with screen(output) as out:
        say(out, headline(rows), "bold")
        if rows:
            kept = ("model", "with_tools", "local_tokens", "reported_prompt_tokens", "drift")
            grid, dropped = table(COLUMNS[1:], rows, out.width, keep=kept)
            out.print(grid)
            note_dropped(out, dropped)
        if explain:
            explain_columns(out, COLUMNS[1:])


def _sorting(sort: str | None, top: int | None, columns: Sequence[str], *, default: bool) -> Sorting:
    if sort is None:
        return Sorting(DEFAULT_SORT if default else None, True, top)
    name, _, direction = sort.rpartition(":") if sort.endswith((":asc", ":desc")) else (sort, "", "")
    if name not in columns:
        raise UsageError(f"--sort {name!r}: no such column; {nearest(name, columns)}".removesuffix("; "))
    descending = direction == "desc" if direction else kind_of(name) != "text"
    return Sorting(name, descending, top)


def _arrange(rows: Iterable[Row], sorting: Sorting) -> Iterator[Row]:
    """Rows in the wanted order within each policy and tariff, nulls last; keeps only --top rows in memory."""
    from cachesim.report.render import lead_key

    if sorting.column is None:
        yield from rows
        return
    for _, block in groupby(rows, key=lead_key):
        yield from _first(block, sorting.column, sorting)


def _first(block: Iterator[Row], column: str, sorting: Sorting) -> list[Row]:
    numeric = kind_of(column) != "text"
    flip = -1 if sorting.descending else 1

    def key(row: Row) -> tuple[bool, Any]:
        value = row[column]
        return value is None, (flip * value if numeric else value) if value is not None else 0

    if sorting.top is not None and numeric:
        return nsmallest(sorting.top, block, key=key)
    rows = list(block)
    known = sorted((r for r in rows if r[column] is not None), key=lambda r: r[column], reverse=sorting.descending)
    return [*known, *(r for r in rows if r[column] is None)][: sorting.top]


def _write(
    made: Report,
    totals: list[Row] | None,
    sorting: Sorting,
    form: Format,
    output: Path | None,
    *,
    explain: bool,
    quiet: bool,
) -> None:
    if form is Format.TABLE:
        _print(made, totals, sorting, output, explain=explain, quiet=quiet)
    else:
        made.rows = _arrange(made.rows, sorting)
        emit(made, form, output)


def _print(
    made: Report, totals: list[Row] | None, sorting: Sorting, output: Path | None, *, explain: bool, quiet: bool
) -> None:
    from cachesim.report.render import explain_columns, note_dropped, print_report, say

    limit = sorting.top or TABLE_ROWS
    rows, hidden = _limited(_arrange(made.rows, sorting), limit)
    if isinstance(made.rows, list):
        hidden = len(made.rows) - len(rows)
    words = console(stderr=True)
    if not rows:
        say(words, "No request matches.")
    estimated = any(not tokenizer["exact"] for run in made.runs for tokenizer in run["tokenizers"])
    with screen(output) as out:
        dropped = print_report(out, made.by, rows, totals, made.columns, estimated=estimated)
        if explain:
            explain_columns(out, [n for n in made.columns if n != "run"], of_a_request=made.by == ["request"])
    if not quiet:
        note_dropped(words, dropped)
        if hidden:
            total = " (the row `all` includes them)" if made.by and totals else ""
            say(words, f"{hidden:,} more rows{total}: --top N shows more, --format csv everything.")


def _limited(rows: Iterable[Row], limit: int) -> tuple[list[Row], int]:
    """At most `limit` rows of each block, and how many were left out."""
    from cachesim.report.render import lead_key

    kept: list[Row] = []
    hidden = 0
    for _, block in groupby(rows, key=lead_key):
        for i, row in enumerate(block):
            if i >= limit:
                hidden += 1
            else:
                kept.append(row)
    return kept, hidden
