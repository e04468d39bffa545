"""Estimates are scaled to what the log reports, exact counts never; what was decided is said, kept and passed on."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, Connect, body, lines, usage, words

from cachesim.core.calibration import scaled

TEXT = "The quick brown fox jumps over the lazy dog near the river bank today. "


def request(number: int, prompt: int | None, model: str = "m", size: int = 4) -> dict[str, Any]:
    """One request of `size` sentences, a minute after the one before; prompt: the reported prompt tokens."""
    sent = body(("system", "Be brief."), ("user", TEXT * size + words(f"n{number}x", 3)), model=model)
    sent["cache_control"] = {"type": "ephemeral"}
    record: dict[str, Any] = {
        "at": 1_770_000_000 + 60 * number,
        "id": f"{model}{number}",
        "principal": "p",
        "body": sent,
    }
    return record if prompt is None else {**record, "usage": usage(prompt, 1)}


def local(cli: Cli, *options: object) -> dict[str, int]:
    """What the latest run says of each request's local tokens."""
    rows = cli("report", "--by", "request", "--format", "json", "--policy", "dwctl-10.13", *options).rows()
    return {row["request"]: row["local_tokens"] for row in rows}


def calibrations(cli: Cli) -> list[dict[str, Any]]:
    tokenizers = cli("runs", "show", "latest", "--format", "json").json()["runs"][0]["tokenizers"]
    return [t["calibration"] for t in tokenizers if t["calibration"]]


def assumed(cli: Cli, code: str) -> list[str]:
    found = cli("runs", "show", "latest", "--format", "json").json()["assumptions"]
    return [a["text"] for a in found if a["code"] == code]


def test_the_factor_follows_from_the_counts_and_scales_every_estimate(cli: Cli, tmp_path: Path) -> None:
    sizes = [4, 9, 6, 20, 5] * 4
    (tmp_path / "raw.jsonl").write_bytes(lines(request(n, None, size=size) for n, size in enumerate(sizes)))
    assert cli("replay", "raw.jsonl", "-q").code == 0
    counted = [local(cli)[f"m{n}"] for n in range(20)]
    assert assumed(cli, "calibrated") == []
    reported = [round(count * 1.2) + 10 for count in counted]
    records = [request(n, reported[n], size=size) for n, size in enumerate(sizes)]
    records.append(request(20, None, size=8))  # nobody reports its tokens
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    assert cli("replay", "log.jsonl", "-q", "--no-calibration").code == 0
    unknown = local(cli)["m20"]
    cli("replay", "log.jsonl", "-q")
    exact = Fraction(sum(reported[::2]), sum(counted[::2]))  # the 1st, 3rd, … request
    factor_e4 = round(exact * 10_000)
    off = sorted(Fraction(abs(scaled(c, factor_e4) - r), r) for c, r in zip(counted[1::2], reported[1::2], strict=True))
    [made] = calibrations(cli)
    assert made == {
        "model": "m", "factor": f"{factor_e4 / 10_000:.4f}", "origin": "fitted", "fitted_requests": 10,
        "checked_requests": 10, "residual_median": round(float(off[4]), 6), "residual_p95": round(float(off[9]), 6),
    }  # fmt: skip
    found = local(cli)
    assert [found[f"m{n}"] for n in range(20)] == [scaled(count, factor_e4) for count in counted]
    rows = cli("report", "--by", "request", "--format", "json").rows()
    [last] = [row for row in rows if row["request"] == "m20"]
    assert last["prompt_tokens"] == last["local_tokens"] == scaled(unknown, factor_e4)
    assert last["prompt_estimated"] is True
    [said] = assumed(cli, "calibrated")
    assert said.startswith(f"estimates × {made['factor']} for m, fitted to 10 requests; 10 others off by ")


def test_no_calibration_gives_the_counts_of_a_log_that_reports_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "raw.jsonl").write_bytes(lines(request(n, None) for n in range(20)))
    (tmp_path / "log.jsonl").write_bytes(lines(request(n, 200) for n in range(20)))
    cli("replay", "raw.jsonl", "-q")
    raw = local(cli)
    cli("replay", "log.jsonl", "-q")
    assert local(cli) != raw
    cli("replay", "log.jsonl", "-q", "--no-calibration")
    assert local(cli) == raw
    assert assumed(cli, "not_calibrated") == ["estimates not calibrated: m; as asked"]


