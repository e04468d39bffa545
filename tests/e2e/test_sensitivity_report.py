"""±5 % of the counts through the command line, on three requests computed by hand."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from e2e_support import Cli, Connect, body, lines, text, usage, words

from cachesim import api
from cachesim.errors import UsageError

PRICES = """
[[cache_tariff]]
model = "m"
write_5m = "1.25"
write_1h = "2"
write_24h = "2.5"
read = "0.1"
min_prefix_tokens = 20
[[base_tariff]]
model = "m"
input_per_token = "1"
output_per_token = "1"
"""
MARKED = ("system", text(words("s", 20), "5m"))
LOG = lines(
    [
        # Two requests of 40 reported tokens, 20 of them marked; one of 20 tokens, none reported, 19 of them marked.
        {"at": "2026-03-02T10:00:00Z", "principal": "p", "body": body(MARKED, ("user", words("u", 10))),
         "usage": usage(40, 0)},
        {"at": "2026-03-02T10:01:00Z", "principal": "p", "body": body(MARKED, ("user", words("v", 10))),
         "usage": usage(40, 0)},
        {"at": "2026-03-02T10:02:00Z", "principal": "p", "success": True,
         "body": body(("system", text(words("t", 19), "5m")), ("user", "w"))},
    ]
)  # fmt: skip
WORKED: list[dict[str, Any]] = [
    # 20 · 0.95 = 19 and 19 · 0.95 = 18.05: nothing reaches the floor of 20. The third prompt is 20 · 0.95 = 19 tokens.
    # 40 + 40 + 19 = 99, which is 12 more than 87: 13.8 %
    {"count_change": -0.05, "decisions_changed": 2, "fell_below_floor": 2, "rose_above_floor": 0, "asked": 3,
     "eligible": 0, "eligible_rate": 0.0, "prompt_tokens": 99, "read_tokens": 0, "creation_tokens": 0,
     "token_hit_rate": 0.0, "charged": "99", "bill_change": "12", "bill_change_share": 0.137931},
    # Written 20 + 20 · 1.25 = 45, read 20 + 20 · 0.1 = 22, below the floor 20: 87. Read 20 of 100
    {"count_change": 0.0, "decisions_changed": 0, "fell_below_floor": 0, "rose_above_floor": 0, "asked": 3,
     "eligible": 2, "eligible_rate": 0.666667, "prompt_tokens": 100, "read_tokens": 20, "creation_tokens": 20,
     "token_hit_rate": 0.2, "charged": "87", "bill_change": "0", "bill_change_share": 0.0},
    # 20 · 1.05 = 21 and 19 · 1.05 = 19.95, rounded 20. Written 19 + 21 · 1.25 = 45.25, read 19 + 21 · 0.1 = 21.1, and
    # of the third, now 21 tokens: 1 + 20 · 1.25 = 26. Together 92.35, which is 5.35 more: 6.1 %. Read 21 of 101
    {"count_change": 0.05, "decisions_changed": 1, "fell_below_floor": 0, "rose_above_floor": 1, "asked": 3,
     "eligible": 3, "eligible_rate": 1.0, "prompt_tokens": 101, "read_tokens": 21, "creation_tokens": 41,
     "token_hit_rate": 0.207921, "charged": "92.35", "bill_change": "5.35", "bill_change_share": 0.061494},
]  # fmt: skip
LINE = "−5 %: hit rate 0.0 %, bill +13.8 %, 2 fall below the floor; +5 %: 20.8 %, +6.1 %, 1 rise above it"


@pytest.fixture
def replayed(cli: Cli, tokenizer: Path, tmp_path: Path) -> Cli:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(PRICES)
    assert cli("replay", "log.jsonl", "--tariff", "prices.toml", "--tokenizer", tokenizer, "-q", "-o", "x").code == 0
    return cli


def test_three_requests_as_computed_by_hand(replayed: Cli) -> None:
    rows = replayed("report", "--sensitivity", "--format", "json").rows()
    assert [{name: row[name] for name in WORKED[0]} for row in rows] == WORKED
    assert [row["model"] for row in rows] == ["m"] * 3


def test_the_totals_stand_in_the_envelope_of_every_answer_on_the_run(replayed: Cli) -> None:
    for args in (["report"], ["report", "--by", "day"], ["report", "--sensitivity", "--model", "m"]):
        totals = replayed(*args, "--format", "json").json()["sensitivity"]
        assert [{name: row[name] for name in WORKED[0]} for row in totals] == WORKED


def test_the_same_log_gives_the_same_bytes(replayed: Cli, tokenizer: Path) -> None:
    again = ["replay", "log.jsonl", "--tariff", "prices.toml", "--tokenizer", tokenizer, "--format", "json"]
    before = replayed("report", "--sensitivity", "--format", "json").out
    first, second = replayed(*again).out, replayed(*again, "--db", "new.duckdb").out
    assert first == second
    assert json.loads(first)["sensitivity"][0]["charged"] == "99"
    assert replayed("report", "--sensitivity", "--format", "json").out == before


def test_people_see_one_line_and_the_rest_in_full(replayed: Cli, tmp_path: Path) -> None:
    assert f"sensitivity  counts are exact; drift of {LINE}" in (tmp_path / "x").read_text()
    out = replayed("report", "--sensitivity").out
    assert f"counts are exact; drift of {LINE}" in out
    assert "reported prompt tokens and completions stay" in out.lower().replace("\n", " ")
    table = [line.split() for line in out.splitlines() if line.startswith("m ")]
    assert [line[1:3] for line in table] == [["−5.0", "%"], ["0.0", "%"], ["+5.0", "%"]]
    assert [line[-4:] for line in table] == [
        ["99.00", "+12.00", "+13.8", "%"], ["87.00", "0.00", "0.0", "%"], ["92.35", "+5.35", "+6.1", "%"],
    ]  # fmt: skip


def test_estimated_counts_are_not_called_exact(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    assert "\nsensitivity  counts −5 %: hit rate " in cli("replay", "log.jsonl", "--set", "min_prefix_tokens=5").out


def test_where_nothing_reaches_the_cache_the_line_says_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(
        lines([{"at": "2026-03-02T10:00:00Z", "principal": "p", "body": body(("user", "a b"))}])
    )
    assert (
        "±5 % of the counts changes nothing: no request in the totals reached the cache"
        in cli("replay", "log.jsonl").out
    )


def test_frames_hold_the_same_rows(replayed: Cli, tmp_path: Path) -> None:
    with api.open(str(tmp_path / "cachesim.duckdb")) as database:
        frame = database.run().sensitivity()
        totals = database.run().sensitivity([])
        with pytest.raises(UsageError, match="by model only"):
            database.run().sensitivity(["day"])
    assert [{name: row[name] for name in WORKED[0]} for row in trimmed(frame)] == WORKED
    assert frame["model"].to_list() == ["m"] * 3
    assert totals.equals(frame.drop("model"))


def trimmed(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows with money as it is written and shares as far as reports give them."""
    rows = [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
        for row in frame.to_dicts()
    ]
    return [{**row, **{name: plain_money(row[name]) for name in ("charged", "bill_change")}} for row in rows]


