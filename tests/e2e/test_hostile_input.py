"""Input that is wrong in every way we know: one line on stderr, the right exit code, the rest still counted."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
from e2e_support import Cli, Result, body, lines, text, usage, words
from worked_log import LOG, SYSTEM, TARIFF, at

GOOD = {"id": "good", "at": at("10:00:00"), "principal": "p", "body": body(SYSTEM), "usage": usage(10, 1)}
FIRST, LAST = lines([{**GOOD, "id": "first"}]), lines([{**GOOD, "id": "last", "at": at("10:01:00")}])


def no_debris(folder: Path) -> None:
    """Nothing half-written lies around."""
    assert not [p.name for p in folder.rglob("*") if p.name.endswith((".part", ".wal", ".tmp"))]


def assert_one_line(result: Result, code: int, *parts: str) -> None:
    assert result.code == code, result.err
    assert result.out == ""
    assert result.err.startswith("cachesim: ")
    assert result.err.count("\n") == 1, result.err
    for part in parts:
        assert part in result.err


# -- nothing to use


NOTHING: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "nothing in it"),
    "blank": (b"\n \n\t\r\n", "nothing in it"),
    "binary": (bytes(range(256)) * 40, "binary"),
    "zip": (b"PK\x03\x04" + bytes(100), "binary"),
    "utf16": (FIRST.decode().encode("utf-16"), "utf16"),
    "prose": (b"hello\nworld\n", "not_json"),
    "much-prose": (b"hello world\n" * 5000, "not_json"),
    "truncated": (FIRST[:-20], "truncated"),
    "half-gzip": (gzip.compress(FIRST)[:-12], "corrupt_compression"),
    "no-gzip": (b"\x1f\x8b\x08\x00 not really", ""),
    "no-zstd": (b"\x28\xb5\x2f\xfd not really", ""),
    "untimed": (lines([{k: v for k, v in GOOD.items() if k != "at"}]), "--start and --interval"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_usable_ends_with_65(cli: Cli, tmp_path: Path, name: str) -> None:
    content, words_ = NOTHING[name]
    (tmp_path / f"{name}.log").write_bytes(content)
    assert_one_line(cli("replay", f"{name}.log"), 65, f"{name}.log", words_)
    assert cli("check", f"{name}.log").code == 65
    assert cli("runs").code in (0, 2)  # the database opens, and holds no run
    no_debris(tmp_path)
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    assert cli("replay", "good.jsonl", "--quiet").code == 0


# -- one bad record among good ones


def with_fields(**fields: Any) -> bytes:
    return lines([{**GOOD, "id": "bad", **fields}])


def envelope(old: bytes, new: bytes) -> bytes:
    changed = lines([{**GOOD, "id": "bad"}]).replace(old, new, 1)
    assert new in changed
    return changed


BAD: dict[str, tuple[bytes, str]] = {
    "not json": (b'{"at": 1, "body"\n', "not_json"),
    "an array": (b"[1, 2]\n", "not_an_object"),
    "a string": (b'"text"\n', "not_an_object"),
    "utf-8 in the envelope": (envelope(b'"bad"', b'"b\xffd"'), "invalid_utf8"),
    "lone surrogate in the envelope": (envelope(b'"bad"', b'"b\\ud800d"'), "not_json"),
    "nan": (envelope(b'"completion_tokens": 1', b'"completion_tokens": NaN'), "not_json"),
    "no body": (lines([{k: v for k, v in GOOD.items() if k != "body"}]), "missing_body"),
    "no time": (lines([{k: v for k, v in GOOD.items() if k != "at"}]), "missing_time"),
    "body number": (with_fields(body=7), "bad_field:body"),
    "body list": (with_fields(body=[]), "bad_field:body"),
    "body null": (with_fields(body=None), "missing_body"),
    "body_b64": (with_fields(body_b64="!!!"), "bad_field:body_b64"),
    "body_b64 type": (with_fields(body_b64=1), "bad_field:body_b64"),
    "id": (with_fields(id=7), "bad_field:id"),
    "at text": (with_fields(at="yesterday"), "bad_field:at"),
    "at object": (with_fields(at={}), "bad_field:at"),
    "at bool": (with_fields(at=True), "bad_field:at"),
    "at huge": (with_fields(at=10**40), "bad_field:at"),
    "at negative": (with_fields(at=-(10**15)), "bad_field:at"),
    "at year 0": (with_fields(at="0000-01-01T00:00:00Z"), "bad_field:at"),
    "at month 13": (with_fields(at="2026-13-01T00:00:00Z"), "bad_field:at"),
    "duration text": (with_fields(duration_ms="5"), "bad_field:duration_ms"),
    "duration negative": (with_fields(duration_ms=-1), "bad_field:duration_ms"),
    "duration huge": (with_fields(duration_ms=10**30), "bad_field:duration_ms"),
    "duration float": (with_fields(duration_ms=1e300), "bad_field:duration_ms"),
    "principal": (with_fields(principal=["p"]), "bad_field:principal"),
    "api_key": (with_fields(api_key=5), "bad_field:api_key"),
    "model": (with_fields(model={}), "bad_field:model"),
    "uri": (with_fields(uri=1), "bad_field:uri"),
    "status text": (with_fields(status="200"), "bad_field:status"),
    "status float": (with_fields(status=200.5), "bad_field:status"),
    "status huge": (with_fields(status=10**12), "bad_field:status"),
    "success": (with_fields(success="yes"), "bad_field:success"),
    "usage": (with_fields(usage=[]), "bad_field:usage"),
    "cost": (with_fields(cost="much"), "bad_field:cost"),
    "cost infinite": (with_fields(cost="Infinity"), "bad_field:cost"),
    "cost list": (with_fields(cost=[]), "bad_field:cost"),
    "purpose": (with_fields(purpose=1), "bad_field:purpose"),
    "window": (with_fields(completion_window=24), "bad_field:completion_window"),
    "batch time": (with_fields(batch_created_at="soon"), "bad_field:batch_created_at"),
    "session": (with_fields(session=1), "bad_field:session"),
    "tags": (with_fields(tags=["a"]), "bad_field:tags"),
    "tag value": (with_fields(tags={"a": 1}), "bad_field:tags"),
    "nested": (b'{"at":1,"usage":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}\n", ""),
}


def test_one_bad_record_costs_only_itself(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    """Every bad record between two good ones, in one log: each is named with file, line and reason."""
    log = FIRST + b"".join(line for line, _ in BAD.values()) + LAST
    (tmp_path / "mixed.jsonl").write_bytes(log)
    result = cli("replay", "mixed.jsonl", "--tokenizer", tokenizer, "--bad-lines", "bad.jsonl", "--format", "json")
    report = result.json()
    quarantined = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    found = {row["line"]: row["reason"] for row in quarantined}
    for number, (name, (_, reason)) in enumerate(BAD.items(), 2):
        assert reason in found.get(number, "nothing"), name
    assert report["problems"]["bad_lines"] == len(BAD) == len(found)
    rows = cli("report", "--by", "request", "--format", "json").rows()
    assert [row["request"] for row in rows] == ["first", "last"]
    checked = cli("check", "mixed.jsonl")
    assert checked.code == 0
    assert "mixed.jsonl:2: not_json" in checked.out
    strict = cli("replay", "mixed.jsonl", "--strict", "--db", "strict.duckdb")
    assert_one_line(strict, 65, "mixed.jsonl", f"{len(BAD)} bad lines", "--strict")
    assert cli("check", "mixed.jsonl", "--strict").code == 65
    no_debris(tmp_path)


BODIES: dict[str, tuple[bytes, str]] = {  # the body as raw bytes -> reason of the request
    "utf-8": (b'{"model":"m","messages":[{"role":"user","content":"b\xffd"}]}', "unparseable"),
    "bom": (b'\xef\xbb\xbf{"model":"m"}', "unparseable"),
    "utf-16": ('{"model":"m"}'.encode("utf-16"), "unparseable"),
    "surrogate": (b'{"model":"m","a":"\\ud800"}', "unparseable"),
    "nan": (b'{"model":"m","temperature":NaN}', "unparseable"),
    "infinity": (b'{"model":"m","temperature":-Infinity}', "unparseable"),
    "overflow": (b'{"model":"m","temperature":1e400}', "unparseable"),
    "trailing": (b'{"model":"m"} x', "unparseable"),
    "cut": (b'{"model":"m","messages":[', "unparseable"),
    "empty": (b"", "unparseable"),
    "depth 128": (b'{"model":"m","a":' + b"[" * 127 + b"]" * 127 + b"}", "unparseable"),
    "depth 127": (b'{"model":"m","a":' + b"[" * 126 + b"]" * 126 + b"}", "no_markers"),
    "depth 100000": (b'{"model":"m","a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "unparseable"),
    "array": (b"[1]", "no_model"),
    "number": (b"7", "no_model"),
    "no model": (b'{"messages":[]}', "no_model"),
    "model number": (b'{"model":5,"messages":[]}', "no_model"),
    "messages object": (b'{"model":"m","messages":{}}', "no_markers"),
    "messages of nulls": (b'{"model":"m","messages":[null,1,"x",[]]}', "no_markers"),
    "content object": (b'{"model":"m","messages":[{"role":1,"content":{}}]}', "no_markers"),
    "parts of nulls": (b'{"model":"m","messages":[{"content":[null,1,"x",[],{"text":1}]}]}', "no_markers"),
    "tools text": (b'{"model":"m","tools":"all","messages":[{"role":"user","content":"x"}]}', "no_markers"),
    "huge integer": (b'{"model":"m","n":' + b"9" * 5000 + b"}", "unparseable"),
    "long integer": (b'{"model":"m","n":' + b"9" * 300 + b"}", "no_markers"),
    "U+2028": ('{"model":"m","messages":[{"role":"user","content":"a\u2028b"}]}'.encode(), "no_markers"),
    "NUL": (b'{"model":"m","messages":[{"role":"u\\u0000","content":"\\u0000"}]}', "no_markers"),
    "NUL in the model": (b'{"model":"m\\u0000","messages":[]}', "no_markers"),
}


def test_bad_bodies_are_requests_that_do_not_use_the_cache(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    import base64

    records = [
        {**GOOD, "id": name, "body": None, "body_b64": base64.b64encode(raw).decode()}
        for name, (raw, _) in BODIES.items()
    ]
    raw_utf8 = FIRST.replace(b'"content": [', b'"content": "\xff", "x": [').replace(b'"first"', b'"raw byte"')
    (tmp_path / "log.jsonl").write_bytes(FIRST + lines(records) + raw_utf8 + LAST)
    assert cli("replay", "log.jsonl", "--tokenizer", tokenizer).code == 0
    rows = {row["request"]: row for row in cli("report", "--by", "request", "--format", "json").rows()}
    reasons = {name: rows[name]["reason"] for name in BODIES}
    assert reasons == {name: reason for name, (_, reason) in BODIES.items()}
    assert rows["raw byte"]["reason"] == "unparseable"
    assert rows["last"]["outcome"] == "zero"  # below the default floor, but classified


def test_usage_of_any_shape_never_stops_a_replay(cli: Cli, tmp_path: Path) -> None:
    values: list[Any] = [None, "5", -1, 1.5, 1e300, 10**30, 2**63, [], {}, True]
    names = ("prompt_tokens", "input_tokens", "prompt_tokens_details", "cache_creation", "inputTokens", "cacheDetails")
    records = [
        {**GOOD, "id": f"{name} {value}", "usage": {"completion_tokens": 1, name: value}}
        for name in names
        for value in values
    ]
    (tmp_path / "usage.jsonl").write_bytes(lines(records))
    report = cli("replay", "usage.jsonl", "--format", "json").json()
    assert report["problems"]["bad_lines"] == 0
    rows = cli("report", "--by", "request", "--format", "json").rows()
    assert len(rows) == len(records)
    assert all(0 < row["prompt_tokens"] < 2**31 for row in rows)


def test_a_truncated_gzip_gives_what_is_whole(cli: Cli, tmp_path: Path) -> None:
    import random

    chance = random.Random(1)
    log = lines({**GOOD, "id": f"{i}", "session": chance.randbytes(200).hex()} for i in range(500))
    packed = gzip.compress(log)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    report = cli("replay", "cut.jsonl.gz", "--format", "json").json()
    assert report["problems"]["bad_lines"] == 1
    assert list(report["problems"]["bad_line_reasons"]) == ["corrupt_compression"]
    assert 200 < report["runs"][0]["requests"] < 300


def test_a_line_of_many_megabytes_is_fine(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    big = {**GOOD, "id": "big", "body": body(("user", text("word " * 2_000_000, "5m")))}
    (tmp_path / "big.jsonl").write_bytes(FIRST + lines([{**big, "usage": usage(2_000_000, 1)}]) + LAST)
    cli("replay", "big.jsonl", "--tokenizer", tokenizer)
    rows = cli("report", "--by", "request", "--format", "json").rows()
    assert {r["request"]: r["creation_5m_tokens"] for r in rows} == {"first": 0, "big": 2_000_000, "last": 0}


# -- files and databases


def test_files_that_cannot_be_logs_end_with_2(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "other.json").write_text('{"hello": 1}\n{"hello": 2}\n')
    assert_one_line(cli("replay", "logs"), 2, "logs: is a directory", "*.jsonl")
    assert_one_line(cli("replay", "missing.jsonl"), 2, "missing.jsonl: no such file")
    assert_one_line(cli("replay", "logs/*.jsonl"), 2, "no file matches")
    assert_one_line(cli("replay", "other.json"), 2, "other.json", "no known format", "--log-format")
    assert_one_line(cli("replay", "nul\0name"), 2, "cannot be")
    assert cli("replay").code == 2
    no_debris(tmp_path)


def test_databases_that_are_none_end_with_2_and_are_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    (tmp_path / "text.duckdb").write_text("dear diary\n" * 1000)
    (tmp_path / "folder").mkdir()
    with duckdb.connect(str(tmp_path / "foreign.duckdb")) as con:
        con.execute("CREATE TABLE mine (a INTEGER)")
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.duckdb")}
    for command in (("replay", "good.jsonl"), ("report",), ("runs",), ("runs", "delete", "1", "--yes")):
        assert_one_line(cli(*command, "--db", "text.duckdb"), 2, "text.duckdb", "not a DuckDB file")
        assert_one_line(cli(*command, "--db", "foreign.duckdb"), 2, "foreign.duckdb", "not one of cachesim")
        assert_one_line(cli(*command, "--db", "folder"), 2, "folder", "directory")
    assert_one_line(cli("replay", "good.jsonl", "--db", "no/such/x.duckdb"), 2, "no/such", "does not exist")
    assert_one_line(cli("report", "--db", "none.duckdb"), 2, "none.duckdb", "cachesim replay")
    assert not (tmp_path / "none.duckdb").exists()
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.duckdb")} == before


def test_a_database_of_a_newer_cachesim_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    cli("replay", "good.jsonl")
    with duckdb.connect(str(tmp_path / "cachesim.duckdb")) as con:
        con.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    for command in (("replay", "good.jsonl"), ("report",), ("runs",)):
        assert_one_line(cli(*command), 78, "schema version 999", "upgrade cachesim")


def test_a_locked_database_ends_with_75(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    cli("replay", "good.jsonl")
    hold = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    command = [sys.executable, "-c", hold, "cachesim.duckdb"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        holder.stdout.readline()
        for args in (("replay", "good.jsonl"), ("report",), ("runs",), ("runs", "delete", "1", "--yes")):
            assert_one_line(cli(*args), 75, "cachesim.duckdb: locked by process", str(holder.pid))
        assert cli("replay", "good.jsonl", "--dry-run").code == 0
        holder.communicate("\n")
    assert cli("report").code == 0


# -- configuration


CONFIGS: dict[str, tuple[str, int, str]] = {
    "syntax": ('[policy]\npreset = "dwctl-10.13\n', 2, ""),
    "section": ('\n[polcy]\npreset = "dwctl-10.13"\n', 2, "policy"),
    "preset": ('[policy]\npreset = "dwctl-10.31"\n', 2, "dwctl-10.13"),
    "rule": ("[policy]\nwalk_bak = 3\n", 2, "walk_back"),
    "rule type": ('[policy]\n\nwalk_back = "many"\n', 3, "walk_back"),
    "tariff field": ('[[cache_tariff]]\nmodel = "m"\nwrite_5 = "1"\n', 3, "write_5m"),
    "negative": ('[[cache_tariff]]\nmodel = "m"\nwrite_5m = "-1"\nwrite_1h = "2"\nread = "0.1"\n', 3, "write_5m"),
    "missing tier": ('[[cache_tariff]]\nmodel = "m"\nread = "0.1"\n', 1, "write_5m"),
    "no number": ('[[base_tariff]]\nmodel = "m"\ninput_per_mtok = "three"\n', 3, "input_per_mtok"),
    "principal": ('[principals]\n"sk-live-12345" = "acme"\n', 2, "sha256"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_configuration_ends_with_78_and_names_file_and_line(cli: Cli, tmp_path: Path, name: str) -> None:
    content, line, hint = CONFIGS[name]
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    (tmp_path / "cachesim.toml").write_text(content)
    result = cli("replay", "good.jsonl")
    assert_one_line(result, 78, f"cachesim.toml:{line}:", hint)
    assert "sk-live" not in result.err
    no_debris(tmp_path)


def test_overlapping_tariffs_and_missing_files(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    (tmp_path / "twice.toml").write_text(TARIFF + TARIFF)
    assert_one_line(cli("replay", "good.jsonl", "--tariff", "twice.toml"), 78, "twice.toml:", "twice.toml:")
    assert_one_line(cli("replay", "good.jsonl", "--tariff", "none.toml"), 2, "none.toml")
    assert_one_line(cli("replay", "good.jsonl", "--config", "none.toml"), 2, "none.toml")
    (tmp_path / "empty.toml").write_text("")
    assert_one_line(cli("replay", "good.jsonl", "--tariff", "empty.toml"), 78, "empty.toml", "[[cache_tariff]]")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert cli("replay", "good.jsonl", "--config", "bytes.toml").code in (2, 78)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["--policy", "dwctl-10.3"], "did you mean dwctl-10.13"),
        (["--set", "walk_bak=3"], "did you mean walk_back"),
        (["--set", "walk_back"], "rule=value"),
        (["--set", "walk_back=many"], "walk_back"),
        (["--set", "walk_back=-1"], "walk_back"),
        (["--markers", "automatik"], "did you mean automatic"),
        (["--markers", "automatic:2h"], "there are 5m, 1h, 24h"),
        (["--tariff", "prices.tom"], "prices.tom"),
        (["--tariff", ""], "--tariff"),
        (["--tokenizer", "m=none.json"], "none.json"),
        (["--tokenizer", "m="], "MODEL=SOURCE"),
        (["--log-format", "cashesim"], "did you mean cachesim"),
        (["--since", "yesterday"], "--since 'yesterday'"),
        (["--timezone", "Europe/Berln", "--since", "2026-03-01"], "Europe/Berlin"),
        (["--start", "2026-03-01"], "--interval"),
        (["--start", "2026-03-01", "--interval", "often"], "--interval 'often'"),
        (["--continue", "7"], "7"),
        (["--continue", "latest", "--dry-run"], "--dry-run"),
        (["--bad-lines-raw"], "--bad-lines"),
        (["--bad-lines", "no/folder/bad.jsonl"], "no/folder"),
        (["--output", "no/folder/out.csv", "--format", "csv"], "no/folder"),
        (["--format", "xml"], "xml"),
        (["--polcy", "x"], "Did you mean --policy"),
    ],
)
def test_mistakes_on_the_command_line_end_with_2(cli: Cli, tmp_path: Path, args: list[str], hint: str) -> None:
    (tmp_path / "good.jsonl").write_bytes(FIRST)
    assert_one_line(cli("replay", "good.jsonl", *args), 2, hint)
    no_debris(tmp_path)


# -- names that attack whoever reads them


EVIL = [
    "=HYPERLINK(1)", "+1+1", "-2", "@cmd", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\nb", "a\r\tb", "\u202eevil",
    "[bold]x[/bold]", "|pipe|", "`tick`", "<b>", "';DROP TABLE runs;--", "{k}", "%s", "", " ", "\u0000",
]  # fmt: skip


def test_hostile_names_are_shown_not_obeyed(cli: Cli, tmp_path: Path) -> None:
    records = [
        {
            "id": f"{name}#{i}", "at": at(f"10:{i:02}:00"), "principal": name or "p", "session": name,
            "tags": {"app": name, name: name}, "body": body(("user", "hi"), model=name), "usage": usage(5, 1),
        }
        for i, name in enumerate(EVIL)
    ]  # fmt: skip
    (tmp_path / "evil.jsonl").write_bytes(lines(records))
    shown = [cli("replay", "evil.jsonl"), cli("check", "evil.jsonl"), cli("runs", "show")]
    groups = ["model", "principal", "session", "tag:app", "request", "tag:';DROP TABLE runs;--", "tag:{k}", "tag:a/b~"]
    for group in groups:
        shown += [cli("report", "--by", group), cli("report", "--by", group, "--format", "md")]
        shown.append(cli("report", "--by", group, "--format", "csv"))
        assert all(cell[:1] not in "=@" for line in shown[-1].out.splitlines() for cell in line.split(",") if cell)
        rows = cli("report", "--by", group, "--format", "json").rows()
        if group in ("model", "session", "tag:app"):
            assert {row[group] for row in rows} == set(EVIL)
    for result in shown:
        assert result.code == 0, result.err
    for result in (r for r in shown if "run,policy" not in r.out):
        assert not {"\x1b", "\x07", "\r", "\u202e", "\x00"} & set(result.out + result.err)
    assert "[bold]x[/bold]" in shown[0].out
    for name in EVIL[:14]:
        (row,) = cli("report", "--by", "model", "--model", name, "--format", "json").rows()
        assert row["model"] == name


def test_file_names_may_be_anything(cli: Cli, tmp_path: Path) -> None:
    import os

    for name in (b"a\nb.jsonl", b"\x1b[31m.jsonl", b"=1.jsonl", b"caf\xe9.jsonl", b"[x].jsonl"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(FIRST + b"broken\n")
        for args in (("replay",), ("replay", "--format", "json"), ("check", "--format", "json"), ("check",)):
            result = cli(args[0], os.fsdecode(name), *args[1:])
            assert result.code == 0, result.err
            assert "\x1b" not in result.out + result.err
        assert cli("runs").code == 0
    assert_one_line(cli("replay", "\x1b[31mnone"), 2, "\\x1b[31mnone")


def test_a_log_of_only_failures_or_only_strangers_is_an_answer(cli: Cli, tmp_path: Path) -> None:
    for name, fields in (("failed", {"status": 500}), ("nobody", {"principal": None}), ("paths", {"uri": "/v1/embed"})):
        (tmp_path / name).write_bytes(with_fields(**fields))
        result = cli("replay", name)
        assert result.code == 0
        report = cli("report", "--format", "json").json()
        assert report["rows"][0]["read_tokens"] == 0
        assert report["rows"][0]["token_hit_rate"] in (0, None)


def test_a_log_without_any_price_has_tokens_and_no_bill(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    out = cli("replay", "log.jsonl", "--tokenizer", tokenizer).out  # models m and n are in no price list
    assert "of 138 prompt tokens from cache; the bill is unknown (12 of 12 requests have no price)" in out
    assert "classified 13 of 14 requests (92.9 %), 165 of 170 prompt tokens" in out
    (row,) = cli("report", "--format", "json").rows()
    assert (row["prompt_tokens"], row["list"], row["unpriced"]) == (138, None, 12)


def test_quiet_is_quiet_and_words_go_to_stderr(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(LOG)
    for args in (("replay", "log.jsonl", "--format", "json"), ("report", "--format", "csv", "--quiet")):
        assert cli(*args).err == ""
    assert words("s", 3) == "s1 s2 s3"


def test_a_tokenizer_for_a_model_that_nobody_asks_for_is_named(cli: Cli, tmp_path: Path, tokenizer: Path) -> None:
    """A slip in the model's name would leave it estimated in silence; patterns that match are none."""
    (tmp_path / "log.jsonl").write_bytes(lines([{**GOOD, "body": body(SYSTEM, model="vendor/chat-2")}]))
    result = cli("replay", "log.jsonl", "--tokenizer", f"chat-2={tokenizer}", "--format", "json")
    assert result.err == "cachesim: --tokenizer chat-2: no request is of this model; there are vendor/chat-2\n"
    for name in ("vendor/chat-2=", "vendor/*=", ""):
        assert cli("replay", "log.jsonl", "--tokenizer", f"{name}{tokenizer}", "--format", "json").err == ""
