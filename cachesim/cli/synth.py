"""`cachesim synth`: a synthetic request log, the same for the same seed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cachesim.cli.lazy import examples
from cachesim.cli.output import whole_file
from cachesim.errors import UsageError

app = typer.Typer()
_PLANT = "An optimum to be found"


@app.command(
    epilog=examples(
        "cachesim synth demo.jsonl                       # 1,000 requests of agents and chats",
        "cachesim synth --requests 100000 --seed 7 big.jsonl",
        "cachesim synth --megabytes 500 --days 7 --plant-floor 2048 week.jsonl",
        "cachesim synth --requests 10 | head -1          # to stdout",
    )
)
def synth(
    output: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to write (default: stdout).")] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", "-n", min=1, metavar="N", help="How many requests (default: 1,000).")
    ] = None,
    megabytes: Annotated[
        float | None, typer.Option("--megabytes", min=0.1, metavar="MB", help="About this size instead of --requests.")
    ] = None,
    days: Annotated[
        float, typer.Option("--days", min=0.01, max=366, metavar="N", help="Days over which sessions begin.")
    ] = 1.0,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="Model that agents and chats call (repeatable; default: four)."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Same seed, same bytes.")] = 1,
    plant_floor: Annotated[
        int | None,
        typer.Option(
            "--plant-floor",
            min=100,
            max=1_000_000,
            metavar="TOKENS",
            help="Add requests of model mistral-large for which this floor is the cheapest: single ones up to 0.9 of"
            " it, repeated ones from it on; tokens are words.",
            rich_help_panel=_PLANT,
        ),
    ] = None,
    plant_ttl: Annotated[
        bool,
        typer.Option(
            "--plant-ttl",
            help="Add sessions of model gpt-oss-20b, marked 5m, with 10 to 50 minutes between requests: 1h pays.",
            rich_help_panel=_PLANT,
        ),
    ] = False,
) -> None:
    """Write a synthetic request log in the capture format, to try things on.

    What is planted comes on top: of each kind one request for every eight others, at least 600. Its tokens are exact
    with --tokenizer fixtures/words-tokenizer.json, which counts words.
    """
    from cachesim.synth import MODELS, Plant, requests_for, write

    if requests is not None and megabytes is not None:
        raise UsageError("--megabytes and --requests both say how much; give one of them")
    plant = Plant(plant_floor, plant_ttl)
    count = requests_for(megabytes * 1e6, plant) if megabytes is not None else requests or 1000
    models = list(dict.fromkeys(model or MODELS))
    if output is None:
        lines = write(sys.stdout.buffer, seed, count, models=models, days=days, plant=plant)
        sys.stdout.buffer.flush()
    else:
        with whole_file(output) as file:
            lines = write(file, seed, count, models=models, days=days, plant=plant)
    planted = f" ({lines - count:,} of them planted)" if lines > count else ""
    print(f"{lines:,} requests{planted}, seed {seed}" + (f" → {output}" if output else ""), file=sys.stderr)
