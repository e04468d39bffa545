"""dwctl's own tables: http_requests, joined with http_responses and http_analytics on (instance_id, correlation_id).

The three may be files of their own, or one dump of joined rows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats.answers import outcome
from cachesim.trace.formats.base import (
    CHAT_PATH,
    DECODE_ERRORS,
    Answer,
    BadRecord,
    Format,
    Join,
    NotARequest,
    Row,
    bad_field,
    cost_of,
    digest_key,
    duration_us,
    fingerprint,
    header,
    path_and_query,
    status_field,
)
from cachesim.trace.formats.fields import fields, first, loose_time, nested, part, principal_name, text
from cachesim.trace.usage import reported

_BASE64: Final = b"base64:"
_CREATION: Final = "cache_creation_{}_input_tokens"
_SPLIT: Final = ("cache_read_input_tokens", *(_CREATION.format(ttl) for ttl in ("5m", "1h", "24h")))
_ANALYTICS: Final = (*_SPLIT, "prompt_tokens", "user_id", "model", "total_cost", "request_origin")
_PURPOSES: Final = {"fusillade": "batch", "frontend": "playground", "api": "realtime"}
"""What a key was for, by the origin that http_analytics keeps instead."""


class _Ids(msgspec.Struct):
    instance_id: str | int
    correlation_id: str | int

    @property
    def key(self) -> str:
        return f"{self.instance_id}/{self.correlation_id}"


class _Request(_Ids):
    timestamp: str | int | float | None = None
    request_timestamp: str | int | float | None = None
    method: str | None = None
    uri: str | None = None
    headers: msgspec.Raw = msgspec.Raw()
    request_headers: msgspec.Raw = msgspec.Raw()
    body: msgspec.Raw = msgspec.Raw()
    request_body: msgspec.Raw = msgspec.Raw()
    response_body: msgspec.Raw = msgspec.Raw()
    status_code: int | None = None
    duration_ms: int | float | None = None


class _Response(_Ids):
    status_code: int | None = None
    duration_ms: int | float | None = None
    body: msgspec.Raw = msgspec.Raw()


class _Analytics(_Ids):
    status_code: int | None = None
    duration_ms: int | float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_5m_input_tokens: int | None = None
    cache_creation_1h_input_tokens: int | None = None
    cache_creation_24h_input_tokens: int | None = None
    total_cost: Decimal | None = None
    user_id: Any = None
    purpose: str | None = None
    api_key_purpose: str | None = None
    request_origin: str | None = None
    completion_window: str | None = None
    batch_sla: str | None = None
    submitted_at: Any = None
    batch_created_at: Any = None


_request: Final = msgspec.json.Decoder(_Request, strict=False).decode
_response: Final = msgspec.json.Decoder(_Response, strict=False).decode
_analytics: Final = msgspec.json.Decoder(_Analytics, strict=False).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """A row of http_requests, with what it holds of the other tables if it is a joined one.

    Raises DECODE_ERRORS, NotARequest for anything but a POST.
    """
    row = _request(line)
    method = (row.method or "POST").upper()
    if method != "POST":
        raise NotARequest("not_a_post")
    key = header(fields(row.request_headers if bytes(row.request_headers) else row.headers, "headers"), "authorization")
    record = LogRecord(
        file_no,
        number,
        offset,
        FORMAT.name,
        _body(row.request_body if bytes(row.request_body) else row.body),
        id=row.key,
        at_us=loose_time("timestamp", first({"a": row.request_timestamp, "b": row.timestamp}, "a", "b")),
        principal=digest_key(key) if key else None,
        uri=path_and_query(row.uri or "", CHAT_PATH),
        digest=fingerprint(line),
    )
    said = _said_by_response(row.status_code, row.duration_ms, row.response_body) | _said_by_analytics(_analytics(line))
    for name, value in said.items():
        setattr(record, name, value)
    return record


def decode_response(line: bytes) -> Answer:
    """A row of http_responses. Raises DECODE_ERRORS."""
    row = _response(line)
    return Answer(row.key, _said_by_response(row.status_code, row.duration_ms, row.body))


def decode_analytics(line: bytes) -> Answer:
    """A row of http_analytics: what was billed. Raises DECODE_ERRORS."""
    row = _analytics(line)
    return Answer(row.key, _said_by_analytics(row) | _said_by_response(row.status_code, row.duration_ms, msgspec.Raw()))


def _body(raw: msgspec.Raw) -> bytes:
    """The client's body: as parsed by dwctl, `{"request": …}`, or the bytes themselves where it could not be parsed."""
    body = nested(raw)
    if body is None:
        raise BadRecord("missing_body", "the row has no body")
    if body.startswith(_BASE64):
        return _bytes_of(body, "body")
    if body[:1] == b"{":
        own = _members.decode(body)
        if "request" in own and "messages" not in own:
            return nested(own["request"]) or body
    return body


