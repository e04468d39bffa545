"""`cachesim index`: the cache index over time - what lives when, how often it is read, and what nobody ever read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.lazy import examples, split_commas
from cachesim.cli.losers import PolicyName, TariffName, chosen_variant
from cachesim.cli.output import Database, Explain, Form, Output, Quiet, emit, screen
from cachesim.cli.report import ModelNames, PrincipalNames, RunName, Zone
from cachesim.errors import UsageError
from cachesim.report.formats import Format, Report
from cachesim.report.times import instant_text
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

    from cachesim.report.query import Variant
    from cachesim.report.runs import Run

Row = dict[str, Any]
app = typer.Typer()
TOP: Final = 20

At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="The entries live at this instant, as they were then.")
]
Episodes = Annotated[bool, typer.Option("--episodes", help="Every entry's life, in order of its beginning.")]
Dead = Annotated[bool, typer.Option("--dead", help="Entries that were written and never read, the dearest first.")]
By = Annotated[
    list[str] | None,
    typer.Option("--by", metavar="NAME,…", help="model, principal, ttl_tier, in any combination (default: model)."),
]
Top = Annotated[int, typer.Option("--top", min=1, metavar="N", help="Only the first N rows (tables).")]


@app.command(
    epilog=examples(
        "cachesim index --by model,ttl_tier                  # how many entries live, and dead writes",
        "cachesim index --at 2026-03-01T12:00 --model qwen   # what is cached of a model at noon",
        "cachesim index --episodes --format csv -o lives.csv # every entry's life",
        "cachesim index --dead --principal acme              # what acme wrote and nobody read",
    )
)
def index(
    at: At = None,
    episodes: Episodes = False,
    dead: Dead = False,
    by: By = None,
    run: RunName = "latest",
    db: Database = DEFAULT_DATABASE,
    policy: PolicyName = None,
    tariff: TariffName = None,
    model: ModelNames = None,
    principal: PrincipalNames = None,
    timezone: Zone = "UTC",
    top: Top = TOP,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """The cache index over time: what lives when, how often it is read, and what nobody ever read.

    The variant is replayed once more over the stored log. An entry lives from the response that wrote it until it
    expires; a read by a later request, or a new write, lets it live on. Prefixes are named by their hash.
    """
    from cachesim.report.lives import check_by, condition
    from cachesim.report.names import check_names
    from cachesim.report.query import Filters
    from cachesim.report.runs import find_replay, show_run
    from cachesim.report.times import parse_instant
    from cachesim.store.db import open_database

    if sum([at is not None, episodes, dead, by is not None]) > 1:
        raise UsageError("--at, --episodes, --dead and --by are different answers; ask for one of them")
    groups = check_by(split_commas(by) or ["model"])
    with open_database(db, read_only=True) as con:
        at_us = None if at is None else parse_instant(con, "--at", at, timezone)
        info = show_run(con, find_replay(con, run))
        variant = chosen_variant(con, info.run_no, policy, tariff)
        check_names(con, [info.run_no], Filters(models=tuple(model or ()), principals=tuple(principal or ())))
        span = _replay(con, info, variant, at_us, quiet=quiet)
        where = condition(principal or (), model or ())
        lead = {"run": info.digest, "policy": variant.policy, "tariff": variant.tariff}
        name = "at" if at_us is not None else "episodes" if episodes else "dead" if dead else None
        if name is None:
            answer = _summary(con, lead, groups, where, span)
        else:
            answer = _list(con, lead, name, where, info.trace_no, at_us)
    if form is Format.TABLE:
        with screen(output) as out:
            _screen(out, answer, top, info, explain=explain)
    else:
        more = {} if at_us is None else {"at": instant_text(at_us)}
        head = ([info.entry()], info.assumptions, info.problems, more)
        emit(Report("index", answer.columns, answer.rows, answer.by, *head), form, output)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Rows with all their columns, and what a table shows: words above it, its columns, a row of totals.

    lead: the leading columns, which all rows share.
    """

    lead: Row
    columns: Sequence[str]
    rows: Sequence[Row]
    words: Sequence[str]
    table: Sequence[str]
    by: Sequence[str] = ()
    total: Row | None = None


