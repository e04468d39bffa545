"""The Python interface: the frames say what the reports say, with types that do not depend on the data."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sample_run import START_US, Req, fill
from sample_sweep import IDEAL, Cells, Var, fill_sweep

from cachesim import api
from cachesim.errors import InputError, UsageError
from cachesim.report.query import Filters, report_rows, request_rows
from cachesim.report.sweeps import sweep_rows
from cachesim.store.db import open_database

MONEY = pl.Decimal(38, 20)
COLD = {"code": "cold_start", "text": "the index starts empty"}
# 1,000 prompt tokens at 0.001, 400 of them read at ×0.1, 100 written at ×1.25; 10 completion tokens at 0.002
REQUESTS = [
    Req("small", 1000, 10, (400, 100, 0), tags={"app": "chat"}),
    Req("large", 500, 0, (0, 0, 0), outcome="zero", reason="below_floor", at_us=START_US + 1),
    Req("large", 500, 0, ok=False, at_us=START_US + 2),
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "runs.duckdb")


@pytest.fixture
def database(path: str) -> Any:
    with open_database(path) as con:
        fill(
            con,
            REQUESTS,
            assumptions=[{"code": "cold_start", "text": "the index starts empty"}],
            problems={"bad_lines": 3},
        )
    with api.open(path) as opened:
        yield opened


def test_a_frame_has_a_row_per_group_with_exact_money(database: api.Database) -> None:
    frame = database.run().frame(by=["model"])
    assert frame["model"].to_list() == ["large", "small"]
    small = frame.row(1, named=True)
    assert small["list"] == Decimal("1.02")  # 1,000 × 0.001 + 10 × 0.002
    assert small["charged"] == Decimal("0.685")  # 500 × 0.001 + 400 × 0.0001 + 100 × 0.00125 + 0.02
    assert (small["token_hit_rate"], small["cacheable_hit_rate"]) == (0.4, 0.8)
    assert frame.schema["charged"] == MONEY


def test_a_frame_holds_what_the_report_holds(database: api.Database, path: str) -> None:
    by = ["model", "tag:app"]
    frame = database.run().frame(by=by, bounds=True)
    with open_database(path, read_only=True) as con:
        assert frame.to_dicts() == report_rows(con, 1, by, Filters(bounds=True))


def test_without_groups_there_is_one_row_and_one_name_is_one_group(database: api.Database) -> None:
    run = database.run()
    assert run.frame(by=[]).height == 1
    assert run.frame(by="model").equals(run.frame(by=["model"]))


def test_requests_are_what_the_report_by_request_holds(database: api.Database, path: str) -> None:
    frame = database.run().requests(bounds=True)
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame["at"][1] == datetime(2026, 1, 1, 0, 0, 0, 1, UTC)
    with open_database(path, read_only=True) as con:
        rows = list(request_rows(con, 1, Filters(bounds=True)))
    assert frame.with_columns(pl.col("at").cast(pl.Int64)).to_dicts() == rows


def test_types_do_not_depend_on_the_rows(database: api.Database, tmp_path: Path) -> None:
    empty = str(tmp_path / "empty.duckdb")
    with open_database(empty) as con:
        fill(con, [])
    with api.open(empty) as other:
        assert other.runs().schema == database.runs().schema
        assert other.run().frame().schema == database.run().frame().schema
        assert other.run().requests().schema == database.run().requests().schema


def test_runs_are_listed_with_what_they_were_made_from(path: str) -> None:
    with open_database(path) as con:
        fill(con, REQUESTS, policies=[("dwctl-8.63", "old"), ("dwctl-10.13", "old")], file="monday.jsonl")
        fill_sweep(con, SWEEP, CELLS, run_no=2)
    with api.open(path) as database:
        first, second = database.runs().to_dicts()
    assert (first["run_no"], first["kind"], second["kind"]) == (1, "replay", "sweep")
    assert (first["policies"], first["tariffs"], first["files"]) == (
        ["dwctl-8.63", "dwctl-10.13"], ["old"], ["monday.jsonl"],
    )  # fmt: skip
    assert first["made_at"] == datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_run_says_what_it_rests_on(database: api.Database) -> None:
    run = database.run("01ab")
    assert (run.run_no, run.digest[:4]) == (1, "01ab")
    assert run.assumptions == [COLD]
    assert run.problems == {"bad_lines": 3}


# Under `now` all 1,000 tokens are uncached: 1.0. At 512, 400 are read: 600 × 0.001 + 400 × 0.0001 = 0.64.
SWEEP = [Var(), Var(floor=512), IDEAL]
CELLS = [
    Cells(0, {"requests": 1, "prompt": 1000, "uncached": 1000}),
    Cells(1, {"requests": 1, "prompt": 1000, "uncached": 600, "read": 400, "near_5": 1}),
    Cells(2, {"requests": 1, "prompt": 1000, "uncached": 100, "read": 900}),
]


def test_a_stored_sweep_has_a_row_per_variant(path: str) -> None:
    with open_database(path) as con:
        fill(con, REQUESTS)
        fill_sweep(con, SWEEP, CELLS, run_no=2)
        rows = sweep_rows(con, 2, ["model"])
    with api.open(path) as database:
        sweep = database.sweep()
        frame = sweep.frame(by=["model"])
        assert database.run().run_no == 1
    with pytest.raises(UsageError, match="closed"):
        sweep.frame(by=["model"])
    assert frame.to_dicts() == rows
    assert frame["floor"].to_list() == [None, 512, None]
    assert frame["change"].to_list() == [0, Decimal("-0.36"), None]
    assert sweep.present_floors == {"m": 1024}


@pytest.mark.parametrize(("ask", "message"), [
    (lambda database: database.run(2), "run '2': a sweep, which keeps sums"),
    (lambda database: database.sweep("1"), "run 1: not a sweep"),
    (lambda database: database.run("ffff"), "run 'ffff': not in the database"),
    (lambda database: database.run().frame(by=["modle"]), "did you mean model"),
])  # fmt: skip
def test_what_is_not_there_is_said_with_what_is(path: str, ask: Any, message: str) -> None:
    with open_database(path) as con:
        fill(con, REQUESTS)
        fill_sweep(con, SWEEP, CELLS, run_no=2)
    with api.open(path) as database, pytest.raises(UsageError, match=message):
        ask(database)


def test_without_a_sweep_the_latest_one_is_missing(database: api.Database) -> None:
    with pytest.raises(UsageError, match="holds no sweep yet"):
        database.sweep()


def test_a_database_is_not_made_by_asking_for_it(path: str) -> None:
    with pytest.raises(InputError, match="no such run database"):
        api.open(path)
    assert not Path(path).exists()


def words(text: str | None) -> set[str]:
    return set(re.findall(r"[a-z0-9_]+", text or ""))


def test_the_docstrings_name_every_column(path: str) -> None:
    with open_database(path) as con:
        fill(con, REQUESTS)
        fill_sweep(con, SWEEP, CELLS, run_no=2)
    with api.open(path) as database:
        documented = {
            api.Database.runs.__doc__: database.runs().columns,
            api.Run.frame.__doc__: database.run().frame(by=[]).columns,
            api.Run.requests.__doc__: database.run().requests().columns,
            f"{api.Run.frame.__doc__} {api.Sweep.frame.__doc__}": database.sweep().frame(by=[]).columns,
        }
        figures = {*database.run().frame(by=[]).columns, *database.sweep().frame(by=[]).columns}
    for text, names in documented.items():
        assert set(names) - words(text) == set()
    lead = {"run", "variant", "kind", "policy", "tariff", "markers", "floor", "ttl", "walk_back", "window"}
    assert figures - lead == set(api.columns()["column"])


def test_after_close_everything_says_so(database: api.Database) -> None:
    run = database.run()
    database.close()
    database.close()  # twice is no mistake
    for ask in (database.runs, database.run, database.sweep, run.frame, run.requests, lambda: run.sweep(floors=[512])):
        with pytest.raises(UsageError, match=r"runs\.duckdb: closed; .*open it again"):
            ask()
