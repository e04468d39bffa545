"""Recorded HTTP exchanges reduced to request text and usage, as kept beside test cassettes."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord
from cachesim.trace.formats.base import (
    CHAT_PATH,
    Format,
    Row,
    bad_field,
    body_bytes,
    cost_of,
    fingerprint,
    path_and_query,
    status_field,
)
from cachesim.trace.formats.fields import row_decoder
from cachesim.trace.times import parse_time
from cachesim.trace.usage import reported


class _Line(msgspec.Struct):
    url: str
    request_body: msgspec.Raw
    status: int | None = None
    usage: dict[str, Any] | None = None
    response_date: str | int | float | None = None
    path: str | None = None
    interaction: int | None = None


_decode: Final = row_decoder(_Line, "status", "usage", "response_date", "interaction")


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One exchange; the recording's own path groups it as a session. Raises DECODE_ERRORS."""
    row = _decode(line)
    usage = row.usage or {}
    return LogRecord(
        file_no,
        number,
        offset,
        "recorded",
        body_bytes(row.request_body, "request_body"),
        id=f"{row.path}#{row.interaction}" if row.path is not None and row.interaction is not None else None,
        at_us=_time(row.response_date),
        uri=path_and_query(row.url, CHAT_PATH),
        status=status_field("status", row.status),
        usage=reported(usage),
        cost=cost_of(usage.get("cost")),
        session=row.path,
        digest=fingerprint(line),
    )


def _time(value: object) -> int | None:
    """A time as `parse_time` reads it, or the date of an HTTP header."""
    if value is None:
        return None
    try:
        return parse_time(value)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(str(value))
        return parse_time(moment.replace(tzinfo=moment.tzinfo or UTC).isoformat())
    except ValueError:
        raise bad_field("response_date", "not a time") from None


def _detect(row: Row) -> bool:
    return "request_body" in row and "url" in row


FORMAT: Final = Format(
    name="recorded",
    description="recorded exchanges: url, status, request_body (text), usage (needs --start, --interval where undated)",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
)
