"""dwctl's tables as people dump them: apart or joined, in any container, with keys that must not stay."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cachesim.config import load_config
from cachesim.core.model import BadLine, LogRecord, Usage
from cachesim.errors import NothingUsable
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.store.db import IN_MEMORY, open_database
from cachesim.trace.formats.base import BadRecord, NotARequest, digest_key
from cachesim.trace.formats.dwctl import decode_analytics, decode_line, decode_response
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadFacts, ReadOptions, read_records

FOLDER = Path(__file__).parents[2] / "fixtures" / "logs" / "dwctl"
TABLES = ("http_requests.jsonl", "http_responses.csv.gz", "http_analytics.json")
IDS = {"instance_id": "i", "correlation_id": 7}


def read(*paths: Path) -> list[LogRecord]:
    found = read_records(find_sources(map(str, paths))[0], ReadOptions())
    return [item for item in found if isinstance(item, LogRecord)]


def told(records: list[LogRecord]) -> list[dict[str, Any]]:
    """Everything but where the records stand and the spaces in their bodies, which databases do not keep."""
    place = ("file_no", "line", "offset", "digest")
    found = [{f.name: getattr(r, f.name) for f in fields(r) if f.name not in place} for r in records]
    return [record | {"body": json.loads(record["body"])} for record in found]


def line(**more: Any) -> bytes:
    return json.dumps({**IDS, "uri": "/v1/chat/completions", "headers": {}} | more).encode()


def test_the_order_of_the_files_does_not_matter() -> None:
    expected = told(read(*(FOLDER / name for name in TABLES)))
    assert len(expected) == 5
    for names in itertools.permutations(TABLES):
        assert told(read(*(FOLDER / name for name in names))) == expected


JOINED = f"""
    SELECT r.* EXCLUDE (created_at, id), s.status_code, s.duration_ms, s.body AS response_body,
           a.* EXCLUDE (id, instance_id, correlation_id, timestamp, method, uri, status_code, duration_ms)
    FROM read_json('{FOLDER}/http_requests.jsonl', columns = {{
        id: 'BIGINT', instance_id: 'UUID', correlation_id: 'BIGINT', timestamp: 'TIMESTAMPTZ', method: 'VARCHAR',
        uri: 'VARCHAR', headers: 'JSON', body: 'JSON', body_parsed: 'BOOLEAN', created_at: 'TIMESTAMPTZ'}}) r
    LEFT JOIN read_csv('{FOLDER}/http_responses.csv.gz') s USING (instance_id, correlation_id)
    LEFT JOIN (SELECT unnest(rows, recursive := true) FROM read_json('{FOLDER}/http_analytics.json')) a
           USING (instance_id, correlation_id)
    ORDER BY r.correlation_id
