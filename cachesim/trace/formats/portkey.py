"""Portkey log exports: one request a line, with whichever columns were asked for."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats.base import (
    RESPONSE_CACHE,
    BadRecord,
    Format,
    NotARequest,
    Row,
    cost_of,
    duration_us,
    fingerprint,
    status_field,
)
from cachesim.trace.formats.fields import fields, loose_time, nested, principal_name, tags_of, usage_of
from cachesim.trace.formats.parts import members_of, path_of
from cachesim.trace.usage import reported

_CENTS: Final = 2
_OWN: Final = ("_",)
_COLUMNS: Final = ("ai_model", "ai_org", "req_units", "response_status_code")
"""Each of these is enough to know a Portkey row by, beside its request."""


class _Line(msgspec.Struct):
    id: str | None = None
    trace_id: str | None = None
    created_at: str | int | float | None = None
    request: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    request_body: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="request.body")
    response_body: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="response.body")
    ai_model: str | None = None
    req_units: int | None = None
    res_units: int | None = None
    cost: Any = None
    response_time: int | float | None = None
    response_status_code: int | None = None
    is_success: bool | None = None
    cache_status: str | None = None
    metadata: msgspec.Raw = msgspec.Raw()


_decode: Final = msgspec.json.Decoder(_Line, strict=False).decode


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One exported request. Raises DECODE_ERRORS, NotARequest for a hit of Portkey's response cache."""
    row = _decode(line)
    if row.cache_status is not None and row.cache_status.upper().endswith("HIT"):
        raise NotARequest(RESPONSE_CACHE)
    body, own = _body(row)
    metadata = fields(row.metadata, "metadata")
    cost = cost_of(row.cost)
    return LogRecord(
        file_no,
        number,
        offset,
        "portkey",
        body,
        id=row.id,
        at_us=loose_time("created_at", row.created_at),
        duration_us=duration_us("response_time", row.response_time, 1000),
        principal=principal_name(metadata.get("_user")),
        model=None if "model" in own else row.ai_model,
        uri=path_of(own),
        status=_status(row),
        success=row.is_success,
        usage=_usage(row),
        cost=None if cost is None else _from_cents(cost),
        session=row.trace_id,
        tags=tags_of(metadata, *_OWN),
        digest=fingerprint(line),
    )


def _body(row: _Line) -> tuple[bytes, dict[str, msgspec.Raw]]:
    """The request as it stands, or its member `body`, as older exports have it."""
    body = nested(row.request) or nested(row.request_body)
    own = members_of(body or b"")
    if "body" in own and "messages" not in own:
        body = nested(own["body"])
        own = members_of(body or b"")
    if body in (None, b"{}"):
        raise BadRecord("missing_body", "the row has no request; export it with that column")
    assert body is not None
    return body, own


def _status(row: _Line) -> int:
    if row.response_status_code is None and row.is_success is False:
        return 500
    return status_field("response_status_code", row.response_status_code)


def _usage(row: _Line) -> Usage | None:
    """As the provider answered, else Portkey's units; zeros mean that it does not know."""
    response = row.response if nested(row.response) else row.response_body
    inner = members_of(nested(response) or b"").get("body", msgspec.Raw())
    for answer in (response, inner):
        if (found := reported(usage_of(answer))) is not None:
            return found
    if not row.req_units:
        return None
    return reported({"prompt_tokens": row.req_units, "completion_tokens": row.res_units})


def _from_cents(cost: Decimal) -> Decimal:
    """Exactly, whatever the decimal context: digits moved, none rounded.

    >>> _from_cents(Decimal("0.0125"))
    Decimal('0.000125')
    """
    sign, digits, exponent = cost.as_tuple()
    assert isinstance(exponent, int)
    return Decimal((sign, digits, exponent - _CENTS))


def _detect(row: Row) -> bool:
    return ("request" in row or "request.body" in row) and "custom_id" not in row and any(c in row for c in _COLUMNS)


FORMAT: Final = Format(
    name="portkey",
    description="Portkey log exports: created_at, request, response, ai_model, metadata (_user)",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    has_principals=True,
)
