from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest
from sample_run import Req, fill
from sample_sweep import HOUR_US, IDEAL, OFF, Cells, Facts, Var, fill_sweep

from cachesim.cli import main
from cachesim.errors import UsageError
from cachesim.report.columns import COLUMNS, SWEEP_COLUMNS
from cachesim.report.query import Filters, is_sweep, report_rows, request_rows
from cachesim.store.db import IN_MEMORY, open_database

# prices per token: input 0.001, output 0.002, read ×0.1, 5m ×1.25, 1h ×2
CELLS = {
    "requests": 10, "requests_read": 4, "prompt": 10_000, "read": 4_000, "c5": 2_000, "uncached": 4_000,
    "completion": 100, "asked": 9, "below_floor": 3, "near_5": 1, "near_10": 2, "writes": 6,
    "live_us": 5 * HOUR_US, "dead_writes": 2, "dead_c5": 800, "open_writes": 1,
    "gap_1_requests": 3, "gap_2_requests": 1, "gap_1_tokens": 3_500, "gap_2_tokens": 500,
}  # fmt: skip


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return open_database(IN_MEMORY)


def test_the_sums_of_a_sweep_give_the_figures_of_a_replay_and_its_own(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, [Var()], [Cells(0, CELLS), Cells(0, CELLS, principal="b", part="rest")], facts=Facts(10 * HOUR_US))
    (row,) = report_rows(con, 1, ["model"])
    assert (row["model"], row["requests"], row["prompt_tokens"], row["read_tokens"]) == ("m", 20, 20_000, 8_000)
    # per group: list 10 + 0.2, charged 4 + 0.4 + 2.5 + 0.2
    assert row["list"] == 2 * Decimal("10.2")
    assert row["charged"] == 2 * Decimal("7.1")
    assert row["delta"] == 2 * Decimal("-3.1")
    assert (row["token_hit_rate"], row["cacheable_hit_rate"], row["request_hit_rate"]) == (0.4, 4 / 6, 0.4)
    assert (row["asked"], row["eligible"], row["below_floor"], row["near_5"], row["near_10"]) == (18, 12, 6, 2, 4)
    assert (row["index_writes"], row["live_entries"]) == (12, 1.0)  # 2 × 5 h live in a log of 10 h
    assert (row["dead_writes"], row["dead_tokens"], row["open_writes"]) == (4, 1_600, 2)
    assert row["dead_premium"] == 2 * 800 * Decimal("0.00025")
    assert [row[f"reads_{band}"] for band in ("under_5m", "5m_to_1h", "1h_to_8h", "over_8h")] == [6, 2, 0, 0]
    assert [row[f"read_tokens_{band}"] for band in ("under_5m", "5m_to_1h")] == [7_000, 1_000]
    recorded = [name for name in row if name.startswith("recorded_")]
    assert len(recorded) == 7
    assert all(row[name] is None for name in recorded)


