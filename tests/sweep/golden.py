"""The golden tables of fixtures/sweeps, and what single replays of the same grid points give."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeAlias

import duckdb

from cachesim.config import ModelConfig, load_config, load_tariff_set
from cachesim.core.gates import AS_CAPTURED, Gated, Gates
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import PRESETS, TIERS, Policy
from cachesim.index.memory import MemoryIndex
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.replay import Classified, Lane
from cachesim.run import Run, RunPlan
from cachesim.store.db import open_database, transaction
from cachesim.store.trace_reader import Scopes, TraceRow, trace_rows
from cachesim.store.traces import PreparedTrace
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadOptions

FIXTURES: Final = Path(__file__).parents[2] / "fixtures"
CASES: Final = sorted(path.parent.name for path in FIXTURES.glob("sweeps/*/expected.md"))
_SECONDS: Final = {"m": 60, "h": 3600}

Figures: TypeAlias = dict[str, int | Decimal]
"""What a table says of one grid point, by column."""


@dataclass(frozen=True)
class Point:
    """One row of a table: where in the grid, and what must come out."""

    floor: int
    ttl: str
    walk_back: int
    expected: Figures


@dataclass(frozen=True)
class Case:
    """One folder of fixtures/sweeps; multipliers: write multipliers of the lifetimes upstream does not price."""

    name: str
    log: Path
    tariff: Path
    multipliers: dict[str, Decimal]
    points: tuple[Point, ...]


def load_case(name: str) -> Case:
    """Reads the one table whose header begins with `floor`."""
    folder = FIXTURES / "sweeps" / name
    text = (folder / "expected.md").read_text(encoding="utf-8")
    header, _, *rows = [_cells(line) for line in text[text.index("| floor |") :].splitlines()]
    multipliers = {ttl: Decimal(value) for ttl, value in re.findall(r"`--multiplier (\w+)=([\d.]+)`", text)}
    points = tuple(_point(dict(zip(header, row, strict=True))) for row in rows)
    return Case(name, folder / "log.jsonl", folder.parent / "tariff.toml", multipliers, points)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _point(row: dict[str, str]) -> Point:
    floor, ttl, walk_back = int(row.pop("floor")), row.pop("ttl"), int(row.pop("walk back"))
    charged = Decimal(row.pop("charged"))
    return Point(floor, ttl, walk_back, {**{name: int(value) for name, value in row.items()}, "charged": charged})


# -- single replays


def single_replays(case: Case, folder: Path) -> list[Figures]:
    """The figures of every point, each from a log of its own whose markers name the lifetimes of the point."""
    return [_single_replay(case, point, folder / f"{number}.jsonl") for number, point in enumerate(case.points)]


def _single_replay(case: Case, point: Point, log: Path) -> Figures:
    """A lifetime upstream does not price runs as the 5m tier with its seconds and its multiplier."""
    long, _, short = point.ttl.partition("+")
    custom = case.multipliers.get(point.ttl)
    log.write_bytes(b"".join(_with_ttl(case.log, *(("5m", "5m") if custom else (long, short or long)))))
    tariff = load_tariff_set(str(case.tariff))
    policy = replace(PRESETS["dwctl-10.13"], name="p", min_prefix_tokens=point.floor, walk_back=point.walk_back)
    if custom:
        seconds = int(point.ttl[:-1]) * _SECONDS[point.ttl[-1]]
        policy = replace(policy, tier_seconds=(seconds, *policy.tier_seconds[1:]))
        rows = [replace(row, write_5m=custom) for row in tariff.all_cache_rows]
        tariff = TariffSet(tariff.name, rows, tariff.all_base_rows)
    with open_database(":memory:") as con:
        trace = prepare_words(con, log)
        billed = _bill(con, trace, RunPlan([policy], [tariff], AS_CAPTURED))
        facts = _cache_facts(con, trace, policy)
    if custom:
        for name in ("", "dead "):
            both = {**billed, **facts}
            (billed if not name else facts).update({f"{name}cx": both[f"{name}c5"], f"{name}c5": 0})
    return {**billed, **facts}


def _with_ttl(log: Path, long: str, short: str) -> Iterator[bytes]:
    """The log with every block marker living `long` on tools and system content, `short` on everything else."""
    for line in log.read_bytes().splitlines():
        record = json.loads(line)
        for tool in record["body"].get("tools", []):
            _set_ttl(tool, long)
        for message in record["body"]["messages"]:
            if isinstance(message.get("content"), list):
                for element in message["content"]:
                    _set_ttl(element, long if message["role"] == "system" else short)
        yield json.dumps(record).encode() + b"\n"


def _set_ttl(block: dict[str, Any], ttl: str) -> None:
    if "cache_control" in block:
        block["cache_control"]["ttl"] = ttl


def prepare_words(con: duckdb.DuckDBPyConnection, log: Path) -> PreparedTrace:
    words = ModelConfig(str(FIXTURES / "words-tokenizer.json"), None)
    config = replace(load_config([]), models={"*": words})
    return prepare(con, Preparation(find_sources([str(log)])[0], ReadOptions(), config, body_rule_sets([])))


def _bill(con: duckdb.DuckDBPyConnection, trace: PreparedTrace, plan: RunPlan) -> Figures:
    """What the run's own table says."""
    with transaction(con):
        run_no = Run(con, trace, plan).execute({}, lambda _: [], {}, lambda _: None)
    row = con.execute(
        "SELECT sum(billed_read_tokens), sum(billed_creation_5m_tokens), sum(billed_creation_1h_tokens), sum(charged) "
        "FROM v_requests WHERE run_no = ? AND variant_no = 0 AND billed",
        [run_no],
    ).fetchone()
    assert row is not None
    return {"read": int(row[0]), "c5": int(row[1]), "c1": int(row[2]), "cx": 0, "charged": row[3]}