"""


@pytest.mark.parametrize("container", ["joined.parquet", "joined.csv", "joined.jsonl"])
def test_joined_rows_say_the_same_as_three_files(container: str, tmp_path: Path) -> None:
    expected = read(*(FOLDER / name for name in TABLES))
    expected[2].duration_us = 650_000  # of the response; the two tables of the fixture differ there
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"COPY ({JOINED}) TO '{tmp_path / container}'")
    assert told(read(tmp_path / container)) == told(expected)


def test_no_key_stays(capsys: pytest.CaptureFixture[str]) -> None:
    records = read(FOLDER / TABLES[0])
    assert {record.principal for record in records} == {digest_key("sk-fixture-one"), digest_key("sk-fixture-two")}
    assert "sk-fixture" not in repr(records) + capsys.readouterr().out


@pytest.mark.parametrize("name", TABLES[1:])
def test_answers_alone_are_refused(name: str) -> None:
    sources, _ = find_sources([str(FOLDER / name)])
    job = Preparation(sources, ReadOptions(), load_config(()), body_rule_sets([]))
    expected = "there is nothing to replay; give the http_requests dump with them"
    with open_database(IN_MEMORY) as con, pytest.raises(NothingUsable, match=expected):
        prepare(con, job)


def test_records_without_an_answer_are_counted() -> None:
    facts = ReadFacts()
    sources, _ = find_sources([str(FOLDER / TABLES[0]), str(FOLDER / TABLES[2])])
    list(read_records(sources, ReadOptions(), facts=facts))
    assert (facts.files[0].answered, facts.files[0].unanswered, facts.unmatched_answers) == (2, 3, 1)


def test_answers_to_requests_outside_the_time_asked_for_have_their_request() -> None:
    facts = ReadFacts()
    sources, _ = find_sources([str(FOLDER / name) for name in TABLES])
    list(read_records(sources, ReadOptions(until_us=0), facts=facts))
    assert facts.files[0].records == 0
    assert facts.unmatched_answers == 1  # q-9, as of the whole log


def test_answers_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    def answer(number: int, status: int) -> str:
        return (
            json.dumps({"instance_id": "i", "correlation_id": number, "status_code": status, "duration_ms": 1}) + "\n"
        )

    request = {"instance_id": "i", "timestamp": 0, "uri": "/v1/chat/completions", "body": {"messages": []}}
    requests = "".join(json.dumps(request | {"correlation_id": number}) + "\n" for number in (1, 2, 3))
    (tmp_path / "requests.jsonl").write_text(requests)
    (tmp_path / "one.jsonl").write_text(answer(1, 200) + answer(2, 200) + answer(3, 200))
    (tmp_path / "two.jsonl").write_text(answer(1, 200) + answer(2, 500))  # 1 is the same row again
    facts = ReadFacts()
    sources, _ = find_sources([str(tmp_path / f"{name}.jsonl") for name in ("requests", "one", "two")])
    statuses = [r.status for r in read_records(sources, ReadOptions(), facts=facts) if isinstance(r, LogRecord)]
    assert (statuses, facts.conflicting_answers) == ([200, 500, 200], 1)


def test_a_key_that_only_some_analytics_name_is_a_problem(tmp_path: Path) -> None:
    """Three requests of one key, of which analytics name the first: the others would be somebody else's cache."""
    request = {"instance_id": "i", "timestamp": 0, "uri": "/v1/chat/completions", "body": {"messages": []}}
    keyed = request | {"headers": {"authorization": "Bearer sk-1"}}
    (tmp_path / "requests.jsonl").write_text(
        "".join(json.dumps(keyed | {"correlation_id": n}) + "\n" for n in (1, 2, 3))
    )
    analytics = {"instance_id": "i", "correlation_id": 1, "user_id": "acme", "status_code": 200, "total_cost": "0.1"}
    (tmp_path / "analytics.jsonl").write_text(
        json.dumps(analytics | {"prompt_tokens": 5, "completion_tokens": 1}) + "\n"
    )
    sources, _ = find_sources([str(tmp_path / "requests.jsonl"), str(tmp_path / "analytics.jsonl")])
    digest = digest_key("sk-1")
    for options, parted in ((ReadOptions(), 2), (ReadOptions(principals={digest: "acme"}), 0)):
        facts = ReadFacts()
        found = [r.principal for r in read_records(sources, options, facts=facts) if isinstance(r, LogRecord)]
        assert (found[0], len(set(found)), facts.parted_principals) == ("acme", 1 + bool(parted), parted)


CHAT = {"prompt_tokens": 100, "completion_tokens": 5}
TIERS = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0, "ephemeral_24h_input_tokens": 0}
USAGES: dict[str, tuple[dict[str, Any], Usage]] = {
    "tokens that the engine had cached are no split": (
        CHAT | {"prompt_tokens_details": {"cached_tokens": 90}},
        Usage(100, 5),
    ),
    "creation without a lifetime is no split": (
        CHAT | {"cache_read_input_tokens": 90, "cache_creation_input_tokens": 10},
        Usage(100, 5),
    ),
    "with lifetimes: the prompt includes it": (
        CHAT | {"cache_read_input_tokens": 90, "cache_creation_input_tokens": 10, "cache_creation": TIERS},
        Usage(100, 5, 90, 10, 0, 0),
    ),
    "in Anthropic's shape it does not: 3 + 90 + 10": (
        {"input_tokens": 3, "output_tokens": 5, "cache_read_input_tokens": 90, "cache_creation": TIERS},
        Usage(103, 5, 90, 10, 0, 0),
    ),
}


