"""Hand-made run databases: requests given as short rows, so that a test can write its sums out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import duckdb

from cachesim.store.db import insert_frame

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
HOUR_US = 3_600_000_000


@dataclass
class Req:
    """One request under every variant: (read, 5m, 1h) billed as classified unless `billed` says otherwise."""

    model: str | None = "m"
    prompt: int = 0
    completion: int = 0
    split: tuple[int, int, int] = (0, 0, 0)
    billed: tuple[int, int, int] | None = None
    outcome: str = "read"
    reason: str | None = None
    price: int | None = 0
    ok: bool = True
    at_us: int = START_US
    principal: str | None = "acme"
    session: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    estimated: bool = False
    local: int | None = None
    cost: Decimal | None = None
    recorded_read: int | None = None
    state: str = "ok"
    tiers: str = "5m"
    ideal: int = 0


@dataclass
class Price:
    """Prices per token: input, output, and the multipliers read, 5m, 1h, 24h of the cache tariff (None: none)."""

    unit: str = "0.001"
    completion: str = "0.002"
    multipliers: tuple[str, str, str, str] | None = ("0.1", "1.25", "2", "2.5")
    name: str = "standard"


def fill(
    con: duckdb.DuckDBPyConnection,
    requests: Sequence[Req],
    prices: Sequence[Price] = (Price(),),
    *,
    run_no: int = 1,
    policies: Sequence[tuple[str, str]] = (("dwctl-10.13", "default"),),
    bounds: bool = True,
    exact: bool = True,
    assumptions: Sequence[dict[str, str]] = (),
    problems: Mapping[str, Any] | None = None,
    file: str = "log.jsonl",
) -> None:
    """Write one trace and one run with `requests` under every policy; bounds `off` and `ideal` come last."""
    digest = f"{run_no:02d}" + "ab" * 31
    con.execute("INSERT INTO traces VALUES (?, ?, ?, '{}', '[]', '[]')", [run_no, f"trace{run_no}", len(requests)])
    con.execute(
        "INSERT INTO trace_inputs VALUES (?, 0, ?, 1234, 'c0ffee', 'cachesim', ?, 0)", [run_no, file, len(requests)]
    )
    con.execute(
        "INSERT INTO trace_tokenizers (trace_no, tokenizer_no, source, version, exact)"
        " VALUES (?, 0, 'tokenizer.json', 'v1', ?)",
        [run_no, exact],
    )
    con.execute(
        "INSERT INTO runs (run_no, digest, trace_no, created_at, cachesim_version, options, assumptions, problems)"
        " VALUES (?, ?, ?, TIMESTAMP '2026-02-03 04:05:06', '0.1.0', '{}', ?, ?)",
        [run_no, digest, run_no, json.dumps(list(assumptions)), json.dumps(dict(problems or {}))],
    )
    variants = [("policy", policy, tariff) for policy, tariff in policies]
    variants += [("bound", "off", None), ("bound", "ideal", None)] if bounds else []
    for number, (kind, policy, tariff) in enumerate(variants):
        values = [run_no, number, kind, policy, tariff, "captured", '{"walk_back": 20}']
        con.execute("INSERT INTO variants VALUES (?, ?, ?, ?, ?, ?, ?, 0, NULL)", values)
        insert_frame(con, "classified", _classified(run_no, number, kind, policy, requests))
    insert_frame(con, "requests", _requests(run_no, requests))
    insert_frame(con, "unit_prices", _prices(run_no, prices))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _requests(run_no: int, requests: Sequence[Req]) -> dict[str, list[Any]]:
    return _columns(
        [
            {
                "trace_no": run_no, "seq": i, "file_no": 0, "line": i + 1, "byte_offset": 0, "log_format": "cachesim",
                "request": f"r{i}", "at_us": q.at_us, "done_us": q.at_us, "principal": q.principal, "model": q.model,
                "session": q.session, "tags": json.dumps(dict(q.tags)), "status": 200 if q.ok else 500,
                "succeeded": q.ok, "prompt_tokens": q.prompt, "prompt_estimated": q.estimated, "local_tokens": q.local,
                "completion_tokens": q.completion, "recorded_read_tokens": q.recorded_read, "recorded_cost": q.cost,
                "body_state": "ok", "query_marker": 0, "tokenizer_no": 0,
            }
            for i, q in enumerate(requests)
        ]
    )  # fmt: skip


def _classified(run_no: int, variant_no: int, kind: str, policy: str, requests: Sequence[Req]) -> dict[str, list[Any]]:
    rows = []
    for i, q in enumerate(requests):
        raw, price, outcome, reason = q.split, q.price, q.outcome, q.reason
        billed = q.split if q.billed is None else q.billed
        if kind == "bound":
            raw = billed = (q.ideal if policy == "ideal" else 0, 0, 0)
            price, outcome, reason = None, "read" if raw[0] else "zero", None
        rows.append(
            {
                "run_no": run_no, "variant_no": variant_no, "seq": i, "outcome": outcome, "reason": reason,
                "tiers": q.tiers, "read_tokens": raw[0], "creation_5m_tokens": raw[1], "creation_1h_tokens": raw[2],
                "creation_24h_tokens": 0, "billed_read_tokens": billed[0], "billed_creation_5m_tokens": billed[1],
                "billed_creation_1h_tokens": billed[2], "billed_creation_24h_tokens": 0,
                "uncached_tokens": q.prompt - sum(billed), "bill_state": "ok" if kind == "bound" else q.state,
                "committed": q.ok and sum(raw) > 0, "price_no": price,
            }
        )  # fmt: skip
    return _columns(rows)


def _prices(run_no: int, prices: Sequence[Price]) -> dict[str, list[Any]]:
    rows = []
    for i, price in enumerate(prices):
        unit = Decimal(price.unit)
        read, c5, c1, c24 = (unit * Decimal(m) for m in price.multipliers or ("1", "1", "1", "1"))
        rows.append(
            {
                "run_no": run_no, "price_no": i, "tariff": "default", "base_source": "base",
                "cache_source": price.name if price.multipliers else None, "assumed": False, "uncached": unit,
                "read": read, "creation_5m": c5, "creation_1h": c1, "creation_24h": c24,
                "completion": Decimal(price.completion),
            }
        )  # fmt: skip
    return _columns(rows)