def test_a_given_tokenizer_is_never_scaled(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(request(n, 200) for n in range(40)))
    cli("replay", "log.jsonl", "-q", "--tokenizer", tokenizer)
    assert set(local(cli).values()) == {4 * 14 + 2 + 3}  # sentences of 14 words, "Be brief.", three words
    assert (calibrations(cli), assumed(cli, "not_calibrated")) == ([], [])


def test_what_is_not_calibrated_says_why(cli: Cli, tmp_path: Path) -> None:
    few = [request(n, 100, "few") for n in range(19)]
    images = [request(n, 100_000, "images") for n in range(20)]
    (tmp_path / "log.jsonl").write_bytes(lines([*few, *images]))
    cli("replay", "log.jsonl", "-q")
    first, second = assumed(cli, "not_calibrated")
    assert first == "estimates not calibrated: few (19); 20 requests with reported prompt tokens are needed"
    assert second.startswith("estimates not calibrated: images (factor ")
    assert calibrations(cli) == []


def test_the_configuration_decides_before_the_log(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cachesim.toml").write_text('[models."a*"]\ncalibration = "1.5"\n[models.b]\ncalibration = "off"\n')
    (tmp_path / "log.jsonl").write_bytes(
        lines(request(n, 100, model) for n in range(20) for model in ("a1", "a2", "b"))
    )
    cli("replay", "log.jsonl", "-q")
    assert [(c["model"], c["factor"], c["origin"], c["fitted_requests"]) for c in calibrations(cli)] == [
        ("a1", "1.5000", "configured", 0), ("a2", "1.5000", "configured", 0),
    ]  # fmt: skip
    cli("replay", "log.jsonl", "-q", "--no-calibration")
    assert calibrations(cli) == []


@pytest.mark.parametrize(
    "entry", ['calibration = "4"', 'calibration = "x"', 'tokenizer = "a.json"\ncalibration = "1.1"']
)
def test_a_wrong_calibration_is_refused_with_file_and_line(cli: Cli, tmp_path: Path, entry: str) -> None:
    (tmp_path / "cachesim.toml").write_text(f"[models.m]\n{entry}\n")
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, 100)]))
    done = cli("replay", "log.jsonl", "-q")
    assert done.code == 78
    assert f"cachesim.toml:{entry.count(chr(10)) + 2}: calibration" in done.err


def test_a_continued_run_keeps_the_factors_so_that_it_finds_the_index(cli: Cli, tmp_path: Path) -> None:
    """The next day reports other counts, and one model nothing at all; both keep yesterday's factor."""
    big = {"size": 200}
    day = [request(n, 4000 if m == "m" else 3500, m, **big) for n in range(20) for m in ("m", "n")]
    # both send the last prompt of the day again, within its five minutes
    next_day = [
        {**request(19, 9000 if m == "m" else None, m, **big), "at": 1_770_000_000 + 60 * 20} for m in ("m", "n")
    ]
    (tmp_path / "day.jsonl").write_bytes(lines(day))
    (tmp_path / "next.jsonl").write_bytes(lines(next_day))
    cli("replay", "day.jsonl", "-q")
    yesterday = {c["model"]: c["factor"] for c in calibrations(cli)}
    assert len(yesterday) == 2
    cli("replay", "next.jsonl", "-q", "--continue", "latest")
    assert {c["model"]: (c["factor"], c["origin"]) for c in calibrations(cli)} == {
        model: (factor, "inherited") for model, factor in yesterday.items()
    }
    rows = cli("report", "--by", "request", "--format", "json", "--policy", "dwctl-10.13").rows()
    assert [row["outcome"] for row in rows] == ["read", "read"]
    refused = cli("replay", "next.jsonl", "-q", "--continue", "1", "--no-calibration")
    assert refused.code == 2
    assert "would find nothing" in refused.err
    # a third run inherits through one in which a model does not occur
    (tmp_path / "only_m.jsonl").write_bytes(lines(next_day[:1]))
    (tmp_path / "only_n.jsonl").write_bytes(lines(next_day[1:]))
    cli("replay", "only_m.jsonl", "-q", "--continue", "1")
    cli("replay", "only_n.jsonl", "-q", "--continue", "latest")
    assert [(c["model"], c["factor"], c["origin"]) for c in calibrations(cli)] == [("n", yesterday["n"], "inherited")]
    assert [row["outcome"] for row in cli("report", "--by", "request", "--format", "json").rows()] == ["read"]


