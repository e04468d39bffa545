"""A made-up traffic, and the capture of it that is compared with its logs in all other formats.

Two customers send the same system prompt and tool, each in a conversation of its own, a request every two minutes. A
tool is called, one request fails, and one conversation is silent for longer than five minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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


def unmarked(value: Any) -> Any:
    """A body without its cache markers."""
    if isinstance(value, list):
        return [unmarked(item) for item in value]
    if isinstance(value, dict):
        return {name: unmarked(item) for name, item in value.items() if name != "cache_control"}
    return value


def json_lines(rows: Iterator[Json] | Sequence[Json] | map[Json]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