def _replay(
    con: duckdb.DuckDBPyConnection, info: Run, variant: Variant, at_us: int | None, *, quiet: bool
) -> tuple[int, int]:
    """Fill the table `life_sums` with the lives of the variant up to `at_us`; returns the span of the log, µs."""
    from cachesim.cli.progress import progress
    from cachesim.collector import no_collection
    from cachesim.lives import follow_lives, keep_lives
    from cachesim.report.lives import sum_lives
    from cachesim.store.trace_reader import load_trace
    from cachesim.stored_plan import continued_from, stored_plan

    plan = stored_plan(con, info.run_no)
    wanted = plan.variants()[variant.variant_no]
    continues = continued_from(con, info.run_no, wanted.policy, plan.strategy, wanted.tariff)
    trace = load_trace(con, info.trace_no)
    with no_collection(), progress(trace.request_count, "following entries", quiet, unit="requests") as advance:
        lives = follow_lives(con, trace, wanted.policy, plan.strategy, wanted.tariff, continues, at_us, advance)
    keep_lives(con, lives)
    sum_lives(con, info.run_no, variant, lives.begin_us, lives.end_us if at_us is None else at_us)
    return lives.begin_us, lives.end_us


def _list(
    con: duckdb.DuckDBPyConnection, lead: Row, name: str, where: str, trace_no: int, at_us: int | None
) -> _Answer:
    from cachesim.report.lives import ENTRY_COLUMNS, LISTINGS, at_text, entry_rows, list_text

    listing = LISTINGS[name]
    rows = entry_rows(con, lead, listing, where)
    if at_us is None:
        words = list_text(name, rows)
    else:
        (log,) = con.execute("SELECT min(at_us), max(at_us) FROM requests WHERE trace_no = ?", [trace_no]).fetchall()
        words = at_text(rows, at_us, log)
    return _Answer(lead, ENTRY_COLUMNS, rows, [words, *_inherited(con, where)], listing.table)


def _summary(
    con: duckdb.DuckDBPyConnection, lead: Row, by: Sequence[str], where: str, span: tuple[int, int]
) -> _Answer:
    from cachesim.report.lives import FIGURES, TABLE, dead_text, summary_rows, summary_text

    rows = summary_rows(con, lead, by, where, *span)
    (total,) = summary_rows(con, lead, [], where, *span)
    words = [summary_text(total, *span), dead_text(total), *_inherited(con, where)]
    return _Answer(lead, [*lead, *by, *FIGURES], rows, words, [*by, *TABLE], by, total)


def _inherited(con: duckdb.DuckDBPyConnection, where: str) -> list[str]:
    from cachesim.report.lives import inherited_text

    con.execute(f"SELECT count(*) FROM life_sums WHERE inherited AND {where}")
    return [inherited_text(count) for (count,) in con.fetchall() if count]


def _screen(out: Console, answer: _Answer, top: int, info: Run, *, explain: bool) -> None:
    from cachesim.report.lives import KEPT, SHORT_PREFIX
    from cachesim.report.render import explain_columns, note_dropped, say
    from cachesim.report.tables import table, table_columns

    estimated = any(not tokenizer["exact"] for tokenizer in info.tokenizers)
    say(out, answer.words[0], "bold")
    for words in answer.words[1:]:
        say(out, words)
    variant = f"{answer.lead['policy']} · tariff {answer.lead['tariff']}"
    say(out, f"\n{variant}{' · tokens estimated' if estimated else ''}", "bold")
    shown = [{**row, "prefix": row["prefix"][:SHORT_PREFIX]} if "prefix" in row else row for row in answer.rows[:top]]
    if not shown:
        return
    columns = table_columns(answer.table, shown, machine=True)
    total = {**answer.total, **dict.fromkeys(answer.by)} if answer.total else None
    grid, dropped = table(columns, shown, out.width, keep=answer.by or KEPT, total=total)
    out.print(grid)
    if len(answer.rows) > top:
        say(out, f"{len(answer.rows) - top:,} more: --top N shows more, --format csv everything.", "dim")
    note_dropped(out, dropped)
    if explain:
        explain_columns(out, answer.table)
