"""`cachesim runs`: what a run database holds, and removing what is no longer needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cachesim.cli.lazy import examples
from cachesim.cli.output import Database, Form, Output, emit, screen
from cachesim.errors import UsageError
from cachesim.report.formats import Format, Report, clean
from cachesim.report.runs import Run, find_run, list_runs, show_run
from cachesim.report.tables import NONE, number
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "cachesim runs                    # every run, oldest first",
        "cachesim runs show 3             # inputs, policies, assumptions and problems of run 3",
        "cachesim runs delete 1 2 --yes   # remove runs, and traces no other run needs",
    ),
)
SHORT: Final = 12
COLUMNS: Final = ("run", "cachesim_version", "trace", "requests", "made_by", "inputs", "policies", "tariffs")


@app.callback()
def runs(ctx: typer.Context, db: Database = DEFAULT_DATABASE, form: Form = Format.TABLE, output: Output = None) -> None:
    """List, show and delete the runs of a database."""
    ctx.obj = db
    if ctx.invoked_subcommand is None:
        _list(db, form, output)


def _list(db: str, form: Format, output: Path | None) -> None:
    from cachesim.store.db import open_database

    with open_database(db, read_only=True) as con:
        found = list_runs(con)
    if form is not Format.TABLE:
        emit(Report("runs", COLUMNS, [_row(run) for run in found], runs=[run.entry() for run in found]), form, output)
        return
    if not found:
        print(f"{clean(db)} holds no run yet; make one with `cachesim replay LOG…`", file=sys.stderr)
    with screen(output) as out:
        if found:
            _print_list(found, out)


def _names(run: Run, key: str) -> list[str]:
    return list(dict.fromkeys(v[key] for v in run.variants if v["kind"] != "bound" and v[key] is not None))


def _row(run: Run) -> dict[str, Any]:
    return {
        "run": run.digest,
        "cachesim_version": run.cachesim_version,
        "trace": run.trace_digest,
        "requests": run.requests,
        "made_by": run.made_by,
        "inputs": " ".join(i["name"] for i in run.inputs),
        "policies": " ".join(_names(run, "policy")),
        "tariffs": " ".join(_names(run, "tariff")),
    }


def _print_list(found: list[Run], out: Console) -> None:
    from cachesim.report.render import note_dropped
    from cachesim.report.tables import table

    rows = [
        {
            "run": str(run.run_no),
            "digest": run.digest[:SHORT],
            "made": f"{run.created_at}Z",
            "requests": run.requests,
            "made_by": run.made_by,
            "policies": ", ".join(_shorten(_names(run, "policy"))) or None,
            "tariffs": ", ".join(_shorten(_names(run, "tariff"))) or None,
            "inputs": ", ".join(_shorten([i["name"] for i in run.inputs])) or None,
        }
        for run in found
    ]
    grid, dropped = table(list(rows[0]), rows, out.width, keep=("requests",))
    out.print(grid)
    note_dropped(out, dropped, "`cachesim runs show RUN`")


def _shorten(names: list[str]) -> list[str]:
    return names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} more"]


@app.command(epilog=examples("cachesim runs show           # the latest run", "cachesim runs show 3f9c --format json"))
def show(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="[RUN]", help="Number or digest of the run.")] = "latest",
    db: Annotated[str | None, typer.Option("--db", metavar="FILE", help="The run database.")] = None,
    form: Form = Format.TABLE,
    output: Output = None,
) -> None:
    """Everything known of one run: inputs, tokenizers, policies with their rules, assumptions, problems."""
    from cachesim.store.db import open_database

    with open_database(db or ctx.obj, read_only=True) as con:
        found = show_run(con, find_run(con, run))
    if form is Format.TABLE:
        with screen(output) as out:
            _print_run(found, out)
        return
    report = Report(
        "runs show", COLUMNS, [_row(found)], (), [found.entry(full=True)], found.assumptions, found.problems
    )
    emit(report, form, output)


def _tokenizer_text(tokenizer: dict[str, Any]) -> str:
    calibration = tokenizer["calibration"]
    kind = f" (estimate of {calibration['model']})" if calibration else "" if tokenizer["exact"] else " (estimate)"
    return f"{tokenizer['source']} {tokenizer['version']}{kind}"


def _print_run(run: Run, out: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from cachesim.report.render import problem_lines

    facts: list[tuple[str, list[str]]] = [
        ("run", [f"{run.run_no}  {run.digest}"]),
        ("made", [f"{run.created_at} UTC by cachesim {run.cachesim_version}"]),
        ("trace", [f"{run.trace_digest}, {number(run.requests)} requests"]),
        ("inputs", [_input_text(i) for i in run.inputs]),
        ("tokenizers", [_tokenizer_text(t) for t in run.tokenizers]),
        ("policies", list(dict.fromkeys(map(_variant_text, run.variants)))),
        ("assumed", [a["text"] for a in run.assumptions] or ["nothing"]),
        ("problems", problem_lines(run.problems) or ["none"]),
    ]
    grid = Table.grid(padding=(0, 2))
    for label, lines in facts:
        for i, line in enumerate(lines):
            grid.add_row(Text("" if i else label, style="dim"), Text(clean(line), overflow="fold"))
    out.print(grid)


def _variant_text(variant: dict[str, Any]) -> str:
    return f"{variant['policy']} · tariff {variant['tariff'] or NONE} · markers {variant['markers']}"


def _input_text(file: dict[str, Any]) -> str:
    bad = f", {number(file['bad_lines'])} bad lines" if file["bad_lines"] else ""
    kind = file["log_format"] or "unknown format"
    return f"{file['name']}: {kind}, {number(file['records'])} records, {number(file['bytes'])} bytes{bad}"


@app.command(epilog=examples("cachesim runs delete 3", "cachesim runs delete 1 2 3f9c --yes"))
def delete(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN…", help="Numbers or digests of runs.")],
    db: Annotated[str | None, typer.Option("--db", metavar="FILE", help="The run database.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs, and the traces that no other run needs. Remembered token counts stay."""
    from cachesim.store.db import open_database
    from cachesim.store.deletion import delete_run

    with open_database(db or ctx.obj, must_exist=True) as con:
        numbers = list(dict.fromkeys(find_run(con, name) for name in run))
        if not yes:
            _confirm(numbers)
        for run_no in numbers:
            gone = delete_run(con, run_no)
            print(f"run {run_no} deleted" + (" with its trace" if gone else ""), file=sys.stderr)


def _confirm(numbers: list[int]) -> None:
    if not sys.stdin.isatty():
        raise UsageError("runs delete: not asking without a terminal; add --yes")
    typer.confirm(f"Delete run {', '.join(map(str, numbers))}?", abort=True, err=True)
