"""Langfuse exports: observations, one a line, of which only generations are requests; or one trace with its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from cachesim.core.model import BadLine, LogRecord, Usage
from cachesim.trace.formats.base import (
    DECODE_ERRORS,
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
from cachesim.trace.formats.fields import (
    elapsed_us,
    fields,
    is_json,
    loose_time,
    members,
    nested,
    principal_name,
)
from cachesim.trace.formats.parts import quoted, rebuilt
from cachesim.trace.usage import reported

KINDS: Final = frozenset(
    {
        "GENERATION",
        "SPAN",
        "EVENT",
        "AGENT",
        "TOOL",
        "CHAIN",
        "RETRIEVER",
        "EVALUATOR",
        "EMBEDDING",
        "GUARDRAIL",
    }
)
NOT_A_GENERATION: Final = "not_a_generation"
_TOKENS: Final = (None, "", "TOKENS")
"""The unit of older usage objects; others are characters, seconds, requests."""
_PROMPTS: Final = ("input", "prompt", "contents")
"""What bodies of other APIs have in place of messages."""


class _Observation(msgspec.Struct):
    """As blob storage exports name the fields; the public API writes them in camel case."""

    type: str
    id: str | None = None
    start_time: str | int | float | None = None
    end_time: str | int | float | None = None
    model: str | None = None
    provided_model_name: str | None = None
    model_parameters: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    level: str | None = None
    usage_details: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    unit: str | None = None
    cost_details: msgspec.Raw = msgspec.Raw()
    calculated_total_cost: Any = None
    total_cost: Any = None
    user_id: str | None = None
    session_id: str | None = None


_CamelObservation = cast(
    type[_Observation],
    msgspec.defstruct(  # as inherited fields would keep their names
        "_CamelObservation",
        [(item.name, item.type, item.default) for item in msgspec.structs.fields(_Observation)],
        bases=(_Observation,),
        rename="camel",
    ),
)


class _Trace(msgspec.Struct, rename="camel"):
    observations: list[msgspec.Raw]
    user_id: str | None = None
    session_id: str | None = None


_snake: Final = msgspec.json.Decoder(_Observation, strict=False)
_camel: Final = msgspec.json.Decoder(_CamelObservation, strict=False)
_trace: Final = msgspec.json.Decoder(_Trace)


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One observation. Raises DECODE_ERRORS, NotARequest for anything but a generation."""
    row = _observation(line)
    if row.type != "GENERATION":
        raise NotARequest(NOT_A_GENERATION)
    body, path = _body(row)
    start_us = loose_time("startTime", row.start_time)
    failed = row.level == "ERROR"
    cost = fields(row.cost_details, "costDetails").get("total")
    return LogRecord(
        file_no,
        number,
        offset,
        "langfuse",
        body,
        id=row.id,
        at_us=start_us,
        duration_us=elapsed_us("endTime", start_us, loose_time("endTime", row.end_time)),
        principal=principal_name(row.user_id),
        model=row.model or row.provided_model_name,
        uri=path,
        status=500 if failed else 200,
        success=False if failed else None,
        usage=_usage(row),
        cost=cost_of(next((c for c in (cost, row.calculated_total_cost, row.total_cost) if c is not None), None)),
        session=row.session_id or None,
        digest=fingerprint(line),
    )


def decode_trace(document: bytes, file_no: int) -> Iterator[LogRecord | BadLine | NotARequest]:
    """The generations of one trace, whose user and session are theirs. Raises DECODE_ERRORS."""
    trace = _trace.decode(document)
    for number, raw in enumerate(trace.observations, 1):
        try:
            record = decode_line(bytes(raw), file_no, number, 0)
        except NotARequest as other:
            yield other
        except DECODE_ERRORS as error:
            yield bad_line(file_no, number, 0, bytes(raw), *explain(error))
        else:
            record.log_format = TRACE.name
            record.principal = record.principal or principal_name(trace.user_id)
            record.session = record.session or trace.session_id
            yield record


def _observation(line: bytes) -> _Observation:
    row = _camel.decode(line)
    return row if row.start_time is not None else _snake.decode(line)


def _body(row: _Observation) -> tuple[bytes, str]:
    """The body and its path: messages, an object with messages, or a prompt, with the model's parameters."""
    value = nested(row.input)
    if value is None:
        raise BadRecord("missing_body", "the generation has no input")
    own: dict[str, bytes | msgspec.Raw] = {"model": quoted(row.model or row.provided_model_name)}
    if not is_json(value):  # a prompt in plain text
        if bytes(row.input)[:1] != b'"':
            raise bad_field("input", "neither messages nor text")
        own["messages"] = b'[{"role":"user","content":' + bytes(row.input) + b"}]"
    elif value[:1] == b"[":
        own["messages"] = value
    else:
        given = members(msgspec.Raw(value), "input")
        if "messages" in given or any(name in given for name in _PROMPTS):
            own = {**given, **own}
        elif "role" in given:
            own["messages"] = b"[" + value + b"]"
        else:
            raise bad_field("input", "an object without messages")
    return rebuilt({**members(row.model_parameters, "modelParameters"), **own})


def _usage(row: _Observation) -> Usage | None:
    """The usage details, else the usage of older versions, whose unit holds for both: one was made of the other.

    No prompt tokens at all mean that they are not known.
    """
    older = fields(row.usage, "usage")
    if (older.get("unit") or row.unit) not in _TOKENS:
        return None
    for counts in (fields(row.usage_details, "usageDetails"), older):
        found = reported(counts)
        if found is not None and found.prompt:
            return found
    return None


def _detect(row: Row) -> bool:
    kind = row.get("type")
    return (
        isinstance(kind, str)
        and kind in KINDS
        and ("startTime" in row or "start_time" in row)
        and ("traceId" in row or "trace_id" in row)
    )


FORMAT: Final = Format(
    name="langfuse",
    description="Langfuse observations: type, startTime, model, input, usageDetails; userId where the export has it",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    has_principals=True,
)
TRACE: Final = Format(
    name="langfuse-trace",
    description="a Langfuse trace with its observations, as the public API gives it: one file a trace",
    kind="document",
    detect=lambda document: "observations" in document and "id" in document and "eval" not in document,
    decode_document=decode_trace,
    has_principals=True,
)
