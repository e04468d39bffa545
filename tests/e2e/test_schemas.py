"""The published JSON Schemas say exactly what every command answers, and stay true for whoever relies on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import write_schemas as tool
from e2e_support import Cli, body, lines, text, usage, words
from jsonschema import Draft202012Validator

from cachesim.cli.lazy import COMMANDS, load

ROOT = Path(__file__).parents[2]
ASKED = {
    "replay": ["log.jsonl", "--policy", "dwctl-8.63", "--policy", "dwctl-10.13"],
    "report": ["--by-request"],
    "report of drift": ["--drift"],
    "report of moved counts": ["--sensitivity"],
    "report of groups": ["--by", "model,tag:app,day,hour,session,tier,outcome,reason,log_format,principal", "--bounds"],
    "compare": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13"],
    "compare of groups": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by", "model,tag:app"],
    "compare of classes": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by", "class"],
    "compare of requests": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--requests"],
    "compare of rules": ["--policy", "dwctl-8.63", "--policy", "dwctl-10.13", "--by-rule"],
    "index": [],
    "index of groups": ["--by", "model,principal,ttl_tier"],
    "index of entries": ["--at", "2026-03-02T10:05:00Z"],
    "losers": ["--all"],
    "gate": ["--max-cost", "100", "--max-uncached", "100%"],
    "gate with a baseline": ["--max-cost", "+5%", "--baseline", "1", "--policy", "dwctl-10.13",
                             "--baseline-policy", "dwctl-8.63"],
    "check": ["log.jsonl"],
    "tune": ["--floor", "5,10,20", "--ttl", "5m,1h", "--walk-back", "1,20"],
    "report of a sweep": ["--by", "model,part"],
    "runs": [],
    "runs show": [],
    "policies": [],
    "conformance": [ROOT / "fixtures" / "golden" / "pricing.jsonl.gz"],
    "tariffs show": ["prices.toml", "--log", "log.jsonl"],
    "tariffs show of what holds": ["prices.toml", "--at", "2026-03-02"],
    "tariffs check": ["prices.toml", "other.toml", "--log", "log.jsonl"],
    "tariffs diff": ["prices.toml", "other.toml"],
}  # fmt: skip
"""Command lines, in order: later ones answer from what earlier ones stored."""


def write_log(folder: Path) -> None:
    """A conversation with each of two apps, a request that fails, a bad marker, one without markers, and a bad line."""

    def record(n: int, prompt: str, ttl: str | None, **more: Any) -> dict[str, Any]:
        messages = [
            ("system", text(words("s", 12), ttl)),
            *(("user", words(f"{prompt}{i}-", 6)) for i in range(n % 5 + 1)),
        ]
        return {
            "at": f"2026-03-02T10:{n:02}:00Z", "principal": "p", "session": prompt, "tags": {"app": prompt},
            "usage": usage(12 + 6 * (n % 5 + 1), 3), "body": body(*messages), **more,
        }  # fmt: skip

    records = [record(n, "ab"[n % 2], "5m") for n in range(20)]
    records += [record(20, "a", "5m", status=500), record(21, "b", "7m"), record(22, "a", None)]
    (folder / "log.jsonl").write_bytes(lines(records) + b"{\n")


def validator(command: str) -> Draft202012Validator:
    """Of the published file; closed: a key that it does not name is an error here."""
    (answer,) = [one for one in tool.ANSWERS if one.command == command]
    published = json.loads((tool.FOLDER / answer.file).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(published)
    return Draft202012Validator(tool.closed(published))


def test_every_answer_is_what_its_schema_says(cli: Cli, tokenizer: Path, tmp_path: Path) -> None:
    write_log(tmp_path)
    (tmp_path / "prices.toml").write_text(
        '[[cache_tariff]]\nmodel = "m"\nwrite_5m = "1.25"\nwrite_1h = "2"\nwrite_24h = "2.5"\nread = "0.1"\n'
        'min_prefix_tokens = 10\n[[base_tariff]]\nmodel = "m"\ninput_per_mtok = "3"\noutput_per_mtok = "15"\n'
    )
    (tmp_path / "other.toml").write_text('[[base_tariff]]\nmodel = "m"\ninput_per_mtok = "4"\noutput_per_mtok = "15"\n')
    for name, args in ASKED.items():
        command = name.partition(" of ")[0].partition(" with ")[0]
        setup = ["--tokenizer", tokenizer, "--tariff", "prices.toml"] if command == "replay" else []
        done = cli(*command.split(), *args, *setup, "--format", "json")
        # 3: a floor that cannot be recommended is an answer, too; 1: tariffs that differ or are not as they should be
        assert done.code in ((1,) if command in ("tariffs check", "tariffs diff") else (0, 3)), done.err
        answer = json.loads(done.out)
        assert answer["command"] == command
        assert answer["rows"], name
        errors = [f"{error.json_path}: {error.message[:300]}" for error in validator(command).iter_errors(answer)]
        assert errors == [], name


def test_every_command_that_answers_programs_has_a_schema() -> None:
    """One that fails here needs an entry in ANSWERS of tools/write_schemas.py, and a line in ASKED above."""
    answering = set()
    for entry in COMMANDS:
        command = load(entry.name)
        for name, one in {entry.name: command, **getattr(command, "commands", {})}.items():
            if any(parameter.name == "form" for parameter in one.params):
                answering.add(entry.name if name == entry.name else f"{entry.name} {name}")
    assert answering == {answer.command for answer in tool.ANSWERS}
    assert answering <= set(ASKED)


@pytest.mark.parametrize("answer", tool.ANSWERS, ids=lambda answer: answer.command)
def test_every_column_says_what_it_is(answer: tool.Answer) -> None:
    assert [n for form in tool.schema(answer)["properties"]["rows"]["items"].get("anyOf", [])
            for n, column in form["properties"].items() if not column["description"]] == []  # fmt: skip


def test_the_published_schemas_are_current() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "tools/write_schemas.py"), "--check"], capture_output=True)
    assert done.returncode == 0, f"run tools/write_schemas.py: {done.stdout.decode()}"
    assert {path.name for path in tool.FOLDER.glob("*.v1.json")} == {answer.file for answer in tool.ANSWERS}


def gate_schema() -> dict[str, Any]:
    (answer,) = [one for one in tool.ANSWERS if one.command == "gate"]
    return json.loads(tool.text(answer))


def test_a_new_column_breaks_no_reader() -> None:
    new = gate_schema()
    row = new["properties"]["rows"]["items"]
    row["properties"]["another"] = tool.TEXT
    row["required"].append("another")
    assert list(tool.breaks(gate_schema(), new)) == []


def test_what_breaks_a_reader_is_named() -> None:
    new = gate_schema()
    row = new["properties"]["rows"]["items"]
    del row["properties"]["given"]
    row["required"].remove("detail")
    row["properties"]["unit"]["type"].append("number")
    new["$defs"]["run"]["properties"]["variants"]["items"]["properties"]["kind"]["enum"].append("third")
    assert sorted(tool.breaks(gate_schema(), new)) == [
        "/rows/given: is gone",
        "/rows/unit: also number",
        "/rows: no longer sure: detail",
        "/run/variants/kind: also third",
    ]