def test_by_principal_and_part_and_filters(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(
        con,
        [Var()],
        [Cells(0, {"requests": 1}), Cells(0, {"requests": 2}, part="rest"), Cells(0, {"requests": 4}, principal="b")],
    )
    by_part = [(r["part"], r["principal"], r["requests"]) for r in report_rows(con, 1, ["part", "principal"])]
    assert by_part == [("first", "acme", 1), ("first", "b", 4), ("rest", "acme", 2)]
    assert report_rows(con, 1, [], Filters(parts=("rest",)))[0]["requests"] == 2
    assert report_rows(con, 1, [], Filters(principals=("b",)))[0]["requests"] == 4


def test_creation_in_a_lifetime_without_a_multiplier_leaves_charged_unknown(con: duckdb.DuckDBPyConnection) -> None:
    cells = {"requests": 1, "prompt": 1000, "cx": 400, "uncached": 600, "dead_cx": 100}
    fill_sweep(con, [Var(ttl="15m"), Var()], [Cells(0, cells), Cells(1, {"requests": 1, "prompt": 1000})])
    unknown, known = report_rows(con, 1)
    assert (unknown["charged"], unknown["delta"], unknown["dead_premium"]) == (None, None, None)
    assert (unknown["list"], unknown["creation_custom_tokens"], unknown["unpriced"]) == (Decimal(1), 400, 0)
    assert known["charged"] is not None
    con.execute("UPDATE unit_prices SET creation_custom = 0.0014")
    priced, _ = report_rows(con, 1)
    assert priced["charged"] == Decimal("0.6") + 400 * Decimal("0.0014")  # 1.16
    assert priced["dead_premium"] == 100 * Decimal("0.0004")


def test_only_what_varies_leads_the_rows(con: duckdb.DuckDBPyConnection) -> None:
    one = {"requests": 1}
    fill_sweep(con, [Var(), Var(floor=512), Var(floor=512, ttl="1h"), OFF], [Cells(i, one) for i in range(4)])
    rows = report_rows(con, 1, ["model"], Filters(bounds=True))
    assert list(rows[0])[:6] == ["run", "policy", "tariff", "floor", "ttl", "model"]
    assert [(r["policy"], r["floor"], r["ttl"]) for r in rows] == [
        ("dwctl-10.13", None, None),
        ("dwctl-10.13", 512, None),
        ("dwctl-10.13", 512, "1h"),
        ("off", None, None),
    ]
    fill_sweep(con, [Var(walk_back=10, window="fixed"), Var(walk_back=20)], [Cells(0, one)], run_no=2)
    assert list(report_rows(con, 2)[0])[:5] == ["run", "policy", "tariff", "walk_back", "window"]


@pytest.mark.parametrize(
    ("by", "filters", "words"),
    [
        (["day"], Filters(), "--by day: this run is a sweep, which keeps sums by model, principal, part"),
        (["tag:app"], Filters(), "cachesim replay log.jsonl --set min_prefix_tokens=1024"),
        ([], Filters(since_us=0), "--since"),
        (["model"], Filters(until_us=0), "--until"),
    ],
)
def test_what_a_sweep_does_not_keep_is_named(
    con: duckdb.DuckDBPyConnection, by: list[str], filters: Filters, words: str
) -> None:
    fill_sweep(con, [Var()], [Cells(0, CELLS)])
    with pytest.raises(UsageError, match=words):
        report_rows(con, 1, by, filters)
    with pytest.raises(UsageError, match="--by request: this run is a sweep"):
        next(request_rows(con, 1))


def test_a_sweep_is_told_from_a_replay(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req()], run_no=1)
    fill_sweep(con, [Var()], [Cells(0, CELLS)], run_no=2)
    assert [is_sweep(con, 1), is_sweep(con, 2)] == [False, True]
    assert "eligible" not in report_rows(con, 1)[0]
    assert {c.name for c in SWEEP_COLUMNS} > {c.name for c in COLUMNS}


def test_the_view_of_a_sweep_has_names_and_money(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, [Var(), Var(floor=512, ttl="1h"), IDEAL], [Cells(i, CELLS) for i in range(3)])
    rows = con.execute(
        'SELECT kind, floor, ttl, walk_back, "window", model, part, eligible, list, charged, delta FROM v_sweep'
        " ORDER BY variant_no"
    ).fetchall()
    money = (Decimal("10.2"), Decimal("7.1"), Decimal("-3.1"))
    assert rows == [
        ("policy", None, None, 20, "sliding", "m", "first", 6, *money),
        ("policy", 512, "1h", 20, "sliding", "m", "first", 6, *money),
        ("bound", None, None, None, None, "m", "first", 6, None, None, None),
    ]


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "runs.duckdb")
    with open_database(path) as con:
        fill_sweep(
            con,
            [Var(), Var(tariff="cheap"), Var(floor=512), Var(floor=512, tariff="cheap"), OFF],
            [Cells(i, CELLS, model=model) for i in range(5) for model in ("m", "n")],
        )
    return path


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(list(args))
    captured = capsys.readouterr()
    assert done.value.code == 0, captured.err
    return captured.out


def test_report_writes_sweeps_in_every_form(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = ["report", "--db", database, "--by", "model"]
    rows = json.loads(run(capsys, *report, "--format", "json"))["rows"]
    # one block per policy and tariff, whatever the order of the grid
    assert [(r["tariff"], r["floor"], r["model"]) for r in rows] == [
        (tariff, floor, model) for tariff in ("default", "cheap") for floor in (None, 512) for model in ("m", "n")
    ]
    assert rows[0]["live_entries"] == 0.05
    csv = run(capsys, *report, "--format", "csv").splitlines()
    assert csv[0].startswith("run,policy,tariff,floor,model,requests,")
    assert len(csv) == 9
    assert run(capsys, *report, "--format", "md").count("\n") == 10
    target = tmp_path / "sweep.parquet"
    run(capsys, *report, "--format", "parquet", "--output", str(target))
    frame = pl.read_parquet(io.BytesIO(target.read_bytes()))
    assert frame["floor"].to_list()[:4] == [None, None, 512, 512]
    assert frame.schema["live_entries"] == pl.Float64


def test_the_table_of_a_sweep_has_the_grid_beside_the_groups(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = run(capsys, "report", "--db", database, "--by", "model", "--quiet")
    assert out.count("dwctl-10.13 · tariff ") == 2
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines if line and line[-1] == "0.1"] == [
        ["–", "m"],
        ["–", "n"],
        ["512", "m"],
        ["512", "n"],
    ] * 2
    assert "all" not in [line[0] for line in lines if line]
