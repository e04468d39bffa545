"""Inspect eval logs in JSON: a file is an evaluation, each model event of its samples a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from cachesim.core.model import BadLine, LogRecord, Usage
from cachesim.trace.formats.base import (
    DECODE_ERRORS,
    RESPONSE_CACHE,
    BadRecord,
    Format,
    NotARequest,
    Row,
    bad_field,
    bad_line,
    cost_of,
    explain,
    fingerprint,
)
from cachesim.trace.formats.fields import elapsed_us, loose_time, usage_of
from cachesim.trace.formats.inspect_messages import chat_messages, chat_tools
from cachesim.trace.formats.parts import quoted, rebuilt
from cachesim.trace.usage import reported

Refs = list[tuple[int, int]]
"""Ranges (from, up to) of a sample's pool, in place of the messages themselves."""

_REFERENCE: Final = re.compile(rb'"(?<!\\")(?:attachment|tc)://([0-9A-Za-z]+)"')
"""The look back stands behind the quotation mark: a search for a fixed byte takes a tenth of the time."""
_REMOVED: Final = b'"<base64-data-removed>"'


class _Call(msgspec.Struct):
    request: dict[str, msgspec.Raw] = {}
    response: msgspec.Raw = msgspec.Raw()
    call_refs: Refs | None = None
    call_key: str | None = None


class _Output(msgspec.Struct):
    usage: dict[str, Any] | None = None
    completion: str | None = None


class _Event(msgspec.Struct):
    event: str
    uuid: str | None = None
    timestamp: str | None = None
    completed: str | None = None
    model: str | None = None
    input: list[msgspec.Raw] = []
    input_refs: Refs | None = None
    tools: list[msgspec.Raw] = []
    call: _Call | None = None
    output: _Output | None = None
    error: str | None = None
    cache: str | None = None
    pending: bool | None = None


class _Kind(msgspec.Struct):
    event: str


class _Pools(msgspec.Struct):
    messages: list[msgspec.Raw] = []
    calls: list[msgspec.Raw] = []


class _Sample(msgspec.Struct):
    id: str | int
    epoch: int = 1
    events: list[msgspec.Raw] = []
    attachments: dict[str, str] = {}
    message_pool: list[msgspec.Raw] = []
    call_pool: list[msgspec.Raw] = []
    events_data: _Pools | None = None


class _Eval(msgspec.Struct):
    task: str = ""
    run_id: str | None = None


class _Log(msgspec.Struct):
    eval: _Eval
    samples: list[_Sample] | None = None


_log: Final = msgspec.json.Decoder(_Log)
_kind: Final = msgspec.json.Decoder(_Kind)
_event: Final = msgspec.json.Decoder(_Event)


def decode_document(document: bytes, file_no: int) -> Iterator[LogRecord | BadLine | NotARequest]:
    """The model events of all samples, numbered from 1; other events are not counted. Raises DECODE_ERRORS."""
    log = _log.decode(document)
    if log.samples is None:
        raise BadRecord("missing_samples", "the log has no samples; write it with log_samples")
    number = 0
    for sample in log.samples:
        session = f"{log.eval.task}/{sample.id}/{sample.epoch}"
        for raw in sample.events:
            if _kind.decode(raw).event == "model":
                number += 1
                yield _request(bytes(raw), sample, session, file_no, number)


def _request(raw: bytes, sample: _Sample, session: str, file_no: int, number: int) -> LogRecord | BadLine | NotARequest:
    try:
        event = _event.decode(raw)
        if event.cache == "read":
            return NotARequest(RESPONSE_CACHE)
        return _record(event, raw, sample, session, file_no, number)
    except DECODE_ERRORS as error:
        return bad_line(file_no, number, 0, raw, *explain(error))


def _record(event: _Event, raw: bytes, sample: _Sample, session: str, file_no: int, number: int) -> LogRecord:
    parts = _body(event, sample)
    body, path = rebuilt(parts)
    start_us = loose_time("timestamp", event.timestamp)
    failed = event.error is not None or bool(event.pending)
    return LogRecord(
        file_no,
        number,
        0,
        "inspect",
        _resolved(body, sample.attachments),
        id=event.uuid,
        at_us=start_us,
        duration_us=elapsed_us("completed", start_us, loose_time("completed", event.completed)),
        model=None if "model" in parts else event.model,
        uri=path,
        status=500 if failed else 200,
        success=False if failed else None,
        usage=_usage(event),
        cost=None if event.output is None else cost_of((event.output.usage or {}).get("total_cost")),
        session=session,
        digest=fingerprint(raw),
    )


def _body(event: _Event, sample: _Sample) -> Mapping[str, bytes | msgspec.Raw]:
    """The request as it went to the provider, else one in the shape of the chat API, made of Inspect's own messages."""
    pools = sample.events_data or _Pools(sample.message_pool, sample.call_pool)
    call = event.call
    if call is not None and call.request:
        if call.call_refs is None:
            return call.request
        return call.request | {call.call_key or "messages": _array(_referred(call.call_refs, pools.calls))}
    messages = event.input if event.input_refs is None else _referred(event.input_refs, pools.messages)
    if not messages:
        raise BadRecord("missing_body", "the model event has neither a call nor input")
    body = {"model": quoted(event.model), "messages": chat_messages(messages)}
    return body | ({"tools": chat_tools(event.tools)} if event.tools else {})


def _referred(refs: Refs, pool: Sequence[msgspec.Raw]) -> list[msgspec.Raw]:
    found: list[msgspec.Raw] = []
    for start, end in refs:
        if not 0 <= start <= end <= len(pool):
            raise bad_field("refs", "outside the messages of its sample")
        found += pool[start:end]
    return found


def _array(values: Sequence[msgspec.Raw]) -> msgspec.Raw:
    return msgspec.Raw(b"[" + b",".join(map(bytes, values)) + b"]")


def _resolved(body: bytes, attachments: Mapping[str, str]) -> bytes:
    """The body with each reference to an attachment replaced by its text. Raises BadRecord for what is missing."""
    if _REMOVED in body:
        raise BadRecord("cut_body", "images were left out of the log; write it with log_images")
    return _REFERENCE.sub(_lookup(attachments), body)


def _lookup(attachments: Mapping[str, str]) -> Callable[[re.Match[bytes]], bytes]:
    def text(match: re.Match[bytes]) -> bytes:
        found = attachments.get(match[1].decode())
        if found is None:
            raise BadRecord("missing_attachment", "the sample does not have an attachment that the request refers to")
        return quoted(found)

    return text


def _usage(event: _Event) -> Usage | None:
    """As the provider answered, else as Inspect keeps it; of neither, nothing."""
    found = None if event.call is None else reported(usage_of(event.call.response))
    if found is None and event.output is not None:
        found = reported(event.output.usage)
    return found


def _detect(document: Row) -> bool:
    return "eval" in document and "samples" in document and ("plan" in document or "version" in document)


FORMAT: Final = Format(
    name="inspect",
    description="Inspect eval logs in JSON (inspect log dump): a file is an evaluation, each model event a request",
    kind="document",
    detect=_detect,
    decode_document=decode_document,
)
