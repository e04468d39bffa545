"""Skipping the known part of a body while a line is decoded must change no record."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bodies import Reading, sessions

from cachesim.core.canonical import JsonError
from cachesim.core.model import KNOWN_BODY, KNOWN_START, LogRecord
from cachesim.trace.formats.base import DECODE_ERRORS
from cachesim.trace.formats.capture import decode_known_line, decode_line

ENVELOPES = st.fixed_dictionaries(
    {"at": st.sampled_from([1, "2026-01-01T00:00:00Z"])},
    optional={
        "id": st.sampled_from(["a", 'quoted "', "body"]),
        "tags": st.just({"app": "x"}),
        "usage": st.just({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}),
        "bodyguard": st.just({"body": 1}),
    },
)


def decoded(reading: Reading, line: bytes, *, known: bool) -> LogRecord | str:
    """The record of a line, or the kind of error; its body is read, so that the next line finds it known."""
    try:
        prefix = reading.reader.parts.known_part
        record = decode_known_line(line, 0, 1, 0, prefix) if known else decode_line(line, 0, 1, 0)
    except DECODE_ERRORS as error:
        return type(error).__name__
    body = record.body or b""
    with suppress(JsonError):
        reading.read(body)
    return replace(record, body=reading.reader.parts.restored(body))


def lines_of(bodies: list[bytes], before: dict[str, Any], after: dict[str, Any], end: bytes) -> list[bytes]:
    found = []
    for body in bodies:
        head = json.dumps(before)[:-1].encode()
        tail = json.dumps(after)[1:].encode()
        found.append(head + (b", " if before else b"") + b'"body": ' + body + (b", " if after else b"") + tail + end)
    return found


@settings(max_examples=150, deadline=None)
@given(sessions(), ENVELOPES, ENVELOPES | st.just({}), st.sampled_from([b"", b"\n", b"\r\n", b"}\n"]))
def test_known_parts_change_no_record(
    bodies: list[bytes], before: dict[str, Any], after: dict[str, Any], end: bytes
) -> None:
    reading, plain = Reading(), Reading()
    for line in lines_of(bodies + bodies, before, after, end):
        assert decoded(reading, line, known=True) == decoded(plain, line, known=False)


MESSAGES = b'"messages":[{"role":"user","content":"a"},'


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"b"}]},"body":{"messages":[]}}',
        b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"b"}]},"body":"x"}',
        b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"b"}]},"body_b64":"e30="}',
        b'{"at":1,"id":"\\"body\\":{","body":{' + MESSAGES + b"]}}",
        b'{"at":1,"x":{"body":{' + MESSAGES + b'{"role":"user"}]}},"body":{"messages":[]}}',
        b'{"at":1,"body":{' + MESSAGES + b"]}}",
        b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"b"}}',
        b'{"at":tru,"body":{' + MESSAGES + b'{"role":"user","content":"b"}]}}',
        b'{"at":1,"body":{"model":tru,' + MESSAGES + b'{"role":"user","content":"b"}]}}',
        b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"b"}]}} x',
        b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"\xff"}]}}',
        b'{"at":1,"body":{"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"a"},{"b":1}]}}',
    ],
)
def test_awkward_lines(line: bytes) -> None:
    reading, plain = Reading(), Reading()
    ordinary = b'{"at":1,"body":{"messages":[{"role":"user","content":"a"},{"role":"user","content":"c"}]}}'
    for each in (ordinary, line, ordinary, line):
        assert decoded(reading, each, known=True) == decoded(plain, each, known=False)


def test_the_known_part_is_really_skipped() -> None:
    """Guards the tests above: histories that repeat are found."""
    reading = Reading()
    line = b'{"at":1,"body":{' + MESSAGES + b'{"role":"user","content":"b"}]},"id":"z"}'
    decoded(reading, line, known=False)
    start = line.index(b'{"messages"')
    known_part = reading.reader.parts.known_part
    assert known_part(line, start) == (line.index(b']},"id"'), KNOWN_START)
    line = line.replace(b',"id":"z"}', b"}") + b"\r\n"
    assert known_part(line, start) == (line.index(b"}\r\n"), KNOWN_BODY)
