"""One made-up traffic and, for each log format that can hold bodies, how its tool would have logged it.

Two customers send the same system prompt and tool, each in a conversation of its own, a request every two minutes. A
tool is called, one request fails, and one conversation is silent for longer than five minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import groupby
from typing import Any, NamedTuple

from e2e_support import text, words

from cachesim.trace.formats.base import digest_key

Json = dict[str, Any]

KEYS = {"acme": "sk-acme-1", "birch": "sk-birch-1"}
NAMES = {digest_key(key): name for name, key in KEYS.items()}
START = datetime(2026, 3, 1, 9, tzinfo=UTC)
INTERVAL = timedelta(minutes=2)
DURATION = timedelta(seconds=2)


class Split(NamedTuple):
    """The tokens of an answer: the prompt includes what was read and written."""

    prompt: int
    completion: int
    read: int
    write_5m: int
    write_1h: int


@dataclass(frozen=True)
class Exchange:
    """A request and its answer; split and cost are None where it failed."""

    id: str
    at: datetime
    name: str
    session: str
    body: Json
    status: int
    split: Split | None
    cost: float | None

    @property
    def failed(self) -> bool:
        return self.status != 200

    @property
    def done(self) -> datetime:
        return self.at + DURATION

    @property
    def messages(self) -> list[Json]:
        return self.body["messages"]


FUNCTION: Json = {"name": "weigh", "description": "Weighs flour.", "parameters": {"type": "object", "properties": {}}}
TOOL: Json = {"type": "function", "function": FUNCTION}


def turns(tier: str, prefix: str) -> Iterator[Json]:
    """Bodies of a conversation of four requests; the newest question is marked, and no answer of a tool."""
    call = {"id": "call-1", "type": "function", "function": {"name": "weigh", "arguments": '{"grams":500}'}}
    said: list[tuple[Json, ...]] = [
        (),
        (
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call-1", "content": words(prefix + "t", 6)},
        ),
        ({"role": "assistant", "content": words(prefix + "a", 4)},),
        ({"role": "assistant", "content": words(prefix + "b", 3)},),
    ]
    asked = [words(prefix + "p", 8), None, words(prefix + "q", 5), words(prefix + "r", 7)]
    history: list[Json] = [{"role": "system", "content": text(words("s", 12), tier)}]
    for answer, question in zip(said, asked, strict=True):
        history += answer
        new = [] if question is None else [{"role": "user", "content": text(question, "5m")}]
        yield {"model": "m", "max_tokens": 50, "temperature": 0.5, "tools": [TOOL], "messages": [*history, *new]}
        if question is not None:
            history.append({"role": "user", "content": text(question)})


def traffic() -> list[Exchange]:
    acme, birch = list(turns("5m", "a")), list(turns("1h", "b"))
    order = [
        ("acme", acme[0], 200), ("birch", birch[0], 200), ("acme", acme[1], 200), ("birch", birch[1], 200),
        ("acme", acme[2], 503), ("birch", birch[2], 200), ("acme", acme[2], 200), ("birch", birch[3], 200),
        ("acme", acme[3], 200),
    ]  # fmt: skip
    made = []
    for number, (name, body, status) in enumerate(order):
        split = Split(60 + number, 3 + number, 10 * (number > 1), 7 + number, 20 * (name == "birch"))
        answered = status == 200
        made.append(
            Exchange(
                id=f"x{number}",
                at=START + number * INTERVAL,
                name=name,
                session=f"talk-{name}",
                body=body,
                status=status,
                split=split if answered else None,
                cost=(1 + number) / 64 if answered else None,
            )
        )
    return made


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def chat_usage(split: Split | None) -> Json | None:
    """The usage of an answer of the chat API, as gateways to Anthropic's models give it."""
    if split is None:
        return None
    tiers = {"ephemeral_5m_input_tokens": split.write_5m, "ephemeral_1h_input_tokens": split.write_1h}
    return {
        "prompt_tokens": split.prompt,
        "completion_tokens": split.completion,
        "prompt_tokens_details": {"cached_tokens": split.read},
        "cache_creation_input_tokens": split.write_5m + split.write_1h,
        "cache_creation": tiers,
    }


def answer(x: Exchange) -> Json:
    return {"id": x.id, "model": "m", "usage": chat_usage(x.split)} if x.split else {"error": {"message": "overloaded"}}


def parameters(x: Exchange) -> Json:
    return {name: value for name, value in x.body.items() if name not in ("model", "messages")}


def capture(x: Exchange) -> Json:
    return {
        "id": x.id, "at": iso(x.at), "duration_ms": 2000, "principal": x.name, "session": x.session, "body": x.body,
        "status": x.status, "usage": chat_usage(x.split), "cost": x.cost,
    }  # fmt: skip


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
    documents = [inspect(exchanges)] if log_format == "inspect" else list(langfuse_traces(exchanges))
    return {f"{number}.json": json.dumps(each, indent=1).encode() for number, each in enumerate(documents)}


def json_lines(rows: Iterator[Json] | Sequence[Json] | map[Json]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
