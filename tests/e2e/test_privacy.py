"""Neither a key nor a word of a prompt leaves the log: not on screen, not to the database, not to the quarantine."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Cli, body, lines, text, usage, words
from worked_log import at

KEY = "sk-live-Zq7Xw3Vb9Kt5"
SECRET = "xylophone-quarantine-marmalade"
OUTPUTS = ("table", "json", "csv", "md")


def secret_log() -> bytes:
    """Keys and a secret in every place that a log has for them, in good requests, bad bodies and bad lines."""
    prompt = body(("system", text(f"{SECRET} " + words("s", 1100), "5m")), ("user", SECRET))
    prompt["tools"] = [{"type": "function", "function": {"name": SECRET, "parameters": {SECRET: SECRET}}}]
    prompt["metadata"] = {SECRET: SECRET}

    def ask(second: int, **fields: Any) -> dict[str, Any]:
        return {"at": at(f"10:00:{second:02}"), "api_key": KEY, "body": prompt, "usage": usage(1200, 1), **fields}

    records = [
        ask(1),
        ask(2, api_key=f"Bearer {KEY}"),
        ask(3, body=json.dumps(prompt)[:-5]),
        ask(4, body=None, body_b64=base64.b64encode(json.dumps(prompt).encode()).decode()),
        ask(5, body=body(("user", [{**text(SECRET)[0], "cache_control": {"type": SECRET}}]))),
        ask(6, body=body(("user", [{**text(SECRET)[0], "cache_control": {"type": "ephemeral", "ttl": SECRET}}]))),
        ask(7, uri=f"/v1/messages?key={KEY}", body={"model": "m", "messages": [{"role": SECRET, "content": SECRET}]}),
        ask(8, uri=f"/v1/chat/completions?cacheBreakpoint={SECRET}&api_key={KEY}"),
        ask(9, usage={SECRET: SECRET, "prompt_tokens": 5}),
        ask(10, headers={"authorization": f"Bearer {KEY}"}, response={"content": SECRET}),
        ask(11, purpose=7),
        ask(12, cost=SECRET),
        ask(13, duration_ms=SECRET),
        ask(14, at=SECRET),
        ask(15, api_key=[KEY]),
        ask(16, status=SECRET),
        ask(17, batch_created_at=SECRET),
        {"at": at("10:00:18"), "principal": "p", "body": SECRET},
    ]
    broken = f'{{"at": "{SECRET}", "api_key": "{KEY}", {SECRET}\n["{KEY}", "{SECRET}"]\n"{KEY} {SECRET}"\n'
    return lines(records) + broken.encode() + f'{{"api_key": "{KEY}", "body": "{SECRET}'.encode()


@pytest.fixture
def safe(cli: Cli, tmp_path: Path) -> Cli:
    """A command line that fails as soon as a command says a secret."""
    (tmp_path / "log.jsonl").write_bytes(secret_log())

    def call(*args: object, stdin: bytes | None = None) -> Any:
        result = cli(*args, stdin=stdin)
        for word in (KEY, SECRET, KEY[3:], "marmalade"):
            assert word not in result.out + result.err, args
        return result

    return call


def hides(path: Path) -> None:
    content = path.read_bytes()
    for word in (KEY, SECRET, "marmalade"):
        for form in (word.encode(), base64.b64encode(word.encode()).rstrip(b"=")[:-1], word.encode("utf-16-le")):
            assert form not in content, path


def test_no_command_says_a_secret_and_no_file_holds_one(safe: Cli, tmp_path: Path) -> None:
    for extra in ((), ("--markers", "automatic", "--policy", "dwctl-8.63")):
        assert safe("replay", "log.jsonl", *extra).code == 0
    assert safe("replay", "log.jsonl", "--db", "other.duckdb", "--bad-lines", "bad.jsonl").code == 0
    for form in OUTPUTS:
        for group in ("principal,reason,tier,tag:app", "request"):
            assert safe("report", "--by", group, "--format", form, "--bounds").code == 0
        assert safe("runs", "--format", form).code == 0
        assert safe("runs", "show", "--format", form).code == 0
    assert safe("report", "--by", "request", "--format", "parquet", "-o", "rows.parquet").code == 0
    for args in (("check", "log.jsonl"), ("check", "log.jsonl", "--format", "json")):
        assert safe(*args).code == 0
    assert safe("replay", "log.jsonl", "--strict").code == 65
    assert safe("check", "log.jsonl", "--strict").code == 65
    assert safe("replay", "log.jsonl", "--log-format", "anthropic").code in (0, 2, 65)
    for name in ("cachesim.duckdb", "other.duckdb", "bad.jsonl", "rows.parquet"):
        hides(tmp_path / name)
    assert (tmp_path / "bad.jsonl").read_bytes().count(b"\n") == 11  # seven bad fields, three lines, the cut end


def test_the_key_stands_there_as_its_digest(safe: Cli) -> None:
    safe("replay", "log.jsonl")
    rows = safe("report", "--by", "principal", "--format", "json").rows()
    assert {row["principal"] for row in rows} == {"sha256:" + hashlib.sha256(KEY.encode()).hexdigest(), "p"}


def test_a_digest_can_be_given_a_name(safe: Cli, tmp_path: Path) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (tmp_path / "names.toml").write_text(f'strict_principals = true\n[principals]\n"sha256:{digest}" = "acme"\n')
    safe("replay", "log.jsonl", "--config", "names.toml")
    rows = safe("report", "--by", "principal", "--format", "json").rows()
    assert {row["principal"] for row in rows} == {"acme", "p"}


def test_raw_lines_are_written_only_when_asked_for(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(secret_log())
    result = cli("replay", "log.jsonl", "--bad-lines", "raw.jsonl", "--bad-lines-raw")
    assert SECRET not in result.out + result.err
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_bytes().splitlines()]
    raw = secret_log().splitlines()
    assert [row["raw"] for row in rows] == [raw[row["line"] - 1].decode() for row in rows]
    assert all(hashlib.sha256(row["raw"].encode()).hexdigest() == row["digest"] for row in rows)


def test_a_bug_does_not_quote_the_data(safe: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"{KEY} {SECRET}")

    monkeypatch.setattr("cachesim.pipeline.find_formats", fail)
    with pytest.raises(AssertionError, match="this is a bug in cachesim: ValueError"):
        safe("replay", "log.jsonl", "--db", "bug.duckdb")


def test_unknown_json_is_refused_without_quoting_it(safe: Cli, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(json.dumps({SECRET: KEY}) + "\n")
    assert safe("replay", "other.json").code == 2
    (tmp_path / "other.jsonl").write_text(f'{{"request": "{SECRET}", "response": "{KEY}"}}\n' * 3)
    assert safe("replay", "other.jsonl").code in (2, 65)
    (tmp_path / "prices.toml").write_text(
        f'[[base_tariff]]\nmodel = "m"\ninput_per_mtok = "1"\n[principals]\n"{KEY}" = "x"\n'
    )
    assert safe("replay", "log.jsonl", "--config", "prices.toml").code == 78
