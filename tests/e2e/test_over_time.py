"""Logs of several days continued from day to day, and the index over time as the command line shows it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from e2e_support import Cli, body, lines, text, usage, words

RealData = Callable[[str], Path]
TARIFF = """
[[cache_tariff]]
model = "m"
write_5m = "1.25"
write_1h = "2"
write_24h = "2.5"
read = "0.1"
min_prefix_tokens = 0
[[base_tariff]]
model = "m"
input_per_token = "0.001"
output_per_token = "0"
"""


def record(at: str, system: str, ttl: str = "1h", *, takes_ms: int = 0, principal: str = "acme") -> dict[str, Any]:
    """One request at 2026-03-`at` that marks its system prompt of ten words."""
    return {
        "id": at, "at": f"2026-03-{at}Z", "duration_ms": takes_ms, "principal": principal, "usage": usage(20, 0),
        "body": body(("system", text(words(system, 10), ttl)), ("user", "hello")),
    }  # fmt: skip


@pytest.fixture
def options(tmp_path: Path, tokenizer: Path) -> tuple[str, ...]:
    (tmp_path / "prices.toml").write_text(TARIFF)
    return ("--tokenizer", str(tokenizer), "--tariff", "prices.toml")


def fixed_factor(folder: Path) -> None:
    """One calibration for the log and its parts: fitted to a part it would be another one."""
    (folder / "cachesim.toml").write_text('[models."*"]\ncalibration = "1.09"\n')


def by_request(cli: Cli) -> dict[tuple[str, str], dict[str, Any]]:
    """Every request of the latest run by policy or bound, without what names the run."""
    rows = cli("report", "--by", "request", "--bounds", "--format", "json").rows()
    return {(row["policy"], row["request"]): {k: v for k, v in row.items() if k != "run"} for row in rows}


def test_a_response_in_flight_over_a_whole_day_is_committed_when_it_completes(
    cli: Cli, options: tuple[str, ...], tmp_path: Path
) -> None:
    """It arrives on the 1st at 23:30 and completes on the 3rd at 00:10; its entry lives 24 hours from its arrival."""
    wanted = ("--set", 'enabled_ttls=["5m","1h","24h"]', *options)
    flight = record("01T23:30:00", "late", "24h", takes_ms=(24 * 60 + 40) * 60_000)
    days = [
        [flight, record("01T23:50:00", "soon", "24h", takes_ms=3 * 3_600_000)],
        [record("02T01:00:00", "other")],
        [record("02T02:00:00", "soon", "24h"), record("02T03:00:00", "soon", "24h"), record("03T00:20:00", "late")],
    ]
    (tmp_path / "whole.jsonl").write_bytes(lines(record for day in days for record in day))
    cli("replay", "whole.jsonl", *wanted)
    whole = by_request(cli)
    pieces: dict[tuple[str, str], dict[str, Any]] = {}
    for number, day in enumerate(days):
        (tmp_path / "day.jsonl").write_bytes(lines(day))
        assert cli("replay", "day.jsonl", *wanted, *(("--continue", "latest") if number else ())).code == 0
        pieces |= by_request(cli)
    assert pieces == whole
    read = {request: row["read_tokens"] for (policy, request), row in pieces.items() if policy.startswith("dwctl")}
    assert read["02T02:00:00"] == 0  # still on its way, although the second log knows nothing of it
    assert read["02T03:00:00"] == 10  # completed at 02:50
    assert read["03T00:20:00"] == 0  # completed at 00:10, when what it wrote had expired already


def test_real_traffic_cut_into_parts_is_one_run(cli: Cli, real_data: RealData, tmp_path: Path) -> None:
    fixed_factor(tmp_path)
    files = sorted(real_data("mini-swe-agent").glob("*.traj.json.gz"))[:20]
    run = ("--markers", "automatic", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--quiet")
    cli("replay", *files, *run)
    whole = by_request(cli)
    at = [row["at"] for row in sorted(whole.values(), key=lambda row: row["at"])]
    cuts = [None, *dict.fromkeys(at[len(at) * part // 5] for part in range(1, 5)), None]
    pieces: dict[tuple[str, str], dict[str, Any]] = {}
    for since, until in pairwise(cuts):
        window = [*(("--since", since) if since else ()), *(("--until", until) if until else ())]
        result = cli("replay", *files, *run, *window, *(("--continue", "latest") if since else ()))
        assert result.code == 0, result.err
        pieces |= by_request(cli)
    assert len(cuts) == 6
    assert pieces == whole
    assert sum(row["read_tokens"] for row in pieces.values()) > 0


def test_daily_logs_of_the_demo_are_one_run(cli: Cli, tmp_path: Path) -> None:
    """In logs of six hours, and the index that both ways leave."""
    fixed_factor(tmp_path)
    demo = Path(__file__).parents[2] / "fixtures" / "demo.jsonl.gz"
    days: dict[str, list[dict[str, Any]]] = {}
    for line in gzip.decompress(demo.read_bytes()).splitlines():
        found = json.loads(line)
        days.setdefault(f"{found['at'][:11]}{int(found['at'][11:13]) // 6}", []).append(found)
    cli("replay", demo, "--quiet")
    whole = by_request(cli)
    end = max(row["at"] for row in whole.values())
    index = cli("index", "--at", end, "--format", "csv").out.splitlines()
    pieces: dict[tuple[str, str], dict[str, Any]] = {}
    for number, part in enumerate(sorted(days)):
        (tmp_path / "part.jsonl").write_bytes(lines(days[part]))
        cli("replay", "part.jsonl", "--quiet", *(("--continue", "latest") if number else ()))
        pieces |= by_request(cli)
    assert pieces == whole
    kept = slice(1, 8)  # policy … entry_tokens: what an entry is, not what this log did with it
    continued = cli("index", "--at", end, "--format", "csv").out.splitlines()
    assert len(days) == 5
    assert len(index) > 1
    assert sorted(line.split(",")[kept] for line in continued) == sorted(line.split(",")[kept] for line in index)


@pytest.mark.parametrize("time", ["2026-03-02T09:30:00.5Z", "2026-03-02T21:00:00.5Z"])
def test_what_is_live_at_a_time_is_what_the_log_up_to_then_leaves(cli: Cli, tmp_path: Path, time: str) -> None:
    fixed_factor(tmp_path)
    demo = Path(__file__).parents[2] / "fixtures" / "demo.jsonl.gz"
    cli("replay", demo, "--quiet")
    cli("replay", demo, "--quiet", "--until", time, "--db", "until.duckdb")
    then = cli("index", "--at", time, "--format", "json").rows()
    cut = cli("index", "--at", time, "--db", "until.duckdb", "--format", "json").rows()
    assert then
    assert [row | {"run": ""} for row in then] == [row | {"run": ""} for row in cut]


def test_logs_that_overlap_say_so(cli: Cli, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([record("01T10:00:00", "s"), record("01T12:00:00", "s")]))
    (tmp_path / "b.jsonl").write_bytes(lines([record("01T11:00:00", "s"), record("01T12:00:00", "s")]))
    cli("replay", "a.jsonl", *options)
    made = cli("replay", "b.jsonl", *options, "--continue", "latest", "--format", "json").json()
    (said,) = [a["text"] for a in made["assumptions"] if a["code"] == "continued_overlap"]
    assert said.startswith("1 requests arrived before the last of run ")


# -- cachesim index


@pytest.fixture
def day(cli: Cli, options: tuple[str, ...], tmp_path: Path) -> None:
    """acme writes `s` at 10:00, reads it at 10:30 and 11:20, so it lives until 12:20; beta writes `t` for nothing."""
    log = [
        record("01T10:00:00", "s", takes_ms=60_000),
        record("01T10:20:00", "t", "5m", principal="beta"),
        record("01T10:30:00", "s"),
        record("01T11:20:00", "s"),
        record("01T15:00:00", "u", "5m"),
    ]
    (tmp_path / "log.jsonl").write_bytes(lines(log))
    assert cli("replay", "log.jsonl", *options).code == 0


def test_every_life_from_its_write_to_its_end(cli: Cli, day: None) -> None:
    rows = cli("index", "--episodes", "--format", "json").rows()
    told = [
        (r["principal"], r["live_from"][11:19], r["live_until"][11:19], r["refreshes"], r["reads"], r["read_tokens"],
         r["live"], r["delta"])
        for r in rows
    ]  # fmt: skip
    assert told == [
        # 10 tokens written at 2 × 0.001 instead of 0.001; 20 tokens read at 0.1 × 0.001 instead
        ("acme", "10:01:00", "12:20:00", 2, 2, 20, False, "-0.008"),
        ("beta", "10:20:00", "10:25:00", 0, 0, 0, False, "0.0025"),
        ("acme", "15:00:00", "15:05:00", 0, 0, 0, True, "0.0025"),
    ]
    assert len(rows[0]["prefix"]) == 64
    bill = cli("report", "--format", "json").rows()[0]
    assert bill["delta"] == "-0.003"  # −0.008 + 0.0025 + 0.0025


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("09:00:00", []),
        ("10:00:59", []),  # the response is still on its way
        ("10:01:00", [("acme", "11:00:00", 0)]),
        ("10:22:00", [("acme", "11:00:00", 0), ("beta", "10:25:00", 0)]),
        ("10:25:00", [("acme", "11:00:00", 0)]),
        ("10:30:00", [("acme", "11:30:00", 1)]),
        ("12:20:00", []),
        ("23:00:00", []),
    ],
)
def test_what_is_live_at_an_instant_as_it_was_then(
    cli: Cli, day: None, time: str, expected: list[tuple[str, str, int]]
) -> None:
    made = cli("index", "--at", f"2026-03-01T{time}Z", "--format", "json").json()
    assert [(r["principal"], r["live_until"][11:19], r["reads"]) for r in made["rows"]] == expected
    assert made["at"] == f"2026-03-01T{time}Z"
    mine = cli("index", "--at", f"2026-03-01T{time}Z", "--principal", "beta", "--format", "json").rows()
    assert [r["principal"] for r in mine] == [name for name, _, _ in expected if name == "beta"]


def test_the_summary_counts_what_lived_and_what_died_unread(cli: Cli, day: None) -> None:
    (row,) = cli("index", "--format", "json").rows()
    assert (row["entries"], row["index_writes"], row["reads"], row["live_at_end"]) == (3, 3, 2, 1)
    assert (row["peak_entries"], row["peak_at"], row["peak_tokens"]) == (2, "2026-03-01T10:20:00Z", 20)
    # 139 and 5 minutes of the log's 300; the last write comes when the log ends
    assert row["live_entries"] == round(144 / 300, 6)
    assert (row["dead_writes"], row["dead_share"], row["dead_tokens"]) == (1, round(1 / 3, 6), 10)
    screen = cli("index", "--by", "principal").out
    assert screen.startswith(
        "3 entries lived in the index from 2026-03-01T10:00:00Z to 2026-03-01T15:00:00Z: 0.5 at a time, 2 at most, 1"
    )
    assert "dead writes: 1 were never read, 33.3 % of the billed writes, 0.00250 above list" in screen


def test_dead_writes_are_listed_with_what_they_cost(cli: Cli, day: None) -> None:
    rows = cli("index", "--dead", "--format", "json").rows()
    assert [(r["principal"], r["dead_writes"], r["dead_premium"]) for r in rows] == [("beta", 1, "0.0025")]
    assert cli("index", "--dead").out.startswith("1 entry has dead writes; 1 was never read at all.")


def test_every_form_has_the_same_entries(cli: Cli, day: None, tmp_path: Path) -> None:
    assert cli("index", "--episodes", "--format", "csv").out.count("\n") == 1 + 3
    assert cli("index", "--episodes", "--format", "md").out.count("\n") == 2 + 3
    assert cli("index", "--episodes", "--format", "parquet", "--output", "lives.parquet").code == 0
    frame = pl.read_parquet(tmp_path / "lives.parquet")
    assert frame["live_until"].dtype == pl.Datetime("us", "UTC")
    assert frame["reads"].to_list() == [2, 0, 0]


def test_a_continued_run_begins_with_what_it_inherits(
    cli: Cli, day: None, options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "more.jsonl").write_bytes(lines([record("01T15:02:00", "u", "5m")]))
    assert cli("replay", "more.jsonl", *options, "--continue", "latest").code == 0
    (row,) = cli("index", "--episodes", "--format", "json").rows()
    assert (row["inherited"], row["index_writes"], row["reads"], row["live_from"]) == (
        True, 0, 1, "2026-03-01T15:00:00Z",
    )  # fmt: skip
    assert "1 entry was written by the log before; what happened to it there is not counted" in cli("index").out


@pytest.mark.parametrize(
    ("arguments", "words_of_error"),
    [
        (["--at", "noon"], "--at 'noon': expected a date"),
        (["--at", "2026-03-01", "--dead"], "ask for one of them"),
        (["--by", "day"], "choose from model, principal, ttl_tier"),
        (["--principal", "gamma"], "not in this run's log"),
        (["--model", "x"], "--model 'x': not in this run's log"),
        (["--policy", "ideal"], "a bound has no bill"),
    ],
)
def test_what_cannot_be_asked_is_refused(cli: Cli, day: None, arguments: list[str], words_of_error: str) -> None:
    result = cli("index", *arguments)
    assert (result.code, result.out) == (2, "")
    assert words_of_error in result.err


def test_no_prompt_text_is_shown(cli: Cli, day: None) -> None:
    shown = cli("index", "--episodes").out + cli("index", "--episodes", "--format", "json").out
    assert "s1" not in shown.replace("/", " ").split()
    assert "hello" not in shown
