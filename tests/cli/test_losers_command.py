from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import run

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "fixtures/words-tokenizer.json"
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


def record(minute: int, principal: str, text: str, app: str | None = None) -> str:
    part = {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    return json.dumps(
        {
            "at": 1_772_355_600 + 60 * minute, "principal": principal, "tags": {"app": app} if app else {},
            "usage": {"prompt_tokens": 200, "completion_tokens": 0},
            "body": {"model": "m", "messages": [{"role": "system", "content": [part]}]},
        }
    )  # fmt: skip


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """acme reads what it wrote; beta writes 100 tokens an hour that are gone before it comes again."""
    monkeypatch.chdir(tmp_path)
    text, other = " ".join(["rule"] * 100), " ".join(["other"] * 100)
    lines = [record(0, "acme", text, "chat"), record(1, "acme", text, "chat")]
    lines += [record(minute, "beta", other, "batch") for minute in (0, 60, 120)]
    Path("log.jsonl").write_text("\n".join(lines) + "\n")
    Path("tariff.toml").write_text(TARIFF)
    return tmp_path


def replay(capsys: pytest.CaptureFixture[str], *more: str) -> None:
    code, _, err = run(capsys, "replay", "log.jsonl", "--tariff", "tariff.toml", "--tokenizer", str(WORDS), *more)
    assert code == 0, err


def test_who_writes_without_reading_is_named_with_what_it_pays(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    replay(capsys)
    code, out, err = run(capsys, "losers")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "1 of 2 principals, 1 of 2 apps and 1 of 2 system prompts pay more with caching than without."
    # beta writes 3 × 100 tokens at 0.25 above list; the first two were replaced unread, the last one lives on
    assert lines[1] == (
        "dead writes: 2 were never read, 50.0 % of the tokens written, 0.0500 above list;"
        " 1 still live when the log ends"
    )
    assert "principal: 1 of 2 pays 0.0750 more" in lines
    beta = next(line.split() for line in lines if line.startswith("beta"))
    assert beta[1:] == [
        "3",
        "0",
        "300",
        "0.0",
        "%",
        "0.600",
        "0.675",
        "+0.075",
        "+12.5",
        "%",
        "0.075",
        "0.000",
        "2",
        "0.050",
    ]
    assert "acme" not in out


def test_programs_get_every_cohort_exactly(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(capsys)
    code, out, _ = run(capsys, "losers", "--by", "principal,tag:app", "--all", "--format", "json")
    assert code == 0
    made = json.loads(out)
    assert (made["command"], made["by"]) == ("losers", ["principal", "tag:app"])
    assert [(row["dimension"], row["cohort"], row["delta"], row["dead_writes"]) for row in made["rows"]] == [
        ("principal", "beta", "0.075", 2), ("principal", "acme", "-0.065", 0),
        ("tag:app", "batch", "0.075", 2), ("tag:app", "chat", "-0.065", 0),
    ]  # fmt: skip
    # acme: 100 created at +0.00025, 100 read at −0.0009
    assert made["rows"][1]["write_premium"] == "0.025"
    assert made["rows"][1]["read_saving"] == "0.09"


def test_lists_by_name_and_by_time_share_a_table(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import polars as pl

    replay(capsys)
    options = ("--by", "principal,day", "--all", "--format", "parquet", "--output", "losers.parquet")
    assert run(capsys, "losers", *options)[::2] == (0, "")
    frame = pl.read_parquet("losers.parquet")
    assert frame["cohort"].to_list() == ["beta", "acme", "2026-03-01"]


def test_a_continued_run_follows_its_writes_as_long_as_the_other_is_known(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replay(capsys)
    # beta reads at minute 121 what it wrote at 120, writes 2 tokens, and is back when they are gone
    other = " ".join(["other"] * 100)
    more = [record(121, "beta", other), record(122, "beta", "something else"), record(180, "beta", "good bye")]
    Path("more.jsonl").write_text("\n".join(more) + "\n")
    options = ["--tariff", "tariff.toml", "--tokenizer", str(WORDS), "--continue", "latest"]
    assert run(capsys, "replay", "more.jsonl", *options)[0] == 0
    code, out, _ = run(capsys, "losers")
    assert code == 0
    assert "dead writes: 1 were never read, 50.0 % of the tokens written" in out
    assert run(capsys, "runs", "delete", "1", "--yes")[0] == 0
    code, out, _ = run(capsys, "losers")
    assert code == 0
    assert "dead writes: not counted, this run continued the index of another that is gone" in out
    code, out, err = run(capsys, "index")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "is not in the database any more; replay both logs again" in err


def test_without_a_single_price_there_is_no_answer(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "replay", "log.jsonl", "--tokenizer", str(WORDS))[0] == 0
    code, out, err = run(capsys, "losers")
    assert (code, out) == (3, "")
    assert "5 requests have no price" in err


def test_unknown_bills_are_not_nobody(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """acme and beta also send what has no price: of the apps only `chat` is without it."""
    unpriced = [record(5, name, "other words").replace('"m"', '"unpriced"') for name in ("acme", "beta")]
    saving = Path("log.jsonl").read_text().splitlines()[:2]
    Path("log.jsonl").write_text("\n".join([*saving, *unpriced]) + "\n")
    replay(capsys)
    code, out, err = run(capsys, "losers")
    assert (code, out) == (3, "")
    assert "2 requests have no price, and none of 2 principals has a known bill" in err
    code, out, _ = run(capsys, "losers", "--by", "tag:app")
    assert (code, out.splitlines()[0]) == (
        0,
        "Nobody whose bill is known pays more with caching than without; unknown: 1 of 2 apps.",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--by", "principel"], "did you mean principal"),
        (["--policy", "off"], "a bound has no bill"),
        (["--policy", "nope"], "not in this run"),
        (["--run", "99"], "not in the database"),
    ],
)
def test_what_does_not_exist_is_a_usage_error(
    log: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    replay(capsys)
    code, out, err = run(capsys, "losers", *options)
    assert (code, out) == (2, "")
    assert words in err


def test_a_file_holds_what_the_screen_would_show(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay(capsys)
    screen = run(capsys, "losers")[1]
    assert run(capsys, "losers", "--output", "losers.txt")[1] == ""
    assert Path("losers.txt").read_text() == screen
