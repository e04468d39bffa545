"""`cachesim compare`: two policies, tariffs, marker strategies, runs or periods, and what changes for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesim.cli.compare_sides import Sides
from cachesim.cli.lazy import examples, split_commas
from cachesim.cli.output import Database, Explain, Form, Output, Quiet, console, emit, screen
from cachesim.errors import CannotEvaluate, UsageError
from cachesim.report.formats import Format, Report, Row
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

    from cachesim.comparison import Comparison

app = typer.Typer()
_SIDES = "The two sides (an option given twice: A, then B; given once: both)"
_SHOWN = "What is shown"


def _side(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=_SIDES)


def _shown(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=_SHOWN)


Names = list[str] | None
Runs = Annotated[Names, _side("--run", "RUN", "Number or digest of a replay (default: the latest).")]
Policies = Annotated[Names, _side("--policy", "NAME", "A policy of the run, a preset, or 'PRESET \\[rule=value, …]'.")]
Tariffs = Annotated[Names, _side("--tariff", "NAME|FILE[,FILE]", "A tariff set of the run, or of files.")]
Markers = Annotated[Names, _side("--markers", "STRATEGY[:TIER]", "As for `replay`.")]
Periods = Annotated[
    Names, _side("--period", "FROM..UNTIL", "Arrivals of these days or times; an open end is left out.")
]
Since = Annotated[str | None, _shown("--since", "TIME", "Only what arrived at TIME or later.")]
Until = Annotated[str | None, _shown("--until", "TIME", "Only what arrived before TIME.")]
Zone = Annotated[str, _shown("--timezone", "ZONE", "Of days, and of times without an offset.")]
Models = Annotated[Names, _shown("--model", "NAME", "Only these models (repeatable).")]
Principals = Annotated[Names, _shown("--principal", "NAME", "Only these principals (repeatable).")]
By = Annotated[
    Names,
    _shown(
        "--by", "DIM[,DIM]", "Groups as in `report`; or alone: class (from outcome to outcome), request (the changed)."
    ),
]
Requests = Annotated[
    bool, typer.Option("--requests", help="The changed requests themselves: --by request.", rich_help_panel=_SHOWN)
]
ByRule = Annotated[
    bool,
    typer.Option(
        "--by-rule",
        help="Upgrade rehearsal: from policy A to policy B one rule at a time, in upstream's order; the steps add up.",
        rich_help_panel=_SHOWN,
    ),
]
Top = Annotated[
    int | None, typer.Option("--top", min=1, metavar="N", help="Rows of each table.", rich_help_panel=_SHOWN)
]


@app.command(
    epilog=examples(
        "cachesim compare --policy dwctl-8.63 --policy dwctl-10.13             # what an upgrade changes, for whom",
        "cachesim compare --policy dwctl-8.63 --policy dwctl-10.13 --by-rule   # … and which rule does it",
        "cachesim compare --policy dwctl-10.13 --policy 'dwctl-10.13 [min_prefix_tokens=512]'",
        "cachesim compare --tariff old.toml --tariff new.toml                  # equal floors: priced, not replayed",
        "cachesim compare --markers as-captured --markers automatic",
        "cachesim compare --run 1 --run 2                                      # two stored runs",
        "cachesim compare --period 2026-03-02..2026-03-09 --period 2026-03-09..2026-03-16",
        "cachesim compare --run 1 --run 2 --requests --format csv              # the requests that changed",
    )
)
def compare(
    db: Database = DEFAULT_DATABASE,
    run: Runs = None,
    policy: Policies = None,
    tariff: Tariffs = None,
    markers: Markers = None,
    period: Periods = None,
    since: Since = None,
    until: Until = None,
    timezone: Zone = "UTC",
    model: Models = None,
    principal: Principals = None,
    by: By = None,
    requests: Requests = False,
    by_rule: ByRule = False,
    top: Top = None,
    form: Form = Format.TABLE,
    output: Output = None,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Two sides of one question, A (before) and B (after): totals, models, principals, and the requests that changed.

    Every change is B − A. What the run does not hold is replayed from its stored log and kept as a run; a tariff with
    the same floors is only priced. Programs get three rows a group, `side` = a, b and change; `--by class`, `--by
    request` and `--by-rule` give one row each with columns `…_a`, `…_b`, `…_change`. Groups come with the largest
    change in charged first, up or down.
    """
    from cachesim.report.query import Filters

    groups = [*dict.fromkeys([*split_commas(by), *(["request"] if requests else [])])]
    _check(groups, by_rule)
    filters = Filters(timezone=timezone, models=tuple(model or ()), principals=tuple(principal or ()))
    sides = Sides(run or (), policy or (), tariff or (), markers or (), period or (), since, until, filters)
    job = _Job(sides, groups, top, form, output, explain, quiet)
    _with_database(db, quiet, job.rehearse if by_rule else job.compare)


def _check(groups: Sequence[str], by_rule: bool) -> None:
    for alone in ("request", "class"):
        if alone in groups and len(groups) > 1:
            raise UsageError(f"--by {alone}: stands alone, without other groups")
    if by_rule and groups:
        raise UsageError("--by-rule: has its own rows, without --by or --requests")