@pytest.mark.parametrize("name", USAGES)
@pytest.mark.parametrize("stored", ["object", "text", "base64", "stream", "wrapped", "events"])
def test_usage_of_stored_responses(name: str, stored: str) -> None:
    usage, expected = USAGES[name]
    body = {"usage": usage}
    stream = f"data: {{}}\n\ndata: {json.dumps(body)}\n\ndata: [DONE]\n"
    forms: dict[str, Any] = {
        "object": body,
        "text": json.dumps(body),
        "base64": "base64:" + base64.b64encode(json.dumps(body).encode()).decode(),
        "stream": "base64:" + base64.b64encode(stream.encode()).decode(),
        "wrapped": {"response": body},
        "events": [{"choices": []}, body],
    }
    row = json.dumps({**IDS, "status_code": "200", "duration_ms": "12", "body": forms[stored]}).encode()
    assert decode_response(row) == ("i/7", {"status": 200, "duration_us": 12_000, "usage": expected})


CHUNK = {"choices": [{"delta": {"content": "x"}}]}
LAST = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
COUNTED = {"choices": [], "usage": CHAT}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 90}}}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
STOP = {"type": "message_stop"}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error"}}
BROKEN: dict[str, list[Any]] = {
    "an error among chunks": [CHUNK, {"error": {"message": "engine died"}}],
    "an error behind the usage": [CHUNK, LAST, COUNTED, {"error": {"message": "engine died"}}],
    "chunks that just end": [CHUNK, CHUNK],
    "an error alone": [{"error": {"message": "engine died"}}],
    "a message without its end": [START],
    "a message that breaks off behind its usage": [START, DELTA],
    "an error in a message": [START, DELTA, OVERLOADED],
    "an error in a response": [{"type": "response.created", "response": {}}, {"type": "response.failed"}],
}
WHOLE: dict[str, list[Any]] = {
    "a reason to stop": [CHUNK, LAST],
    "usage behind the chunks": [CHUNK, COUNTED],
    "the word for the end": [CHUNK, "[DONE]"],
    "a message": [START, DELTA, STOP],
    "a response": [{"type": "response.created", "response": {}}, {"type": "response.completed"}],
}


def forms_of_stream(events: list[Any]) -> list[Any]:
    """How dwctl stores a stream: as an array of its events, or, where it cannot parse it, as its text in base64."""
    text = "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events)
    return [events, {"response": events}, "base64:" + base64.b64encode(text.encode()).decode()]


@pytest.mark.parametrize("name", [*BROKEN, *WHOLE])
def test_a_stream_that_broke_failed_although_its_status_was_200(name: str) -> None:
    for body in forms_of_stream((BROKEN | WHOLE)[name]):
        says = decode_response(json.dumps({**IDS, "status_code": 200, "body": body}).encode()).says
        joined = decode_line(line(status_code=200, body={}, response_body=body), 0, 1, 0)
        assert (says.get("success"), joined.success, joined.status) == (*[False if name in BROKEN else None] * 2, 200)


def test_an_error_in_a_text_of_its_own_fails_too() -> None:
    text = f"data: {json.dumps(CHUNK)}\n\nevent: error\ndata: engine died\n\ndata: [DONE]\n\n"
    coded = "base64:" + base64.b64encode(text.encode()).decode()
    for body in (coded, {"response": {"error": {"message": "no such model"}}}):
        assert decode_response(json.dumps(IDS | {"body": body}).encode()).says == {"success": False}
    for body in ([[0.5, 0.25]], [{"index": 0, "score": 0.5}], {"error": None, "usage": None}):  # no stream, no error
        assert decode_response(json.dumps(IDS | {"body": body}).encode()).says == {}


