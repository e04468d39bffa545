"""`cachesim conformance`: golden cases of the real gateway through this classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cachesim.cli.lazy import examples

app = typer.Typer()


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
) -> None:
    """Check the classifier against golden cases; the version comes from the case ids. Exit code 1 if any case fails."""
    from cachesim.conformance import run_files
    from cachesim.report.formats import clean

    result = run_files([str(path) for path in files], limit_differences=differences)
    for difference in result.differences:
        print(clean(difference))
    print(f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped")
    if result.failed:
        raise typer.Exit(1)
