"""Helicone exports with bodies: one request a line, as its export tool and its query API give them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats.base import (
    CHAT_PATH,
    RESPONSE_CACHE,
    BadRecord,
    Format,
    NotARequest,
    Row,
    cost_of,
    duration_us,
    fingerprint,
    path_and_query,
    status_field,
)
from cachesim.trace.formats.fields import (
    elapsed_us,
    fields,
    loose_time,
    nested,
    principal_name,
    tags_of,
    text,
    usage_of,
)
from cachesim.trace.formats.parts import members_of, path_of
from cachesim.trace.usage import reported

_NO_REFERENCE: Final = (None, "", "00000000-0000-0000-0000-000000000000")
_ASSET: Final = b"<helicone-asset-id"
_OWN: Final = ("helicone-",)


class _Line(msgspec.Struct):
    request_id: str | None = None
    request_created_at: str | int | float | None = None
    response_created_at: str | int | float | None = None
    delay_ms: int | float | None = None
    request_path: str | None = None
    request_body: msgspec.Raw = msgspec.Raw()
    response_body: msgspec.Raw = msgspec.Raw()
    response_status: int | None = None
    request_user_id: str | None = None
    helicone_user: str | None = None
    request_model: str | None = None
    model: str | None = None
    request_properties: msgspec.Raw = msgspec.Raw()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_cache_read_tokens: int | None = None
    prompt_cache_write_tokens: int | None = None
    cache_reference_id: str | None = None
    cost: Any = None
    costUSD: Any = None


_decode: Final = msgspec.json.Decoder(_Line, strict=False).decode


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One exported request. Raises DECODE_ERRORS, NotARequest for a hit of Helicone's response cache."""
    row = _decode(line)
    if row.cache_reference_id not in _NO_REFERENCE:
        raise NotARequest(RESPONSE_CACHE)
    body = _body(row)
    own = members_of(body)
    properties = fields(row.request_properties, "request_properties")
    start_us = loose_time("request_created_at", row.request_created_at)
    unanswered = row.response_status is not None and row.response_status < 0  # pending, cancelled, timed out
    return LogRecord(
        file_no,
        number,
        offset,
        "helicone",
        body,
        id=row.request_id,
        at_us=start_us,
        duration_us=_duration_us(row, start_us),
        principal=principal_name(row.helicone_user or row.request_user_id),
        model=None if "model" in own else row.request_model or row.model,
        uri=path_and_query(row.request_path, CHAT_PATH) if row.request_path else path_of(own),
        status=0 if unanswered else status_field("response_status", row.response_status),
        success=False if unanswered else None,
        usage=_usage(row),
        cost=cost_of(row.cost if row.cost is not None else row.costUSD),
        session=text(properties.get("Helicone-Session-Id")),
        tags=tags_of(properties, *_OWN),
        digest=fingerprint(line),
    )


def _body(row: _Line) -> bytes:
    body = nested(row.request_body)
    if body in (None, b"{}"):
        raise BadRecord("missing_body", "the row has no request_body; export with --include-body")
    assert body is not None
    if _ASSET in body:
        raise BadRecord("cut_body", "Helicone has replaced images by ids of its own")
    return body


def _duration_us(row: _Line, start_us: int | None) -> int | None:
    if row.delay_ms is not None:
        return duration_us("delay_ms", row.delay_ms, 1000)
    return elapsed_us("response_created_at", start_us, loose_time("response_created_at", row.response_created_at))


def _usage(row: _Line) -> Usage | None:
    """As the provider answered, else Helicone's columns, whose prompt tokens exclude what was read and written."""
    found = reported(usage_of(row.response_body))
    counts = (row.prompt_tokens, row.prompt_cache_read_tokens, row.prompt_cache_write_tokens)
    if found is not None or row.prompt_tokens is None or not any(counts):
        return found
    return reported(
        {
            "input_tokens": row.prompt_tokens,
            "output_tokens": row.completion_tokens,
            "cache_read_input_tokens": row.prompt_cache_read_tokens,
            "cache_creation_input_tokens": row.prompt_cache_write_tokens,
        }
    )


def _detect(row: Row) -> bool:
    return "request_created_at" in row and ("request_id" in row or "response_status" in row)


FORMAT: Final = Format(
    name="helicone",
    description="Helicone exports with bodies: request_created_at, request_body, response_body, response_status",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    has_principals=True,
)
