"""Measures preparation, the whole command, cold counting, the per-request DuckDB yardstick and reports, as ratios."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import orjson

import cachesim.pipeline
from cachesim.collector import no_collection
from cachesim.config import load_config
from cachesim.core.gates import AS_CAPTURED, Gates, Prompt
from cachesim.core.policy import PRESETS
from cachesim.core.prompt import parse_body
from cachesim.counting.accelerator import Accelerated, Counting, accelerator, load_accelerated
from cachesim.counting.counter import TokenCounter, text_digest
from cachesim.counting.resolve import load_tokenizer
from cachesim.index.duckdb_index import DuckDbIndex
from cachesim.parallel.gather import _Digests, gather
from cachesim.parallel.merge import Merger
from cachesim.parallel.share import Task
from cachesim.pipeline import Preparation, _tokenizer_of, body_rule_sets, cores, prepare
from cachesim.prepare.chains import Facts
from cachesim.prepare.nodes import Nodes
from cachesim.prepare.tokenizers import Tokenizers
from cachesim.replay import Lane, PreparedRequest
from cachesim.store.db import open_database
from cachesim.store.trace_reader import known_counts
from cachesim.synth import generate, requests_for
from cachesim.trace.open import find_sources
from cachesim.trace.ranges import Kind, divide
from cachesim.trace.reader import FileFacts, ReadFacts, ReadOptions, find_formats
from cachesim.trace.times import parse_time

RUNS = 3
ONE_OFF = re.compile(rb'"app":"[a-z]+-(?:scheduler|terminal|triage|extract)"')
"""Applications whose prompts begin with something new each time, or that send one request and no more."""


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


def cold_command(log: Path, database: Path, *options: str) -> tuple[float, int]:
    """The fastest replay of RUNS into a new database, which is left: wall seconds and peak memory (kB)."""
    runs = []
    for _ in range(RUNS):
        database.unlink(missing_ok=True)
        runs.append(command("replay", str(log), "--db", str(database), *options))
    return min(runs)[0], max(peak for _, peak in runs)


def parse_only(log: Path) -> None:
    with log.open("rb") as lines:
        for line in lines:
            orjson.loads(line)


def prepare_again(counts: dict[str, dict[bytes, int]], log: Path, jobs: int = 1) -> float:
    """Seconds of preparation into a fresh database in memory by `jobs` processes, every count being known."""
    cachesim.pipeline.known_counts = lambda _, version: counts[version]  # type: ignore[assignment]
    try:
        with open_database(":memory:") as con:
            job = Preparation(
                find_sources([str(log)])[0], ReadOptions(), load_config([]), body_rule_sets([]), fresh=True, jobs=jobs
            )
            started = time.perf_counter()
            prepare(con, job)
            return time.perf_counter() - started
    finally:
        cachesim.pipeline.known_counts = known_counts


def states_only(counts: dict[str, dict[bytes, int]], log: Path, jobs: int) -> float:
    """Seconds until the state after every prompt is known under both presets' rules, every count being known.

    The same work as `prepare_again` without what is for the run database: the SHA-256 of the file, and storing.
    """
    sources, config, options = find_sources([str(log)])[0], load_config([]), ReadOptions()
    files = find_formats(sources, options)
    choose = partial(_tokenizer_of, config)
    kinds = [Kind(file.container, None if file.format is None else file.format.name) for file in files]
    facts = ReadFacts([FileFacts(source.name, kind.log_format) for source, kind in zip(sources, kinds, strict=True)])
    known = {choose(""): b"".join(count for own in counts.values() for count in own)}
    rules = body_rule_sets([])
    task = Task([], sources, kinds, options, rules, choose, known)
    hashing, _Digests._run = _Digests._run, lambda self: None  # type: ignore[method-assign]
    try:
        started = time.perf_counter()
        with no_collection():
            merger = Merger(rules, Tokenizers(choose, lambda version: counts[version]), lambda *_: None, sources, facts)
            for _ in gather(divide(files, jobs), task, sources, merger):
                pass
        return time.perf_counter() - started
    finally:
        _Digests._run = hashing  # type: ignore[method-assign]


def cold_counting(log: Path, source: str, most: int) -> tuple[float, float, float | None, int]:
    """The unique message texts of the first bytes: (seconds of encode_batch_fast alone, of TokenCounter, of the same
    with the accelerator if it is installed, bytes)."""
    texts: dict[bytes, str] = {}
    size = 0
    with log.open("rb") as lines:
        for line in lines:
            for message in orjson.loads(line)["body"]["messages"]:
                if isinstance(message.get("content"), str):
                    digest = text_digest(message["content"])
                    size += len(message["content"]) if digest not in texts else 0
                    texts[digest] = message["content"]
            if size > most:
                break
    tokenizer = load_tokenizer(source)
    unique = list(texts.values())

    def count(counting: Counting) -> None:
        with TokenCounter(counting, {}) as counter:
            for text in unique:
                counter.slot(text)
            counter.finish()

    fast = load_accelerated(source)[0]
    faster = seconds(lambda: count(fast)) if isinstance(fast, Accelerated) else None
    return seconds(lambda: tokenizer.count_batch(unique)), seconds(lambda: count(tokenizer)), faster, size


def repeated(log: Path) -> tuple[float, float]:
    """How often a byte comes on average: in the same message, and in the same message after the same history. What
    comes in a new message is parsed, what comes after a new history is hashed.
    """
    total, texts, histories = 0, {}, {}
    with log.open("rb") as lines:
        for line in lines:
            history = blake2b(digest_size=16)
            for message in orjson.loads(line)["body"]["messages"]:
                raw = orjson.dumps(message)
                history.update(raw)
                total += len(raw)
                texts[hash(raw)] = histories[history.digest()] = len(raw)
    return total / sum(texts.values()), total / sum(histories.values())


def yardstick(log: Path, requests: int) -> tuple[float, int]:
    """The plain way on the first lines, nothing remembered: parse, hash and count every block of every request, then
    one look-up and one upsert per request in DuckDB. (seconds, bytes)"""
    policy, tokenizer = PRESETS["dwctl-10.13"], load_tokenizer("default")
    nodes, facts, cumulative = Nodes(), Facts(), array("q")
    lane = Lane(Gates(policy, AS_CAPTURED, facts.all), nodes, [cumulative], DuckDbIndex(duckdb.connect()))
    started, size = time.perf_counter(), 0
    with log.open("rb") as lines:
        for seq, line in enumerate(islice(lines, requests)):
            size += len(line)
            row = json.loads(line)
            parsed = parse_body(json.dumps(row["body"]).encode(), policy.body_rules)
            node, counts = -1, tokenizer.count_batch([block.text for block in parsed.blocks])
            for block, digest, tokens in zip(parsed.blocks, parsed.hashes, counts, strict=True):
                parent, node = node, nodes.child(node, digest, block.kind)
                if node == len(cumulative):
                    cumulative.append(tokens + (cumulative[parent] if parent >= 0 else 0))
            blocks, found = parsed.markers
            automatic = -1 if parsed.automatic is None else facts.number(parsed.automatic)
            marks = tuple(facts.number(fact) for fact in found)
            prompt = Prompt(node, len(counts), tuple(blocks), marks, automatic, -1, -1, -1, None)
            at_us = parse_time(row["at"])
            done_us = at_us + int(row.get("duration_ms", 0) * 1000)
            scope = crc32((row["principal"] + parsed.model).encode()) >> 1
            request = PreparedRequest(seq, at_us, done_us, True, True, scope, 0, "p", parsed.model, "ok", 0)
            lane.arrive(request, prompt, 1024)
    return time.perf_counter() - started, size


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=int, default=500, help="size of the generated log")
    options.add_argument("--repeating", action="store_true", help="only applications that send histories that grow")
    options.add_argument("--log", type=Path, help="an existing log in the capture format instead")
    options.add_argument("--yardstick", type=int, default=300, help="requests for the per-request yardstick")
    options.add_argument("--tokenizer", default="default", help="tokenizer source for the counting figure")
    chosen = options.parse_args()
    # A reading process imports its parent's main module first: the command's, which is small, and not this file.
    sys.modules["__main__"].__spec__ = find_spec("cachesim.__main__")
    with tempfile.TemporaryDirectory() as folder:
        log = chosen.log or Path(folder) / "log.jsonl"
        if chosen.log is None:
            with log.open("wb") as out:
                # Without the others a log is a quarter smaller.
                wanted = requests_for(chosen.mb * (1_350_000 if chosen.repeating else 1_000_000))
                lines = generate(7, wanted)
                out.writelines(line for line in lines if not (chosen.repeating and ONE_OFF.search(line, 0, 400)))
        measure(log, Path(folder) / "bench.duckdb", chosen.tokenizer, chosen.yardstick)


def measure(log: Path, database: Path, tokenizer: str, yardstick_requests: int) -> None:
    size = log.stat().st_size
    bare = seconds(lambda: parse_only(log))

    def show(what: str, wall: float, of: float | None = None, note: str = "") -> None:
        rate = (of or size) / wall / 1e6
        print(f"{what:<50}{wall:8.2f} s{rate:8.1f} MB/s {rate / (size / bare / 1e6):7.3f} x orjson  {note}", flush=True)

    messages, histories = repeated(log)
    print(
        f"log: {size / 1e6:.0f} MB, messages come {messages:.1f} x, after the same history {histories:.1f} x; "
        f"the fastest of {RUNS} runs each"
    )
    show("bare orjson parse", bare)
    if accelerator() is not None:
        wall, peak = cold_command(log, Path(f"{database}.fast"))
        show(f"whole command, cold, {accelerator()}", wall, note=f"peak {peak / 1024:.0f} MB")
    wall, peak = cold_command(log, database, "--no-accelerator")
    show("whole command, cold, embedded tokenizer", wall, note=f"peak {peak / 1024:.0f} MB")
    with open_database(str(database), read_only=True) as con:
        versions = con.execute("SELECT DISTINCT version FROM token_counts").fetchall()
        counts = {version: known_counts(con, version) for (version,) in versions}
    prepared = min(prepare_again(counts, log) for _ in range(RUNS))
    show("preparation, counts known, one process", prepared)
    jobs = max(2, cores())
    show(f"preparation, counts known, {jobs} processes", min(prepare_again(counts, log, jobs) for _ in range(RUNS)))
    states = min(states_only(counts, log, jobs) for _ in range(RUNS))
    show(f"parse and hash only, counts known, {jobs} processes", states)
    if accelerator() is not None:
        nothing: dict[str, dict[bytes, int]] = {version: {} for version in counts}
        wall = min(prepare_again(nothing, log, jobs) for _ in range(RUNS))
        show(f"preparation, cold, {jobs} processes, {accelerator()}", wall)
    runs = []
    for _ in range(RUNS):
        command("runs", "delete", "latest", "--yes", "--db", str(database))  # counts stay, the trace goes
        runs.append(command("replay", str(log), "--db", str(database)))
    show("whole command, counts known", min(runs)[0], note=f"peak {max(peak for _, peak in runs) / 1024:.0f} MB")
    show("whole command, trace known", min(command("replay", str(log), "--db", str(database)) for _ in range(RUNS))[0])
    wall, done = yardstick(log, yardstick_requests)
    faster = (size / prepared) / (done / wall)
    show(f"per-request yardstick, {yardstick_requests} requests", wall, done, f"preparation is {faster:.0f} x as fast")
    alone, counted, faster, text = cold_counting(log, tokenizer, 6_000_000)
    with_it = "" if faster is None else f", {alone / faster:.1f} x with {accelerator()} and its checks"
    print(
        f"counting {text / 1e6:.1f} MB of unique text with {tokenizer}: {alone / counted:.2f} x encode_batch_fast alone"
        + with_it
    )
    report = min(command("report", "--by-model", "--db", str(database)) for _ in range(RUNS))[0]
    print(
        f"report --by-model {report:.2f} s, --help {min(command('--help') for _ in range(RUNS))[0]:.2f} s, as processes"
    )


if __name__ == "__main__":
    main()
