"""Real logs end to end: what is known of them must come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e_support import Cli

RealData = Callable[[str], Path]


def sane(rows: list[dict[str, Any]]) -> None:
    """Rows of a report by request of one policy and the bound `ideal`: what is true of every request."""
    ideal = {row["request"]: row["read_tokens"] for row in rows if row["policy"] == "ideal"}
    for row in rows:
        parts = [row["billed_read_tokens"], *(row[f"billed_creation_{tier}_tokens"] for tier in ("5m", "1h", "24h"))]
        assert min(parts) >= 0
        assert sum(parts) + row["billed_uncached_tokens"] == row["prompt_tokens"]
        assert row["billed_read_tokens"] <= ideal[row["request"]]


def test_mini_swe_agent(cli: Cli, real_data: RealData) -> None:
    files = sorted(real_data("mini-swe-agent").glob("*.traj.json.gz"))
    report = cli("replay", *files, "--markers", "automatic", "--format", "json").json()
    policy, off, ideal = (row for row in cli("report", "--bounds", "--format", "json").rows())
    assert policy["requests"] == off["requests"] == ideal["requests"] == 2244
    assert len(report["runs"][0]["inputs"]) == len(files) == 60
    # The provider's own cache served 84.2 % of the prompt tokens.
    assert policy["recorded_read_requests"] == 2244
    assert round(policy["recorded_read_tokens"] / policy["prompt_tokens"], 3) == 0.842
    assert off["read_tokens"] == 0
    assert 0.5 < policy["token_hit_rate"] <= ideal["token_hit_rate"] < 1
    sessions = cli("report", "--by", "session", "--format", "json").rows()
    assert len(sessions) == 60
    assert sum(row["requests"] for row in sessions) == 2244
    sane(cli("report", "--by", "request", "--bounds", "--format", "json").rows())
    assert {"markers", "instant_completion", "default_principal", "tokenizer_estimated"} <= {
        assumption["code"] for assumption in report["assumptions"]
    }


def test_cassettes(cli: Cli, real_data: RealData) -> None:
    path = real_data("cassettes") / "cassettes.jsonl.gz"
    without_times = cli("replay", path)
    assert without_times.code == 65
    assert "missing_time 131); give --start and --interval" in without_times.err
    times = ("--start", "2026-01-01", "--interval", "1s")
    report = cli("replay", path, *times, "--set", "min_prefix_tokens=0", "--format", "json").json()
    assert report["runs"][0]["requests"] == 131
    assert "synthetic_times" in [a["code"] for a in report["assumptions"]]
    rows = cli("report", "--by", "request", "--bounds", "--format", "json").rows()
    sane(rows)
    mine = [row for row in rows if row["policy"].startswith("dwctl")]
    assert len(mine) == 131
    seconds = [row["at"] for row in mine]
    assert (seconds[0], seconds[-1]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:02:10Z")
    assert sum(row["outcome"] in ("read", "create", "read_and_create") for row in mine) > 10
    checked = cli("check", path, *times, "--format", "json").json()
    assert sum(model["requests"] for model in checked["rows"]) == 131
    assert sum(model["marked"] for model in checked["rows"]) >= 20
