"""The gate: exit code 0, 1 or 3 for limits on either side of figures computed by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, lines, usage
from worked_log import LOG, RECORDS, TARIFF, WIDE_LOG, WIDE_TARIFF

from cachesim.core.pricing import EXACT

# Run 1 is dwctl-8.63, run 2 dwctl-10.13 (see test_worked_log): charged 176.9 and 144.775, without r7, which only run 1
# bills, 143.9 and 144.775; read 34 and 32, without r7 of 138 both; rejected 0 and 1; r7 and r9 change class.
BASE = ("--baseline", "1", "--run", "2")


# r6 reports no usage: here it reports what is counted, for without its completion there is no verdict on cost.
WHOLE = lines([{**r, "usage": usage(19, 0)} if r["id"] == "r6" else r for r in RECORDS])


@pytest.fixture
def runs(cli: Cli, tmp_path: Path, tokenizer: Path) -> Cli:
    (tmp_path / "log.jsonl").write_bytes(WHOLE)
    (tmp_path / "prices.toml").write_text(TARIFF)
    for policy in ("dwctl-8.63", "dwctl-10.13"):
        made = cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", "--policy", policy)
        assert made.code == 0, made.err
    return cli


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--max-cost", "144.775"), 0),
        (("--max-cost", "144.77"), 1),
        ((*BASE, "--max-cost", "+0.61%"), 0),  # 144.775 / 143.9 = 1.00608
        ((*BASE, "--max-cost", "+0.6%"), 1),
        ((*BASE, "--max-cost", "-1.5%"), 1),
        ((*BASE, "--max-cost", "+0.875"), 0),  # 144.775 − 143.9
        ((*BASE, "--max-cost", "+0.874"), 1),
        (("--min-token-hit-rate", "23.1%"), 0),  # 32 / 138 = 23.19 %
        (("--min-token-hit-rate", "0.232"), 1),
        ((*BASE, "--min-token-hit-rate", "-1.5pp"), 0),  # 34 / 138 = 24.64 %, −1.45
        ((*BASE, "--min-token-hit-rate", "-1.4%"), 1),
        (("--min-cacheable-hit-rate", "37.6%"), 0),  # 32 / (32 + 53) = 37.65 %
        (("--min-cacheable-hit-rate", "37.7%"), 1),
        # without r7, run 1 reads 34 and creates 35 + 4: 46.58 %
        ((*BASE, "--min-cacheable-hit-rate", "-9%"), 0),
        ((*BASE, "--min-cacheable-hit-rate", "-8%"), 1),
        (("--max-uncached", "53"), 0),  # 138 − 32 − 53
        (("--max-uncached", "52"), 1),
        (("--max-uncached", "38.5%"), 0),  # 53 / 138 = 38.41 %
        (("--max-uncached", "38.4%"), 1),
        ((*BASE, "--max-uncached", "+0%"), 0),  # 138 − 34 − 39 = 65 before
        ((*BASE, "--max-uncached", "-12"), 0),
        ((*BASE, "--max-uncached", "-13"), 1),
        (("--max-rejected", "1"), 0),
        (("--max-rejected", "0"), 1),
        (("--max-rejected", "7.2%"), 0),  # 1 of 14
        (("--max-rejected", "7.1%"), 1),
        ((*BASE, "--max-rejected", "+1"), 0),
        ((*BASE, "--max-rejected", "+0"), 1),
        ((*BASE, "--max-changed-requests", "2"), 0),
        ((*BASE, "--max-changed-requests", "1"), 1),
        ((*BASE, "--max-changed-requests", "15.4%"), 0),  # 2 of 13 = 15.38 %
        ((*BASE, "--max-changed-requests", "15.3%"), 1),
        ((*BASE, "--max-cost", "200", "--max-rejected", "0"), 1),
    ],
)
def test_limits_on_either_side_of_the_figure(runs: Cli, options: tuple[str, ...], code: int) -> None:
    result = runs("gate", *options)
    assert result.code == code, result.out + result.err
    assert result.out.startswith("Passed: " if code == 0 else "Failed: ")


def rows_of(result: Any) -> list[dict[str, Any]]:
    import json

    return json.loads(result.out)["rows"]


def test_the_rows_say_what_was_measured_of_what(runs: Cli) -> None:
    result = runs("gate", *BASE, "--max-cost", "+1%", "--max-rejected", "0", "--format", "json")
    assert result.code == 1
    assert rows_of(result) == [
        {"check": "max_cost", "result": "pass", "given": "+1%", "measured": "144.775", "limit": "145.339",
         "baseline": "143.9", "unit": "money", "detail": "charged over the 12 requests that both runs bill"},
        {"check": "max_rejected", "result": "fail", "given": "0", "measured": "1", "limit": "0", "baseline": None,
         "unit": "requests", "detail": "rejected of 14 requests"},
    ]  # fmt: skip


def test_limits_on_money_are_exact_to_the_last_digit(runs: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "wide.jsonl").write_bytes(WIDE_LOG)
    (tmp_path / "wide.toml").write_text(WIDE_TARIFF)
    for policy in ("dwctl-8.63", "dwctl-10.13"):
        runs("replay", "wide.jsonl", "--tokenizer", tokenizer, "--tariff", "wide.toml", "--policy", policy)
    options = ("--baseline", "3", "--run", "4", "--format", "json")
    (row,) = rows_of(runs("gate", *options, "--max-cost", "+1000%"))
    measured, baseline = Decimal(row["measured"]), Decimal(row["baseline"])
    assert Decimal(row["limit"]) == EXACT.multiply(baseline, Decimal(11))
    more, last_digit = EXACT.subtract(measured, baseline), Decimal("1e-20")
    assert len(measured.as_tuple().digits) > 28
    for extra, code in ((more, 0), (EXACT.subtract(more, last_digit), 1)):
        assert runs("gate", *options, "--max-cost", f"{extra:+f}").code == code


def test_a_gate_writes_nothing(runs: Cli, tmp_path: Path) -> None:
    before = (tmp_path / "cachesim.duckdb").read_bytes()
    runs("gate", *BASE, "--max-cost", "+1%", "--max-changed-requests", "2")
    assert (tmp_path / "cachesim.duckdb").read_bytes() == before


def test_other_requests_are_compared_per_token_or_not_at_all(runs: Cli, tokenizer: Path) -> None:
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", "--until", "2026-03-02")
    # run 3, March 1 alone: 86.15 for 83 prompt tokens, 1.03795 each; run 2: 144.775 for 138, 1.04909 each: −1.06 %
    options = ("--baseline", "2", "--run", "3", "--format", "json")
    for limit, code in (("-1%", 0), ("-1.1%", 1)):
        result = runs("gate", *options, "--max-cost", limit)
        assert (result.code, rows_of(result)[0]["unit"]) == (code, "money per million prompt tokens")
    assert "the baseline has other requests (138 prompt tokens there, 83 here)" in rows_of(result)[0]["detail"]
    for limits in (("--max-cost", "+1"), ("--max-changed-requests", "0"), ("--max-rejected", "+0"),
                   ("--max-uncached", "+5")):  # fmt: skip
        result = runs("gate", *options, *limits)
        assert (result.code, rows_of(result)[0]["result"]) == (3, "not_evaluated")
    assert runs("gate", *options, "--max-cost", "+1", "--max-rejected", "1").code == 3
    assert runs("gate", *options, "--max-cost", "+1", "--min-token-hit-rate", "99%").code == 1  # a failure is certain


def test_a_cost_without_completions_is_not_passed(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    """r6 succeeded, and nobody says what its answer was: a cost can only be higher than the bill."""
    (tmp_path / "log.jsonl").write_bytes(LOG)
    (tmp_path / "prices.toml").write_text(TARIFF)
    made = cli("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml")
    assert "completions apart that nobody reported." in " ".join(made.out.split())
    found = [a["text"] for a in cli("report", "-f", "json").json()["assumptions"] if a["code"] == "completion_unknown"]
    assert found == [
        "completion tokens of 1 of 13 successful requests: not reported, billed as 0; list and charged lack them, "
        "delta does not"
    ]
    done = cli("gate", "--max-cost", "200")
    assert (done.code, "completion tokens of the run that nobody reported are in no bill" in done.out) == (3, True)
    assert cli("gate", "--max-cost", "200", "--allow-estimates").code == 0
    assert cli("gate", "--min-token-hit-rate", "23.1%").code == 0


def test_what_is_not_known_is_not_passed(runs: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "partial.toml").write_text(TARIFF.partition('[[base_tariff]]\nmodel = "n"')[0])
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "partial.toml")
    unpriced = runs("gate", "--max-cost", "1000", "--min-token-hit-rate", "1%")
    assert unpriced.code == 3
    assert "requests of the run without a known price: 1" in unpriced.out.replace("\n", " ")
    assert unpriced.out.startswith("Not evaluated: max cost (1 of 2 checks).")
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", "--since", "2026-03-02T00:12:30Z")
    nothing_cached = runs("gate", "--min-cacheable-hit-rate", "0%")
    assert (nothing_cached.code, "for want of a denominator" in nothing_cached.out.replace("\n", " ")) == (3, True)
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--since", "2026-03-01T22:06:00Z", "--until",
         "2026-03-01T22:06:45Z")  # fmt: skip
    only_failed = runs("gate", "--max-cost", "1000")
    assert (only_failed.code, "no request of the run counts" in only_failed.out.replace("\n", " ")) == (3, True)


def test_unknown_prompts_are_not_counted_as_no_tokens(runs: Cli, tmp_path: Path, tokenizer: Path) -> None:
    """r11 without usage, of an API that is not read: run 3 knows nothing of its tokens, run 2 knows them all."""
    unknown = {**RECORDS[10], "usage": None, "uri": "/v1/responses", "success": True}
    (tmp_path / "unknown.jsonl").write_bytes(lines([*RECORDS[:10], unknown, *RECORDS[11:]]))
    made = runs("replay", "unknown.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml")
    assert made.code == 0, made.err
    for limit in (("--max-uncached", "1000"), ("--max-uncached", "100%"), ("--min-token-hit-rate", "1%"),
                  ("--min-cacheable-hit-rate", "1%")):  # fmt: skip
        result = runs("gate", *limit, "--format", "json")
        assert (result.code, rows_of(result)[0]["result"]) == (3, "not_evaluated"), limit
        assert "requests of the run with an unknown number of prompt tokens: 1" in rows_of(result)[0]["detail"]
    before = ("--run", "2", "--baseline", "3", "--format", "json")
    for limit in (("--max-uncached", "+900%"), ("--min-token-hit-rate", "-90pp")):
        result = runs("gate", *before, *limit)
        assert (result.code, "requests of the baseline" in rows_of(result)[0]["detail"]) == (3, True), limit
    assert runs("gate", *before, "--min-token-hit-rate", "1%").code == 0  # needs no baseline
    assert runs("gate", "--max-rejected", "1").code == 0  # counts requests


def test_estimated_counts_need_to_be_allowed(runs: Cli) -> None:
    runs("replay", "log.jsonl", "--tariff", "prices.toml")
    refused = runs("gate", "--max-cost", "1000", "--max-rejected", "1")
    assert (refused.code, "--allow-estimates" in refused.out) == (3, True)
    assert runs("gate", "--max-cost", "1000", "--allow-estimates").code == 0
    assert runs("gate", "--run", "2", "--baseline", "3", "--max-cost", "+900%").code == 3
    assert runs("gate", "--max-rejected", "1").code == 0  # needs no count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no limit given"),
        (("--max-cost", "+2%"), "needs a --baseline"),
        (("--max-changed-requests", "3"), "needs a --baseline"),
        (("--max-cost", "2%"), "a share of what?"),
        (("--max-cost", "cheap"), "+2% or +0.25 (over the baseline) was expected"),
        (("--max-rejected", "1.5"), "a number, 1%"),
        (("--min-token-hit-rate", "40"), "more than everything"),
        (("--min-token-hit-rate", "40pp"), "percentage points from the baseline"),
        (("--baseline", "2", "--max-cost", "+2%"), "its own baseline"),
        (("--baseline", "1", "--max-changed-requests", "+3"), "without a sign"),
        (("--baseline", "9", "--max-cost", "+2%"), "not in the database"),
        (("--policy", "dwctl-8.63", "--max-cost", "1"), "not in this run, which has dwctl-10.13"),
    ],
)
def test_mistakes_are_named(runs: Cli, options: tuple[str, ...], message: str) -> None:
    result = runs("gate", *options)
    assert result.code == 2
    assert message in result.err


def test_two_policies_of_one_run(runs: Cli, tokenizer: Path) -> None:
    both = ("--policy", "dwctl-8.63", "--policy", "dwctl-10.13")
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", *both)
    options = ("--run", "latest", "--baseline", "latest", "--policy", "dwctl-10.13", "--baseline-policy", "dwctl-8.63")
    assert runs("gate", *options, "--max-cost", "+0.61%").code == 0
    assert runs("gate", *options, "--max-cost", "+0.6%").code == 1


def test_a_baseline_of_several_policies_gives_the_one_of_the_run(runs: Cli, tokenizer: Path) -> None:
    """Run 3 holds 8.63, then 10.13: run 2 is held against its 10.13, also 144.775; another policy has to be chosen."""
    both = ("--policy", "dwctl-8.63", "--policy", "dwctl-10.13")
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", *both)
    (row,) = rows_of(runs("gate", "--run", "2", "--baseline", "3", "--max-cost", "+0%", "--format", "json"))
    assert (row["measured"], row["baseline"]) == ("144.775", "144.775")
    other = ("--set", "walk_back=3")
    runs("replay", "log.jsonl", "--tokenizer", tokenizer, "--tariff", "prices.toml", *other)
    result = runs("gate", "--run", "latest", "--baseline", "3", "--max-cost", "+0%")
    assert result.code == 2
    assert "choose with --baseline-policy" in result.err


def test_the_verdict_stands_when_the_reader_has_gone(runs: Cli, tmp_path: Path) -> None:
    for limit, code in (("144.775", 0), ("144.77", 1)):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "wb") as gone:
            command = [sys.executable, "-m", "cachesim", "gate", "--run", "2", "--max-cost", limit]
            root = Path(__file__).parents[2]
            done = subprocess.run(
                command, stdout=gone, stderr=subprocess.PIPE, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}
            )
        assert done.returncode == code, done.stderr


def test_what_fails_does_not_look_like_its_limit(runs: Cli) -> None:
    """32 of 138 tokens are read, 23.188 %; charged is 144.775."""
    close = runs("gate", "--min-token-hit-rate", "23.19%", "--max-cost", "144.774999999999").out
    assert "23.188 %" in close
    assert "≥ 23.190 %" in close
    assert "144.775000000000" in close
    assert "≤ 144.774999999999" in close
