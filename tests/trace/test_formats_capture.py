"""The capture format: fidelity of bodies, one bad line for each wrong field, and never an exception of another kind."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats import FORMATS
from cachesim.trace.formats.base import (
    DECODE_ERRORS,
    cost_of,
    digest_key,
    explain,
    fingerprint,
    header,
    path_and_query,
)
from cachesim.trace.formats.capture import decode_line

AT = '"at":0'


def decode(text: str | bytes) -> LogRecord:
    return decode_line(text.encode() if isinstance(text, str) else text, 3, 7, 11)


def reason(text: str | bytes) -> str:
    with pytest.raises(DECODE_ERRORS) as caught:
        decode(text)
    told, message = explain(caught.value)
    assert "secret" not in message
    return told


def test_where_the_record_stands() -> None:
    record = decode('{"body":{}}')
    assert (record.file_no, record.line, record.offset, record.log_format) == (3, 7, 11, "cachesim")
    assert (record.at_us, record.id, record.principal, record.usage, record.tags) == (None, None, None, None, {})
    assert (record.uri, record.method, record.status) == ("/v1/chat/completions", "POST", 200)


BODIES = {
    "an object is cut out byte for byte": (
        '{"body": { "b":1.0, "a" : 1, "a":2e1 } }',
        b'{ "b":1.0, "a" : 1, "a":2e1 }',
    ),
    "a string is the raw text": (r'{"body":"{\"a\":1.0, \"\u00e9\": 2}"}', '{"a":1.0, "é": 2}'.encode()),
    "a string need not be JSON": ('{"body":"nonsense"}', b"nonsense"),
    "an empty string is an empty body": ('{"body":""}', b""),
    "base64 may hold any bytes": ('{"body_b64":"/wA="}', b"\xff\x00"),
    "base64 wins": ('{"body":{},"body_b64":"aGk="}', b"hi"),
    "the last of two wins": ('{"body":{"a":1},"body":{"a":2}}', b'{"a":2}'),
    "deep, as the classifier will find": (
        '{"body":{"a":' + "[" * 200 + "]" * 200 + "}}",
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name: str) -> None:
    line, body = BODIES[name]
    assert decode(line).body == body


def test_a_bad_byte_inside_the_body_is_left_to_the_classifier() -> None:
    assert decode(b'{"body":{"a":"\xff"}}').body == b'{"a":"\xff"}'


GOOD = '"body":{}'
REASONS = {
    "": "not_json",
    "{": "not_json",
    "secret": "not_json",
    "NaN": "not_json",
    '{"body":{"a":NaN}}': "not_json",
    f"{{{GOOD}}} {{}}": "not_json",
    "[]": "not_an_object",
    "null": "not_an_object",
    '"secret"': "not_an_object",
    "{}": "missing_body",
    '{"body":null}': "missing_body",
    '{"body":[]}': "bad_field:body",
    '{"body":5}': "bad_field:body",
    '{"body_b64":"sec ret"}': "bad_field:body_b64",
    '{"body_b64":"ä"}': "bad_field:body_b64",
    '{"body_b64":{}}': "bad_field:body_b64",
    f'{{"at":"secret",{GOOD}}}': "bad_field:at",
    f'{{"at":true,{GOOD}}}': "bad_field:at",
    f'{{"at":-1,{GOOD}}}': "bad_field:at",
    f'{{"at":1e300,{GOOD}}}': "bad_field:at",
    f'{{"at":1767355200000000,{GOOD}}}': "bad_field:at",
    f'{{"duration_ms":"5",{GOOD}}}': "bad_field:duration_ms",
    f'{{"duration_ms":-1,{GOOD}}}': "bad_field:duration_ms",
    f'{{"duration_ms":-0.001,{GOOD}}}': "bad_field:duration_ms",
    f'{{"duration_ms":1e300,{GOOD}}}': "bad_field:duration_ms",
    f'{{"duration_ms":1{"0" * 400},{GOOD}}}': "bad_field:duration_ms",
    f'{{"id":5,{GOOD}}}': "bad_field:id",
    f'{{"principal":{{}},{GOOD}}}': "bad_field:principal",
    f'{{"api_key":5,{GOOD}}}': "bad_field:api_key",
    f'{{"model":[],{GOOD}}}': "bad_field:model",
    f'{{"uri":5,{GOOD}}}': "bad_field:uri",
    f'{{"status":"200",{GOOD}}}': "bad_field:status",
    f'{{"status":2000,{GOOD}}}': "bad_field:status",
    f'{{"success":1,{GOOD}}}': "bad_field:success",
    f'{{"usage":[],{GOOD}}}': "bad_field:usage",
    f'{{"cost":{{}},{GOOD}}}': "bad_field:cost",
    f'{{"cost":"secret",{GOOD}}}': "bad_field:cost",
    f'{{"cost":"NaN",{GOOD}}}': "bad_field:cost",
    f'{{"cost":1e400,{GOOD}}}': "bad_field:cost",
    f'{{"purpose":5,{GOOD}}}': "bad_field:purpose",
    f'{{"completion_window":5,{GOOD}}}': "bad_field:completion_window",
    f'{{"batch_created_at":"secret",{GOOD}}}': "bad_field:batch_created_at",
    f'{{"session":5,{GOOD}}}': "bad_field:session",
    f'{{"tags":["secret"],{GOOD}}}': "bad_field:tags",
    f'{{"tags":{{"secret":5}},{GOOD}}}': "bad_field:tags",
    '{"body":' + "[" * 100_000 + "]" * 100_000 + "}": "too_deep",
}


@pytest.mark.parametrize("line", REASONS, ids=lambda line: line[:40])
def test_reasons(line: str) -> None:
    assert reason(line) == REASONS[line]


def test_a_bad_byte_in_a_field_that_is_read() -> None:
    assert reason(b'{"id":"\xff","body":{}}') == "invalid_utf8"
    assert reason(b'{"body":"\xff"}') == "invalid_utf8"
    assert reason(b'{"usage":{"\xff":1},"body":{}}') == "invalid_utf8"
    assert decode(b'{"unknown":"\xff","body":{}}').body == b"{}"


def test_null_is_absent() -> None:
    names = "at duration_ms id principal api_key model uri status success usage cost purpose completion_window"
    line = json.dumps({"body": {}} | dict.fromkeys([*names.split(), "batch_created_at", "session", "tags"]))
    record = decode(line)
    record.digest = 0
    assert record == LogRecord(3, 7, 11, "cachesim", b"{}")


def test_money_and_usage_are_taken_as_written() -> None:
    for cost in ("0.1", "1E-7", "123456789012.12345678901234567890"):
        assert decode(f'{{"body":{{}},"cost":{cost}}}').cost == Decimal(cost)
        assert decode(f'{{"body":{{}},"cost":"{cost}"}}').cost == Decimal(cost)
    assert decode('{"body":{},"usage":{"prompt_tokens":5}}').usage == Usage(prompt=5)
    assert decode('{"body":{},"usage":{}}').usage is None
    assert cost_of("nan") is None
    assert cost_of(True) is None
    assert cost_of("x") is None
    assert cost_of("1_000") is None
    assert cost_of("999999999999.5") is not None
    assert cost_of("1e12") is None  # a million of them could not be stored


def test_durations_are_exact() -> None:
    assert decode('{"body":{},"duration_ms":0.001}').duration_us == 1
    assert decode('{"body":{},"duration_ms":1234.5678}').duration_us == 1_234_567
    assert decode('{"body":{},"duration_ms":3}').duration_us == 3_000


def test_a_key_is_digested_with_or_without_its_scheme() -> None:
    digest = "sha256:" + hashlib.sha256(b"sk-1").hexdigest()
    for key in ("sk-1", "Bearer sk-1", "bearer  sk-1", " sk-1 "):
        record = decode(json.dumps({"api_key": key, "body": {}}))
        assert record.principal == digest
        assert "sk-1" not in repr(record)
    assert decode('{"api_key":"","body":{}}').principal is None
    assert digest_key("Bearer ") == digest_key("Bearer")
    assert decode('{"api_key":"sk-1","principal":"acme","body":{}}').principal == "acme"


def test_urls_are_reduced_to_path_and_query() -> None:
    assert decode('{"uri":"https://h.test/v1/messages?a=b#c","body":{}}').uri == "/v1/messages?a=b"
    assert decode('{"uri":"/v1/responses?a=b","body":{}}').uri == "/v1/responses?a=b"
    assert path_and_query("http://[", "/x") == "/x"
    assert path_and_query("https://h.test", "/x") == "/x"


def test_headers_in_their_many_shapes() -> None:
    assert header({"X-Api-Key": "k"}, "x-api-key") == "k"
    assert header({"x-api-key": ["k", "l"]}, "x-api-key") == "k"
    assert header([["X-API-KEY", "k"]], "x-api-key") == "k"
    assert header([["x-api-key"], 5, None, ["x-api-key", 5]], "x-api-key") is None
    assert header(None, "x-api-key") is None
    assert header({"x-api-key": []}, "x-api-key") is None


def test_fingerprints() -> None:
    assert fingerprint(b"abc\n") == fingerprint(b"abc\r\n") == fingerprint(b"abc")
    assert fingerprint(b"abc\n") != fingerprint(b"abd\n")
    assert fingerprint(b'{"body":{}}') == 1_069_667_220_134_313_606  # the same in every process and version
    words = random.Random(5)
    lines = {bytes(words.choices(b"0123456789", k=40)) for _ in range(20_000)}
    assert len({fingerprint(line) for line in lines}) == len(lines)
    assert all(0 <= fingerprint(line) < 2**63 for line in lines)


NAMES = ["at", "duration_ms", "id", "principal", "api_key", "body", "body_b64", "model", "uri", "status", "success"]
NAMES += ["usage", "cost", "purpose", "batch_created_at", "session", "tags", "custom_id", "response", "request", "url"]
NAMES += ["headers", "timestamp", "request_body", "response_date", "messages", "extra", "role", "content", "created"]
NAMES += ["trajectory_format", "status_code", "duration"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["event: x", "data: {}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)
ROWS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8).map(json.dumps).map(str.encode)


@given(ROWS | st.binary(max_size=50), st.data())
@example(b'{"url":"http://[","request_body":{}}', None)
@example(b'{"timestamp":0,"request":{"body":{}},"response":{"body":"data: \\ud83d"}}', None)
@example(b'{"request":{"body":{}},"response":{"body":"data: {\\"usage\\":5}"}}', None)
def test_no_decoder_raises_anything_else(line: bytes, data: Any) -> None:
    if data is not None and line and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(line) - 1))
        line = line[:place] + bytes([data.draw(st.integers(0, 255))]) + line[place + 1 :]
    for known in FORMATS.values():
        try:
            if known.decode_line is not None:
                assert known.decode_line(line, 0, 1, 0).body is not None
            elif known.decode_document is not None:
                assert all(record.body for record in known.decode_document(line, 0))
            for join in known.joins:
                assert join.decode(line).id is not None
        except DECODE_ERRORS as error:
            explained = explain(error)
            reasons_told = all(explained)
        else:
            reasons_told = True
        assert reasons_told


@given(st.binary(), st.dictionaries(st.text(), st.integers()))
def test_bodies_come_out_as_they_went_in(raw: bytes, value: dict[str, int]) -> None:
    assert decode(json.dumps({"body_b64": base64.b64encode(raw).decode()})).body == raw
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        if "\ud800" <= max(text, default="") <= "\udfff":
            continue
        assert decode(json.dumps({"body": text})).body == text.encode()
        assert decode(f'{{"body":{text}}}').body == text.encode()
