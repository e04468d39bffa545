from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli_support import run
from sample_run import Req, fill
from sample_sweep import HOUR_US, Cells, Facts, Var, fill_sweep

import cachesim.sweep
from cachesim.cli.replay import change_policy
from cachesim.cli.tune import make_axes, parse_share
from cachesim.core.policy import PRESETS
from cachesim.errors import UsageError
from cachesim.store.db import open_database

PRESENT = {"walk_back": 20, "window": "sliding", "markers": "as-captured"}


@dataclass
class FakeSweep:
    """Stands in for the engine: stores a hand-made sweep and remembers what it was asked for."""

    facts: Facts
    asked: dict[str, Any] = field(default_factory=dict)
    number: int = 8

    def __call__(self, con: duckdb.DuckDBPyConnection, run_no: int, axes: Any, **options: Any) -> int:
        options.pop("progress")(100)(100)
        self.asked = {"run_no": run_no, "axes": axes, **options}
        point = {"requests": 1000, "prompt": 10_000, "asked": 1000}
        rows = [
            Cells(i, {**point, "read": read, "uncached": 10_000 - read, "below_floor": below}, part=part)
            for i, (read, below) in enumerate([(4000, 400), (6000, 100)])
            for part in ("first", "rest")
        ]
        self.number += 1
        fill_sweep(con, [Var(), Var(floor=512)], rows, run_no=self.number, facts=self.facts)
        return self.number


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "runs.duckdb")
    with open_database(path) as con:
        fill(con, [Req()], run_no=3)
        con.execute("UPDATE variants SET markers = 'as-captured'")
        rules = '{"walk_back": 20, "window": "sliding"}'
        con.execute("UPDATE variants SET rules = ? WHERE kind = 'policy'", [rules])
        fill_sweep(con, [Var()], [Cells(0, {"requests": 1})], run_no=5)  # newer, but no replay
    return path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeSweep:
    fake = FakeSweep(Facts(168 * HOUR_US, 3600))
    monkeypatch.setattr(cachesim.sweep, "sweep", fake)
    return fake


def test_a_sweep_starts_from_the_latest_replay_and_answers(
    database: str, engine: FakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "tune", "--db", database, "--no-chart", "--hold-out", "25%", "--jobs", "2")
    assert (code, err) == (0, "")
    assert out.startswith("For the lowest customer bill change the floor of the model")
    assert engine.asked["run_no"] == 3
    assert (engine.asked["hold_out"], engine.asked["jobs"], engine.asked["kernel"]) == (Fraction(1, 4), 2, "auto")
    assert engine.asked["axes"].floors == (None, *range(256, 8193, 256))


def test_without_an_answer_the_facts_are_printed_and_the_exit_code_is_3(
    database: str, engine: FakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.facts = Facts(2 * HOUR_US, 3600)
    code, out, err = run(capsys, "tune", "--db", database, "--no-chart", "--floor", "512")
    assert code == 3
    assert "Floors" in out
    assert err == "cachesim: tune: no floor can be recommended; the log spans 2.0 h, 24.0 h are needed (24 h, and 5" \
        " times the longest lifetime)\n"  # fmt: skip


def test_programs_get_rows_by_what_was_asked(
    database: str, engine: FakeSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "grid.json"
    code, _, _ = run(
        capsys, "tune", "--db", database, "--by", "principal,part", "--format", "json", "--output", str(target)
    )
    made = json.loads(target.read_text())
    assert code == 0
    assert made["by"] == ["principal", "part"]
    assert [(row["variant"], row["part"]) for row in made["rows"]] == [
        (0, "first"),
        (0, "rest"),
        (1, "first"),
        (1, "rest"),
    ]
    assert made["recommendations"][0]["floor_best"] == 512
    csv = run(capsys, "tune", "--db", database, "--format", "csv")[1].splitlines()
    assert csv[0].startswith("run,variant,kind,policy,tariff,markers,floor,ttl,walk_back,window,model,requests,")
    assert len(csv) == 3


def test_the_curves_are_written_as_a_page_too(
    database: str, engine: FakeSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    target = tmp_path / "page.html"
    assert run(capsys, "tune", "--db", database, "--no-chart", "--floor", "512", "--html", str(target))[0] == 0
    page = target.read_text()
    assert "<title>For the lowest customer bill change the floor of the model" in page
    assert "vegaEmbed" in page


def test_unpriced_lifetimes_are_named(database: str, engine: FakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--ttl 15m: no tariff prices it, tokens only; add --multiplier 15m=…"
    call = ("tune", "--db", database, "--no-chart", "--ttl", "15m,1h")
    assert words in run(capsys, *call)[2]
    assert run(capsys, *call, "--quiet")[2] == ""
    assert run(capsys, *call, "--multiplier", "15m=1.4")[2] == ""
    assert engine.asked["axes"].multipliers == {"15m": Decimal("1.4")}


def test_axes_hold_what_the_run_has_besides_what_is_asked() -> None:
    axes = make_axes(PRESENT, ["512", "256:768:256"], ["1h+5m"], ["fixed"], ["40,20,10"], ["automatic,system:1h"], {})
    assert axes.floors == (None, 256, 512, 768)
    assert [ttl and ttl.name for ttl in axes.ttls] == [None, "1h+5m"]
    assert axes.windows == ("sliding", "fixed")
    assert axes.walk_backs == (20, 40, 10)
    assert [str(strategy) for strategy in axes.strategies] == ["as-captured", "automatic", "system:1h"]
    only = make_axes(PRESENT, None, None, None, ["40"], None, {})
    assert (only.floors, only.ttls, only.strategies, only.walk_backs) == ((), (), (), (20, 40))


@pytest.mark.parametrize(
    ("text", "share"), [("40%", Fraction(2, 5)), ("0.25", Fraction(1, 4)), ("12.5 %", Fraction(1, 8))]
)
def test_a_share_is_a_percentage_or_a_fraction(text: str, share: Fraction) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["0%", "100%", "40", "-1%", "half", "1/0", ""])
def test_what_is_no_share_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="--hold-out"):
        parse_share(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--by", "modell"], "did you mean model"),
        (["--by", "session"], "there are model, principal, part"),
        (["--floor", "x"], "--floor 'x'"),
        (["--ttl", "15m+30m"], "--ttl '15m+30m'"),
        (["--markers", "automatik"], "did you mean automatic"),
        (["--objective", "profit"], "profit"),
        (["--run", "77"], "not in the database"),
        (["--ttl", "1h", "--html", "page.html"], "add --floor"),
    ],
)
def test_what_does_not_exist_is_a_usage_error(
    database: str, engine: FakeSweep, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    code, out, err = run(capsys, "tune", "--db", database, *options)
    assert (code, out) == (2, "")
    assert words in err


def test_a_database_without_a_replay_says_what_to_do(
    tmp_path: Path, engine: FakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "empty.duckdb")
    open_database(path).close()
    code, _, err = run(capsys, "tune", "--db", path)
    assert code == 2
    assert "holds no run yet; make one with `cachesim replay LOG…`" in err


def test_a_changed_rule_comes_over_the_runs_own() -> None:
    own = replace(PRESETS["dwctl-10.13"], name="dwctl-10.13 [walk_back=1]", walk_back=1)
    changed = change_policy(own, ['default_ttl="1h"'])
    assert (changed.walk_back, changed.default_ttl) == (1, "1h")
    assert changed.name == 'dwctl-10.13 [walk_back=1, default_ttl="1h"]'
    assert change_policy(own, ["walk_back=1"]) is own
