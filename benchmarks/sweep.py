"""Measures sweeps over a stored trace against single simulations and against one replay from the log, as ratios.

python benchmarks/sweep.py                       # a generated log of 500 MB, then 1 M requests
python benchmarks/sweep.py --mb 50 --requests 100000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final

import duckdb
from bench import command

from cachesim.config import load_config
from cachesim.core.gates import AS_CAPTURED, Gates
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import DEFAULT_PRESET, PRESETS, Policy
from cachesim.core.pricing import billed_split
from cachesim.index.memory import MemoryIndex
from cachesim.pipeline import no_collection
from cachesim.replay import Lane
from cachesim.store.db import open_database, transaction
from cachesim.store.trace_reader import Scopes, load_trace, trace_rows
from cachesim.sweep import sweep
from cachesim.sweep.grid import Axes, parse_ttls
from cachesim.sweep.kernels import Choice, cores
from cachesim.synth import Plant, requests_for, write

Sweep = Callable[[duckdb.DuckDBPyConnection, int, Sequence[int], Sequence[str]], object]
"""Sweeps a run over floors × lifetimes and stores the sums."""


def _swept(kernel: Choice, jobs: int) -> Sweep:
    def run(con: duckdb.DuckDBPyConnection, run_no: int, floors: Sequence[int], ttls: Sequence[str]) -> object:
        return sweep(con, run_no, Axes(floors=tuple(floors), ttls=parse_ttls(ttls)), kernel=kernel, jobs=jobs)

    return run


KERNELS: Final[dict[str, Sweep]] = {
    "plain, 1 job": _swept("plain", 1),
    "plain": _swept("plain", cores()),
    "compiled, 1 job": _swept("compiled", 1),
    "compiled": _swept("compiled", cores()),
}
"""The ways a sweep is computed, by name: each is timed with every grid. The first call of each is not counted."""

TTLS: Final = {"5m": 300, "15m": 900, "1h": 3600, "24h": 86400}
FLOORS: Final = {64: range(256, 4097, 256), 256: range(128, 8193, 128)}
"""Floors of a grid by the number of its variants, with all of TTLS."""
SHIFT_US: Final = 977_003
"""How much later each copy of a trace arrives: copies overlap, and none repeats the instants of another."""


@dataclass(frozen=True)
class Simulated:
    """One simulation of the whole trace: wall seconds, and the tokens billed as read, the proof that it was done."""

    seconds: float
    read_tokens: int


def simulate(con: duckdb.DuckDBPyConnection, run_no: int, policy: Policy, tariff: TariffSet) -> Simulated:
    """One policy over the stored trace of a run, billed, nothing stored; reading the requests is part of it."""
    trace = load_trace(con, trace_of(con, run_no))
    place = trace.rules.index(policy.body_rules)
    lane = Lane(Gates(policy, AS_CAPTURED, trace.markers), trace, trace.cumulative, MemoryIndex())
    rule, gate, read = policy.billing_rule, tariff.gate, 0
    started = time.perf_counter()
    with no_collection():
        for rows in trace_rows(con, trace, [place], Scopes()):
            for row in rows:
                request = row.request
                floor = gate(request.model, request.at_us) if request.model is not None else None
                split = lane.arrive(request, row.prompts[0], floor).classification
                if split is not None and request.succeeded:
                    read += billed_split(row.prompt_tokens or 0, split.read, *split.creation, rule).read
    return Simulated(time.perf_counter() - started, read)


def variants(count: int) -> list[Policy]:
    """The grid of so many variants as policies: floors × lifetimes of every tier."""
    base = PRESETS[DEFAULT_PRESET]
    grid = product(FLOORS[count], TTLS.values())
    return [replace(base, min_prefix_tokens=floor, tier_seconds=(ttl, ttl, ttl)) for floor, ttl in grid]


def trace_of(con: duckdb.DuckDBPyConnection, run_no: int) -> int:
    row = con.execute("SELECT trace_no FROM runs WHERE run_no = ?", [run_no]).fetchone()
    assert row is not None
    return int(row[0])


_COPIED: Final = (
    ("trace_inputs", "trace_no", "$trace"),
    ("trace_tokenizers", "trace_no", "$trace"),
    ("nodes", "trace_no", "$trace"),
    ("node_tokens", "trace_no", "$trace"),
    ("variants", "run_no", "$run"),
)
"""Tables copied as they are under another number: table, its number column, the parameter of the old number."""

_TRACE: Final = """
INSERT INTO traces BY NAME
SELECT t.* REPLACE ($new AS trace_no, t.digest || ' x ' || $copies AS digest, t.requests * $copies AS requests)
FROM traces t WHERE trace_no = $trace
"""
_RUN: Final = """
INSERT INTO runs BY NAME
SELECT r.* REPLACE ($new AS run_no, $new AS trace_no, r.digest || ' x ' || $copies AS digest)
FROM runs r WHERE run_no = $run
"""

# Every copy has principals of its own, so nothing is read across copies; the blocks are those of the first.
_ORDER: Final = """
CREATE OR REPLACE TEMP TABLE copied AS
SELECT seq AS old_seq, copy, row_number() OVER (ORDER BY at_us + copy * $shift, copy, seq) - 1 AS new_seq
FROM requests, range($copies) AS copies(copy) WHERE trace_no = $trace
"""
_REQUESTS: Final = """
INSERT INTO requests BY NAME
SELECT r.* REPLACE ($new AS trace_no, c.new_seq AS seq, r.at_us + c.copy * $shift AS at_us,
  r.done_us + c.copy * $shift AS done_us, r.principal || ' ' || c.copy AS principal,
  r.request || ' ' || c.copy AS request)
