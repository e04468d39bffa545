"""OpenAI Batch files: the input file holds the requests, the output file (joined on custom_id) status and usage."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord
from cachesim.trace.formats.base import (
    CHAT_PATH,
    Answer,
    Format,
    Join,
    Row,
    body_bytes,
    fingerprint,
    path_and_query,
    status_field,
)
from cachesim.trace.formats.fields import row_decoder
from cachesim.trace.usage import reported


class _Input(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw = msgspec.Raw()
    method: str | None = None
    url: str | None = None


class _Body(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: _Body | None = None


class _Output(msgspec.Struct):
    custom_id: str
    response: _Response | None = None


_WINDOW: Final = "24h"
"""The only completion window that OpenAI's Batch API offers; its files do not say it."""

_input: Final = msgspec.json.Decoder(_Input)
_output: Final = row_decoder(_Output, "response")


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One line of a batch input file. Raises DECODE_ERRORS."""
    row = _input.decode(line)
    return LogRecord(
        file_no,
        number,
        offset,
        "openai-batch",
        body_bytes(row.body),
        id=row.custom_id,
        uri=path_and_query(row.url, CHAT_PATH) if row.url else CHAT_PATH,
        method=(row.method or "POST").upper(),
        purpose="batch",
        completion_window=_WINDOW,
        digest=fingerprint(line),
    )


def decode_answer(line: bytes) -> Answer:
    """One line of a batch output or error file; without a response the request failed. Raises DECODE_ERRORS."""
    row = _output(line)
    if row.response is None:
        return Answer(row.custom_id, {"status": 500, "usage": None})
    usage = reported(row.response.body.usage) if row.response.body is not None else None
    status = status_field("response.status_code", row.response.status_code)
    return Answer(row.custom_id, {"status": status, "usage": usage})


def _is_input(row: Row) -> bool:
    return "custom_id" in row and "body" in row


def _is_output(row: Row) -> bool:
    return "custom_id" in row and "body" not in row and ("response" in row or "error" in row)


FORMAT: Final = Format(
    name="openai-batch",
    description="OpenAI Batch input files, and their output files for status and usage (needs --start, --interval)",
    kind="lines",
    detect=lambda row: _is_input(row) or _is_output(row),
    decode_line=decode_line,
    has_times=False,
    assumes=(
        "openai_batch",
        f"OpenAI Batch files: priced as purpose batch, completion window {_WINDOW}, created on arrival",
    ),
    joins=(Join(_is_output, decode_answer, "the output of a batch holds no requests; give its input file with it"),),
)
