"""Random prepared traces in a run database, with everything a log can do to a request, for tests of whole runs.

with open_database(":memory:") as con:
    trace_no = stored(con, varied_trace(seed))
    run_no = run_stored(con, trace_no, RunPlan([policy], [tariff], AS_CAPTURED))
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, NamedTuple

import duckdb
from traces import FACTS, MINUTE_US, START_US, End, forest

from cachesim.core.blocks import KINDS
from cachesim.core.gates import NO_PROMPT, Prompt
from cachesim.core.ledger import BaseRow, CacheRow, TariffSet
from cachesim.pipeline import body_rule_sets
from cachesim.prepare.nodes import Nodes, cumulate
from cachesim.run import Run, RunPlan
from cachesim.store.db import insert_frame, transaction
from cachesim.store.trace_reader import load_trace
from cachesim.stored_plan import plan_options

HOUR_US: Final = 60 * MINUTE_US
MODELS: Final[dict[str | None, int | None]] = {"m": 0, "n": 1, "o": 0, "unmapped": None, None: None}
"""Model of a varied trace -> its tokenizer; the tariffs below do not enable o."""
GAPS_US: Final = (0, 0, 1, MINUTE_US, MINUTE_US, 5 * MINUTE_US - 1, 5 * MINUTE_US, 11 * MINUTE_US, 61 * MINUTE_US)
RULES: Final = body_rule_sets([])
"""The body rules of both presets, of 8.63 first: a varied trace is prepared for these."""


class VariedRow(NamedTuple):
    """A request as the table `requests` has it (by column name), and its prompt under each of RULES."""

    columns: Mapping[str, Any]
    prompts: tuple[Prompt, ...]


@dataclass
class VariedTrace:
    """A forest of boundaries, their tokens with each tokenizer, and requests in replay order.

    versions: of the tokenizers; part: which piece of the trace it is, if it was cut.
    """

    seed: int
    tree: Nodes
    cumulative: list[array[int]]
    rows: list[VariedRow]
    versions: tuple[str, ...] = ("v0", "v1")
    part: str = ""


def varied_trace(seed: int, requests: int = 120) -> VariedTrace:
    """A deterministic random trace with models, principals and purposes, bodies that cannot be read, failures, prompts
    of unknown size, two rule sets that see different blocks, and boundaries whose hash another boundary shares.
    """
    chance = random.Random(seed)
    tree, tokens, ends = forest(chance)
    for _ in range(4):  # the same hash after another history: a twin, whose own count differs from the stored one
        (parent, depth), twin = chance.choice(ends), chance.choice(ends)[0]
        node = tree.child(parent, tree.digests[twin], chance.randrange(len(KINDS)))
        if node == len(tokens):
            tokens.append(chance.choice([1, 70, 500]))
            ends.append((node, depth + 1))
    other = [count + chance.choice([0, 0, 1, 7]) * (count > 1) for count in tokens]
    cumulative = [cumulate(tree.parents, array("q", own)) for own in (tokens, other)]
    rows = []
    at_us = START_US
    for seq in range(requests):
        at_us += chance.choice(GAPS_US) if chance.random() < 0.97 else chance.choice([9 * HOUR_US, 25 * HOUR_US])
        rows.append(_row(chance, seq, at_us, ends, cumulative))
    return VariedTrace(seed, tree, cumulative, rows)


def _row(
    chance: random.Random, seq: int, at_us: int, ends: Sequence[End], cumulative: Sequence[Sequence[int]]
) -> VariedRow:
    succeeded = chance.random() < 0.9
    model = chance.choices(list(MODELS), [8, 6, 2, 2, 1])[0]
    state = chance.choices(["ok", "unparseable", "not_cacheable"], [40, 1, 1])[0]
    prompts = _prompts(chance, ends) if state == "ok" else (NO_PROMPT, NO_PROMPT)
    tokenizer = MODELS[model] if state != "unparseable" else None
    end = prompts[-1].end_node
    local = cumulative[tokenizer][end] if tokenizer is not None and end >= 0 else None
    reported = None if chance.random() < 0.15 else (local or 0) + chance.choice([-900, -40, 0, 0, 5, 9])
    purpose = chance.choice([None, "realtime", "batch", "odd"])
    columns = {
        "seq": seq, "file_no": 0, "line": seq + 1, "byte_offset": 1000 * seq, "log_format": "cachesim",
        "request": f"r{seq}", "at_us": at_us, "done_us": at_us + chance.choice([0, 0, 1, MINUTE_US, 6 * MINUTE_US]),
        "principal": chance.choices(["a", "b", "c", None], [6, 4, 2, 1])[0], "model": model,
        "session": chance.choice(["s1", "s2", None]), "tags": json.dumps({"app": chance.choice("xy")}),
        # A failed request with a 2xx status is a stream that was cut off: some policies see its writes all the same.
        "status": 200 if succeeded else chance.choice([200, 429, 500]), "succeeded": succeeded, "purpose": purpose,
        "completion_window": "24h" if purpose == "batch" and chance.random() < 0.5 else None,
        "batch_created_us": at_us - HOUR_US if purpose == "batch" and chance.random() < 0.5 else None,
        "prompt_tokens": local if reported is None else max(reported, 0), "prompt_estimated": reported is None,
        "local_tokens": local, "completion_tokens": chance.choice([0, 1, 20, 300]), "recorded_read_tokens": None,
        "recorded_creation_5m_tokens": None, "recorded_creation_1h_tokens": None,
        "recorded_creation_24h_tokens": None, "recorded_cost": None, "body_state": state,
        "query_marker": chance.choices([0, 1, 2], [20, 1, 1])[0], "tokenizer_no": tokenizer,
    }  # fmt: skip
    return VariedRow(columns, prompts)


def _prompts(chance: random.Random, ends: Sequence[End]) -> tuple[Prompt, Prompt]:
    """Mostly the same prompt under both rule sets, sometimes another one, and an ingress error now and then."""
    new = _prompt(chance, *chance.choice(ends))
    old = new if chance.random() < 0.7 else _prompt(chance, *chance.choice(ends))
    return old._replace(ingress_error="system_in_messages") if chance.random() < 0.03 else old, new


def _prompt(chance: random.Random, end: int, depth: int) -> Prompt:
    blocks = sorted(chance.sample(range(depth), min(depth, chance.choice([0, 1, 1, 2, 2, 3, 4, 5]))))
    return Prompt(
        end_node=end,
        block_count=depth,
        marker_blocks=tuple(blocks),
        marker_facts=tuple(chance.choice([0, 1, 1, 2, 2, 3, 4]) if chance.random() < 0.97 else 5 for _ in blocks),
        automatic=chance.choice([-1, -1, -1, 0, 2]),
        last_user=chance.choice([depth - 1, depth - 1, -1]),
        last_system=chance.choice([0, depth // 3, -1]),
        last_tool=chance.choice([-1, -1, 0]),
        ingress_error="system_in_messages" if chance.random() < 0.02 else None,
    )


def cut(trace: VariedTrace, start: int, end: int) -> VariedTrace:
    """Requests `start` to `end` as a log of their own: only their boundaries and tokenizers, in other numbers."""
    rows = trace.rows[start:end]
    wanted: set[int] = set()
    for node in {prompt.end_node for row in rows for prompt in row.prompts}:
        while node >= 0 and node not in wanted:
            wanted.add(node)
            node = trace.tree.parents[node]
    tree, numbers = Nodes(), {-1: -1}
    for node in sorted(wanted, key=lambda n: (_depth(trace.tree, n), -n)):
        parent = numbers[trace.tree.parents[node]]
        numbers[node] = tree.child(parent, trace.tree.digests[node], trace.tree.kinds[node])
    old = {number: node for node, number in numbers.items()}
    used = dict.fromkeys(row.columns["tokenizer_no"] for row in rows)
    tokenizers = [number for number in used if number is not None]
    renumbered = [
        VariedRow(
            {**row.columns, "seq": seq, "tokenizer_no": _position(tokenizers, row.columns["tokenizer_no"])},
            tuple(prompt._replace(end_node=numbers[prompt.end_node]) for prompt in row.prompts),
        )
        for seq, row in enumerate(rows)
    ]
    cumulative = [array("q", [trace.cumulative[t][old[n]] for n in range(len(tree))]) for t in tokenizers]
    versions = tuple(trace.versions[t] for t in tokenizers)
    return VariedTrace(trace.seed, tree, cumulative, renumbered, versions, f"{start}-{end}")


def _depth(tree: Nodes, node: int) -> int:
    return 0 if node < 0 else 1 + _depth(tree, tree.parents[node])


def _position(numbers: Sequence[int], number: int | None) -> int | None:
    return None if number is None else numbers.index(number)


def stored(con: duckdb.DuckDBPyConnection, trace: VariedTrace) -> int:
    """Write the trace into the tables a preparation writes; returns its trace_no. Not in a transaction of its own."""
    row = con.execute("SELECT coalesce(max(trace_no), 0) + 1 FROM traces").fetchone()
    assert row is not None
    trace_no: int = row[0]
    count = len(trace.rows)
    digest = sha256(f"{trace.seed} {count} {trace.part}".encode()).hexdigest()
    head = [trace_no, digest, count, json.dumps(_facts(count)), json.dumps([asdict(rules) for rules in RULES])]
    con.execute("INSERT INTO traces VALUES (?, ?, ?, ?, ?, ?)", [*head, json.dumps(FACTS)])
    con.execute(
        "INSERT INTO trace_inputs VALUES (?, 0, 'random.jsonl', ?, ?, 'cachesim', ?, 0)",
        [trace_no, 1000 * count, digest, count],
    )
    nodes = {"parent": trace.tree.parents, "prefix": trace.tree.prefixes, "kind": trace.tree.kinds}
    _insert(con, "nodes", trace_no, len(trace.tree), {**nodes, "digest": trace.tree.digests}, "node")
    for number, totals in enumerate(trace.cumulative):
        con.execute(
            "INSERT INTO trace_tokenizers (trace_no, tokenizer_no, source, version, exact) VALUES (?, ?, ?, ?, true)",
            [trace_no, number, f"t{number}.json", trace.versions[number]],
        )
        same = [number] * len(totals)
        _insert(con, "node_tokens", trace_no, len(totals), {"tokenizer_no": same, "cumulative_tokens": totals}, "node")
    columns = {name: [row.columns[name] for row in trace.rows] for name in trace.rows[0].columns}
    _insert(con, "requests", trace_no, count, columns)
    for rules_no in range(len(RULES)):
        values = zip(*(row.prompts[rules_no] for row in trace.rows), strict=True)
        prompts = dict(zip(Prompt._fields, values, strict=True))
        _insert(con, "prompts", trace_no, count, {**prompts, "rules_no": [rules_no] * count}, "seq")
    return trace_no


def _insert(
    con: duckdb.DuckDBPyConnection,
    table: str,
    trace_no: int,
    count: int,
    columns: Mapping[str, Sequence[Any]],
    numbered: str | None = None,
) -> None:
    """`count` rows of one trace; `numbered`: the column that counts them from 0."""
    own = {numbered: range(count)} if numbered else {}
    insert_frame(con, table, {"trace_no": [trace_no] * count, **own, **columns})


def _facts(requests: int) -> dict[str, Any]:
    """What a preparation without any trouble counts."""
    counted = (
        "filtered", "unordered", "without_duration", "default_principal", "unscoped", "synthetic_times",
        "unmatched_answers", "recorded_writes_assumed_5m", "duplicates", "repeated_ids",
    )  # fmt: skip
    file = {"name": "random.jsonl", "log_format": "cachesim", "records": requests, "bad_lines": 0}
    return {"files": [file], "bad": {}, "principal": None, "usage_reported": True, **dict.fromkeys(counted, 0)}


def run_stored(con: duckdb.DuckDBPyConnection, trace_no: int, plan: RunPlan, continues: int | None = None) -> int:
    """Replay a stored trace; returns the run_no. The policies' body rules must be among RULES.

    continues: the run that left the index to start from.
    """
    earlier = con.execute("SELECT run_no, digest FROM runs WHERE run_no = ?", [continues]).fetchone()
    with transaction(con):
        return Run(con, load_trace(con, trace_no), plan, earlier).execute(
            plan_options(plan, [], continues=earlier and earlier[1]), lambda _: [], {}, lambda _: None
        )


def tariffs(seed: int) -> list[TariffSet]:
    """Three sets for a varied trace: `cheap` and `dear` differ in prices only, `late` in floors and dates too."""
    chance = random.Random(seed)
    begins_us = START_US + chance.randrange(6 * HOUR_US)
    base = [_base("m", "0.001"), _base("m", "0.0005", "batch"), _base("m", "0.0004", "batch", "24h"), _base("n", "2")]
    cheap = [_cache("m", "1.25", "0.1", 40), _cache("n", "1.25", "0.1", 40), _cache("unmapped", "2", "0.1", 40)]
    dear = [_cache("m", "1.5", "0.5", 40), _cache("n", "1", "0.8", 40), _cache("unmapped", "2", "0.5", 40)]
    late = [_cache("m", "1.25", "0.1", 300, until_us=begins_us), _cache("m", "2", "0.2", 5, from_us=begins_us)]
    return [TariffSet("cheap", cheap, base), TariffSet("dear", dear, base), TariffSet("late", late, base)]


def _cache(
    model: str, write: str, read: str, floor: int, *, from_us: int | None = None, until_us: int | None = None
) -> CacheRow:
    factor = Decimal(write)
    return CacheRow(model, factor, factor + 1, factor + 2, Decimal(read), floor, from_us, until_us)


def _base(model: str, price: str, purpose: str = "realtime", window: str | None = None) -> BaseRow:
    return BaseRow(model, Decimal(price), 3 * Decimal(price), purpose, window)
