"""cachesim's own capture format: JSON Lines, one request a line. The hot path: the body is cut out, not parsed."""

from __future__ import annotations

import base64
import binascii
import re
from decimal import Decimal
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord
from cachesim.trace.formats.base import (
    CHAT_PATH,
    Format,
    KnownPart,
    Row,
    bad_field,
    body_bytes,
    digest_key,
    duration_us,
    fingerprint,
    is_amount,
    path_and_query,
    status_field,
)
from cachesim.trace.formats.fields import loose_time, row_decoder, without_key
from cachesim.trace.usage import reported


class _Line(msgspec.Struct, gc=False):
    body: msgspec.Raw = msgspec.Raw()
    body_b64: str | None = None
    at: str | int | float | None = None
    duration_ms: int | float | None = None
    id: str | None = None
    principal: str | None = None
    api_key: str | None = None
    model: str | None = None
    uri: str | None = None
    status: int | None = None
    success: bool | None = None
    usage: dict[str, Any] | None = None
    cost: Decimal | None = None
    purpose: str | None = None
    completion_window: str | None = None
    batch_created_at: str | int | float | None = None
    session: str | None = None
    tags: dict[str, str | None] | None = None


# A guess: whether it is the line's own `body` shows when the line is decoded with something in its place.
_BODY: Final = re.compile(rb'"body"\s*:\s*(?=\{)')
_BEFORE_BODY: Final = 4096
_decode: Final = row_decoder(_Line, "at", "duration_ms", "status", "success", "usage", "batch_created_at", "tags")


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One line of a capture. Raises DECODE_ERRORS."""
    row = _decode(line)
    body = body_bytes(row.body) if row.body_b64 is None else _from_base64(row.body_b64)
    return _record(row, body, line, file_no, number, offset)


def decode_known_line(line: bytes, file_no: int, number: int, offset: int, known: KnownPart) -> LogRecord:
    """The same, without scanning the part of the body that is `known`. Raises DECODE_ERRORS."""
    found = _BODY.search(line, 0, _BEFORE_BODY)
    if found is None:
        return decode_line(line, file_no, number, offset)
    start = found.end()
    end, known_part = known(line, start)
    if end < 0:
        return decode_line(line, file_no, number, offset)
    row = _decode(line[:start] + known_part + line[end:])
    rest = bytes(row.body)
    if not rest.startswith(known_part) or row.body_b64 is not None:  # another `body`
        return decode_line(line, file_no, number, offset)
    return _record(row, rest, line, file_no, number, offset)


def _record(row: _Line, body: bytes, line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    uri = row.uri
    if uri is None:
        uri = CHAT_PATH
    elif not uri.startswith("/"):
        uri = path_and_query(uri, CHAT_PATH)
    if row.cost is not None and not is_amount(row.cost):
        raise bad_field("cost", "not an amount of money")
    return LogRecord(
        file_no,
        number,
        offset,
        "cachesim",
        body,
        row.id,
        loose_time("at", row.at),
        duration_us("duration_ms", row.duration_ms, 1000),
        _principal(row),
        row.model,
        uri,
        "POST",
        status_field("status", row.status),
        row.success,
        None if row.usage is None else reported(row.usage),
        row.cost,
        row.purpose,
        row.completion_window,
        loose_time("batch_created_at", row.batch_created_at),
        None if row.session is None else without_key(row.session),
        {} if row.tags is None else {n: without_key(tag) for n, tag in row.tags.items() if tag is not None},
        fingerprint(line),
    )


def _principal(row: _Line) -> str | None:
    if row.principal:
        return without_key(row.principal)
    return digest_key(row.api_key) if row.api_key else None


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise bad_field("body_b64", "not base64") from None


def _detect(row: Row) -> bool:
    others = ("custom_id", "request", "correlation_id")
    return ("body" in row or "body_b64" in row) and not any(name in row for name in others)


FORMAT: Final = Format(
    name="cachesim",
    description="cachesim's own capture: a line per request with at, principal or api_key, body, usage",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    decode_known_line=decode_known_line,
    has_principals=True,
)
