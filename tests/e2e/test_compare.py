"""Two sides of the worked log, every change computed by hand; and what must hold of any comparison."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, Connect
from worked_log import LOG, NEW, OLD, RECORDS, TARIFF, WIDE_LOG, WIDE_TARIFF, Expected

from cachesim.comparison import Wanted, compare
from cachesim.config import load_tariff_set
from cachesim.core.pricing import EXACT
from cachesim.rehearsal import replay_again
from cachesim.report.changes import transitions
from cachesim.report.compare import Compared, Pair, compared
from cachesim.run import RunPlan
from cachesim.store.db import DEFAULT_DATABASE, open_database
from cachesim.stored_plan import stored_plan

BOTH = ("--policy", "dwctl-8.63", "--policy", "dwctl-10.13")
ADDITIVE = ("requests", "requests_rejected", "prompt_tokens", "read_tokens", "creation_5m_tokens", "creation_1h_tokens",
            "creation_24h_tokens", "uncached_tokens", "completion_tokens", "list", "charged", "delta")  # fmt: skip


@pytest.fixture
def log(cli: Cli, tmp_path: Path, tokenizer: Path) -> Cli:
    """The worked log replayed under the newest policy alone: run 1."""
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    (tmp_path / "dear.toml").write_text(TARIFF.replace('read = "0.1"', 'read = "0.2"'))
    result = cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml")
    assert result.code == 0, result.err
    return cli


def sides(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert [row["side"] for row in rows] == ["a", "b", "change"]
    return {row["side"]: row for row in rows}


def subset(row: dict[str, Any], *names: str) -> list[Any]:
    return [row[name] for name in names]


def test_the_totals_are_those_on_paper(log: Cli) -> None:
    found = sides(log("compare", *BOTH, "--format", "json").rows())
    assert subset(found["a"], "policy", "requests", "prompt_tokens", "read_tokens", "list", "charged") == [
        "dwctl-8.63", 13, 154, 34, "173", "176.9"]  # fmt: skip
    assert subset(found["b"], "policy", "requests", "prompt_tokens", "read_tokens", "list", "charged") == [
        "dwctl-10.13", 12, 138, 32, "155", "144.775"]  # fmt: skip
    change = found["change"]
    # r7 is rejected: −1 request, −16 prompt tokens, −18 list, −33 charged; r9 creates what it read: +2.875;
    # r12 is capped, no longer voided: −2. −33 + 2.875 − 2 = −32.125
    assert subset(change, "requests", "requests_rejected", "prompt_tokens", "list", "charged") == [
        -1, 1, -16, "-18", "-32.125"]  # fmt: skip
    # r9 −10 and r12 +8 read; 5m: r9 +10, r12 +4 (35 → 49); 24h: r7 −10; capped 1, voided −1
    assert subset(change, "read_tokens", "creation_5m_tokens", "creation_24h_tokens", "capped", "voided") == [
        -2, 14, -10, 1, -1]  # fmt: skip
    assert change["token_hit_rate"] == pytest.approx(32 / 138 - 34 / 154, abs=1e-6)
    # 176.9 / 154 · 10⁶, to 12 decimals
    assert found["a"]["charged_per_mtok"] == "1148701.298701298701"
    assert change["run"] is None
    assert found["a"]["run"] == found["b"]["run"]


def expected_by(group: str, expected: list[Expected]) -> dict[str | None, Decimal]:
    sums: dict[str | None, Decimal] = defaultdict(Decimal)
    for record, e in zip(RECORDS, expected, strict=True):
        if record.get("status", 200) == 200 and e.outcome != "rejected":
            key = record["body"]["model"] if group == "model" else record.get(group)
            sums[key] += e.charged
    return sums


@pytest.mark.parametrize("group", ["model", "principal", "session"])
def test_every_group_changes_by_its_own_requests(log: Cli, group: str) -> None:
    rows = log("compare", *BOTH, "--by", group, "--format", "json").rows()
    old, new = expected_by(group, OLD), expected_by(group, NEW)
    changes = {row[group]: Decimal(row["charged"]) for row in rows if row["side"] == "change"}
    assert changes == {key: new[key] - old[key] for key in old}
    order = [abs(change) for change in changes.values()]
    assert order == sorted(order, reverse=True)
    first = log("compare", *BOTH, "--by", group, "--top", "1", "--format", "json").rows()
    assert first == rows[:3]


def test_classes_and_requests_that_changed(log: Cli) -> None:
    rows = log("compare", *BOTH, "--by", "class", "--format", "json").rows()
    moved = [r for r in rows if (r["outcome_a"], r["reason_a"]) != (r["outcome_b"], r["reason_b"])]
    names = ("outcome_a", "outcome_b", "reason_b", "requests", "charged_a", "charged_b", "charged_change")
    assert [subset(row, *names) for row in moved] == [
        ["create", "rejected", "bad_marker:tier_disabled", 1, "33", None, "-33"],
        ["read", "create", None, 1, "3.75", "6.625", "2.875"],
    ]
    assert sum(Decimal(row["charged_change"]) for row in rows) == Decimal("-32.125")
    assert sum(row["requests_split"] for row in rows) == 3  # r7, r9 and, in its class, r12
    listed = log("compare", *BOTH, "--requests", "--format", "json").rows()
    names = ("request", "changed", "read_tokens_a", "read_tokens_b", "creation_tokens_a", "creation_tokens_b",
             "charged_change")  # fmt: skip
    assert [subset(row, *names) for row in listed] == [
        ["r7", "class", 0, None, 10, None, "-33"],
        ["r9", "class", 10, 0, 0, 10, "2.875"],
        ["r12", "split", 0, 8, 0, 4, "-2"],  # voided: nothing billed as cached; capped: 8 read, 4 created
    ]


def test_the_screen_says_it_in_one_sentence(log: Cli) -> None:
    out = log("compare", *BOTH).out
    first = out.partition("\n\n")[0].replace("\n", " ")
    assert first == (
        "dwctl-10.13 instead of dwctl-8.63: customers pay 32.13 less (−18.2 %), 176.90 → 144.78; token hit rate "
        "22.1 % → 23.2 %; of 3 principals 1 pay less, 0 more."
    )
    assert "2 of 13 successful requests, rejected ones among them, change class, 1 more keep" in out
    assert "1 more keep their class but are split differently" in out
    assert "1 request is billed by A alone: B answers with HTTP 400; charged 33.00 under A, in no total of B" in out
    assert "by model" in out
    assert "r12" not in out


def test_what_is_missing_is_replayed_once_and_kept(log: Cli) -> None:
    first = log("compare", *BOTH, "--format", "json")
    assert log("compare", *BOTH, "--format", "json").out == first.out
    runs = log("runs", "--format", "json").rows()
    assert [run["policies"] for run in runs] == ["dwctl-10.13", "dwctl-8.63 dwctl-10.13"]
    swapped = sides(log("compare", *BOTH[2:], *BOTH[:2], "--format", "json").rows())
    assert subset(swapped["change"], "charged", "requests") == ["32.125", 1]
    assert len(log("runs", "--format", "json").rows()) == 2
    log("replay", "log.jsonl", "--tokenizer", "default", "--policy", "dwctl-8.63", "--quiet")
    assert log("compare", "--run", "2", *BOTH, "--format", "json").rows() == first.rows()
    assert log("compare", "--run", "2", "--format", "json").rows() == first.rows()  # its two policies


def test_what_is_stored_is_compared_while_others_read(log: Cli) -> None:
    lower = ("compare", "--policy", "dwctl-10.13", "--policy", "dwctl-10.13 [walk_back=1]", "--format", "json")
    first = log(*lower)
    assert first.code == 0, first.err
    with open_database(DEFAULT_DATABASE, read_only=True):  # nobody can write now
        again = log(*lower)
        assert (again.code, again.out) == (0, first.out), again.err
        assert log("compare", *BOTH).code != 0  # not stored yet


def test_markers_and_changed_rules_are_sides_too(log: Cli, tokenizer: Path) -> None:
    found = sides(log("compare", "--markers", "as-captured", "--markers", "automatic", "--format", "json").rows())
    assert subset(found["a"], "markers", "charged") == ["as-captured", "144.775"]
    alone = log("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", "--markers", "automatic",
                "--db", "alone.duckdb", "--format", "json")  # fmt: skip
    total = log("report", "--db", "alone.duckdb", "--format", "json").rows()[0]
    assert alone.code == 0
    assert {name: found["b"][name] for name in ADDITIVE} == {name: total[name] for name in ADDITIVE}
    rule = "dwctl-10.13 [min_prefix_tokens=1, walk_back=30]"
    lower = sides(log("compare", "--policy", "dwctl-10.13", "--policy", rule, "--format", "json").rows())
    # r11 no longer fails the floor: 3 tokens are written instead of uncached: 3·0.5 more, as written on March 2
    assert subset(lower["change"], "creation_5m_tokens", "charged") == [3, "1.5"]
    assert lower["b"]["policy"] == rule


def test_two_runs_of_the_same_log_are_compared_request_by_request(log: Cli, tokenizer: Path) -> None:
    log("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", "--policy", "dwctl-8.63")
    rows = log("compare", "--run", "2", "--run", "1", "--by", "request", "--format", "json").rows()
    assert [row["request"] for row in rows] == ["r7", "r9", "r12"]
    # prepared for other rules, but the same requests of the same file
    log("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", "--policy", "dwctl-8.63", "--set",
        'telemetry_prefixes=["s1"]', "--db", "cachesim.duckdb")  # fmt: skip
    assert log("compare", "--run", "1", "--run", "3", "--by", "request", "--format", "json").code == 0


def test_changes_of_money_are_exact_to_the_last_digit(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(WIDE_LOG)
    (tmp_path / "wide.toml").write_text(WIDE_TARIFF)
    made = cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "wide.toml")
    assert made.code == 0, made.err
    found = sides(cli("compare", *BOTH, "--format", "json").rows())
    a, b, change = (Decimal(found[side]["charged"]) for side in ("a", "b", "change"))
    assert len(a.as_tuple().digits) > 28
    assert change == EXACT.subtract(b, a)
    for options in (("--by", "class"), ("--by-rule",)):
        rows = cli("compare", *BOTH, *options, "--format", "json").rows()
        assert reduce(EXACT.add, (Decimal(row["charged_change"]) for row in rows)) == change


def test_two_periods_are_compared_by_rate(log: Cli) -> None:
    options = ("--period", "..2026-03-02", "--period", "2026-03-02..")
    found = sides(log("compare", *options, "--format", "json").rows())
    # March 1: r1–r4 and r6 (r7 is rejected): 24.5 + 20.5 + 15 + 18.5 + 7.65; the rest of 144.775 on March 2
    assert subset(found["a"], "period", "requests", "charged") == ["..2026-03-02", 5, "86.15"]
    assert subset(found["b"], "requests", "charged") == [7, "58.625"]
    out = log("compare", *options).out
    assert "charged per million prompt tokens" in out
    assert "volumes differ (83 and 55 prompt tokens), so money is per token" in out.replace("\n", " ")
    result = log("compare", *options, "--requests")
    assert (result.code, "other requests" in result.err) == (3, True)


def test_unpriced_requests_never_become_zeros(log: Cli, tmp_path: Path) -> None:
    without_n = TARIFF.partition('[[base_tariff]]\nmodel = "n"')[0]
    (tmp_path / "partial.toml").write_text(without_n)
    rows = log("compare", "--tariff", "prices", "--tariff", "partial.toml", "--by", "model", "--format", "json").rows()
    by_model = {(row["model"], row["side"]): row for row in rows}
    assert subset(by_model["n", "b"], "charged", "unpriced", "requests") == [None, 1, 1]
    assert by_model["n", "change"]["charged"] is None
    assert by_model["m", "change"]["charged"] == "0"
    out = log("compare", "--tariff", "prices", "--tariff", "partial.toml").out
    assert "the bills cannot be compared, requests without a price: 1 on side B" in out.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name two sides"),
        (("--run", "1", "--run", "latest"), "both sides are the same"),
        (("--policy", "dwctl-9", "--policy", "dwctl-10.13"), "did you mean dwctl-"),
        ((*BOTH, "--policy", "dwctl-8.63"), "3 of them; a comparison has two sides"),
        (("--period", "2026-03-02", "--period", ".."), "FROM..UNTIL was expected"),
        ((*BOTH, "--by", "request,model"), "stands alone"),
        (("--tariff", "prices", "--tariff", "pricse"), "neither a tariff of the run (prices) nor a file"),
        (("--tariff", "prices", "--tariff", "gone.toml"), "gone.toml: cannot be read"),
        ((*BOTH, "--by", "modle"), "did you mean model?"),
        ((*BOTH, "--by-rule", "--by", "model"), "has its own rows"),
        (("--markers", "as-captured", "--markers", "automatic", "--by-rule"), "may differ in --policy only"),
    ],
)
def test_mistakes_are_named(log: Cli, options: tuple[str, ...], message: str) -> None:
    result = log("compare", *options)
    assert result.code == 2
    assert message in result.err


def test_every_form_has_the_same_rows(log: Cli, tmp_path: Path) -> None:
    import polars as pl

    args = ("compare", *BOTH, "--by", "principal")
    rows = log(*args, "--format", "json").rows()
    csv = log(*args, "--format", "csv").out.splitlines()
    assert csv[0].split(",") == list(rows[0])
    assert len(csv) == 1 + len(rows)
    assert log(*args, "--format", "parquet", "--output", "c.parquet").code == 0
    frame = pl.read_parquet(tmp_path / "c.parquet")
    assert frame["charged"].to_list() == [Decimal(row["charged"]) for row in rows]
    assert len(log(*args, "--format", "md").out.splitlines()) == 2 + len(rows)


# -- what holds of any comparison


def figures(group: Compared) -> list[Any]:
    return [group.change[name] for name in ADDITIVE]


def test_a_side_against_itself_changes_nothing_and_swapped_sides_change_the_sign(log: Cli, con: Connect) -> None:
    log("compare", *BOTH)
    connection = con()
    found = compare(connection, Wanted(2, "dwctl-8.63"), Wanted(2, "dwctl-10.13"), may_replay=False).pair
    same = compared(connection, Pair(found.a, found.a, True)).shown[0]
    assert set(figures(same)) == {0}
    forth = compared(connection, found, ["model", "principal"]).shown
    back = compared(connection, Pair(found.b, found.a, True), ["model", "principal"]).shown
    assert {g.key: figures(g) for g in forth} == {g.key: [-value for value in figures(g)] for g in back}
    total = figures(compared(connection, found).shown[0])
    assert [sum(column) for column in zip(*map(figures, forth), strict=True)] == total
    assert sum(row["charged_change"] for row in transitions(connection, found)) == total[-2]


def random_tariff(seed: int) -> str:
    """The floors and windows of the worked tariff with other prices, changing at random instants."""
    chance = random.Random(seed)

    def factor() -> str:
        return str(chance.randrange(0, 300) / 100)

    def instant() -> str:
        return f"2026-03-0{chance.choice('12')}T{chance.randrange(24):02}:{chance.randrange(60):02}:00Z"

    edge = instant()
    rows = [
        f'[[cache_tariff]]\nmodel = "m"\nwrite_5m = "{factor()}"\nwrite_1h = "{factor()}"\nwrite_24h = "{factor()}"\n'
        f'read = "{factor()}"\nmin_prefix_tokens = 5\n{bound} = {edge}\n'
        for bound in ("valid_until", "valid_from")
    ]
    for model in "mn":
        for purpose, window in (("realtime", None), ("batch", None), ("batch", "24h")):
            edge = instant()
            rows += [
                f'[[base_tariff]]\nmodel = "{model}"\ninput_per_token = "{factor()}"\noutput_per_token = "{factor()}"\n'
                f'purpose = "{purpose}"\n{bound} = {edge}\n' + (f'completion_window = "{window}"\n' if window else "")
                for bound in (("valid_until", "valid_from") if chance.random() < 0.8 else ("valid_from",))
            ]
    return "".join(rows)


@pytest.mark.parametrize("seed", range(12))
def test_repricing_equals_replaying(log: Cli, con: Connect, tmp_path: Path, seed: int) -> None:
    (tmp_path / "other.toml").write_text(random_tariff(seed))
    connection = con()
    repriced = compare(connection, Wanted(1), Wanted(1, tariff="other.toml"), may_replay=False).pair
    assert repriced.b.repriced
    plan = stored_plan(connection, 1)
    other = load_tariff_set("other.toml")
    run_no = replay_again(connection, 1, RunPlan(plan.policies, [*plan.tariffs, other], plan.strategy))
    replayed = compare(connection, Wanted(run_no), Wanted(run_no, tariff="other"), may_replay=False).pair
    assert not replayed.b.repriced
    for by in ([], ["model"], ["principal", "session"]):
        assert compared(connection, repriced, by) == compared(connection, replayed, by)
    assert transitions(connection, repriced) == transitions(connection, replayed)


def test_repricing_needs_no_second_replay_and_writes_nothing(
    log: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def replay(*_: object, **__: object) -> None:
        raise AssertionError("replayed")

    monkeypatch.setattr("cachesim.rehearsal.Run", replay)
    before = (tmp_path / "cachesim.duckdb").read_bytes()
    found = sides(log("compare", "--tariff", "prices", "--tariff", "dear.toml", "--format", "json").rows())
    assert (tmp_path / "cachesim.duckdb").read_bytes() == before
    # reads of March 1 at 0.2 instead of 0.1: r3 10 and r6 14 tokens, (10 + 14) · 0.1
    assert subset(found["change"], "charged", "read_tokens", "list") == ["2.4", 0, "0"]
    same = TARIFF.replace("[[cache_tariff]]", "# the same\n[[cache_tariff]]")
    (tmp_path / "prices.toml").write_text(same)
    assert "both sides are the same" in log("compare", "--tariff", "prices", "--tariff", "prices.toml").err


def test_assumed_prices_are_repriced_as_they_are_replayed(cli: Cli) -> None:
    demo = Path(__file__).resolve().parents[2] / "fixtures" / "demo.jsonl.gz"
    cli("replay", demo, "--quiet")
    cheap = '[[base_tariff]]\nmodel = "kimi-k2"\ninput_per_mtok = "1"\noutput_per_mtok = "2"\npurpose = "realtime"\n'
    Path("cheap.toml").write_text(cheap)
    args = ("compare", "--tariff", "default", "--tariff", "cheap.toml", "--by", "model", "--format", "json")
    repriced = cli(*args).json()
    assert any("genai-prices" in text["text"] and text["text"].startswith("B: ") for text in repriced["assumptions"])
    cli("replay", demo, "--tariff", "cheap.toml", "--db", "cheap.duckdb", "--quiet")
    replayed = cli("report", "--by", "model", "--db", "cheap.duckdb", "--format", "json").rows()
    found = {row["model"]: row["charged"] for row in repriced["rows"] if row["side"] == "b"}
    assert found == {row["model"]: row["charged"] for row in replayed}
    assert json.dumps(repriced["runs"]).count('"trace"') == 1