def plain_money(amount: Decimal) -> str:
    return f"{amount:f}".rstrip("0").rstrip(".")


def test_a_run_without_moved_counts_is_to_be_replayed(replayed: Cli, con: Connect) -> None:
    """As a run of an older version is, whose database has just been upgraded."""
    with con() as own:
        own.execute("DELETE FROM sensitivity")
    done = replayed("report", "--sensitivity")
    assert (done.code, done.out) == (3, "")
    assert "an older cachesim made it" in done.err
    assert replayed("report", "--format", "json").json()["sensitivity"] == []


@pytest.mark.parametrize(
    "args", [["--by", "day"], ["--since", "2026-03-02"], ["--principal", "p"], ["--bounds"], ["--top", "1"]]
)
def test_what_is_not_kept_is_refused(replayed: Cli, args: list[str]) -> None:
    done = replayed("report", "--sensitivity", *args)
    assert (done.code, done.out) == (2, "")
    assert "--sensitivity: always by model" in done.err


def test_latest_is_the_latest_replay(replayed: Cli) -> None:
    """A sweep moves no counts; the run that it swept does."""
    assert replayed("tune", "--floor", "10,20,30", "-q", "-o", "tuned.txt").code in (0, 3)
    assert replayed("report", "--sensitivity", "--format", "json").rows()[0]["charged"] == "99"


def test_a_continued_run_says_what_it_takes_over(replayed: Cli, tokenizer: Path, tmp_path: Path) -> None:
    """The next day 21 or 19 of the 20 tokens are read: what was written stays written, whatever the floor."""
    record = {"at": "2026-03-02T10:03:00Z", "principal": "p", "body": body(MARKED), "usage": usage(40, 0)}
    (tmp_path / "next.jsonl").write_bytes(lines([record]))
    again = ["--tariff", "prices.toml", "--tokenizer", tokenizer, "--continue", "latest", "-q", "-o", "y"]
    assert replayed("replay", "next.jsonl", *again).code == 0
    rows = replayed("report", "--sensitivity", "--format", "json").rows()
    assert [row["read_tokens"] for row in rows] == [19, 20, 21]
    assert "What this run inherited from the one it continues is moved, too" in replayed("report", "--sensitivity").out
