"""`cachesim conformance`: golden cases of the real gateway through this classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cachesim.cli.lazy import examples
from cachesim.cli.output import Form, Output, emit, screen
from cachesim.report.formats import Format, Report, clean

app = typer.Typer()
COLUMNS: Final = ("passed", "failed", "skipped")


@app.command(
    epilog=examples(
        "cachesim conformance fixtures/golden/*.jsonl.gz",
        "cachesim conformance classify_1013.jsonl.gz --differences 3    # stop explaining after 3",
    )
)
def conformance(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Golden case files (.jsonl, .jsonl.gz).")],
    differences: Annotated[
        int, typer.Option("--differences", min=0, metavar="N", help="How many differences to print.")
    ] = 20,
    form: Form = Format.TABLE,
    output: Output = None,
) -> None:
    """Check the classifier against golden cases; the version comes from the case ids. Exit code 1 if any case fails."""
    from cachesim.conformance import run_files

    result = run_files([str(path) for path in files], limit_differences=differences)
    if form is Format.TABLE:
        with screen(output) as out:
            for difference in result.differences:
                out.print(clean(difference), soft_wrap=True)
            out.print(f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped")
    else:
        row = {name: getattr(result, name) for name in COLUMNS}
        emit(Report("conformance", COLUMNS, [row], more={"differences": result.differences}), form, output)
    if result.failed:
        raise typer.Exit(1)
