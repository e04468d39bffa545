"""OpenHands completion logs: a file of one line per call to a model, with messages, tools and the whole response."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord
from cachesim.trace.formats.base import BadRecord, Format, Row, cost_of, duration_us, fingerprint
from cachesim.trace.formats.fields import loose_time, nested, part, row_decoder
from cachesim.trace.formats.parts import path_of, put_together, quoted
from cachesim.trace.usage import reported_whole

_SENT_APART: Final = ("messages", "input", "model")


class _Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: Any = None


class _Log(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    raw_messages: msgspec.Raw = msgspec.Raw()
    fncall_messages: msgspec.Raw = msgspec.Raw()
    kwargs: dict[str, msgspec.Raw] | None = None
    response: _Response | None = None
    error: msgspec.Raw = msgspec.Raw()
    timestamp: str | int | float | None = None
    latency_sec: int | float | None = None
    cost: Any = None


class _ExtraBody(msgspec.Struct):
    metadata: dict[str, Any] | None = None


_decode: Final = row_decoder(_Log, "kwargs", "response", "latency_sec")
_extra: Final = msgspec.json.Decoder(_ExtraBody).decode


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One call, logged when its response was there. Raises DECODE_ERRORS."""
    log = _decode(line)
    response = log.response or _Response()
    body = _body(log, response.model)
    logged_us = loose_time("timestamp", log.timestamp)
    duration = duration_us("latency_sec", log.latency_sec, 1_000_000)
    failed = nested(log.error) is not None
    return LogRecord(
        file_no,
        number,
        offset,
        "openhands",
        put_together(body),
        id=response.id,
        at_us=logged_us if logged_us is None else logged_us - (duration or 0),
        duration_us=duration,
        model=response.model,
        uri=path_of(body),
        status=500 if failed else 200,
        success=not failed,
        usage=reported_whole(response.usage),
        cost=cost_of(log.cost) or None,  # 0 where OpenHands could not work it out
        session=_session(log),
        digest=fingerprint(line),
    )


def _body(log: _Log, model: str | None) -> dict[str, bytes | msgspec.Raw]:
    """What was sent: the arguments of the call, the messages, and the tools unless they stand in the messages as text.

    For a model without function calling, OpenHands writes the tools into the prompt; the messages as they were before
    are `raw_messages`. The tools beside them were then sent only if they are among the arguments too.
    """
    given = {name: value for name, value in (log.kwargs or {}).items() if bytes(value) != b"null"}
    body: dict[str, bytes | msgspec.Raw] = {"model": given.get("model") or quoted(model)}
    body |= {name: value for name, value in given.items() if name not in _SENT_APART}
    in_prompt = nested(log.raw_messages) is not None or nested(log.fncall_messages) is not None
    tools = nested(log.tools)
    if "tools" not in body and tools is not None and not in_prompt:
        body["tools"] = tools
    for name, raw in (("messages", log.messages), ("input", log.input)):
        value = nested(raw)
        if value is not None:
            return body | {name: value}
    raise BadRecord("missing_body", "the log has neither messages nor input")


def _session(log: _Log) -> str | None:
    extra = (log.kwargs or {}).get("extra_body")
    if extra is None or bytes(extra)[:1] != b"{":
        return None
    session = part(_extra(extra).metadata).get("session_id")
    return session if isinstance(session, str) else None


def _detect(row: Row) -> bool:
    return (
        ("messages" in row or "input" in row)
        and "kwargs" in row
        and "timestamp" in row
        and ("response" in row or "error" in row)
    )


FORMAT: Final = Format(
    name="openhands",
    description="OpenHands completion logs: messages, tools, kwargs, response, timestamp, latency_sec; a file per call",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
)
