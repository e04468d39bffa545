"""Inspect's own messages and tools in the shape of the chat API, for events whose call to the provider was not kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

_values: Final = msgspec.json.Decoder(dict[str, Any])


def chat_messages(messages: Sequence[msgspec.Raw]) -> bytes:
    """A JSON array of chat messages: role, content, tool calls and the id a tool message answers. Raises DECODE_ERRORS.

    Reasoning is left out, as providers of the chat API do not take it back.
    """
    return msgspec.json.encode([_message(_values.decode(message)) for message in messages])


def chat_tools(tools: Sequence[msgspec.Raw]) -> bytes:
    """A JSON array of function tools. Raises DECODE_ERRORS."""
    return msgspec.json.encode([{"type": "function", "function": _function(_values.decode(tool))} for tool in tools])


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    return {name: tool[name] for name in ("name", "description", "parameters") if name in tool}


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    made: dict[str, Any] = {"role": role, "content": content if isinstance(content, str) else list(_parts(content))}
    calls = message.get("tool_calls")
    if role == "assistant" and isinstance(calls, list) and calls:
        made["tool_calls"] = [_call(call) for call in calls if isinstance(call, dict)]
    if role == "tool":
        made["tool_call_id"] = message.get("tool_call_id")
    return made


def _parts(content: object) -> Iterator[dict[str, Any]]:
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            yield {"type": "text", "text": part.get("text")}
        elif kind == "image":
            yield {"type": "image_url", "image_url": {"url": part.get("image")}}
        elif kind != "reasoning" and isinstance(part, dict):
            yield part


def _call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments")
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": call.get("function"), "arguments": text},
    }
