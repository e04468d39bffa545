"""`report --drift`: what chat template and tools add to the text of the blocks, for exact and for estimated counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, usage, words

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


def request(number: int, prompt: int | None, messages: int, model: str = "m", tools: bool = False) -> dict[str, Any]:
    """`messages` messages of ten words each; prompt: the reported prompt tokens."""
    sent = body(*[("user", words(f"n{number}m{i}x", 10)) for i in range(messages)], model=model)
    if tools:
        sent["tools"] = TOOLS
    record = {"at": 1_770_000_000 + number, "id": f"r{number}", "principal": "p", "body": sent}
    return record if prompt is None else {**record, "usage": usage(prompt, 1)}


def test_exact_counts_show_the_template_per_message_and_tools_apart(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    """Without tools: 2 requests, 2 + 4 messages, 20 + 40 words; reported 28 + 56: 24 uncounted, 4 a message."""
    records = [
        request(0, 28, 2),
        request(1, 56, 4),
        request(2, 90, 3, tools=True),
        request(3, None, 5),  # reports nothing
        {**request(4, 99, 5), "status": 500},  # failed
        {**request(5, 99, 5), "body": "not JSON"},  # not counted
    ]
    (tmp_path / "log.jsonl").write_bytes(lines(records))
    cli("replay", "log.jsonl", "-q", "--tokenizer", tokenizer)
    plain, tooled = cli("report", "--drift", "--format", "json").rows()
    del plain["run"]
    assert plain == {
        "model": "m", "with_tools": False, "counted": "exact", "requests": 2, "messages": 6, "local_tokens": 60,
        "reported_prompt_tokens": 84, "drift": -0.285714, "uncounted_tokens": 24, "uncounted_per_request": 12.0,
        "uncounted_per_message": 4.0, "off_median": 0.285714, "off_p95": 0.285714,
    }  # fmt: skip
    assert (tooled["with_tools"], tooled["requests"], tooled["messages"]) == (True, 1, 3)
    assert tooled["local_tokens"] + tooled["uncounted_tokens"] == tooled["reported_prompt_tokens"] == 90
    shown = cli("report", "--drift").out
    assert shown.startswith("3 requests were counted here and by the provider.")
    assert "+24" in shown


def test_estimates_show_what_is_left_after_calibration_and_without(cli: Cli, tmp_path: Path) -> None:
    """Every request is alike, so the factor hits it to the half token of rounding."""
    (tmp_path / "log.jsonl").write_bytes(lines(request(n % 10, 300, 2) | {"id": f"i{n}"} for n in range(20)))
    cli("replay", "log.jsonl", "-q", "--no-calibration")
    [raw] = cli("report", "--drift", "--format", "json").rows()
    cli("replay", "log.jsonl", "-q")
    [row] = cli("report", "--drift", "--format", "json").rows()
    assert raw["counted"] == "estimated"
    assert raw["uncounted_per_request"] > 100
    factor = round(6_000 / raw["local_tokens"], 4)  # 20 × 300 reported
    assert row["counted"] == f"estimated × {factor:.4f}"
    assert abs(row["uncounted_per_request"]) <= 1


def test_filters_groups_and_nothing_to_report(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, 28, 2, "m"), request(1, 280, 2, "n")]))
    cli("replay", "log.jsonl", "-q", "--tokenizer", tokenizer)
    rows = cli("report", "--drift", "--format", "json").rows()
    assert [row["model"] for row in rows] == ["n", "m"]  # most tokens first
    assert [row["model"] for row in cli("report", "--drift", "--model", "m", "--format", "json").rows()] == ["m"]
    assert cli("report", "--drift", "--until", "2020-01-01").out.startswith("No drift to report")
    refused = cli("report", "--drift", "--by", "model")
    assert (refused.code, refused.out) == (2, "")
    assert "--drift" in refused.err


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_its_width(
    cli: Cli, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    (tmp_path / "log.jsonl").write_bytes(lines([request(0, 28_000_000, 2, "a-model-with-a-long-name")]))
    cli("replay", "log.jsonl", "-q", "--tokenizer", tokenizer)
    monkeypatch.setenv("COLUMNS", str(width))
    out = cli("report", "--drift").out
    assert max(map(len, out.splitlines())) <= width
    assert "28,000,000" in out
