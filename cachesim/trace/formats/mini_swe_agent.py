"""mini-swe-agent trajectories: one file a session, one request per assistant message, whose prompt is all before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord
from cachesim.trace.formats.base import Format, Row, cost_of, fingerprint, time_field
from cachesim.trace.usage import reported_whole


class _Response(msgspec.Struct):
    id: str | None = None
    created: int | float | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None


class _Extra(msgspec.Struct):
    response: _Response | None = None


class _Message(msgspec.Struct):
    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")
    extra: _Extra | None = None


class _Trajectory(msgspec.Struct):
    messages: list[_Message]
    trajectory_format: str
    instance_id: str | None = None


_trajectory: Final = msgspec.json.Decoder(_Trajectory)


def decode_document(document: bytes, file_no: int) -> Iterator[LogRecord]:
    """The requests of one trajectory, numbered from 1; message bytes are those of the file. Raises DECODE_ERRORS."""
    trajectory = _trajectory.decode(document)
    before: list[bytes] = []
    number = 0
    for message in trajectory.messages:
        response = message.extra.response if message.extra is not None else None
        if message.role == "assistant" and response is not None:
            number += 1
            yield _record(response, b",".join(before), file_no, number, trajectory.instance_id)
        role = msgspec.json.encode(message.role)
        before.append(b'{"role":' + role + b',"content":' + bytes(message.content) + b"}")


def _record(response: _Response, messages: bytes, file_no: int, number: int, session: str | None) -> LogRecord:
    usage = response.usage or {}
    body = b'{"model":' + msgspec.json.encode(response.model or "") + b',"messages":[' + messages + b"]}"
    identity = msgspec.json.encode((session, number, response.id, response.created))
    return LogRecord(
        file_no,
        number,
        0,
        "mini-swe-agent",
        body,
        id=response.id,
        at_us=None if response.created is None else time_field("extra.response.created", response.created),
        model=response.model,
        usage=reported_whole(usage),
        cost=cost_of(usage.get("cost")),
        session=session,
        digest=fingerprint(identity + body),
    )


def _detect(document: Row) -> bool:
    kind = document.get("trajectory_format")
    return isinstance(kind, str) and kind.startswith("mini-swe-agent")


FORMAT: Final = Format(
    name="mini-swe-agent",
    description="mini-swe-agent trajectories (.traj.json): a file is a session, each model call a request",
    kind="document",
    detect=_detect,
    decode_document=decode_document,
)
