"""Reading whole files: formats found, gaps filled in, everything assumed counted, nothing lost, nothing raised."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cachesim.core.model import BadLine, LogRecord
from cachesim.errors import InputError, UsageError
from cachesim.trace.formats import FORMATS
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadFacts, ReadOptions, read_records

SECOND = 1_000_000


def row(at: Any = 0, **more: Any) -> bytes:
    return json.dumps({"at": at, "principal": "acme", "body": {"model": "m"}} | more).encode() + b"\n"


class Reading:
    """What came of reading `contents`, each as a file of its own."""

    def __init__(self, folder: Path, *contents: bytes, **options: Any) -> None:
        for number, data in enumerate(contents):
            (folder / f"{number}.log").write_bytes(data)
        self.sources, _ = find_sources([str(folder / f"{number}.log") for number in range(len(contents))])
        self.facts = ReadFacts()
        self.items = list(read_records(self.sources, ReadOptions(**options), facts=self.facts))
        self.records = [item for item in self.items if isinstance(item, LogRecord)]
        self.bad = [item for item in self.items if isinstance(item, BadLine)]

    @property
    def reasons(self) -> list[str]:
        return [item.reason for item in self.bad]


def test_facts_of_a_log_in_order(tmp_path: Path) -> None:
    found = Reading(tmp_path, row(5, duration_ms=1) + b"\n" + row(7) + b" \r\n" + row(6) + b"junk\n")
    (facts,) = found.facts.files
    assert (facts.log_format, facts.records, facts.bad_lines) == ("cachesim", 3, 1)
    assert (facts.first_at_us, facts.last_at_us) == (5 * SECOND, 7 * SECOND)
    assert (facts.out_of_order, facts.is_reversed, facts.without_duration) == (1, False, 2)
    assert [record.line for record in found.records] == [1, 3, 5]
    (bad,) = found.bad
    before = len(row(5, duration_ms=1) + b"\n" + row(7) + b" \r\n" + row(6))
    assert (bad.file_no, bad.line, bad.offset, bad.reason, bad.raw) == (0, 6, before, "not_json", b"junk")
    assert bad.digest == hashlib.sha256(b"junk").hexdigest()


def test_a_reversed_log_shows(tmp_path: Path) -> None:
    found = Reading(tmp_path, b"".join(row(10 - n) for n in range(10)))
    assert (found.facts.files[0].out_of_order, found.facts.files[0].is_reversed) == (9, True)


def test_ids_default_to_file_and_line(tmp_path: Path) -> None:
    found = Reading(tmp_path, row(id="a") + row(), row())
    assert [record.id for record in found.records] == ["a", f"{tmp_path}/0.log:2", f"{tmp_path}/1.log:1"]
    assert [record.file_no for record in found.records] == [0, 0, 1]


def test_equal_lines_have_equal_digests(tmp_path: Path) -> None:
    found = Reading(tmp_path, row(1) + row(2) + row(1)[:-1], row(1).replace(b"\n", b"\r\n"))
    first, second, third, fourth = (record.digest for record in found.records)
    assert first == third == fourth != second


KEY = "sha256:" + hashlib.sha256(b"sk-1").hexdigest()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["acme", KEY, None]),
        ({"principal": "me"}, ["acme", KEY, "me"]),
        ({"principals": {KEY: "one"}}, ["acme", "one", None]),
        ({"principals": {KEY: "one"}, "strict_principals": True}, ["acme", "one", None]),
        ({"strict_principals": True, "principal": "me"}, ["acme", None, "me"]),
    ],
)
def test_principals(options: dict[str, Any], expected: list[str | None], tmp_path: Path) -> None:
    rows = [row(), row(principal=None, api_key="sk-1"), row(principal=None)]
    found = Reading(tmp_path, b"".join(rows), **options)
    assert [record.principal for record in found.records] == expected
    assert found.facts.files[0].unscoped == expected.count(None)
    assert found.facts.files[0].default_principal == ("principal" in options)
    assert found.facts.default_principal == options.get("principal")


def test_since_includes_and_until_excludes(tmp_path: Path) -> None:
    found = Reading(tmp_path, b"".join(row(n) for n in range(6)), since_us=2 * SECOND, until_us=4 * SECOND)
    assert [record.at_us for record in found.records] == [2 * SECOND, 3 * SECOND]
    assert (found.facts.files[0].filtered, found.facts.files[0].records, found.bad) == (4, 2, [])


def test_missing_times_are_bad_or_made(tmp_path: Path) -> None:
    rows = row(None) + row(50) + row(None)
    assert Reading(tmp_path, rows).reasons == ["missing_time", "missing_time"]
    found = Reading(tmp_path, rows, rows, start_us=100 * SECOND, interval_us=2 * SECOND)
    assert [(record.at_us or 0) // SECOND for record in found.records] == [100, 50, 102, 104, 50, 106]
    assert [facts.synthetic_times for facts in found.facts.files] == [2, 2]


def test_start_and_interval_belong_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give both"):
        Reading(tmp_path, row(), start_us=0)
    with pytest.raises(UsageError, match="give both"):
        Reading(tmp_path, row(), interval_us=0)


def test_formats_without_times_need_them_before_anything_is_read(tmp_path: Path) -> None:
    batch = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
    with pytest.raises(UsageError, match=r"no times.*--start"):
        Reading(tmp_path, batch)


def test_answers_belong_to_requests_of_their_own_format(tmp_path: Path) -> None:
    request = b'{"custom_id":"a","body":{}}\n{"custom_id":"b","body":{}}\n'
    answer = b'{"custom_id":"a","response":null,"error":{"code":"batch_expired"}}\n'
    found = Reading(tmp_path, answer, row(id="a"), request, start_us=0, interval_us=SECOND)
    assert [(record.log_format, record.id, record.status) for record in found.records] == [
        ("cachesim", "a", 200),
        ("openai-batch", "a", 500),
        ("openai-batch", "b", 200),
    ]
    assert [facts.answered for facts in found.facts.files] == [0, 0, 1]
    assert found.facts.unmatched_answers == 0


def test_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean cachesim"):
        Reading(tmp_path, row(), log_format="cachesin")
    with pytest.raises(UsageError, match="--log-format 'x': unknown"):
        Reading(tmp_path, row(), log_format="x")
    with pytest.raises(InputError) as caught:
        Reading(tmp_path, b'{"prompt":"secret"}\n')
    assert all(f"{known.name}: {known.description}" in str(caught.value) for known in FORMATS.values())
    assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="one JSON document of no known"):
        Reading(tmp_path, json.dumps({"prompt": [1, 2]}, indent=1).encode())
    with pytest.raises(InputError, match="holding cachesim records; put one on each line"):
        Reading(tmp_path, json.dumps({"at": 1, "body": {"a": 1}}, indent=1).encode())


def test_a_forced_format_turns_the_rows_of_others_into_bad_lines(tmp_path: Path) -> None:
    assert Reading(tmp_path, row() * 2, log_format="recorded").reasons == ["bad_field:url"] * 2
    assert Reading(tmp_path, b'{"request":{},"timestamp":[]}\n', log_format="anthropic").reasons == [
        "bad_field:timestamp"
    ]
    assert Reading(tmp_path, row() * 2, log_format="mini-swe-agent").reasons == ["bad_field:messages"]


def test_a_few_odd_first_rows_do_not_decide(tmp_path: Path) -> None:
    found = Reading(tmp_path, b'half a line"}\n{"version":1}\n' + row() * 3)
    assert found.facts.files[0].log_format == "cachesim"
    assert found.reasons == ["not_json", "missing_body"]
    assert len(found.records) == 3


def test_a_first_row_longer_than_any_sample(tmp_path: Path) -> None:
    found = Reading(tmp_path, row(body={"model": "m", "pad": "x" * 5_000_000}) + row(1))
    assert [len(record.body or b"") > 5_000_000 for record in found.records] == [True, False]


HOSTILE: dict[str, tuple[bytes, list[str]]] = {
    "empty": (b"", []),
    "blank lines": (b"\n \n\r\n\t\n", []),
    "binary": (b"\x7fELF\x00\x01" * 50, ["binary"]),
    "UTF-16": (row().decode().encode("utf-16"), ["utf16"]),
    "a short text": (b"hello\nworld\n", ["not_json", "not_json"]),
    "a long text": (b"hello\n" * 1000, ["not_json"]),
    "one truncated line": (row()[:20], ["truncated"]),
    "JSON, but no objects": (b"[1]\n5\n", ["not_an_object", "not_an_object"]),
    "a truncated document": (json.dumps({"messages": [{"a": [1]}] * 50}, indent=1).encode()[:-60], ["not_json"]),
    "an empty object": (b"{}\n", ["not_json"]),
    "deep": (b'{"at":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", ["too_deep"]),
    "truncated gzip": (gzip.compress(row() * 3)[:-2], ["corrupt_compression"]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files(kind: str, tmp_path: Path) -> None:
    data, reasons = HOSTILE[kind]
    found = Reading(tmp_path, data, row())
    assert found.reasons == reasons
    assert len(found.records) == (4 if kind == "truncated gzip" else 1)
    assert found.facts.files[0].bad_lines == len(reasons)
    assert all("hello" not in item.message for item in found.bad)


def test_everyday_damage_costs_only_its_own_line(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + row(1, id="bom"),
        row(2, id="crlf").replace(b"\n", b"\r\n"),
        row(3, id="separator", session="a\u2028b").replace(b"\\u2028", "\u2028".encode()),
        b'{"at":4,"id":"\xff","body":{}}\n',
        b'{"at":5,"id":"inside","body":{"a":"\xff"}}\n',
        b'{"at":6,"id":"nan","body":{"a":NaN}}\n',
        b'{"at":7,"at":8,"id":"twice","body":{}}\n',
        row(9, id="cut")[:-9],
    ]
    found = Reading(tmp_path, b"".join(lines))
    assert [record.id for record in found.records] == ["bom", "crlf", "separator", "inside", "twice"]
    assert found.records[2].session == "a\u2028b"
    assert [(item.line, item.reason) for item in found.bad] == [(4, "invalid_utf8"), (6, "not_json"), (8, "truncated")]
    assert [item.raw for item in found.bad] == [lines[3][:-1], lines[5][:-1], lines[7]]
    offsets = {item.line: item.offset for item in found.items}
    assert offsets == {n + 1: 3 if n == 0 else sum(map(len, lines[:n])) for n in range(8)}


def test_a_pipe_loses_nothing_to_detection(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip.compress(b"".join(row(n, id=str(n)) for n in range(5000)))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    sources, _ = find_sources(["-"])
    progress: list[int] = []
    records = list(read_records(sources, ReadOptions(), progress.append))
    assert [record.id for record in records if isinstance(record, LogRecord)] == [str(n) for n in range(5000)]
    assert sum(progress) == len(data)
    assert sources[0].sha256 == hashlib.sha256(data).hexdigest()


def test_a_document_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Path(__file__).parents[2] / "fixtures/logs/mini-swe-agent/clock-17.traj.json.gz"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(fixture.read_bytes())))
    assert len(list(read_records(find_sources(["-"])[0], ReadOptions()))) == 2


def test_files_are_hashed_on_the_way(tmp_path: Path) -> None:
    found = Reading(tmp_path, row() * 5, b"", b"junk")
    for source, data in zip(found.sources, (row() * 5, b"", b"junk"), strict=True):
        assert (source.size, source.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_real_exchanges(real_data: Any) -> None:
    sources, _ = find_sources([str(real_data("cassettes") / "cassettes.jsonl.gz")])
    facts = ReadFacts()
    records = list(read_records(sources, ReadOptions(start_us=0, interval_us=SECOND), facts=facts))
    assert (facts.files[0].log_format, facts.files[0].records, facts.files[0].bad_lines) == ("recorded", 131, 0)
    assert sum(isinstance(item, LogRecord) and "/messages" in item.uri for item in records) == 20


def test_real_trajectories(real_data: Any) -> None:
    sources, _ = find_sources([str(real_data("mini-swe-agent") / "*.traj.json.gz")])
    facts = ReadFacts()
    prompt = read = 0
    for record in read_records(sources, ReadOptions(), facts=facts):
        assert isinstance(record, LogRecord)
        assert record.usage is not None
        prompt += record.usage.prompt or 0
        read += record.usage.read or 0
        assert json.loads(record.body or b"")["messages"][0]["role"] == "system"
    assert len(facts.files) == 60
    assert sum(file.records for file in facts.files) == 2244
    assert round(1000 * read / prompt) == 842  # as published beside the data: 84.2 % cached
