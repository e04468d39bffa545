"""Hand-made sweeps: variants and cells given as short rows, so that a test can write its sums out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
from sample_run import Price, _columns, _prices

from cachesim.report.columns import CELLS, SWEEP_CELLS
from cachesim.store.db import insert_frame

HOUR_US = 3_600_000_000
CELL_NAMES = [name for name in (*CELLS, *SWEEP_CELLS) if not name.startswith("recorded_")]


@dataclass
class Var:
    """One grid point; the first of a sweep is the baseline `now`."""

    floor: int | None = None
    ttl: str | None = None
    walk_back: int = 20
    window: str = "sliding"
    markers: str = "as-captured"
    policy: str = "dwctl-10.13"
    tariff: str | None = "default"
    kind: str = "policy"


OFF = Var(policy="off", tariff=None, kind="bound")
IDEAL = Var(policy="ideal", tariff=None, kind="bound")
UNLIMITED = Var(policy="unlimited", tariff=None, kind="bound")


@dataclass
class Cells:
    """The sums of one variant in one group; cells not named are 0."""

    variant: int
    cells: Mapping[str, int]
    model: str | None = "m"
    principal: str | None = "acme"
    part: str = "first"
    price: int | None = 0


@dataclass
class Facts:
    """What the sweep's options say besides the grid."""

    span_us: int = 100 * HOUR_US
    longest_ttl_s: int = 3600
    present_floors: Mapping[str, int | None] = field(default_factory=lambda: {"m": 1024})
    estimated_models: Sequence[str] = ()


def fill_sweep(
    con: duckdb.DuckDBPyConnection,
    variants: Sequence[Var],
    rows: Sequence[Cells],
    prices: Sequence[Price] = (Price(),),
    *,
    run_no: int = 1,
    facts: Facts | None = None,
    exact: bool = True,
    file: str = "log.jsonl",
    multiplier: str | None = None,
) -> None:
    """Write one trace without requests and one sweep over it; multiplier: prices creation of other lifetimes."""
    facts = facts or Facts()
    options = {
        "span_us": facts.span_us,
        "longest_ttl_s": facts.longest_ttl_s,
        "present_floors": dict(facts.present_floors),
        "estimated_models": list(facts.estimated_models),
    }
    con.execute("INSERT INTO traces VALUES (?, ?, 0, '{}', '[]', '[]')", [run_no, f"trace{run_no}"])
    con.execute("INSERT INTO trace_inputs VALUES (?, 0, ?, 1234, 'c0ffee', 'cachesim', 0, 0)", [run_no, file])
    con.execute(
        "INSERT INTO trace_tokenizers (trace_no, tokenizer_no, source, version, exact)"
        " VALUES (?, 0, 'tokenizer.json', 'v1', ?)",
        [run_no, exact],
    )
    con.execute(
        "INSERT INTO runs (run_no, digest, trace_no, created_at, cachesim_version, options, assumptions, problems)"
        " VALUES (?, ?, ?, TIMESTAMP '2026-02-03 04:05:06', '0.1.0', ?, '[]', '{}')",
        [run_no, f"{run_no:02d}" + "cd" * 31, run_no, json.dumps(options)],
    )
    for number, v in enumerate(variants):
        rules: dict[str, Any] = {"min_prefix_tokens": v.floor, "walk_back": v.walk_back, "window": v.window}
        values = [run_no, number, v.kind, v.policy, v.tariff, v.markers]
        written = json.dumps(rules if v.kind == "policy" else {})
        con.execute("INSERT INTO variants VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)", [*values, written, v.ttl])
    groups = list(dict.fromkeys((row.model, row.principal, row.part) for row in rows))
    for number, group in enumerate(groups):
        con.execute("INSERT INTO sweep_groups VALUES (?, ?, ?, ?, ?)", [run_no, number, *group])
    swept = [
        {
            "run_no": run_no,
            "variant_no": row.variant,
            "group_no": groups.index((row.model, row.principal, row.part)),
            "price_no": None if variants[row.variant].kind == "bound" else row.price,
            **{name: row.cells.get(name, 0) for name in CELL_NAMES},
        }
        for row in rows
    ]
    assert all(name in CELL_NAMES for row in rows for name in row.cells)
    insert_frame(con, "swept", _columns(swept))
    insert_frame(con, "unit_prices", _prices(run_no, prices))
    if multiplier is not None:
        con.execute("UPDATE unit_prices SET creation_custom = uncached * ?::DECIMAL(18,6)", [multiplier])
