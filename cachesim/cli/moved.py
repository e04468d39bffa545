"""`cachesim report --sensitivity`: what a run would say with every local count moved by ±5 %, in any form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachesim.cli.output import console, emit, screen
from cachesim.errors import UsageError
from cachesim.report.formats import Format, Report

if TYPE_CHECKING:
    import duckdb

    from cachesim.report.query import Filters


def moved_report(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    groups: Sequence[str],
    filters: Filters,
    sorting: Sequence[Any],
    form: Format,
    output: Path | None,
    *,
    explain: bool,
    quiet: bool,
) -> None:
    """Write what moved counts change. groups, sorting: what was asked for besides, which must be nothing.

    Raises UsageError for options that do not go with it, and as `check_kept` does.
    """
    from cachesim.report.render import explain_columns, note_dropped, say
    from cachesim.report.sensitivity import check_kept
    from cachesim.report.sensitivity_screen import SHOWN, print_sensitivity

    words = console(stderr=True)
    if groups or filters.principals or filters.since_us or filters.until_us or filters.bounds or any(sorting):
        raise UsageError("--sensitivity: always by model; besides it go --run, --policy, --tariff and --model only")
    check_kept(con, run_no, filters)
    made = _report(con, run_no, filters)
    if form is not Format.TABLE:
        emit(made, form, output)
        return
    if not made.rows:
        say(words, "No request matches.")
    with screen(output) as out:
        dropped = print_sensitivity(out, con, run_no, filters)
        if explain:
            explain_columns(out, SHOWN)
    if not quiet:
        note_dropped(words, dropped)


def _report(con: duckdb.DuckDBPyConnection, run_no: int, filters: Filters) -> Report:
    from cachesim.report.query import lead_columns, shown_variants
    from cachesim.report.runs import show_run
    from cachesim.report.sensitivity import COLUMNS, envelope, moved_rows

    info = show_run(con, run_no)
    columns = [*lead_columns(shown_variants(con, run_no, filters)), "model", *COLUMNS]
    rows = moved_rows(con, run_no, by_model=True, filters=filters)
    more = {"sensitivity": envelope(con, run_no)}
    return Report("report", columns, rows, ["model"], [info.entry()], info.assumptions, info.problems, more)