def _bytes_of(body: bytes, name: str) -> bytes:
    try:
        return base64.b64decode(body[len(_BASE64) :], validate=True)
    except (binascii.Error, ValueError):
        raise bad_field(name, "not base64") from None


def _said_by_response(status: int | None, duration_ms: float | None, body: msgspec.Raw) -> dict[str, Any]:
    said: dict[str, Any] = {} if status is None else {"status": status_field("status_code", status)}
    if duration_ms is not None:
        said["duration_us"] = duration_us("duration_ms", duration_ms, 1000)
    return said | _said_by_body(body)


def _said_by_body(raw: msgspec.Raw) -> dict[str, Any]:
    """The usage of a stored response, and that it failed where it broke, whatever its status: a stream begins with 200.

    Its split counts only with lifetimes: without, it is the engine's own cache.
    """
    body = nested(raw)
    if body is None:
        return {}
    if body.startswith(_BASE64):
        body = _bytes_of(body, "response.body")
    try:
        found: Any = msgspec.json.decode(body)
    except DECODE_ERRORS:
        found = body.decode("utf-8", "replace")
    usage, complete = outcome(found.get("response", found) if isinstance(found, dict) else found)
    said: dict[str, Any] = {} if complete else {"success": False}
    if (counted := reported(usage)) is not None:
        said["usage"] = counted if "cache_creation" in part(usage) else Usage(counted.prompt, counted.completion)
    return said


def _said_by_analytics(row: _Analytics) -> dict[str, Any]:
    """What http_analytics has beside status and duration: the billed split, cost, who, and what for."""
    found = {
        "usage": _billed(row),
        "cost": None if row.total_cost is None else cost_of(str(row.total_cost)),
        "principal": principal_name(row.user_id),
        "purpose": text(row.purpose or row.api_key_purpose) or _PURPOSES.get(row.request_origin or ""),
        "completion_window": text(row.completion_window or row.batch_sla),
        "batch_created_us": loose_time("batch_created_at", first(_times(row), "batch_created_at", "submitted_at")),
    }
    return {name: value for name, value in found.items() if value is not None}


def _times(row: _Analytics) -> Mapping[str, Any]:
    return {"batch_created_at": row.batch_created_at, "submitted_at": row.submitted_at}


def _billed(row: _Analytics) -> Usage | None:
    """`prompt_tokens` is the whole prompt, whatever was read or written of it."""
    if row.prompt_tokens is None:
        return None
    split = (getattr(row, name) for name in _SPLIT)
    return Usage(row.prompt_tokens, row.completion_tokens, *split)


def _has_ids(row: Row) -> bool:
    return "instance_id" in row and "correlation_id" in row


def _is_request(row: Row) -> bool:
    return "request_body" in row or (("uri" in row or "method" in row) and ("headers" in row or "body" in row))


def _is_analytics(row: Row) -> bool:
    return _has_ids(row) and not _is_request(row) and any(name in row for name in _ANALYTICS)


def _is_response(row: Row) -> bool:
    return _has_ids(row) and not _is_request(row) and not _is_analytics(row) and "status_code" in row


FORMAT: Final = Format(
    name="dwctl",
    description="dwctl's http_requests; http_responses and http_analytics as further files or joined into its rows",
    kind="lines",
    detect=lambda row: _has_ids(row) and (_is_request(row) or _is_analytics(row) or _is_response(row)),
    decode_line=decode_line,
    has_principals=True,
    joins=(
        Join(
            _is_response,
            decode_response,
            "http_responses rows hold no requests, so there is nothing to replay; give the http_requests dump "
            "with them",
        ),
        Join(
            _is_analytics,
            decode_analytics,
            "http_analytics rows hold no request bodies, so there is nothing to replay; give the http_requests dump "
            "with them",
        ),
    ),
    assumes=(
        "markers_not_stored",
        "dwctl drops the cache markers of the blocks of every body that it can parse before it stores it: requests "
        "look as if they had none (--markers assumes some)",
    ),
)
