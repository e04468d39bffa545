"""`cachesim losers`: who pays more with caching than without, what for, and the writes that nobody read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.lazy import examples, split_commas
from cachesim.cli.output import Database, Explain, Form, Output, Quiet, emit, screen
from cachesim.cli.report import RunName
from cachesim.errors import CannotEvaluate, UsageError
from cachesim.report.formats import Format, Report
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

    from cachesim.report.query import Variant
    from cachesim.report.runs import Run
    from cachesim.store.traces import PreparedTrace

Row = dict[str, Any]
app = typer.Typer()
TOP: Final = 20
APP_TAG: Final = "tag:app"

By = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="NAME,…",
        help="principal, tag:NAME, system (the system prompt), model, session …: a list for each."
        " [default: principal, tag:app, system]",
    ),
]
PolicyName = Annotated[str | None, typer.Option("--policy", metavar="NAME", help="Of a run with several: this one.")]
TariffName = Annotated[str | None, typer.Option("--tariff", metavar="NAME", help="Of a run with several: this one.")]
Everyone = Annotated[bool, typer.Option("--all", help="Show everyone, not only those who pay more.")]
Top = Annotated[int, typer.Option("--top", min=1, metavar="N", help="Only the first N of each list (tables).")]


@app.command(
    epilog=examples(
        "cachesim losers                               # principals, apps and system prompts that pay more",
        "cachesim losers --by tag:team --all           # everyone by a tag, the dearest against list first",
        "cachesim losers --format csv -o losers.csv    # every cohort that pays more, for a spreadsheet",
    )
)
def losers(
    by: By = None,
    run: RunName = "latest",
    db: Database = DEFAULT_DATABASE,
    policy: PolicyName = None,
    tariff: TariffName = None,
    everyone: Everyone = False,
    top: Top = TOP,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Who pays more with caching than without, and the premium for writes that nobody read.

    The variant is replayed once more over the stored log to follow every write to its end. Only successful requests
    that the policy serves count.
    """
    from cachesim.report.losers import COLUMNS, cohort_rows
    from cachesim.report.losers import losers as only_losers
    from cachesim.report.runs import find_replay, show_run
    from cachesim.store.db import open_database

    with open_database(db, read_only=True) as con:
        run_no = find_replay(con, run)
        info = show_run(con, run_no)
        variant = chosen_variant(con, run_no, policy, tariff)
        names = _dimensions(con, info.trace_no, by)
        fates = _follow(con, info, variant, quiet=quiet)
        (total,) = cohort_rows(con, run_no, variant, None, fates=fates)
        lists = {name: cohort_rows(con, run_no, variant, name, fates=fates) for name in names}
    _refuse_unknown(total, lists)
    shown = {name: rows if everyone else only_losers(rows) for name, rows in lists.items()}
    if form is not Format.TABLE:
        rows = [row for found in shown.values() for row in found]
        emit(Report("losers", COLUMNS, rows, names, [info.entry()], info.assumptions, info.problems), form, output)
    else:
        with screen(output) as out:
            _screen(out, info, total, lists, shown, top, explain=explain)


def _refuse_unknown(total: Row, lists: dict[str, list[Row]]) -> None:
    """Raises CannotEvaluate if nobody is known to pay more and a list has no known bill: that is no answer."""
    from cachesim.report.losers import is_evidence, many
    from cachesim.report.losers import losers as only_losers

    blind = [name for name, rows in lists.items() if not is_evidence(rows)]
    if blind and not any(only_losers(rows) for rows in lists.values()):
        raise CannotEvaluate(
            f"losers: {total['unpriced']:,} requests have no price, and none of {many(blind[0], len(lists[blind[0]]))}"
            " has a known bill; add a [[base_tariff]], or leave the list out of --by"
        )


def chosen_variant(con: duckdb.DuckDBPyConnection, run_no: int, policy: str | None, tariff: str | None) -> Variant:
    """The first policy of the run that the options leave."""
    from cachesim.report.query import Filters, shown_variants

    filters = Filters(policies=(policy,) if policy else (), tariffs=(tariff,) if tariff else ())
    found = [v for v in shown_variants(con, run_no, filters) if v.kind != "bound"]
    if not found:
        raise UsageError(f"--policy {policy!r}: a bound has no bill; choose a policy of the run")
    return found[0]


def _dimensions(con: duckdb.DuckDBPyConnection, trace_no: int, by: Sequence[str] | None) -> list[str]:
    """The lists to make; by default apps only where the log names any. Raises UsageError for unknown ones."""
    from cachesim.report.losers import SYSTEM, cohort_dimension

    names = list(split_commas(by))
    for name in names:
        cohort_dimension(name)
    if names:
        return list(dict.fromkeys(names))
    tagged = con.execute(
        f"SELECT 1 FROM requests WHERE trace_no = ? AND {cohort_dimension(APP_TAG).key} IS NOT NULL LIMIT 1", [trace_no]
    ).fetchone()
    return ["principal", *([APP_TAG] if tagged else []), SYSTEM]


def _follow(con: duckdb.DuckDBPyConnection, info: Run, variant: Variant, *, quiet: bool) -> bool:
    """Fill the table `followed`; False where the run continued one that is gone, so that writes cannot be followed."""
    from cachesim.cli.progress import progress
    from cachesim.collector import no_collection
    from cachesim.episodes import follow, keep
    from cachesim.store.trace_reader import load_trace
    from cachesim.stored_plan import continued_from, stored_plan

    plan = stored_plan(con, info.run_no)
    wanted = plan.variants()[variant.variant_no]
    trace: PreparedTrace = load_trace(con, info.trace_no)
    continues, fates = None, True
    try:
        continues = continued_from(con, info.run_no, wanted.policy, plan.strategy, wanted.tariff)
    except CannotEvaluate:
        fates = False
    with no_collection(), progress(trace.request_count, "following writes", quiet, unit="requests") as advance:
        episodes = follow(con, trace, wanted.policy, plan.strategy, wanted.tariff, continues, advance)
    keep(con, episodes, fates=fates)
    return fates


def _screen(
    out: Console,
    info: Run,
    total: Row,
    lists: dict[str, list[Row]],
    shown: dict[str, list[Row]],
    top: int,
    *,
    explain: bool,
) -> None:
    from cachesim.report.losers import TABLE, dead_text, headline, list_text
    from cachesim.report.render import explain_columns, note_dropped, say
    from cachesim.report.tables import table, table_columns

    estimated = any(not tokenizer["exact"] for tokenizer in info.tokenizers)
    say(out, headline(total, lists), "bold")
    say(out, dead_text(total))
    dropped: list[str] = []
    for name, rows in lists.items():
        say(out, f"\n{list_text(name, rows)}{' · tokens estimated' if estimated else ''}", "bold")
        if not shown[name]:
            continue
        columns = table_columns(TABLE, shown[name], machine=True)
        grid, left = table(["cohort", *columns], shown[name][:top], out.width, keep=["cohort"])
        out.print(grid)
        dropped += left
        if len(shown[name]) > top:
            say(out, f"{len(shown[name]) - top:,} more: --top N shows more, --format csv everything.", "dim")
    note_dropped(out, dropped)
    if explain:
        explain_columns(out, ["cohort", *TABLE])
