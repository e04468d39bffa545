"""A log whose every number is computed by hand, through every grouping of `report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, text, usage, words
from worked_log import ALICE, LOG, NEW, OLD, RECORDS, SYSTEM, TARIFF, A, Expected, at


@dataclass(frozen=True)
class Setup:
    """The log and its tariff in the working directory, and the options of every replay."""

    options: tuple[str, ...]


@pytest.fixture
def setup(tmp_path: Path, tokenizer: Path) -> Setup:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    return Setup(("--tokenizer", str(tokenizer), "--tariff", "prices.toml"))


@pytest.fixture
def both(cli: Cli, setup: Setup) -> Cli:
    """Both presets replayed in one run."""
    result = cli("replay", "log.jsonl", *setup.options, "--policy", "dwctl-8.63", "--policy", "dwctl-10.13")
    assert (result.code, result.err) == (0, "")
    return cli


def test_the_first_screen_says_the_totals(cli: Cli, setup: Setup) -> None:
    out = cli("replay", "log.jsonl", *setup.options).out
    # 32 of 138 prompt tokens = 23.2 %; 155 → 144.775 is −10.225, of 155: −6.6 %
    assert "would serve 23.2 % of 138 prompt tokens from cache" in out
    assert "from 155.00 to 144.78 (−6.6 %)" in out
    assert "classified 12 of 14 requests" in out
    assert "1 failed request is classified, but in no total" in out
    assert "duplicates: 1" in out
    assert "repeated ids: 1" in out


@pytest.mark.parametrize(("policy", "expected"), [("dwctl-8.63", OLD), ("dwctl-10.13", NEW)])
def test_every_request_is_split_and_billed_as_computed_by_hand(
    both: Cli, policy: str, expected: Sequence[Expected]
) -> None:
    rows = both("report", "--by", "request", "--policy", policy, "--format", "json").rows()
    assert [row["request"] for row in rows] == [e.request for e in expected]  # by time; the repeated id has two rows
    for row, record, e in zip(rows, RECORDS, expected, strict=True):
        raw_read, raw_5m = e.raw or (e.read, e.c5)
        failed, rejected = record.get("status", 200) != 200, e.outcome == "rejected"
        assert {name: row[name] for name in CHECKED} == {
            "at": record["at"],
            "principal": record.get("principal"),
            "model": record["body"]["model"],
            "session": record.get("session"),
            "log_format": "cachesim",
            "tier": e.tier,
            "outcome": e.outcome,
            "reason": e.reason,
            "succeeded": not failed,
            "committed": e.committed,
            "prompt_tokens": e.prompt,
            "prompt_estimated": "usage" not in record,
            "read_tokens": raw_read,
            "creation_5m_tokens": raw_5m,
            "billed_read_tokens": e.read,
            "billed_creation_5m_tokens": e.c5,
            "billed_creation_1h_tokens": e.c1,
            "billed_creation_24h_tokens": e.c24,
            "billed_uncached_tokens": e.prompt - e.read - e.c5 - e.c1 - e.c24,
            "completion_tokens": e.completion,
            "list": None if failed or rejected else plain(e.list),
            "charged": None if failed or rejected else plain(e.charged),
            "delta": None if failed or rejected else plain(e.charged - e.list),
            "rejected_list": "18" if rejected else None,  # 16·1 + 1·2
        }, e.request


CHECKED = (
    "at", "principal", "model", "session", "log_format", "tier", "outcome", "reason", "succeeded", "committed",
    "prompt_tokens", "prompt_estimated", "read_tokens", "creation_5m_tokens", "billed_read_tokens",
    "billed_creation_5m_tokens", "billed_creation_1h_tokens", "billed_creation_24h_tokens", "billed_uncached_tokens",
    "completion_tokens", "list", "charged", "delta", "rejected_list",
)  # fmt: skip


def plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def test_the_totals_are_the_sums_on_paper(both: Cli) -> None:
    old, new = both("report", "--format", "json").rows()
    # r1 22 + r2 18 + r3 20 + r4 16 + r6 19 + r8 19 + r9 6 + r10 5 + r11 9 + r12 14 + r2 3 + r15 4 = 155
    # 24.5 + 20.5 + 15 + 18.5 + 7.65 + 19 + 6.625 + 5 + 9 + 12 + 3 + 4 = 144.775
    assert subset(new, "list", "charged", "delta", "rejected_list") == ["155", "144.775", "-10.225", "18"]
    assert subset(new, "requests", "requests_failed", "requests_rejected", "requests_read") == [12, 1, 1, 3]
    # 4·16 + 19 + 8 + 16 + 5 + 7 + 12 + 3 + 4 = 138; reads 10 + 14 + 8; 5m 10 + 10 + 10 + 5 + 10 + 4; 1h 4
    assert subset(new, "prompt_tokens", "read_tokens", "uncached_tokens") == [138, 32, 138 - 32 - 49 - 4]
    assert subset(new, "creation_5m_tokens", "creation_1h_tokens", "creation_24h_tokens") == [49, 4, 0]
    assert subset(new, "token_hit_rate", "cacheable_hit_rate", "request_hit_rate") == [0.231884, 0.376471, 0.25]
    assert subset(new, "capped", "capped_tokens", "voided", "prompt_estimated_requests") == [1, 2, 0, 1]
    assert new["completion_tokens"] == 15  # 3 + 1 + 2 + 0 + 0 + 1 + 4 + 0 + 1 + 1 + 0 + 2
    # 8.63 bills r7 too: list 155 + 18, charged 144.775 + 33 − 6.625 + 3.75 − 12 + 14
    assert subset(old, "list", "charged", "delta") == ["173", "176.9", "3.9"]
    assert subset(old, "requests", "requests_rejected", "voided", "capped") == [13, 0, 1, 0]
    assert subset(old, "prompt_tokens", "read_tokens") == [154, 34]
    assert subset(old, "creation_5m_tokens", "creation_1h_tokens", "creation_24h_tokens") == [35, 4, 10]


def subset(row: dict[str, Any], *names: str) -> list[Any]:
    return [row[name] for name in names]


Key = Callable[[dict[str, Any], Expected], str | None]
GROUPS: dict[str, Key] = {
    "model": lambda record, e: record["body"]["model"],
    "principal": lambda record, e: record.get("principal"),
    "day": lambda record, e: record["at"][:10],
    "hour": lambda record, e: record["at"][:14] + "00:00Z",
    "session": lambda record, e: record.get("session"),
    "tier": lambda record, e: e.tier,
    "outcome": lambda record, e: e.outcome,
    "reason": lambda record, e: e.reason,
    "log_format": lambda record, e: "cachesim",
    "tag:app": lambda record, e: record.get("tags", {}).get("app"),
}


def test_every_grouping_adds_up(both: Cli) -> None:
    for group in GROUPS:
        for policy, expected in (("dwctl-8.63", OLD), ("dwctl-10.13", NEW)):
            assert_grouping(both, group, policy, expected)


def assert_grouping(both: Cli, group: str, policy: str, expected: Sequence[Expected]) -> None:
    wanted: dict[str | None, dict[str, Any]] = {}
    for record, e in zip(RECORDS, expected, strict=True):
        sums = wanted.setdefault(GROUPS[group](record, e), dict.fromkeys(FIGURES, 0))
        failed, rejected = record.get("status", 200) != 200, e.outcome == "rejected"
        sums["requests_failed"] += failed
        sums["requests_rejected"] += rejected
        if failed or rejected:
            continue
        uncached = e.prompt - e.read - e.c5 - e.c1 - e.c24
        figures = (1, e.read > 0, e.prompt, e.read, e.c5, e.c1, e.c24, uncached, e.completion, e.list, e.charged)
        for name, value in zip(FIGURES, (*figures, e.charged - e.list), strict=False):
            sums[name] += value
    rows = both("report", "--by", group, "--policy", policy, "--format", "json").rows()
    found = {row[group]: {name: row[name] for name in FIGURES} for row in rows}
    money = {"list", "charged", "delta"}
    assert found == {
        key: {name: plain(Decimal(v)) if name in money else v for name, v in sums.items()}
        for key, sums in wanted.items()
    }
    for row in rows:
        read, prompt, made = row["read_tokens"], row["prompt_tokens"], sum(row[f"creation_{t}_tokens"] for t in TIERS)
        assert row["token_hit_rate"] == (round(read / prompt, 6) if prompt else None)
        assert row["cacheable_hit_rate"] == (round(read / (read + made), 6) if read + made else None)


TIERS = ("5m", "1h", "24h")
FIGURES = (
    "requests", "requests_read", "prompt_tokens", "read_tokens", "creation_5m_tokens", "creation_1h_tokens",
    "creation_24h_tokens", "uncached_tokens", "completion_tokens", "list", "charged", "delta", "requests_failed",
    "requests_rejected",
)  # fmt: skip


def test_days_follow_the_time_zone(both: Cli) -> None:
    args = ("report", "--policy", "dwctl-10.13", "--format", "json", "--timezone", "Europe/Berlin")
    rows = both(*args, "--by", "day").rows()  # 22:00 UTC is 23:00 in Berlin; r7 at 23:00 UTC is already March 2
    assert [(r["day"], r["requests"], r["requests_rejected"]) for r in rows] == [
        ("2026-03-01", 5, 0),
        ("2026-03-02", 7, 1),
    ]
    assert [r["hour"] for r in both(*args, "--by", "hour").rows()] == [
        "2026-03-01T23:00:00+01:00",
        "2026-03-02T00:00:00+01:00",
        "2026-03-02T01:00:00+01:00",
    ]


def test_one_run_of_both_presets_equals_two_single_runs(both: Cli, setup: Setup) -> None:
    together = both("report", "--by", "request", "--format", "json").rows()
    for policy in ("dwctl-8.63", "dwctl-10.13"):
        both("replay", "log.jsonl", *setup.options, "--policy", policy, "--quiet")
        alone = both("report", "--by", "request", "--format", "json").rows()
        assert without_run(alone) == without_run(r for r in together if r["policy"] == policy)


def without_run(rows: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in ("run", "tariff")} for row in rows]


def test_two_tariffs_in_one_run_equal_two_runs(cli: Cli, setup: Setup, tmp_path: Path) -> None:
    # another read price, and another floor: the second cannot share the first one's classification
    (tmp_path / "cheap.toml").write_text(TARIFF.replace('read = "0.1"', 'read = "0.05"'))
    (tmp_path / "floor.toml").write_text(TARIFF.replace("min_prefix_tokens = 5", "min_prefix_tokens = 15"))
    tokenizer, tariffs = setup.options[:2], ("prices", "cheap", "floor")
    cli("replay", "log.jsonl", *tokenizer, *(o for t in tariffs for o in ("--tariff", f"{t}.toml")))
    together = cli("report", "--by", "request", "--format", "json").rows()
    for tariff in tariffs:
        cli("replay", "log.jsonl", *tokenizer, "--tariff", f"{tariff}.toml")
        alone = cli("report", "--by", "request", "--format", "json").rows()
        assert without_run(alone) == without_run(r for r in together if r["tariff"] == tariff)
    charged = {r["tariff"]: r["charged"] for r in together if r["request"] == "r6"}
    # r6: 14·0.1 + 5·1.25 against 14·0.05 + 6.25; with floor 15 nothing before it was written: all 19 are new
    assert charged == {"prices": "7.65", "cheap": "6.95", "floor": "23.75"}


def test_a_floor_of_the_command_line_beats_the_tariffs(cli: Cli, setup: Setup) -> None:
    cli("replay", "log.jsonl", *setup.options, "--set", "min_prefix_tokens=3")
    report = cli("report", "--by", "request", "--format", "json").json()
    (r11,) = (row for row in report["rows"] if row["request"] == "r11")
    assert (r11["outcome"], r11["creation_5m_tokens"], r11["charged"]) == ("create", 3, "10.5")  # 4 + 3·1.5 + 2
    assert "floor_override" in [a["code"] for a in report["assumptions"]]
    assert r11["policy"] == "dwctl-10.13 [min_prefix_tokens=3]"


@pytest.mark.parametrize(
    "strategy",
    ["as-captured", "automatic", "last-user", "last-user:1h", "system+last-user", "tools+system+last-user:1h"],
)
def test_marker_strategies_replace_what_was_captured(cli: Cli, setup: Setup, tmp_path: Path, strategy: str) -> None:
    # q2 has q1's system prompt (10) and another user message: what it reads shows where q1's breakpoints were.
    records = [
        {"id": "q1", "at": at("10:00:00"), **ALICE, "body": body(("system", words("s", 10)), ("user", words("a", 7)))},
        {"id": "q2", "at": at("10:01:00"), **ALICE, "body": body(("system", words("s", 10)), ("user", words("b", 4)))},
        {"id": "q3", "at": at("10:02:00"), **ALICE, "body": body(("system", words("s", 10)), ("user", words("a", 7)))},
    ]
    (tmp_path / "plain.jsonl").write_bytes(lines(records))
    cli("replay", "plain.jsonl", *setup.options, "--markers", strategy)
    report = cli("report", "--by", "request", "--format", "json").json()
    q1, q2, q3 = report["rows"]
    if strategy == "as-captured":
        assert [r["reason"] for r in report["rows"]] == ["no_markers"] * 3
        return
    tier = strategy.partition(":")[2] or "5m"
    assert q1[f"creation_{tier}_tokens"] == 17
    assert q2["read_tokens"] == (10 if "system" in strategy else 0)
    assert q3["read_tokens"] == 17
    named = {a["code"]: a["text"] for a in report["assumptions"]}["markers"]
    assert strategy in named
    assert "in place of every captured marker" in named


def test_prices_of_batches_go_by_purpose_window_and_creation(cli: Cli, setup: Setup, tmp_path: Path) -> None:
    def ask(name: str, **fields: Any) -> dict[str, Any]:
        return {"id": name, "at": at("10:00:00", 2), **ALICE, "body": body(("user", A)), "usage": usage(4, 2), **fields}

    records = [
        ask("realtime"),
        ask("batch", purpose="batch"),
        ask("new-24h", purpose="batch", completion_window="24h"),
        ask("old-24h", purpose="batch", completion_window="24h", batch_created_at=at("23:59:59")),
        ask("other-window", purpose="batch", completion_window="1h"),
        ask("unknown", purpose="playground"),
        ask("empty", purpose=""),
    ]
    (tmp_path / "batch.jsonl").write_bytes(lines(records))
    cli("replay", "batch.jsonl", *setup.options)
    rows = cli("report", "--by", "request", "--format", "json").rows()
    assert {row["request"]: row["list"] for row in rows} == {
        "realtime": "8",  # 4·1 + 2·2
        "batch": "4",  # 4·0.5 + 2·1
        "new-24h": "42",  # 4·7 + 2·7
        "old-24h": "2",  # 4·0.25 + 2·0.5
        "other-window": "4",  # no row for its window: the batch row without one
        "unknown": "8",
        "empty": "8",
    }


def test_problems_and_estimates_are_counted(both: Cli) -> None:
    report = both("report", "--format", "json").json()
    problems = report["problems"]
    assert {k: v for k, v in problems.items() if v} == {
        "duplicates": 1,
        "repeated_ids": 1,
        "without_principal": 1,
        "unordered": 1,  # the duplicate, which stands at the end
    }
    checked = both("check", "log.jsonl", "--format", "json").json()
    assert [checked["facts"][k] for k in ("duplicates", "repeated_ids", "unscoped")] == [1, 1, 1]
    assert json.dumps(checked["rows"]) == json.dumps(
        [
            {"model": "m", "requests": 13, "requests_failed": 1, "principals": 2, "sessions": 1, "parsed": 13,
             "not_cacheable": 0, "unparseable": 0, "marked": 11, "with_usage": 12, "reported_prompt_tokens": 143},
            {"model": "n", "requests": 1, "requests_failed": 0, "principals": 1, "sessions": 0, "parsed": 1,
             "not_cacheable": 0, "unparseable": 0, "marked": 1, "with_usage": 1, "reported_prompt_tokens": 8},
        ]
    )  # fmt: skip


def test_without_usage_nothing_is_stored_unless_no_request_has_any(cli: Cli, setup: Setup, tmp_path: Path) -> None:
    first, second = ({"at": at(f"10:0{i}:00"), **ALICE, "body": body(SYSTEM, ("user", A))} for i in range(2))
    for usages, read in ((({}, {}), 10), (({}, {"usage": usage(16, 0)}), 0)):
        records = [{**first, **usages[0]}, {**second, **usages[1]}]
        (tmp_path / "usage.jsonl").write_bytes(lines(records))
        cli("replay", "usage.jsonl", *setup.options)
        rows = cli("report", "--by", "request", "--format", "json").rows()
        assert [row["read_tokens"] for row in rows] == [0, read]
        assert [row["committed"] for row in rows] == [not usages[1], True]
        assert [row["prompt_tokens"] for row in rows] == [14, 16 if usages[1] else 14]


def test_other_formats_hold_the_same_rows(both: Cli, tmp_path: Path) -> None:
    import csv
    import io

    import polars as pl

    rows = both("report", "--by", "request", "--format", "json").rows()
    table = list(csv.DictReader(io.StringIO(both("report", "--by", "request", "--format", "csv").out)))
    words_of = {True: "true", False: "false", None: ""}
    assert table == [{k: words_of.get(v, str(v)) if not isinstance(v, int) or isinstance(v, bool) else str(v)
                      for k, v in row.items()} for row in rows]  # fmt: skip
    assert both("report", "--by", "request", "--format", "parquet", "-o", "rows.parquet").code == 0
    frame = pl.read_parquet(tmp_path / "rows.parquet")
    assert frame["charged"].to_list() == [row["charged"] and Decimal(row["charged"]) for row in rows]
    markdown = both("report", "--by", "request", "--format", "md").out.splitlines()
    assert len(markdown) == 2 + len(rows)


def test_text_parts_and_strings_are_the_same_prompt(cli: Cli, setup: Setup, tmp_path: Path) -> None:
    one = {"id": "1", "at": at("10:00:00"), **ALICE, "body": body(SYSTEM, ("user", text(A, "5m")))}
    two = {
        "id": "2",
        "at": at("10:01:00"),
        **ALICE,
        "body": json.dumps(body(SYSTEM, ("user", text(A, "5m"))), indent=1),
    }
    (tmp_path / "same.jsonl").write_bytes(lines([one, two]))
    cli("replay", "same.jsonl", *setup.options)
    rows = cli("report", "--by", "request", "--format", "json").rows()
    assert [(row["outcome"], row["read_tokens"]) for row in rows] == [("create", 0), ("read", 14)]
