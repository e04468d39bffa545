"""Rows of LiteLLM's table SpendLogs, whose bodies are there only if the proxy was told to store prompts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats.base import CHAT_PATH, BadRecord, Format, Row, cost_of, fingerprint
from cachesim.trace.formats.fields import elapsed_us, fields, loose_time, members, nested, part
from cachesim.trace.formats.litellm import api_of, outcome, principal, refuse_altered, refuse_cache_hit
from cachesim.trace.formats.parts import path_of, put_together, quoted
from cachesim.trace.usage import reported_whole

_EMPTY: Final = (None, b"{}", b"[]")


class _Line(msgspec.Struct):
    request_id: str
    call_type: str
    api_key: str | None = None
    user: str | None = None
    team_id: str | None = None
    organization_id: str | None = None
    startTime: str | int | float | None = None
    endTime: str | int | float | None = None
    model: str | None = None
    model_group: str | None = None
    proxy_server_request: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    cache_hit: Any = None
    status: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    spend: Any = None
    session_id: str | None = None


_decode: Final = msgspec.json.Decoder(_Line, strict=False).decode


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One row of the table. Raises DECODE_ERRORS, NotARequest for a hit of the response cache."""
    row = _decode(line)
    refuse_cache_hit(row.cache_hit)
    metadata = fields(row.metadata, "metadata")
    body = _body(row)
    own = members(msgspec.Raw(body), "proxy_server_request")
    path, _ = api_of(row.call_type)
    start_us = loose_time("startTime", row.startTime)
    status, success = outcome(row.status or metadata.get("status"), part(metadata.get("error_information")))
    names = {"api_key": row.api_key, "user": row.user, "team": row.team_id, "organization": row.organization_id}
    return LogRecord(
        file_no,
        number,
        offset,
        "litellm-spend-logs",
        body,
        id=row.request_id,
        at_us=start_us,
        duration_us=elapsed_us("endTime", start_us, loose_time("endTime", row.endTime)),
        principal=principal(names, *names),
        model=row.model_group or (None if "model" in own else row.model),
        uri=path_of(own) if path == CHAT_PATH else path,
        status=status,
        success=success,
        usage=_usage(row, metadata),
        cost=cost_of(row.spend),
        session=row.session_id,
        digest=fingerprint(line),
    )


def _body(row: _Line) -> bytes:
    """The client's own body; in rows of old versions the messages alone."""
    body = nested(row.proxy_server_request)
    if body in _EMPTY:
        messages = nested(row.messages)
        if messages in _EMPTY:
            raise BadRecord("missing_body", "the row has no prompt; LiteLLM keeps it with store_prompts_in_spend_logs")
        body = put_together({"model": quoted(row.model_group or row.model), "messages": messages or b""})
    assert body is not None
    refuse_altered(body)
    return body


def _usage(row: _Line, metadata: Mapping[str, Any]) -> Usage | None:
    """As the provider reported it, else the row's counts with what LiteLLM keeps beside them; zeros are unknown."""
    found = reported_whole(metadata.get("usage_object"))
    if found is not None or not row.prompt_tokens:
        return found
    counts = {"prompt_tokens": row.prompt_tokens, "completion_tokens": row.completion_tokens}
    return reported_whole(part(metadata.get("additional_usage_values")) | counts)


def _detect(row: Row) -> bool:
    return "call_type" in row and "request_id" in row and ("spend" in row or "proxy_server_request" in row)


FORMAT: Final = Format(
    name="litellm-spend-logs",
    description="LiteLLM SpendLogs rows: startTime, api_key, proxy_server_request (stored prompts), metadata",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    has_principals=True,
)
