"""Captures of a proxy in front of Anthropic's Messages API: request and response of one exchange a line."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord
from cachesim.trace.formats.answers import outcome
from cachesim.trace.formats.base import (
    MESSAGES_PATH,
    Format,
    Row,
    body_bytes,
    digest_key,
    duration_us,
    fingerprint,
    header,
    path_and_query,
    status_field,
)
from cachesim.trace.formats.fields import loose_time, row_decoder
from cachesim.trace.usage import reported


class _Request(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw()
    headers: dict[str, Any] | list[Any] | None = None
    url: str | None = None
    path: str | None = None
    method: str | None = None


class _Response(msgspec.Struct):
    status: int | None = None
    status_code: int | None = None
    body: Any = None


class _Line(msgspec.Struct):
    request: _Request
    timestamp: str | int | float | None = None
    response: _Response | None = None
    duration_ms: int | float | None = None
    duration: int | float | None = None
    id: str | None = None


_decode: Final = row_decoder(_Line, "request", "response", "timestamp", "duration_ms", "duration")


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One exchange; a duration without unit counts seconds. Raises DECODE_ERRORS."""
    row = _decode(line)
    request, response = row.request, row.response or _Response()
    usage, complete = outcome(response.body)
    duration = duration_us("duration_ms", row.duration_ms, 1000)
    if duration is None:
        duration = duration_us("duration", row.duration, 1_000_000)
    status = response.status if response.status is not None else response.status_code
    key = header(request.headers, "authorization") or header(request.headers, "x-api-key")
    return LogRecord(
        file_no,
        number,
        offset,
        "anthropic",
        body_bytes(request.body, "request.body"),
        id=row.id,
        at_us=loose_time("timestamp", row.timestamp),
        duration_us=duration,
        principal=digest_key(key) if key else None,
        uri=path_and_query(request.path or request.url or "", MESSAGES_PATH),
        method=(request.method or "POST").upper(),
        status=status_field("response.status", status),
        success=None if complete else False,
        usage=reported(usage),
        digest=fingerprint(line),
    )


def _detect(row: Row) -> bool:
    request = row.get("request")
    is_portkey = "ai_model" in row or "ai_org" in row  # its older exports have such requests too
    return isinstance(request, dict) and "body" in request and not is_portkey


FORMAT: Final = Format(
    name="anthropic",
    description="proxy captures of Anthropic Messages requests: timestamp, request {headers, body}, response",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    has_principals=True,
)