def _cache_facts(con: duckdb.DuckDBPyConnection, trace: PreparedTrace, policy: Policy) -> Figures:
    """What is not in the table of a run: requests against the floor, and the fate of every write."""
    gates = Gates(policy, AS_CAPTURED, trace.markers)
    lane = Lane(gates, trace, trace.cumulative, MemoryIndex())
    place = trace.rules.index(policy.body_rules)
    rows = [row for batch in trace_rows(con, trace, [place], Scopes()) for row in batch]
    results = [lane.arrive(row.request, row.prompts[0], 0) for row in rows]
    asked = [(row, result) for row, result in zip(rows, results, strict=True) if result.classification is not None]
    below = sum(result.reason == "below_floor" for _, result in asked)
    floor = policy.min_prefix_tokens or 0
    tokens = [_tokens_to_breakpoint(trace, gates, row) for row, _ in asked]
    near = {f"near {width}": sum(abs(count - floor) * 100 <= width * floor for count in tokens) for width in (5, 10)}
    return {"eligible": len(asked) - below, "below floor": below, **near, **_fates(rows, results)}


def _tokens_to_breakpoint(trace: PreparedTrace, gates: Gates, row: TraceRow) -> int:
    request, prompt = row.request, row.prompts[0]
    marks = gates.check(prompt, request.body_state, request.query_marker, request.model, True, True, True)
    assert not isinstance(marks, Gated)
    node = prompt.end_node
    for _ in range(prompt.block_count - 1 - marks[-1][0]):
        node = trace.parents[node]
    return trace.cumulative[request.tokenizer][node]


@dataclass
class _Written:
    """One index write: the tokens created by it, when it dies, whether a request has read it."""

    created: int
    tier: int
    expires_us: int
    is_read: bool = False


def _fates(rows: Sequence[TraceRow], results: Sequence[Classified]) -> Figures:
    """How many writes there were, and which of them died unread: by the refreshes, which name what was read."""
    entries: dict[tuple[int, int], _Written] = {}
    written: list[_Written] = []
    coming: list[tuple[int, int]] = []
    for place, (row, result) in enumerate(zip(rows, results, strict=True)):
        request = row.request
        for done in sorted(done for done in coming if done[0] <= request.at_us):
            coming.remove(done)
            _commit(rows[done[1]].request.scope, results[done[1]], entries, written)
        if result.classification is not None:
            for refresh in result.classification.refreshes:
                entries[request.scope, refresh.prefix].is_read = True
        if result.committed:
            coming.append((request.done_us, place))
    end_us = rows[-1].request.at_us
    assert not coming
    assert all(write.expires_us <= end_us for write in entries.values()), "the last request comes too early"
    dead = [write for write in written if not write.is_read]
    by_tier = {f"dead c{'5' if tier == '5m' else '1'}": TIERS.index(tier) for tier in ("5m", "1h")}
    tokens = {name: sum(write.created for write in dead if write.tier == tier) for name, tier in by_tier.items()}
    return {"writes": len(written), "dead": len(dead), **tokens, "dead cx": 0}


def _commit(scope: int, result: Classified, entries: dict[tuple[int, int], _Written], written: list[_Written]) -> None:
    split = result.classification
    assert split is not None
    previous = split.read
    for write in split.writes:
        entry = _Written(write.tokens - previous, write.tier, write.expires_us)
        entries[scope, write.prefix] = entry
        written.append(entry)
        previous = write.tokens
    for refresh in split.refreshes:
        entries[scope, refresh.prefix].expires_us = refresh.expires_us
