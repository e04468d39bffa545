from __future__ import annotations

from decimal import Decimal
from typing import Any

import duckdb
import pytest
from sample_run import Price, Req, fill
from sample_sweep import HOUR_US, IDEAL, OFF, Cells, Facts, Var, fill_sweep

from cachesim.errors import UsageError
from cachesim.report.sweeps import along, bound_rows, sweep_columns, sweep_facts, sweep_rows, varied
from cachesim.store.db import IN_MEMORY, open_database


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return open_database(IN_MEMORY)


def cells(read: int, created: int, prompt: int = 1000) -> dict[str, int]:
    return {"requests": 1, "prompt": prompt, "read": read, "c5": created, "uncached": prompt - read - created}


# Two principals, prices 0.001 in, read ×0.1, 5m ×1.25. Under `now` both pay list, 1.0 each.
# At 512 acme reads 400 (pays 0.6 + 0.04 = 0.64), beta only writes 200 (pays 0.8 + 0.25 = 1.05).
VARIANTS = [Var(), Var(floor=512), OFF]
ROWS = [
    Cells(0, cells(0, 0), principal="acme"), Cells(0, cells(0, 0), principal="beta"),
    Cells(1, cells(400, 0), principal="acme"), Cells(1, cells(0, 200), principal="beta"),
    Cells(2, cells(0, 0), principal="acme"), Cells(2, cells(0, 0), principal="beta"),
]  # fmt: skip


def test_a_variant_is_compared_with_now_from_both_sides(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, ROWS)
    now, best, off = sweep_rows(con, 1)
    assert list(best) == sweep_columns(["model"])
    assert (best["variant"], best["kind"], best["floor"], best["model"]) == (1, "policy", 512, "m")
    assert best["charged"] == Decimal("0.64") + Decimal("1.05") == Decimal("1.69")
    assert (best["change"], best["change_share"]) == (Decimal("-0.31"), pytest.approx(-0.155))  # 0.31 / 2
    assert (best["delta"], best["delta_share"]) == (Decimal("-0.31"), pytest.approx(-0.155))
    assert (now["creation_tokens"], best["creation_tokens"]) == (0, 200)
    assert (best["revenue"], best["revenue_change"]) == (Decimal("1.69"), Decimal("-0.31"))
    assert (best["read_change"], best["principals_better"], best["principals_worse"]) == (400, 1, 1)
    assert best["principals_above_list"] == 1
    assert (now["change"], now["read_change"], now["principals_better"], now["principals_worse"]) == (0, 0, 0, 0)
    assert (off["charged"], off["change"], off["principals_better"], off["read_change"]) == (None, None, None, 0)


def test_by_principal_the_counts_are_of_one(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, ROWS)
    rows = {(r["variant"], r["principal"]): r for r in sweep_rows(con, 1, ["principal"])}
    assert [rows[1, name]["principals_better"] for name in ("acme", "beta")] == [1, 0]
    assert [rows[1, name]["principals_worse"] for name in ("acme", "beta")] == [0, 1]
    assert rows[1, "beta"]["change"] == Decimal("0.05")


def test_a_principal_is_weighed_over_all_models_of_the_group(con: duckdb.DuckDBPyConnection) -> None:
    # acme saves 0.36 with model m and loses 0.05 with model n: better off on the whole
    rows = [
        Cells(0, cells(0, 0), model="m"), Cells(0, cells(0, 0), model="n"),
        Cells(1, cells(400, 0), model="m"), Cells(1, cells(0, 200), model="n"),
    ]  # fmt: skip
    fill_sweep(con, [Var(), Var(floor=512)], rows)
    _, whole = sweep_rows(con, 1, [])
    assert (whole["change"], whole["principals_better"], whole["principals_worse"]) == (Decimal("-0.31"), 1, 0)
    by_model = [r["principals_worse"] for r in sweep_rows(con, 1) if r["variant"] == 1]
    assert by_model == [0, 1]


def test_parts_are_compared_with_the_same_part_of_now(con: duckdb.DuckDBPyConnection) -> None:
    rows = [
        Cells(0, cells(0, 0)), Cells(0, cells(0, 0), part="rest"),
        Cells(1, cells(400, 0)), Cells(1, cells(100, 0), part="rest"),
    ]  # fmt: skip
    fill_sweep(con, [Var(), Var(floor=512)], rows)
    assert [sweep_rows(con, 1, part=part)[1]["change"] for part in ("first", "rest")] == [
        Decimal("-0.36"),
        Decimal("-0.09"),
    ]
    assert [(r["part"], r["change"]) for r in sweep_rows(con, 1, ["part"]) if r["variant"] == 1] == [
        ("first", Decimal("-0.36")),
        ("rest", Decimal("-0.09")),
    ]


def test_unknown_money_leaves_the_comparison_unknown(con: duckdb.DuckDBPyConnection) -> None:
    rows = [Cells(0, cells(0, 0)), Cells(1, cells(400, 0)), Cells(1, cells(0, 0), principal="x", price=None)]
    fill_sweep(con, [Var(), Var(floor=512)], rows)
    best = sweep_rows(con, 1)[1]
    assert (best["unpriced"], best["charged"], best["change"], best["principals_better"]) == (1, None, None, None)
    assert best["read_change"] == 400


def test_another_tariff_is_compared_in_money_of_its_own(con: duckdb.DuckDBPyConnection) -> None:
    rows = [Cells(0, cells(400, 0)), Cells(1, cells(400, 0), price=1)]
    fill_sweep(con, [Var(), Var(tariff="dear")], rows, [Price(), Price(multipliers=("0.5", "1", "1", "1"))])
    dear = sweep_rows(con, 1)[1]
    assert dear["change"] == 400 * (Decimal("0.0005") - Decimal("0.0001"))


def settings_of(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["floor"], r["ttl"]) for r in rows]


def test_a_slice_goes_through_now_along_its_axes(con: duckdb.DuckDBPyConnection) -> None:
    grid = [Var(floor=f, ttl=t) for f in (None, 512, 1024) for t in (None, "1h")]
    variants = [Var(), *grid, IDEAL]
    fill_sweep(con, variants, [Cells(i, cells(0, 0)) for i in range(len(variants))])
    rows = sweep_rows(con, 1)
    assert settings_of(along(rows, "floor")) == [(None, None), (512, None), (1024, None)]
    assert settings_of(along(rows, "ttl")) == [(None, None), (None, "1h")]
    assert len(along(rows, "floor", "ttl")) == 6  # the grid point that is `now` again counts once
    assert [row["policy"] for row in bound_rows(rows, "ideal")] == ["ideal"]
    assert varied(rows) == ["floor", "ttl"]
    assert along([], "floor") == []


def test_what_a_sweep_says_of_itself(con: duckdb.DuckDBPyConnection) -> None:
    facts = Facts(5 * HOUR_US, 86_400, {"m": 1024, "n": None}, ["n"])
    fill_sweep(con, [Var()], [Cells(0, cells(0, 0))], facts=facts, exact=False)
    found = sweep_facts(con, 1)
    assert (found.span_us, found.longest_ttl_s, found.present_floors) == (5 * HOUR_US, 86_400, {"m": 1024, "n": None})
    assert (found.estimated_models, found.hold_out_us) == (frozenset({"n"}), None)


def test_a_replay_is_no_sweep(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req()])
    with pytest.raises(UsageError, match="not a sweep"):
        sweep_rows(con, 1)
