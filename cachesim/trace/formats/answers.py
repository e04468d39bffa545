"""What a stored answer says, whole or streamed, of any provider: its usage, and whether it came to its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from cachesim.trace.formats.fields import part

_OF_MESSAGES: Final = ("message_", "content_block_")
"""Beginnings of what Anthropic's events are called; their stream ends with one of them, whatever else it holds."""
_STOP: Final = "message_stop"
_ENDS: Final = frozenset({_STOP, "response.completed", "response.incomplete"})
_ERRORS: Final = frozenset({"error", "response.failed"})
_DONE: Final = "[DONE]"
_OF_STREAMS: Final = ("type", "choices", "error")
"""What events of streams have; an array without is an answer of another kind, such as the scores of a reranker."""


def outcome(answer: object) -> tuple[object, bool]:
    """The usage of an answer, and False where it is an error or a stream that broke.

    answer: an object, the text of one, the text of server-sent events, or an array of what those hold.

    >>> outcome([{"choices": [{"delta": {"content": "Hel"}}]}, {"error": {"message": "engine died"}}])
    (None, False)
    """
    if isinstance(answer, list):
        usage, complete = _of_stream(answer)
        return usage, complete or not any(name in part(event) for event in answer for name in _OF_STREAMS)
    if isinstance(answer, str):
        text = answer.lstrip()
        if text.startswith(("event:", "data:")):
            return _of_stream(_events(text))
        answer = _parsed(text)
    return (answer.get("usage"), not answer.get("error")) if isinstance(answer, dict) else (None, True)


def _of_stream(events: Iterable[object]) -> tuple[object, bool]:
    """What the events add up to: counts of a later one replace those of an earlier one."""
    usage: dict[str, Any] = {}
    kinds = set()
    ended = failed = False
    for event in events:
        if not isinstance(event, dict):
            ended |= event in (None, _DONE)
            continue
        kinds.add(str(event.get("type")))
        failed |= bool(event.get("error"))
        ended |= _is_last_chunk(event)
        for holder in (part(event.get("message")), part(event.get("response")), event):
            usage |= {name: value for name, value in part(holder.get("usage")).items() if value is not None}
    if any(kind.startswith(_OF_MESSAGES) for kind in kinds):
        ended = _STOP in kinds
    return usage or None, (ended or not _ENDS.isdisjoint(kinds)) and not failed and _ERRORS.isdisjoint(kinds)


def _is_last_chunk(event: Mapping[str, Any]) -> bool:
    """Whether a chunk says why the model stopped, or counts the whole stream's tokens beside no choice."""
    choices = event.get("choices")
    if not choices:
        return bool(event.get("usage"))
    return isinstance(choices, list) and any(part(choice).get("finish_reason") for choice in choices)


def _events(text: str) -> Iterator[object]:
    """The data of server-sent events; what is neither an object nor the end is left out."""
    for line in text.split("\n"):
        name, _, value = line.strip().partition(":")
        value = value.strip()
        if name == "event" and value == "error":
            yield {"type": value}
        elif name == "data" and (event := value if value == _DONE else _parsed(value)) is not None:
            yield event


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None
    return value if isinstance(value, dict) else None
