"""`cachesim synth`: a synthetic request log, the same for the same seed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cachesim.cli.lazy import examples
from cachesim.cli.output import whole_file

app = typer.Typer()


@app.command(
    epilog=examples(
        "cachesim synth demo.jsonl                       # 1,000 requests of agents and chats",
        "cachesim synth --requests 100000 --seed 7 big.jsonl",
        "cachesim synth --requests 10 | head -1          # to stdout",
    )
)
def synth(
    output: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Where to write (default: stdout).")] = None,
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, metavar="N", help="How many requests.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Same seed, same bytes.")] = 1,
) -> None:
    """Write a synthetic request log in the capture format, to try things on."""
    from cachesim.synth import write

    if output is None:
        write(sys.stdout.buffer, seed=seed, requests=requests)
        sys.stdout.buffer.flush()
    else:
        with whole_file(output) as file:
            write(file, seed=seed, requests=requests)
    print(f"{requests:,} requests, seed {seed}" + (f" → {output}" if output else ""), file=sys.stderr)
