"""Sweeps from Python: every point is a replay of its own, and a database that is only read stays as it is."""

from __future__ import annotations

from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli
from polars.testing import assert_frame_equal

from cachesim import api
from cachesim.errors import UsageError

DEMO = Path(__file__).resolve().parents[2] / "fixtures" / "demo.jsonl.gz"
AXES: dict[str, Any] = {"floors": [None, 512, 2048], "ttls": [None, "15m"], "multipliers": {"15m": "1.4"}}
FIGURES = ["model", "requests", "read_tokens", "creation_5m_tokens", "creation_1h_tokens", "charged", "token_hit_rate"]


@pytest.fixture
def database(cli: Cli, tmp_path: Path) -> str:
    assert cli("replay", DEMO, "--quiet").code == 0
    return str(tmp_path / "cachesim.duckdb")


def test_a_point_of_a_sweep_is_the_replay_with_its_settings(cli: Cli, database: str) -> None:
    with api.open(database) as db:
        swept = db.run().sweep(floors=[512], walk_backs=[5]).frame(by=["model"])
    assert cli("replay", DEMO, "--quiet", "--set", "min_prefix_tokens=512", "--set", "walk_back=5").code == 0
    with api.open(database) as db:
        replayed = db.run().frame(by=["model"])
    assert_frame_equal(swept.filter(floor=512, walk_back=5, kind="policy").select(FIGURES), replayed.select(FIGURES))


def test_now_is_the_run_itself(database: str) -> None:
    with api.open(database) as db:
        run = db.run()
        swept = run.sweep(floors=[512])
        now = swept.frame(by=["model"]).filter(variant=0)
        assert_frame_equal(now.select(FIGURES), run.frame(by=["model"]).select(FIGURES))
        assert now["change"].to_list() == [Decimal(0)] * now.height
        assert set(swept.present_floors.values()) == {1024}


def test_a_database_that_is_only_read_is_not_written_and_gives_the_same(database: str) -> None:
    before = sha256(Path(database).read_bytes()).hexdigest()
    with api.open(database) as db:
        beside = db.run().sweep(**AXES)
        frame = beside.frame(by=["model", "part"])
        assert db.runs().height == 1
    assert sha256(Path(database).read_bytes()).hexdigest() == before
    with api.open(database, read_only=False) as db:
        kept = db.run().sweep(**AXES)
        assert_frame_equal(kept.frame(by=["model", "part"]), frame)
    assert kept.digest == beside.digest
    with api.open(database) as db:
        assert db.runs()["kind"].to_list() == ["replay", "sweep"]
        assert_frame_equal(db.sweep().frame(by=["model", "part"]), frame)


def test_several_sweeps_of_one_database_do_not_disturb_each_other(database: str) -> None:
    with api.open(database) as db:
        first = db.run().sweep(floors=[512])
        before = first.frame()
        db.run().sweep(floors=[4096], tariffs=[])
        assert_frame_equal(first.frame(), before)


def test_tariffs_markers_and_windows_are_axes_too(database: str, tmp_path: Path) -> None:
    (tmp_path / "dear.toml").write_text(
        '[[cache_tariff]]\nmodel = "kimi-k2"\nwrite_5m = "2"\nwrite_1h = "3"\nwrite_24h = "4"\nread = "0.5"\n'
        "min_prefix_tokens = 1024\n"
    )
    with api.open(database) as db:
        sweep = db.run().sweep(
            tariffs=[str(tmp_path / "dear.toml")], markers=["automatic", "last-user:1h"], windows=["sliding", "fixed"]
        )
        points = sweep.frame(by=[]).filter(kind="policy").select("tariff", "markers", "window").rows()
    grid = [("dear", markers, window) for markers in ("automatic", "last-user:1h") for window in ("sliding", "fixed")]
    assert points[0] == ("default", "as-captured", "sliding")
    assert sorted(points[1:]) == sorted(grid)


@pytest.mark.parametrize(("axes", "message"), [
    ({"floors": [-1]}, "--floor '-1'"), ({"ttls": ["soon"]}, "--ttl 'soon'"), ({"windows": ["slidng"]}, "sliding"),
    ({"markers": ["everywhere"]}, "--markers 'everywhere'"), ({"walk_backs": [0]}, "--walk-back '0'"),
    ({"multipliers": {"5m": "2"}}, "--multiplier"),
])  # fmt: skip
def test_values_that_are_none_are_refused(database: str, axes: dict[str, Any], message: str) -> None:
    with api.open(database) as db, pytest.raises(UsageError, match=message):
        db.run().sweep(**axes)
