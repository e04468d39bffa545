"""Logs of no known format, read as a mapping file says; mistakes in one are named with file and line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cachesim.config.mapping import load_mapping
from cachesim.core.model import BadLine, LogRecord, Usage
from cachesim.errors import ConfigError, InputError, UsageError
from cachesim.trace.formats.base import digest_key
from cachesim.trace.mapping import TARGETS
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadFacts, ReadOptions, read_records

MAPPING = """
name = "house"
[detect]
kind = "llm.call"
"meta.test" = false
[fields]
at = "t.start"
completed_at = "t.end"
id = "id"
api_key = "http.headers.authorization"
body.model = "call.model"
body.messages = "call.messages"
body.temperature = "call.temperature"
usage.prompt = "tokens.in"
usage.read = "tokens.cached"
cost = "usd"
status = "http.status"
success = "ok"
session = "labels.0"
tags.app = "my.app"
[constants]
purpose = "batch"
tags.site = "north"
[units]
at = "us"
completed_at = "us"
"""
ROW: dict[str, Any] = {
    "kind": "llm.call",
    "id": 7,
    "t": {"start": 1_767_225_600_000_001, "end": 1_767_225_600_250_001},
    "http": {"headers": {"authorization": ["Bearer sk-house"]}, "status": "429"},
    "call": {"model": "m", "messages": [{"role": "user", "content": "1.0"}], "temperature": 1.0},
    "tokens": {"in": 10, "cached": "4"},
    "usd": 0.25,
    "ok": "failure",
    "labels": ["s-1", "x"],
    "my.app": "desk",
}


def mapping(folder: Path, text: str, name: str = "house.toml") -> dict[str, Any]:
    (folder / name).write_text(text)
    return load_mapping(str(folder / name))


def read(folder: Path, described: dict[str, Any], content: bytes, **more: Any) -> tuple[list[Any], ReadFacts]:
    (folder / "log").write_bytes(content)
    facts = ReadFacts()
    options = ReadOptions(mapping=described, **more)
    return list(read_records(find_sources([str(folder / "log")])[0], options, facts=facts)), facts


def only(found: list[Any]) -> LogRecord:
    (record,) = found
    assert isinstance(record, LogRecord)
    return record


def test_every_field(tmp_path: Path) -> None:
    found, _ = read(tmp_path, mapping(tmp_path, MAPPING), json.dumps(ROW).encode())
    record = only(found)
    assert (record.log_format, record.id, record.at_us) == ("house", "7", 1_767_225_600_000_001)
    assert (record.duration_us, record.status, record.success) == (250_000, 429, False)
    assert record.principal == digest_key("sk-house")
    assert record.body == b'{"model":"m","messages":[{"role": "user", "content": "1.0"}],"temperature":1.0}'
    assert record.uri == "/v1/chat/completions"
    assert (record.usage, str(record.cost)) == (Usage(10, None, 4), "0.25")
    assert (record.purpose, record.session, record.tags) == ("batch", "s-1", {"app": "desk", "site": "north"})


def test_rows_that_are_something_else_are_left_out(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"kind": "log"}, ROW | {"meta": {"test": 1}}, {}, ROW | {"id": 8, "meta": {"test": None}}]
    found, facts = read(
        tmp_path, mapping(tmp_path, MAPPING), b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    )
    assert [record.id for record in found] == ["7", "8"]
    assert facts.left_out == {"not_mapped": 3}


def test_a_null_is_an_absent_value_and_of_a_list_its_first_counts(tmp_path: Path) -> None:
    """As a struct column of Parquet writes what other rows have: no tag costs its request."""
    text = '[fields]\nbody="b"\ntags.app="meta.app"\ntags.team="meta.team"\nsession="s"\nusage.prompt="n"\n'
    given = mapping(tmp_path, text + '[constants]\ntags.team="none"\n')
    told = []
    for meta, first in (({"app": None, "team": "a"}, [None, "x"]), ({"app": [], "team": None}, [7])):
        row = {"b": {"messages": []}, "meta": meta, "s": first, "n": first if first == [7] else None}
        found, _ = read(tmp_path, given, json.dumps(row).encode(), start_us=0, interval_us=1)
        told.append((only(found).tags, only(found).session, only(found).usage))
    assert told == [({"team": "a"}, "x", None), ({"team": "none"}, "7", Usage(7))]


def test_rows_of_csv_hold_texts(tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["when", "took", "call", "usage", "ok"])
        writer.writerow(["1767225600.5", "1.5", json.dumps(ROW["call"]), '{"prompt_tokens": 3}', "True"])
    text = '[fields]\nat="when"\nduration="took"\nbody="call"\nusage="usage"\nsuccess="ok"\n[units]\nduration="s"\n'
    found, facts = read(tmp_path, mapping(tmp_path, text), (tmp_path / "rows.csv").read_bytes(), principal="p")
    record = only(found)
    assert (record.at_us, record.duration_us, record.success) == (1_767_225_600_500_000, 1_500_000, True)
    assert (record.body, record.usage) == (json.dumps(ROW["call"]).encode(), Usage(3))
    assert record.principal == "p"
    assert facts.files[0].log_format == "house"  # the name of the file, where the mapping has none


def test_a_body_of_another_api_has_its_path(tmp_path: Path) -> None:
    text = '[fields]\nat="at"\nbody.model="m"\nbody.system="s"\nbody.messages="messages"\n'
    row = {"at": 1, "m": "c", "s": "be kind", "messages": json.dumps(ROW["call"]["messages"])}
    record = only(read(tmp_path, mapping(tmp_path, text), json.dumps(row).encode())[0])
    assert record.uri == "/v1/messages"
    assert json.loads(record.body or b"") == {
        "max_tokens": 1, "model": "c", "system": "be kind", "messages": ROW["call"]["messages"],
    }  # fmt: skip
    given = mapping(tmp_path, text + '[constants]\nuri="/v1/chat/completions"\n')
    assert only(read(tmp_path, given, json.dumps(row).encode())[0]).uri == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("unit", "written", "at_us"),
    [
        ("s", 1.5, 1_500_000),
        ("ms", 1500, 1_500_000),
        ("us", "1500000", 1_500_000),
        ("ns", 1_500_000_999, 1_500_000),
        ("s", "1970-01-01T00:00:01.5Z", 1_500_000),
    ],
)
def test_units(unit: str, written: object, at_us: int, tmp_path: Path) -> None:
    described = mapping(tmp_path, f'[fields]\nat="at"\nbody="body"\n[units]\nat="{unit}"\n')
    assert only(read(tmp_path, described, json.dumps({"at": written, "body": {}}).encode())[0]).at_us == at_us


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"t": {"start": 10**18}}, "bad_field:at"),
        ({"t": {"start": "soon"}}, "bad_field:at"),
        ({"t": {"start": 5, "end": 4}}, "bad_field:completed_at"),
        ({"t": None}, "missing_time"),
        ({"http": {"status": "many"}}, "bad_field:status"),
        ({"http": {"status": 1e20}}, "bad_field:status"),
        ({"ok": "maybe"}, "bad_field:success"),
        ({"id": {}}, "bad_field:id"),
        ({"tokens": {"in": -1}}, "bad_field:usage.prompt"),
        ({"call": "none"}, "missing_body"),
    ],
)
def test_bad_rows(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    found, _ = read(tmp_path, mapping(tmp_path, MAPPING), json.dumps(ROW | change).encode())
    (bad,) = found
    assert isinstance(bad, BadLine)
    assert bad.reason == reason


WRONG = {
    'nam = "x"\n[fields]\nbody="b"\n': (1, "unknown key nam, did you mean name?"),
    'name = 5\n[fields]\nbody="b"\n': (1, "name is an integer"),
    'name = "recorded"\n[fields]\nbody="b"\n': (1, "recorded is the name of a format that is known"),
    '[fields]\nat = "t"\nbodi = "b"\n': (3, "unknown target bodi in [fields], did you mean body?"),
    '[fields]\nbody = 5\n': (2, "body is an integer, a path"),
    '[fields]\nbody = ""\n': (2, "body is a string, a path"),
    '[fields]\n"body." = "x"\n': (2, "unknown target body."),
    '[fields]\nat = "t"\n': (1, "no body"),
    '[fields]\nbody = "b"\n"body.model" = "m"\n': (2, "body and parts of it"),
    '[fields]\nbody = "b"\nusage = "u"\n"usage.read" = "r"\n': (3, "usage and parts of it"),
    '[fields]\nbody.model = "b"\n"body.model" = "m"\n': (3, "body.model stands twice"),
    '[fields]\nbody = "b"\n[constants]\nat = "2026"\n': (4, "unknown target at in [constants]"),
    '[fields]\nbody = "b"\n[constants]\nstatus = "200"\n': (4, "status is a string, an integer was expected"),
    '[fields]\nbody = "b"\n[units]\nat = "h"\n': (4, "the unit of at is not one of s, ms, us, ns"),
    '[fields]\nbody = "b"\n[detect]\nx = [1]\n': (4, "x is an array, true (is there), false or a value"),
    'fields = 5\n': (1, "fields is an integer, a table was expected"),
    '[fields\n': (1, "not valid TOML"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_mistakes_are_named_with_file_and_line(text: str, tmp_path: Path) -> None:
    line, words = WRONG[text]
    with pytest.raises(ConfigError) as caught:
        mapping(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/house.toml:{line}: ")
    assert words in str(caught.value)


def test_a_mapping_without_fields_or_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no \\[fields\\]"):
        mapping(tmp_path, "")
    with pytest.raises(InputError, match="cannot be read"):
        load_mapping(str(tmp_path / "none.toml"))


def test_a_mapping_is_no_second_opinion(tmp_path: Path) -> None:
    described = mapping(tmp_path, MAPPING)
    with pytest.raises(UsageError, match="--mapping and --log-format"):
        read(tmp_path, described, b"{}", log_format="cachesim")
    with pytest.raises(UsageError, match="house files have no times"):
        read(tmp_path, mapping(tmp_path, '[fields]\nbody="b"\n'), b"{}")


def test_the_page_about_mappings_is_true(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "mapping.md").read_text()
    text, rows = (re.findall(rf"```{kind} \S+\n(.*?)```", page, re.DOTALL)[0] for kind in ("toml", "json"))
    found, facts = read(tmp_path, mapping(tmp_path, text), rows.encode())
    record = only(found)
    assert (record.principal, record.purpose, record.duration_us) == ("acme", "batch", 1_500_000)
    assert (record.body, record.usage) == (b'{"model":"small","messages":[]}', Usage(30))
    assert (record.tags, facts.left_out) == ({"app": "desk"}, {"not_mapped": 1})
    named = re.findall(
        r"`([\w.]+)`", "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    )
    shown = {f"usage{name}" if name.startswith(".") else name for name in named} - {"tags.NAME", "body.NAME"}
    assert shown == set(TARGETS)
