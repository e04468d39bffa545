"""`cachesim tariffs check` and `diff`: what is found, with its place, and the exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import run
from ledger_files import BASE_HEAD, base, cache, write

from cachesim.tariffs.check import CODES


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def january(first: int, last: int | None = None) -> dict[str, str]:
    until = {} if last is None else {"valid_until": f"2026-01-{last:02}T00:00:00Z"}
    return {"valid_from": f"2026-01-{first:02}T00:00:00Z"} | until


def check(capsys: pytest.CaptureFixture[str], *args: str) -> list[tuple[str, str | None]]:
    """Code and place of every finding."""
    code, out, err = run(capsys, "tariffs", "check", "--format", "json", *args)
    assert err == ""
    made = json.loads(out)["rows"]
    assert code == (1 if made else 0)
    assert {row["code"] for row in made} <= CODES.keys()
    return [(row["code"], row["source"]) for row in made]


def test_a_sound_ledger_has_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", cache(), base(**january(1)), base(**january(5)), base(purpose='"batch"'))
    write("whole.toml", cache(), base())
    assert check(capsys, "whole.toml") == []
    code, out, _ = run(capsys, "tariffs", "check", "whole.toml")
    assert (code, out) == (0, "whole.toml: nothing found\n")
    # before 1 January the model of t.toml is enabled without a price, and both rows stay open
    assert check(capsys, "t.toml") == [("overlap", "t.toml:13"), ("no_price_while_enabled", "t.toml:1")]


def test_every_unreadable_row_is_named_not_only_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    write("t: a.toml", cache(read='"x"'), cache(floor="1"), base(purpose='"bach"'), base())
    assert check(capsys, "t: a.toml") == [
        ("invalid_row", "t: a.toml:6"),
        ("invalid_row", "t: a.toml:15"),
        ("invalid_row", "t: a.toml:20"),
    ]
    code, out, _ = run(capsys, "tariffs", "check", "t: a.toml")
    assert code == 1
    assert "t: a.toml:20: purpose is 'bach', a known purpose (did you mean batch?) was expected [invalid_row]" in out


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([cache(**january(1, 2)), cache(**january(3)), base()], [("gap", "t.toml:10")]),
        ([cache(**january(1, 4)), cache(**january(3)), base()], [("overlap", "t.toml:10")]),
        ([cache(**january(1)), cache(**january(1)), base()], [("same_start", "t.toml:9")]),
        ([cache("w?"), base("w?")], [("pattern_as_model", "t.toml:1"), ("pattern_as_model", "t.toml:8")]),
        ([cache(min_prefix_tokens="-1"), base()], [("negative_floor", "t.toml:1")]),
        ([cache()], [("no_base_tariff", "t.toml:1")]),
        ([base()], [("no_cache_tariff", "t.toml")]),
        ([cache(), base(purpose='"batch"')], [("no_realtime_price", "t.toml:8")]),
        ([cache(), base(completion_window='"1h"')], [("no_realtime_price", "t.toml:8")]),
        ([cache(), base(valid_until="2026-01-01T00:00:00Z")], [("no_price_while_enabled", "t.toml:1")]),
        ([cache(**january(1, 9)), base(**january(1, 9))], []),
        ([cache(), base().replace("input_per_mtok", "input_per_token")], [("implausible_price", "t.toml:8")]),
    ],
)  # fmt: skip
def test_findings(parts: list[str], found: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", *parts)
    assert check(capsys, "t.toml") == found


def test_rows_of_a_dump_that_never_hold_are_findings_not_errors(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "t.csv",
        f"{BASE_HEAD}\n",
        "m,0.000003,0.000015,realtime,,,\n",
        "m,0.000001,0.000005,continuation,,,\n",
        "m,0.000001,0.000005,,,,\n",
        "m,0.000002,0.00001,realtime,,2026-01-01T00:00:00Z,2026-01-01T00:00:00Z\n",
    )
    write("c.toml", cache())
    assert check(capsys, "c.toml,t.csv") == [
        ("empty_interval", "t.csv:5"),
        ("unknown_purpose", "t.csv:3"),
        ("no_purpose", "t.csv:4"),
    ]


def request(model: str, at: str = "2026-01-05T00:00:00Z", **more: str) -> str:
    return json.dumps({"at": at, "principal": "a", "body": {"model": model, "messages": []}, **more}) + "\n"


def test_what_a_log_would_miss_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", cache(**january(1)), base(**january(1)), cache("gpt-4o"), base("n"))
    write(
        "log.jsonl",
        request("m"),
        request("m", purpose="night shift"),
        request("m", purpose="batch", completion_window="24h"),
        request("m", completion_window="24h"),
        request("m", at="2026-01-08T00:00:00Z", purpose="batch", batch_created_at="2025-12-31T00:00:00Z"),
        request("m", at="2025-12-01T00:00:00Z"),
        request("gpt-4o"),
        request("n"),
        request("n", at="2026-01-07T00:00:00Z"),
    )
    code, out, _ = run(
        capsys, "tariffs", "check", "t.toml", "--log", "log.jsonl", "--ignore", "no_base_tariff", "-f", "json"
    )
    assert code == 1
    made: list[dict[str, Any]] = json.loads(out)["rows"]
    assert {(row["code"], row["model"], row["requests"]) for row in made} == {
        ("unknown_purpose", "m", 1),
        ("other_purpose", "m", 1),
        ("other_window", "m", 1),
        ("price_unknown", "m", 1),  # the batch made in December, before any price
        ("price_unknown", "m", 1),  # the arrival in December
        ("not_enabled", "m", 1),
        ("price_assumed", "gpt-4o", 1),
        ("not_enabled", "n", 2),
    }
    text = [row["text"] for row in made if row["code"] == "price_unknown"]
    assert text == ["no price of m for realtime at their time", "no price of m for batch at their time"]


def test_the_configuration_is_checked_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys) == [("no_cache_tariff", "default")]
    write("cachesim.toml", cache(), "[principals]\n")
    write("prices.csv", f"{BASE_HEAD}\nm,0.000003,0.000015,realtime,,,\n")
    assert check(capsys) == [("no_base_tariff", "cachesim.toml:1")]
    assert check(capsys, "--config", "cachesim.toml", "--config", "prices.csv") == []
    assert check(capsys, "--ignore", "no_base_tariff,gap") == []
    assert run(capsys, "tariffs", "check", "--ignore", "gaps")[0] == 2


def test_any_log_can_be_mapped(capsys: pytest.CaptureFixture[str]) -> None:
    write("t.toml", cache(), base())
    write("house.jsonl", json.dumps({"when": "2026-01-05T00:00:00Z", "who": "a", "asked": {"model": "z"}}) + "\n")
    write("map.toml", '[fields]\nat = "when"\nprincipal = "who"\nbody = "asked"\n')
    code, out, _ = run(
        capsys, "tariffs", "check", "t.toml", "--log", "house.jsonl", "--mapping", "map.toml", "-f", "json"
    )
    assert code == 1
    assert {(row["code"], row["model"]) for row in json.loads(out)["rows"]} >= {("not_enabled", "z")}


def test_a_log_is_read_whatever_is_wrong_with_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    write("cachesim.toml", cache(read='"x"'))
    write("log.jsonl", request("m"))
    assert check(capsys, "--log", "log.jsonl") == [("invalid_row", "cachesim.toml:6")]
    assert run(capsys, "tariffs", "check", "absent.toml", "--log", "log.jsonl")[2].startswith("cachesim: absent.toml:")


def test_diff_of_equal_sets_is_empty_whatever_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.toml", base(valid_from="2026-01-01T01:00:00+01:00"))
    write("b.csv", f"{BASE_HEAD}\nm,0.000003,0.0000150,realtime,,2026-01-01T00:00:00Z,\n")
    code, out, _ = run(capsys, "tariffs", "diff", "a.toml", "b.csv")
    assert (code, out) == (0, "a.toml and b.csv hold the same tariffs.\n")


def test_diff_names_every_value_that_changed(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.toml", cache(), base(**january(1)))
    write("b.toml", cache(read="0.2"), base(**january(1, 5)), base(input_per_mtok="2", **january(5)))
    code, out, _ = run(capsys, "tariffs", "diff", "a.toml", "b.toml", "-f", "json")
    made = json.loads(out)
    assert (code, made["a"], made["b"]) == (1, "a.toml", "b.toml")
    assert [(row["status"], row["ledger"], row["field"], row["before"], row["after"]) for row in made["rows"]] == [
        ("changed", "cache", "read", "0.1", "0.2"),
        ("changed", "base", "valid_until", None, "2026-01-05T00:00:00Z"),
        ("added", "base", "input_per_mtok", None, "2"),
        ("added", "base", "output_per_mtok", None, "15"),
    ]
    code, out, _ = run(capsys, "tariffs", "diff", "b.toml", "a.toml")
    assert code == 1
    assert out.splitlines()[:4] == [
        "~ cache m always  (b.toml:1 → a.toml:1)",
        "    read: 0.2 → 0.1",
        "~ base m realtime from 2026-01-01T00:00:00Z  (b.toml:8 → a.toml:8)",
        "    valid_until: 2026-01-05T00:00:00Z → –",
    ]
    assert "− base m realtime from 2026-01-05T00:00:00Z  (b.toml:14)" in out
