"""Tune from a log to an answer: a planted optimum is found, estimates and short logs are refused, bytes repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e_support import Cli
from worked_log import LOG, TARIFF

PLANTED = "mistral-large"


@pytest.fixture
def week(cli: Cli, tokenizer: Path) -> Cli:
    """A week of 100 requests and the planted ones, 1,200 and more, whose cheapest floor is 2,048; counts are exact."""
    made = ("synth", "week.jsonl", "--requests", 100, "--days", 7, "--plant-floor", 2048, "--plant-ttl")
    assert cli(*made).code == 0
    replayed = cli("replay", "week.jsonl", "--tokenizer", tokenizer)
    assert replayed.code == 0, replayed.err
    return cli


def test_the_planted_floor_is_found_and_its_neighbours_are_not(week: Cli) -> None:
    made = week("tune", "--floor", "1024:3072:256", "--format", "json", "--quiet").json()
    answers = {answer["model"]: answer for answer in made["recommendations"]}
    assert (answers[PLANTED]["answer"], answers[PLANTED]["floor_best"]) == ("change", 2048)
    assert answers[PLANTED]["equal_floors"] == [2048, 2048]
    assert answers["kimi-k2"]["answer"] == "refused"  # a handful of requests decides nothing
    charged = {row["floor"]: row["charged"] for row in made["rows"] if row["model"] == PLANTED and row["floor"]}
    assert min(charged, key=lambda floor: float(charged[floor])) == 2048


def test_the_planted_lifetime_pays(week: Cli) -> None:
    made = week("tune", "--ttl", "5m,1h", "--by-model", "--format", "json").json()
    (choice,) = [choice for choice in made["tier_choices"] if choice["model"] == "gpt-oss-20b"]
    assert (choice["short"], choice["long"], choice["pays"]) == ("5m", "1h", True)
    charged = {
        row["ttl"]: float(row["charged"]) for row in made["rows"] if row["model"] == "gpt-oss-20b" and row["ttl"]
    }
    assert charged["1h"] < charged["5m"]


def test_the_same_question_has_the_same_bytes_and_no_run_numbers(week: Cli) -> None:
    question = ("tune", "--floor", "1024,2048", "--walk-back", "10", "--format", "json")
    first = week(*question).out
    week("tune", "--floor", "512")
    assert week(*question).out == first
    assert "run_no" not in first
    assert len(json.loads(first)["rows"]) > 0


def test_reports_and_losers_follow_a_sweep(week: Cli) -> None:
    assert week("tune", "--floor", "2048", "--no-chart").code == 0
    swept = week("report", "--by", "model,part", "--format", "json").rows()
    assert {row["part"] for row in swept} == {"first", "rest"}
    refused = week("report", "--by", "day")
    assert refused.code == 2
    assert "cachesim replay week.jsonl --set min_prefix_tokens=" in refused.err
    # the latest replay, not the latest run: a sweep keeps no requests
    dead = sum(row["dead_writes"] for row in week("losers", "--by", "model", "--all", "--format", "json").rows())
    now = [row for row in swept if row["floor"] is None]
    assert dead == sum(row["dead_writes"] for row in now) > 0


def test_other_policies_and_tariffs_stand_beside_the_present_ones(week: Cli, tmp_path: Path) -> None:
    row = '[[cache_tariff]]\nmodel = "{}"\nwrite_5m = "1.0"\nwrite_1h = "1.0"\nwrite_24h = "1.0"\nread = "0.25"\n'
    models = (PLANTED, "gpt-oss-20b", "kimi-k2", "deepseek-chat", "gpt-oss-120b", "minimax-m2")
    (tmp_path / "cheap.toml").write_text("".join(row.format(m) + "min_prefix_tokens = 512\n" for m in models))
    made = week("tune", "--policy", "dwctl-8.63", "--tariff", "cheap.toml", "--by", "part", "--format", "json").json()
    points = {(row["policy"], row["tariff"]) for row in made["rows"] if row["kind"] == "policy"}
    assert points == {(p, t) for p in ("dwctl-10.13", "dwctl-8.63") for t in ("default", "cheap")}
    assert made["recommendations"] == []  # no floors were asked for
    changed = week("tune", "--set", "walk_back=5", "--by", "part", "--format", "json").rows()
    assert {row["policy"] for row in changed if row["kind"] == "policy"} == {"dwctl-10.13", "dwctl-10.13 [walk_back=5]"}


def test_a_file_named_like_the_tariff_of_the_run_goes_by_its_path(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "prices.toml").write_text(TARIFF.replace('read = "0.1"', 'read = "0.2"'))
    assert cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml").code == 0
    names = ["prices", "other/prices.toml"]
    compared = cli("compare", "--tariff", "prices", "--tariff", "other/prices.toml", "--format", "json").rows()
    assert [row["tariff"] for row in compared] == [*names, None]
    both = ("--tariff", "prices.toml", "--tariff", "other/prices.toml")  # the first is the run's own
    swept = cli("tune", *both, "--by", "part", "--format", "json").rows()
    assert list(dict.fromkeys(row["tariff"] for row in swept if row["kind"] == "policy")) == names


def test_estimated_counts_and_short_logs_are_refused_with_exit_code_3(cli: Cli, tokenizer: Path) -> None:
    assert cli("synth", "day.jsonl", "--requests", 60).code == 0
    assert cli("replay", "day.jsonl").code == 0
    estimated = cli("tune", "--floor", "512,1024", "--no-chart")
    assert estimated.code == 3
    assert "token counts are estimates" in estimated.out
    assert estimated.err.startswith("cachesim: tune: no floor can be recommended; token counts are estimates")
    assert cli("replay", "day.jsonl", "--tokenizer", tokenizer).code == 0
    short = cli("tune", "--floor", "512,1024", "--no-chart")
    assert short.code == 3
    assert "24.0 h are needed" in short.err or "requests reach the cache" in short.err
