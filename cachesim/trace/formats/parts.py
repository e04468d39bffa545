"""Request bodies put together from the parts that a log holds, and which API a body is written for, by its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cachesim.trace.formats.base import CHAT_PATH, DECODE_ERRORS, MESSAGES_PATH

RESPONSES_PATH: Final = "/v1/responses"
COMPLETIONS_PATH: Final = "/v1/completions"
EMBEDDINGS_PATH: Final = "/v1/embeddings"
GENERATE_PATH: Final = "/v1beta/generateContent"

_BLOCKS: Final = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "document"})
"""Content block types that only Anthropic's Messages API has."""


class _Message(msgspec.Struct):
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Block(msgspec.Struct):
    type: Any = None
    source: msgspec.Raw = msgspec.Raw()


_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tools: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_messages: Final = msgspec.json.Decoder(list[_Message])
_blocks: Final = msgspec.json.Decoder(list[_Block])


def put_together(parts: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """A JSON object of members given as JSON, in their order, each byte for byte.

    >>> put_together({"model": b'"m"', "messages": b'[1.0, 2]'})
    b'{"model":"m","messages":[1.0, 2]}'
    """
    return b"{" + b",".join(quoted(name) + b":" + bytes(value) for name, value in parts.items()) + b"}"


def rebuilt(parts: Mapping[str, bytes | msgspec.Raw], path: str | None = None) -> tuple[bytes, str]:
    """The body of these members and the path of the API it is written for: the one given, else by its shape.

    The Messages API refuses a body whose `max_tokens` is no number; where the log leaves it out or holds it as text, it
    becomes 1: it is part of no prefix.
    """
    path = path or path_of(parts)
    if path == MESSAGES_PATH and bytes(parts.get("max_tokens", b""))[:1] in b'"':
        parts = dict(parts) | {"max_tokens": b"1"}
    return put_together(parts), path


def quoted(text: str | None) -> bytes:
    """A text as JSON; `null` for none."""
    return msgspec.json.encode(text)


def members_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The members of a whole body, uninterpreted; none where it is no JSON object."""
    try:
        return _members.decode(body)
    except DECODE_ERRORS:
        return {}


def path_of(body: Mapping[str, msgspec.Raw | bytes]) -> str:
    """The path of the API that a body with these members is written for.

    With `messages` it is Anthropic's Messages API if the system prompt stands beside them, a tool has an
    `input_schema` or a block is of a kind that only that API has, else chat completions.
    """
    messages = bytes(body.get("messages", b"null"))
    if messages != b"null":
        return MESSAGES_PATH if _is_anthropic(body, messages) else CHAT_PATH
    for name, path in (("input", RESPONSES_PATH), ("prompt", COMPLETIONS_PATH), ("contents", GENERATE_PATH)):
        if name in body:
            return path
    return CHAT_PATH


def _is_anthropic(body: Mapping[str, msgspec.Raw | bytes], messages: bytes) -> bool:
    if "anthropic_version" in body or bytes(body.get("system", b"null")) != b"null":
        return True
    try:
        tools = _tools.decode(bytes(body.get("tools", b"[]")))
        if any("input_schema" in tool for tool in tools):
            return True
        contents = (bytes(message.content) for message in _messages.decode(messages))
        return any(_has_own_block(content) for content in contents if content[:1] == b"[")
    except DECODE_ERRORS:
        return False


def _has_own_block(content: bytes) -> bool:
    blocks = _blocks.decode(content)
    return any(block.type in _BLOCKS or (block.type == "image" and bytes(block.source)) for block in blocks)
