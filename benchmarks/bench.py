"""Measures preparation, the whole command, cold counting, the per-request DuckDB yardstick and reports, as ratios."""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson

from cachesim.config import load_config

from cachesim.core.gates import AS_CAPTURED, Gates
from cachesim.core.policy import PRESETS
from cachesim.core.prompt import parse_body
from cachesim.counting.resolve import load_tokenizer
from cachesim.index.duckdb_index import DuckDbIndex
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.prepare.nodes import Nodes, cumulate
from cachesim.replay import Lane, PreparedRequest
from cachesim.store.db import open_database
from cachesim.store.trace_reader import known_counts
from cachesim.synth import write
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadOptions

RUNS = 3


def seconds(work: Callable[[], Any]) -> float:
    """The fastest of RUNS, in wall seconds: the least disturbed one."""
    best = float("inf")
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def command(*arguments: str) -> tuple[float, int]:
    """Wall seconds and peak memory (kB) of one `cachesim` process."""
    code = (
        "import resource,subprocess,sys,time;t=time.perf_counter();"
        "subprocess.run([sys.executable,'-m','cachesim',*sys.argv[1:]],stdout=subprocess.DEVNULL,"
        "stderr=subprocess.DEVNULL,check=True);"
        "print(time.perf_counter()-t,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    out = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout
    wall, peak = out.split()
    return float(wall), int(peak)


def parse_only(log: Path) -> None:
    with log.open("rb") as lines:
        for line in lines:
            orjson.loads(line)


def prepare_again(database: str, log: Path, tokenizer: str | None = None) -> tuple[float, int]:
    """Preparation in a fresh in-memory database that already knows every count: (seconds, nodes)."""
    with open_database(database, read_only=True) as con:
        versions = con.execute("SELECT DISTINCT version FROM token_counts").fetchall()
        counts = {version: known_counts(con, version) for (version,) in versions}
    config = load_config([])
    memory = open_database(":memory:")
    for version, known in counts.items():
        memory.executemany(
            "INSERT INTO token_counts VALUES (?, ?, ?)", [(version, d, n) for d, n in list(known.items())[:1]]
        )
    import cachesim.pipeline as pipeline

    original = pipeline.known_counts
    pipeline.known_counts = lambda _, version: counts.get(version, {})  # type: ignore[assignment]
    try:
        started = time.perf_counter()
        trace = prepare(
            memory, Preparation(find_sources([str(log)])[0], ReadOptions(), config, body_rule_sets([]), fresh=True)
        )
        return time.perf_counter() - started, len(trace.parents)
    finally:
        pipeline.known_counts = original
        memory.close()


def yardstick(log: Path, requests: int) -> tuple[float, int]:
    """The plain way on the first lines: json, one look-up and upsert per request in DuckDB: (seconds, bytes)."""
    policy = PRESETS["dwctl-10.13"]
    tokenizer = load_tokenizer("default")
    nodes = Nodes()
    tokens: list[int] = []
    size = 0
    con = duckdb.connect()
    facts: list[Any] = []
    lane = Lane(Gates(policy, AS_CAPTURED, facts), nodes, [cumulate([], [])], DuckDbIndex(con))
    started = time.perf_counter()
    with log.open("rb") as lines:
        for seq, line in enumerate(lines):
            if seq == requests:
                break
            size += len(line)
            row = json.loads(line)
            prompt = parse_body(json.dumps(row["body"], sort_keys=True).encode(), policy.body_rules)
            running = hashlib.sha256()
            for block in prompt.blocks:
                running.update(block.feed)
            tokens += tokenizer.count_batch([block.text for block in prompt.blocks])
            candidates = [int.from_bytes(digest[:4], "big", signed=True) for digest in prompt.hashes[-20:]]
            scope = hash(row["principal"]) % 1000
            lane.index.finder(scope, lambda found=candidates: found)  # type: ignore[misc]
            con.execute(
                "INSERT INTO prefix_index VALUES (?, ?, 1, 0, 0, 0) ON CONFLICT DO UPDATE SET tokens = excluded.tokens",
                [scope, candidates[-1] if candidates else 0],
            )
    return time.perf_counter() - started, size


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=int, default=500, help="size of the generated log")
    options.add_argument("--log", type=Path, help="an existing log in the capture format instead")
    options.add_argument("--yardstick", type=int, default=300, help="requests for the per-request yardstick")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = chosen.log or Path(folder) / "log.jsonl"
        if chosen.log is None:
            with log.open("wb") as out:
                write(out, 7, max(1, chosen.mb * 1_000_000 // 31_700))
        measure(log, Path(folder) / "bench.duckdb", chosen.yardstick)


def measure(log: Path, database: Path, yardstick_requests: int) -> None:
    size = log.stat().st_size
    bare = seconds(lambda: parse_only(log))

    def show(what: str, wall: float, of: float | None = None, note: str = "") -> None:
        rate = (of or size) / wall / 1e6
        print(
            f"{what:<44} {wall:8.2f} s {rate:8.1f} MB/s   {rate / (size / bare / 1e6):6.3f} x orjson {note}", flush=True
        )

    print(f"log: {size / 1e6:.0f} MB")
    show("bare orjson parse", bare)
    wall, peak = command("replay", str(log), "--db", str(database))
    show("whole command, cold (default tokenizer)", wall, note=f"peak {peak / 1024:.0f} MB")
    runs = [prepare_again(str(database), log) for _ in range(RUNS)]
    prepared = min(wall for wall, _ in runs)
    show("preparation, counts known, one process", prepared, note=f"{runs[0][1]} nodes")
    best, worst_peak = float("inf"), 0
    for _ in range(RUNS):
        command("runs", "delete", "latest", "--yes", "--db", str(database))  # counts stay, the trace goes
        wall, peak = command("replay", str(log), "--db", str(database))
        best, worst_peak = min(best, wall), max(worst_peak, peak)
    show("whole command, counts known", best, note=f"peak {worst_peak / 1024:.0f} MB")
    wall, _ = command("replay", str(log), "--db", str(database))
    show("whole command, trace known", wall)
    wall, done = yardstick(log, yardstick_requests)
    show(
        f"yardstick, first {yardstick_requests} requests",
        wall,
        done,
        f"preparation is {size / prepared / (done / wall):.0f} x as fast",
    )
    wall, _ = command("report", "--by-model", "--db", str(database))
    print(
        f"report --by-model {wall:.2f} s, --help {min(command('--help')[0] for _ in range(RUNS)):.2f} s (whole processes)"
    )
    print(f"this process: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
