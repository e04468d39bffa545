"""LiteLLM's StandardLoggingPayload, which its proxy writes to buckets, queues and callbacks: one call a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats.base import (
    CHAT_PATH,
    MESSAGES_PATH,
    RESPONSE_CACHE,
    BadRecord,
    Format,
    NotARequest,
    Row,
    cost_of,
    fingerprint,
)
from cachesim.trace.formats.fields import (
    elapsed_us,
    fields,
    first,
    hashed_key,
    is_json,
    loose_time,
    members,
    nested,
    principal_name,
    usage_of,
)
from cachesim.trace.formats.parts import (
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    RESPONSES_PATH,
    quoted,
    rebuilt,
)
from cachesim.trace.usage import reported, reported_whole

APIS: Final = {
    "completion": (CHAT_PATH, "messages"),
    "anthropic_messages": (MESSAGES_PATH, "messages"),
    "responses": (RESPONSES_PATH, "input"),
    "text_completion": (COMPLETIONS_PATH, "prompt"),
    "embedding": (EMBEDDINGS_PATH, "input"),
}
"""Call type, without the `a` of asynchronous calls -> path, and the body's name for what is logged as messages."""

MASTER_KEY: Final = "litellm_proxy_master_key"
"""What LiteLLM may log in place of the master key's hash: a name, not a key."""

_PRINCIPAL: Final = ("user_api_key_hash", "user_api_key_user_id", "user_api_key_team_id", "user_api_key_org_id")
_CUT: Final = re.compile(rb"\.\.\. \((?:litellm_truncated skipped|truncated) \d+ chars|\.\.\.truncated by litellm")
_REDACTED: Final = b'"redacted-by-litellm"'


class _Line(msgspec.Struct):
    call_type: str
    id: str | None = None
    trace_id: str | None = None
    status: str | None = None
    startTime: str | int | float | None = None
    endTime: str | int | float | None = None
    model: str | None = None
    model_group: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    model_parameters: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    error_information: msgspec.Raw = msgspec.Raw()
    cache_hit: Any = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    response_cost: Any = None
    response_cost_failure_debug_info: msgspec.Raw = msgspec.Raw()


_decode: Final = msgspec.json.Decoder(_Line, strict=False).decode


def decode_line(line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One logged call. Raises DECODE_ERRORS, NotARequest for a hit of the response cache."""
    row = _decode(line)
    refuse_cache_hit(row.cache_hit)
    metadata = fields(row.metadata, "metadata")
    start_us = loose_time("startTime", row.startTime)
    status, success = outcome(row.status, fields(row.error_information, "error_information"))
    path, _ = api_of(row.call_type)
    return LogRecord(
        file_no,
        number,
        offset,
        "litellm",
        _body(row),
        id=row.id,
        at_us=start_us,
        duration_us=elapsed_us("endTime", start_us, loose_time("endTime", row.endTime)),
        principal=principal(metadata, *_PRINCIPAL),
        model=row.model_group or row.model,
        uri=path,
        status=status,
        success=success,
        usage=_usage(row, metadata),
        cost=None if nested(row.response_cost_failure_debug_info) else cost_of(row.response_cost),
        session=row.trace_id,
        digest=fingerprint(line),
    )


def _body(row: _Line) -> bytes:
    messages = nested(row.messages)
    if messages is None:
        raise BadRecord("missing_body", "the record has no messages")
    refuse_altered(messages)
    path, name = api_of(row.call_type)
    if not is_json(messages):
        messages = bytes(row.messages)  # a prompt in plain text stays the string it is
    own = {"model": quoted(row.model_group or row.model), name: messages}
    given = members(row.model_parameters, "model_parameters")
    return rebuilt(own | {name: value for name, value in given.items() if name not in own}, path)[0]


def _usage(row: _Line, metadata: Mapping[str, Any]) -> Usage | None:
    """As the provider answered, else as LiteLLM counted; its zeros mean that it does not know."""
    for usage in (usage_of(row.response), metadata.get("usage_object")):
        if (found := reported_whole(usage)) is not None:
            return found
    if not row.prompt_tokens:
        return None
    return reported({"prompt_tokens": row.prompt_tokens, "completion_tokens": row.completion_tokens})


def api_of(call_type: str) -> tuple[str, str]:
    """The path of a call type and its body's name for the messages; a path that is not classified for other calls.

    >>> api_of("acompletion"), api_of("aimage_edit")
    (('/v1/chat/completions', 'messages'), ('/v1/aimage_edit', 'input'))
    """
    found = APIS.get(call_type) or APIS.get(call_type.removeprefix("a"))
    return found or ("/v1/" + call_type, "input")


def outcome(status: str | None, error: Mapping[str, Any]) -> tuple[int, bool | None]:
    """HTTP status and success; a failure has the code of its error, or 500 where it has none."""
    if status is None:
        return 200, None
    if status == "success":
        return 200, True
    code = str(error.get("error_code") or "")
    return int(code) if code.isascii() and code.isdigit() and 400 <= int(code) <= 599 else 500, False


def principal(row: Mapping[str, Any], key: str, *names: str) -> str | None:
    """The key's digest, else the first of the names: a key is what tells customers apart most surely."""
    value = first(row, key)
    if value is not None:
        return value if value == MASTER_KEY else hashed_key(value)
    return principal_name(first(row, *names))


def refuse_cache_hit(cache_hit: object) -> None:
    """Raises NotARequest where LiteLLM answered from its own cache."""
    if cache_hit is True or str(cache_hit).lower() == "true":
        raise NotARequest(RESPONSE_CACHE)


def refuse_altered(body: bytes) -> None:
    """Raises BadRecord for a body of which LiteLLM logged only a part: its prefix is not the one that was sent."""
    if _REDACTED in body or body == _REDACTED[1:-1]:
        raise BadRecord("redacted_body", "LiteLLM has redacted the messages (turn_off_message_logging)")
    if _CUT.search(body):
        raise BadRecord("cut_body", "LiteLLM has cut long texts off; raise MAX_STRING_LENGTH_PROMPT_IN_DB")


def _detect(row: Row) -> bool:
    if "call_type" not in row or "request_id" in row:
        return False
    return "model_parameters" in row or ("startTime" in row and "response_cost" in row)


FORMAT: Final = Format(
    name="litellm",
    description="LiteLLM StandardLoggingPayload: a call per line with startTime, messages, model_parameters, response",
    kind="lines",
    detect=_detect,
    decode_line=decode_line,
    has_principals=True,
)