def test_a_continued_run_refuses_another_configured_factor(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(request(n, 100) for n in range(3)))
    (tmp_path / "cachesim.toml").write_text('[models.m]\ncalibration = "1.5"\n')
    cli("replay", "log.jsonl", "-q")
    for other, code in (("1.2", 2), ("off", 2), ("1.50", 0)):
        (tmp_path / "cachesim.toml").write_text(f'[models.m]\ncalibration = "{other}"\n')
        done = cli("replay", "log.jsonl", "-q", "--continue", "1")
        assert (done.code, "would find nothing" in done.err) == (code, code == 2)


def test_a_model_that_had_no_factor_stays_without_one_when_continued_and_nobody_asked_for_that(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "few.jsonl").write_bytes(lines(request(n, 100) for n in range(3)))
    (tmp_path / "many.jsonl").write_bytes(lines(request(n, 100) for n in range(3, 40)))
    cli("replay", "few.jsonl", "-q")
    cli("replay", "many.jsonl", "-q", "--continue", "latest")
    assert assumed(cli, "not_calibrated") == ["estimates not calibrated: m; as in the run that is continued"]


def test_equal_factors_of_two_models_stay_apart_when_continued(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cachesim.toml").write_text('[models."*"]\ncalibration = "1.1"\n')
    day = [request(n, None, m, size=200) for n in range(2) for m in ("m", "n")]
    (tmp_path / "day.jsonl").write_bytes(lines(day))
    (tmp_path / "next.jsonl").write_bytes(lines({**record, "at": 1_770_000_120} for record in day[2:]))
    cli("replay", "day.jsonl", "-q")
    cli("replay", "next.jsonl", "-q", "--continue", "latest")
    assert [row["outcome"] for row in cli("report", "--by", "request", "--format", "json").rows()] == ["read", "read"]


def test_rules_that_read_the_log_again_keep_the_factors(cli: Cli, tmp_path: Path, con: Connect) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(request(n, 90 + n) for n in range(25)))
    cli("replay", "log.jsonl", "-q")
    before = calibrations(cli)
    assert cli("compare", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by-rule", "-q").code == 0
    stored = con().execute("SELECT DISTINCT version FROM trace_tokenizers WHERE model = 'm'").fetchall()
    assert con().execute("SELECT count(*) FROM traces").fetchone() == (2,)
    assert [version.partition("*")[2] for (version,) in stored] == [before[0]["factor"]]


def test_same_log_same_bytes_in_another_database(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines(request(n, 90 + 7 * n % 50) for n in range(45)))
    outputs = [cli("replay", "log.jsonl", "-q", "--format", "json", "--db", f"{name}.duckdb").out for name in "ab"]
    assert outputs[0] == outputs[1]
    assert cli("replay", "log.jsonl", "-q", "--format", "json", "--db", "a.duckdb").out == outputs[0]  # not read again
    assert len(json.loads(outputs[0])["runs"][0]["tokenizers"]) == 2


def test_a_calibrated_split_never_exceeds_the_reported_prompt(cli: Cli, tmp_path: Path) -> None:
    """Half of the estimates are above what is reported; upstream's rules for drift leave them alone."""
    records = [request(n, (4000, 3600)[n % 4 // 2], size=200) for n in range(40)]
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    cli("replay", "log.jsonl", "-q", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13")
    rows = cli("report", "--by", "request", "--format", "json").rows()
    over = [row for row in rows if row["local_tokens"] > row["prompt_tokens"] and row["outcome"] == "create"]
    assert over
    for row in rows:
        assert row["bill_state"] == "ok"
        billed = [row[f"billed_{name}"] for name in ("read_tokens", "creation_5m_tokens", "uncached_tokens")]
        assert sum(billed) == row["prompt_tokens"]
    for row in over:
        assert row["billed_creation_5m_tokens"] == row["prompt_tokens"] < row["creation_5m_tokens"]