def test_a_stream_that_broke_fails_its_request_in_another_file(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    asked = [line(correlation_id=n, timestamp=n, body={"request": body}) + b"\n" for n in (1, 2)]
    answered = [[START, OVERLOADED], [START, DELTA, STOP]]
    rows = [json.dumps(IDS | {"correlation_id": n, "status_code": 200, "body": b}) for n, b in enumerate(answered, 1)]
    (tmp_path / "requests.jsonl").write_bytes(b"".join(asked))
    (tmp_path / "responses.jsonl").write_text("\n".join(rows))
    found = read(tmp_path / "requests.jsonl", tmp_path / "responses.jsonl")
    assert [(record.success, record.usage and record.usage.prompt) for record in found] == [(False, 93), (None, 93)]


@pytest.mark.parametrize("form", range(3))
def test_usage_of_streams(form: int) -> None:
    """A message starts with its prompt, 3 + 90, and ends with its output; of chunks the last one counts."""
    for events, expected in (([START, DELTA, STOP], Usage(93, 5)), ([CHUNK, LAST, COUNTED], Usage(100, 5))):
        row = json.dumps({**IDS, "body": forms_of_stream(events)[form]}).encode()
        assert decode_response(row).says == {"usage": expected}


def test_analytics_from_csv_are_texts() -> None:
    row = {
        "prompt_tokens": "100",
        "cache_read_input_tokens": "90",
        "total_cost": "0.12345678901234567",
        "user_id": "u",
    }
    answer = decode_analytics(json.dumps(IDS | row).encode())
    assert (answer.says["usage"], answer.says["principal"]) == (Usage(100, None, 90), "u")
    assert str(answer.says["cost"]) == "0.12345678901234567"


@pytest.mark.parametrize(
    ("row", "purpose"),
    [
        ({"request_origin": "fusillade"}, "batch"),
        ({"request_origin": "frontend"}, "playground"),
        ({"request_origin": "api"}, "realtime"),
        ({"api_key_purpose": "platform", "request_origin": "api"}, "platform"),
        ({"request_origin": "elsewhere"}, None),
    ],
)
def test_purpose(row: dict[str, str], purpose: str | None) -> None:
    assert decode_analytics(json.dumps(IDS | row).encode()).says.get("purpose") == purpose


def test_bodies() -> None:
    raw = b'{"model": "m", "temperature": 1.0, "temperature": 2}'
    coded = "base64:" + base64.b64encode(raw).decode()
    for body in (coded, json.dumps(coded)):  # JSONB of a CSV dump is the text of a JSON text
        assert decode_line(line(body=body), 0, 1, 0).body == raw
    assert decode_line(b'{"instance_id":"i","correlation_id":7,"body":{"request":' + raw + b"}}", 0, 1, 0).body == raw
    assert decode_line(line(body={"messages": [], "request": {}}), 0, 1, 0).body == b'{"messages": [], "request": {}}'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": "base64:?"}, "bad_field:body"),
        ({}, "missing_body"),
        ({"body": {}, "headers": "x"}, "bad_field:headers"),
    ],
)
def test_bad_rows(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        decode_line(line(**row), 0, 1, 0)
    assert caught.value.reason == reason


def test_only_a_post_is_a_request() -> None:
    with pytest.raises(NotARequest, match="not_a_post"):
        decode_line(line(method="GET"), 0, 1, 0)


def test_a_torn_answer_costs_itself(tmp_path: Path) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["instance_id", "correlation_id", "status_code"], ["i", "7", "500"], ["i", "8"]])
    (tmp_path / "responses.csv").write_text(out.getvalue())
    (tmp_path / "requests.jsonl").write_bytes(line(body={}, timestamp="2026-01-01T00:00:00Z"))
    sources, _ = find_sources([str(tmp_path / "requests.jsonl"), str(tmp_path / "responses.csv")])
    bad, record = read_records(sources, ReadOptions())
    assert isinstance(bad, BadLine)
    assert isinstance(record, LogRecord)
    assert (bad.reason, bad.line, record.status) == ("bad_csv", 3, 500)