def _with_database(db: str, quiet: bool, work: Callable[[duckdb.DuckDBPyConnection, bool, Any], None]) -> None:
    """Read only as long as reading is enough: others may use the database meanwhile."""
    from cachesim.cli.progress import progress
    from cachesim.rehearsal import ReplayNeeded
    from cachesim.store.db import open_database

    try:
        with open_database(db, read_only=True) as con:
            return work(con, False, None)
    except ReplayNeeded:
        pass
    with open_database(db, must_exist=True) as con, progress(None, "replaying", quiet, unit="requests") as advance:
        return work(con, True, advance)


@dataclass(frozen=True, slots=True)
class _Job:
    """One call: what to compare, and how to write it."""

    sides: Sides
    by: list[str]
    top: int | None
    form: Format
    output: Path | None
    explain: bool
    quiet: bool

    def compare(self, con: duckdb.DuckDBPyConnection, may_replay: bool, advance: Any) -> None:
        from cachesim.comparison import compare

        a, b = self.sides.wanted(con)
        found = compare(con, a, b, may_replay=may_replay, progress=advance)
        if self._is_list and not found.pair.same_requests:
            raise CannotEvaluate(
                f"--by {self.by[0]}: the sides hold other requests, which cannot be told apart one by one; leave it out"
            )
        if self.form is not Format.TABLE:
            columns, rows = self._rows(con, found)
            self._emit(con, [side.run_no for side in found.pair.sides], columns, rows, found.assumptions)
        else:
            self._screen(con, found)

    @property
    def _is_list(self) -> bool:
        return self.by in (["request"], ["class"])

    def rehearse(self, con: duckdb.DuckDBPyConnection, may_replay: bool, advance: Any) -> None:
        from cachesim.comparison import rehearsed
        from cachesim.report.rehearsal import SHOWN, STEP_COLUMNS, print_steps, step_rows
        from cachesim.report.runs import show_run

        a, b = self.sides.wanted(con)
        made = rehearsed(con, a, b, may_replay=may_replay, progress=advance)
        names = [(step.change.name, step.change.upstream, step.change.rules) for step in made.steps]
        rows = step_rows(con, made.run_no, names, a.filters)
        if self.form is Format.TABLE:
            self._print(SHOWN, lambda out: print_steps(out, made.before, made.steps[-1].policy.name, rows))
        else:
            self._emit(con, [made.run_no], STEP_COLUMNS, rows, show_run(con, made.run_no).assumptions)

    # -- for programs

    def _rows(self, con: duckdb.DuckDBPyConnection, found: Comparison) -> tuple[Sequence[str], Iterable[Row]]:
        from cachesim.report.changes import CHANGED_COLUMNS, TRANSITION_COLUMNS, changed_requests, transitions
        from cachesim.report.compare import FIGURES, LEAD, compared, long_rows

        if self.by == ["request"]:
            return CHANGED_COLUMNS, islice(changed_requests(con, found.pair), self.top)
        if self.by == ["class"]:
            return TRANSITION_COLUMNS, islice(transitions(con, found.pair), self.top)
        groups = compared(con, found.pair, self.by, self.top)
        return [*LEAD, *self.by, *FIGURES], long_rows(found.pair, self.by, groups.shown)

    def _emit(
        self,
        con: duckdb.DuckDBPyConnection,
        run_nos: Sequence[int],
        columns: Sequence[str],
        rows: Iterable[Row],
        assumptions: Sequence[Any],
    ) -> None:
        from cachesim.report.runs import show_run

        runs = [show_run(con, run_no) for run_no in dict.fromkeys(run_nos)]
        problems = runs[0].problems
        if any(run.problems != problems for run in runs):
            problems = {run.digest: run.problems for run in runs}
        entries = [run.entry() for run in runs]
        emit(Report("compare", columns, rows, self.by, entries, assumptions, problems), self.form, self.output)

    # -- for people

    def _print(self, columns: Sequence[str], paint: Callable[[Console], Sequence[str]]) -> None:
        """To stdout, or to the file as a whole. columns: what to explain; paint: returns the columns left out."""
        from cachesim.report.render import explain_columns, note_dropped

        with screen(self.output) as out:
            dropped = paint(out)
            if self.explain:
                explain_columns(out, columns)
        if not self.quiet:
            note_dropped(console(stderr=True), dropped)

    def _screen(self, con: duckdb.DuckDBPyConnection, found: Comparison) -> None:
        from cachesim.report import compare_screen as screens
        from cachesim.report.changes import changed_requests, transitions

        dimensions = [] if self._is_list else [self.by] if self.by else [["model"], ["principal"]]
        if not self.by and found.pair.same_requests:
            dimensions.append(["session"])
        limit = self.top or (screens.ROWS if self.by else screens.TOP)
        shown = screens.read(con, found.pair, dimensions, limit, found.assumptions, found.notes)

        def paint(out: Console) -> Sequence[str]:
            if not self.by:
                return screens.print_comparison(out, shown, limit)
            screens.print_head(out, shown)
            if self.by == ["class"]:
                return screens.print_classes(out, transitions(con, found.pair), limit)
            if self.by == ["request"]:
                return screens.print_changed(out, changed_requests(con, found.pair), limit)
            groups = shown.groups[",".join(self.by)]
            return screens.print_groups(out, found.pair, self.by, groups, shown.total)

        self._print(screens.explained(found.pair, self.by), paint)
