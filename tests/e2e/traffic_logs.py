"""How each tool would have logged the traffic of `same_traffic`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from email.utils import format_datetime
from itertools import groupby

from same_traffic import (
    FUNCTION,
    KEYS,
    Exchange,
    Json,
    answer,
    capture,
    chat_usage,
    iso,
    json_lines,
    parameters,
    unmarked,
)

from cachesim.trace.formats.base import digest_key


def batch_input(x: Exchange) -> Json:
    return {"custom_id": x.id, "method": "POST", "url": "/v1/chat/completions", "body": x.body}


def batch_output(x: Exchange) -> Json:
    return {"custom_id": x.id, "response": {"status_code": x.status, "body": answer(x)}, "error": None}


def anthropic(x: Exchange) -> Json:
    split, usage = x.split, None
    if split is not None:
        usage = {
            "input_tokens": split.prompt - split.read - split.write_5m - split.write_1h,
            "cache_read_input_tokens": split.read,
            "cache_creation": (chat_usage(split) or {})["cache_creation"],
            "cache_creation_input_tokens": split.write_5m + split.write_1h,
            "output_tokens": split.completion,
        }
    tool = {"name": "weigh", "description": FUNCTION["description"], "input_schema": FUNCTION["parameters"]}
    body = {
        "model": "m", "max_tokens": 50, "system": x.messages[0]["content"], "tools": [tool],
        "messages": [_for_messages_api(message) for message in x.messages[1:]],
    }  # fmt: skip
    return {
        "id": x.id, "timestamp": iso(x.at), "duration_ms": 2000,
        "request": {"path": "/v1/messages", "headers": {"Authorization": f"Bearer {KEYS[x.name]}"}, "body": body},
        "response": {"status": x.status, "body": {"usage": usage} if usage else {"error": {}}},
    }  # fmt: skip


def _for_messages_api(message: Json) -> Json:
    if message["role"] == "tool":
        result = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
        return {"role": "user", "content": [result]}
    calls = [
        {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": {"grams": 500}}
        for call in message.get("tool_calls", ())
    ]
    return {"role": message["role"], "content": calls or message["content"]}


def dwctl(exchanges: Sequence[Exchange]) -> dict[str, bytes]:
    """The gateway's own three tables. Of a body that it can parse it stores no block's marker."""
    ids = {x.id: {"instance_id": "i", "correlation_id": number} for number, x in enumerate(exchanges)}
    requests = [
        {
            **ids[x.id], "timestamp": iso(x.at), "method": "POST", "uri": "/ai/v1/chat/completions",
            "headers": {"authorization": [f"Bearer {KEYS[x.name]}"]}, "body": {"request": unmarked(x.body)},
        }
        for x in exchanges
    ]  # fmt: skip
    responses = [{**ids[x.id], "status_code": x.status, "duration_ms": 2000, "body": answer(x)} for x in exchanges]
    analytics = [
        {
            **ids[x.id], "status_code": x.status, "duration_ms": 2000, "total_cost": x.cost,
            "prompt_tokens": x.split.prompt, "completion_tokens": x.split.completion,
            "cache_read_input_tokens": x.split.read, "cache_creation_5m_input_tokens": x.split.write_5m,
            "cache_creation_1h_input_tokens": x.split.write_1h,
        }
        for x in exchanges if x.split is not None
    ]  # fmt: skip
    tables = {"requests.jsonl": requests, "responses.jsonl": responses, "analytics.jsonl": analytics}
    return {name: json_lines(rows) for name, rows in tables.items()}


def recorded(x: Exchange) -> Json:
    usage = None if x.split is None else {**(chat_usage(x.split) or {}), "cost": x.cost}
    return {
        "url": "https://api.example/v1/chat/completions", "status": x.status, "request_body": json.dumps(x.body),
        "usage": usage, "response_date": format_datetime(x.at, usegmt=True), "path": x.session, "interaction": 0,
    }  # fmt: skip


def litellm(x: Exchange) -> Json:
    return {
        "id": x.id, "trace_id": x.session, "call_type": "acompletion", "status": "failure" if x.failed else "success",
        "startTime": x.at.timestamp(), "endTime": x.done.timestamp(), "model": "vendor/m-2026", "model_group": "m",
        "messages": x.messages, "model_parameters": parameters(x), "response": answer(x), "response_cost": x.cost,
        "metadata": {"user_api_key_hash": (digest_key(KEYS[x.name]) or "").removeprefix("sha256:")},
        "error_information": {"error_code": str(x.status)} if x.failed else None, "cache_hit": None,
    }  # fmt: skip


def spend_log(x: Exchange) -> Json:
    told = {"status": "failure", "error_information": {"error_code": x.status}} if x.failed else {}
    return {
        "request_id": x.id, "call_type": "acompletion", "session_id": x.session, "startTime": iso(x.at),
        "endTime": iso(x.done), "api_key": (digest_key(KEYS[x.name]) or "").removeprefix("sha256:"), "model": "m-2026",
        "model_group": "m", "messages": {}, "proxy_server_request": json.dumps(x.body), "cache_hit": "None",
        "metadata": json.dumps(told | {"usage_object": chat_usage(x.split)}), "spend": x.cost,
    }  # fmt: skip


def langfuse(x: Exchange) -> Json:
    split, details = x.split, {}
    if split is not None:
        details = {
            "input": split.prompt - split.read - split.write_5m - split.write_1h, "input_cached_tokens": split.read,
            "input_cache_creation_5m": split.write_5m, "input_cache_creation_1h": split.write_1h,
            "output": split.completion, "total": split.prompt + split.completion,
        }  # fmt: skip
    return {
        "id": x.id, "traceId": x.session, "type": "GENERATION", "startTime": iso(x.at), "endTime": iso(x.done),
        "level": "ERROR" if x.failed else "DEFAULT", "model": "m", "modelParameters": {"temperature": "0.5"},
        "input": {"messages": x.messages, "tools": x.body["tools"]}, "usageDetails": details,
        "costDetails": {"total": x.cost} if x.cost else {}, "userId": x.name, "sessionId": x.session,
    }  # fmt: skip


def helicone(x: Exchange) -> Json:
    return {
        "request_id": x.id, "request_created_at": iso(x.at), "delay_ms": 2000, "request_model": "m",
        "request_path": "https://gateway.example/v1/chat/completions", "request_body": x.body, "cost": x.cost,
        "response_body": answer(x), "response_status": x.status, "request_user_id": x.name,
        "request_properties": {"Helicone-Session-Id": x.session},
    }  # fmt: skip


def portkey(x: Exchange) -> Json:
    return {
        "id": x.id, "trace_id": x.session, "created_at": iso(x.at), "response_time": 2000, "ai_model": "m",
        "request": x.body, "response": answer(x), "response_status_code": x.status, "is_success": not x.failed,
        "cost": None if x.cost is None else 100 * x.cost, "metadata": {"_user": x.name}, "cache_status": "MISS",
    }  # fmt: skip


def openhands(x: Exchange) -> Json:
    told = {"error": "ServiceUnavailableError"} if x.failed else {"response": answer(x), "cost": x.cost}
    extra = {"model": "m", "extra_body": {"metadata": {"session_id": x.session}}}
    rest = {name: value for name, value in parameters(x).items() if name != "tools"}
    return {
        "messages": x.messages, "tools": x.body["tools"], "kwargs": rest | extra, "timestamp": x.done.timestamp(),
        "latency_sec": 2.0, **told,
    }  # fmt: skip


MAPPING = """
name = "house"
[detect]
kind = "llm"
[fields]
id = "uid"
at = "when.ms"
duration = "when.took"
principal = "who"
session = "talk"
body.model = "call.model"
body.max_tokens = "call.limit"
body.tools = "call.tools"
body.messages = "call.messages"
status = "http"
usage = "tokens"
cost = "usd"
[units]
at = "ms"
duration = "s"
"""
"""How `house` is to be read."""


def house(x: Exchange) -> Json:
    """A log of no known tool."""
    return {
        "kind": "llm", "uid": x.id, "when": {"ms": round(x.at.timestamp() * 1000), "took": 2.0}, "who": x.name,
        "talk": x.session, "http": x.status, "tokens": chat_usage(x.split), "usd": x.cost,
        "call": {"model": "m", "limit": 50, "tools": x.body["tools"], "messages": x.messages},
    }  # fmt: skip


def inspect(exchanges: Sequence[Exchange]) -> Json:
    """An evaluation of which every conversation is a sample."""
    samples: dict[str, list[Json]] = {}
    for x in exchanges:
        event = {
            "event": "model", "uuid": x.id, "timestamp": x.at.isoformat(), "completed": x.done.isoformat(),
            "model": "vendor/m", "call": {"request": x.body, "response": answer(x)},
            "output": {"usage": {"total_cost": x.cost}} if x.cost else None, "error": "e" if x.failed else None,
        }  # fmt: skip
        samples.setdefault(x.session, []).append(event)
    return {
        "version": 2, "eval": {"task": "bread"},
        "samples": [{"id": name, "events": events} for name, events in samples.items()],
    }  # fmt: skip


def langfuse_traces(exchanges: Sequence[Exchange]) -> Iterator[Json]:
    """A trace per conversation, whose observations leave the user and the session to it."""
    for session, group in groupby(sorted(exchanges, key=lambda x: x.session), key=lambda x: x.session):
        members = list(group)
        rows = [{**langfuse(x), "userId": None, "sessionId": None} for x in members]
        yield {"id": session, "userId": members[0].name, "sessionId": session, "observations": rows}


ROWS: dict[str, Callable[[Exchange], Json]] = {
    "cachesim": capture, "anthropic": anthropic, "recorded": recorded, "litellm": litellm,
    "litellm-spend-logs": spend_log, "langfuse": langfuse, "helicone": helicone, "portkey": portkey,
    "openhands": openhands,
}  # fmt: skip
"""Formats with a request a line."""


def files(log_format: str, exchanges: Sequence[Exchange]) -> dict[str, bytes]:
    """The traffic as logs of this format, by file name."""
    if log_format in ROWS:
        return {"log.jsonl": json_lines(map(ROWS[log_format], exchanges))}
    if log_format == "openai-batch":
        return {
            "input.jsonl": json_lines(map(batch_input, exchanges)),
            "output.jsonl": json_lines(batch_output(x) for x in exchanges if not x.failed),
            "errors.jsonl": json_lines(batch_output(x) for x in exchanges if x.failed),
        }
    if log_format == "dwctl":
        return dwctl(exchanges)
    documents = [inspect(exchanges)] if log_format == "inspect" else list(langfuse_traces(exchanges))
    return {f"{number}.json": json.dumps(each, indent=1).encode() for number, each in enumerate(documents)}