FROM requests r JOIN copied c ON c.old_seq = r.seq WHERE r.trace_no = $trace ORDER BY c.new_seq
"""
_PROMPTS: Final = """
INSERT INTO prompts BY NAME
SELECT p.* REPLACE ($new AS trace_no, c.new_seq AS seq)
FROM prompts p JOIN copied c ON c.old_seq = p.seq WHERE p.trace_no = $trace ORDER BY p.rules_no, c.new_seq
"""


def replicate(con: duckdb.DuckDBPyConnection, run_no: int, least_requests: int) -> int:
    """A run over a trace of at least so many requests, made of overlapping copies of another; returns its run_no.

    The run has variants but no rows per request: it can be swept and replayed, not reported.
    """
    trace_no = trace_of(con, run_no)
    row = con.execute(
        "SELECT (SELECT requests FROM traces WHERE trace_no = ?), "
        "1 + greatest((SELECT max(run_no) FROM runs), (SELECT max(trace_no) FROM traces))",
        [trace_no],
    ).fetchone()
    assert row is not None
    requests, new = row
    copies = -(-least_requests // requests)

    def execute(sql: str) -> None:
        known = {"trace": trace_no, "run": run_no, "new": new, "copies": copies, "shift": SHIFT_US}
        con.execute(sql, {name: value for name, value in known.items() if f"${name}" in sql})

    with transaction(con):
        for table, number, old in _COPIED:
            execute(
                f"INSERT INTO {table} BY NAME SELECT * REPLACE ($new AS {number}) FROM {table} WHERE {number} = {old}"
            )
        for statement in (_TRACE, _RUN, _ORDER, _REQUESTS, _PROMPTS, "DROP TABLE copied"):
            execute(statement)
    return int(new)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=float, default=500, help="size of the generated log")
    options.add_argument("--log", type=Path, help="an existing log instead")
    options.add_argument("--requests", type=int, default=1_000_000, help="of the large trace; 0: none")
    options.add_argument("--singles", type=int, default=3, help="single simulations to time; they stand for all")
    options.add_argument("--tokenizer", default="default", help="tokenizer source")
    options.add_argument("--only", help="only the kernels whose name contains this")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = chosen.log or Path(folder) / "log.jsonl"
        if chosen.log is None:
            plant = Plant(2048, ttl=True)
            with log.open("wb") as out:
                write(out, 7, requests_for(chosen.mb * 1e6, plant), days=7, plant=plant)
        database = Path(folder) / "bench.duckdb"
        replayed = replay_known(log, database, chosen.tokenizer)
        print(f"log of {log.stat().st_size / 1e6:.0f} MB; replay, counts known: {replayed:.2f} s", flush=True)
        with open_database(str(database)) as con:
            measure(con, 1, chosen.singles, replayed, chosen.only)
            if chosen.requests:
                started = time.perf_counter()
                large = replicate(con, 1, chosen.requests)
                print(f"\nreplicated in {time.perf_counter() - started:.1f} s")
                measure(con, large, chosen.singles, None, chosen.only)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def replay_known(log: Path, database: Path, tokenizer: str) -> float:
    """Wall seconds of the whole command in a process of its own, the counts remembered and the trace not."""
    arguments = ("replay", str(log), "--db", str(database), "--tokenizer", tokenizer)
    command(*arguments)
    command("runs", "delete", "latest", "--yes", "--db", str(database))
    return command(*arguments)[0]


def measure(
    con: duckdb.DuckDBPyConnection, run_no: int, singles: int, replayed: float | None, only: str | None
) -> None:
    """Prints a line for single simulations, and one for every kernel and grid; replayed: seconds to compare with."""
    row = con.execute("SELECT requests FROM traces WHERE trace_no = ?", [trace_of(con, run_no)]).fetchone()
    assert row is not None
    requests, tariff, grid = row[0], load_config([]).tariff, variants(64)
    sample = [simulate(con, run_no, grid[number * len(grid) // singles], tariff) for number in range(singles)]
    single = sum(done.seconds for done in sample) / singles
    print(
        f"{requests:,} requests; one simulation {single:.2f} s, {single / requests * 1e6:.2f} µs a request "
        f"(mean of {singles}; the first reads {sample[0].read_tokens:,} tokens)",
        flush=True,
    )
    for kernel, run in KERNELS.items():
        if only and only not in kernel:
            continue
        run(con, run_no, [1024], ["5m"])
        for count, floors in FLOORS.items():
            started = time.perf_counter()
            run(con, run_no, list(floors), list(TTLS))
            wall = time.perf_counter() - started
            marginal_ns = wall / requests / count * 1e9
            print(
                f"{kernel}, {count} variants: {wall:.2f} s, {marginal_ns:.0f} ns a request and variant, "
                f"{single * count / wall:.1f} x as fast as {count} single simulations"
                + (f", {wall / replayed:.2f} x the replay" if replayed else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
