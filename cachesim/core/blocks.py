"""From the pieces of a request body to blocks: role, canonical JSON to hash, text to count, marker.

Pieces are parsed values (see `cachesim.core.canonical`): one tool, or one message. Nothing here keeps state, so a piece
seen once gives the same blocks wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import orjson

from cachesim.core.canonical import Json, dumps
from cachesim.core.markers import MarkerFact, marker_fact
from cachesim.core.policy import BodyRules

KINDS: Final = ("other", "system", "user", "assistant", "tool", "tool_definition", "tool_call")
"""What a block is, by number: the message's role where it is one of the usual ones, or where the block comes from."""

TOOL_RESULT: Final = KINDS.index("tool")
TOOL_DEFINITION: Final = KINDS.index("tool_definition")
TOOL_CALL: Final = KINDS.index("tool_call")
_ROLE_KINDS: Final = {name: number for number, name in enumerate(KINDS) if number < TOOL_DEFINITION}

# Unicode White_Space; Python's own idea of white space also has U+001C–U+001F, which Rust's trim does not.
WHITE_SPACE: Final = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)


class Block(NamedTuple):
    """One block: `kind` indexes KINDS, `feed` is what the running hash takes in, `text` what the tokenizer counts."""

    kind: int
    role: str
    feed: bytes
    text: str
    marker: MarkerFact | None


def tool_blocks(tool: Json, rules: BodyRules) -> Iterator[Block]:
    """The block of one `tools[]` element; none where the rules do not hash tools."""
    if rules.hash_tools:
        yield _json_block(TOOL_DEFINITION, "tool_definition", tool, None)


def message_blocks(message: Json, rules: BodyRules) -> Iterator[Block]:
    """The blocks of one `messages[]` element, in hashing order: content, then an assistant's tool calls."""
    return (block for block in all_blocks(message) if is_hashed(block, message, rules))


def all_blocks(message: Json, plain: bool | None = None) -> list[Block]:
    """The same under rules that leave nothing out. `plain` is the flag of `cachesim.core.canonical.decode`."""
    blocks: list[Block] = []
    if type(message) is not dict:
        return blocks
    role = message.get("role")
    if type(role) is not str:
        role = ""
    kind = role_kind(role)
    content = message.get("content")
    if type(content) is str:
        blocks.append(Block(kind, role, text_feed(role, content), content, None))
    elif type(content) is list:
        blocks += [_element_block(kind, role, element, plain) for element in content]
    calls = message.get("tool_calls")
    if role == "assistant" and type(calls) is list:
        blocks += [_json_block(TOOL_CALL, "tool_call", call, plain) for call in calls]
    return blocks


def is_hashed(block: Block, message: Json, rules: BodyRules) -> bool:
    """Whether rules leave a block of a message in the prompt: not all hash tool calls, or a client's telemetry."""
    if block.kind == TOOL_CALL:
        return rules.hash_tool_calls
    prefixes = rules.telemetry_prefixes
    if not prefixes or block.role != "system" or type(message["content"]) is not list:
        return True
    return not _is_telemetry(block, prefixes)


def role_kind(role: str) -> int:
    """What the content of a message with this role is, as a number of KINDS."""
    return _ROLE_KINDS.get(role, 0)


def text_feed(role: str, text: str) -> bytes:
    """What the running hash takes in of string content: the same as of a text part."""
    return b"".join((role.encode(), b'\x00{"text":', orjson.dumps(text), b',"type":"text"}'))


def _feed(role: str, canonical: bytes) -> bytes:
    return role.encode() + b"\x00" + canonical


def _element_block(kind: int, role: str, element: Json, plain: bool | None) -> Block:
    bare, marker = _without_marker(element)
    text = element.get("text") if type(element) is dict else None
    return Block(kind, role, _feed(role, dumps(bare, plain)), text if type(text) is str else "", marker)


def _json_block(kind: int, role: str, value: Json, plain: bool | None) -> Block:
    bare, marker = _without_marker(value)
    canonical = dumps(bare, plain)
    return Block(kind, role, _feed(role, canonical), canonical.decode(), marker)


def _without_marker(value: Json) -> tuple[Json, MarkerFact | None]:
    """A block without its own `cache_control` (nested ones stay), and that marker's facts."""
    if type(value) is not dict or "cache_control" not in value:
        return value, None
    bare = {key: item for key, item in value.items() if key != "cache_control"}
    return bare, marker_fact(value["cache_control"])


def _is_telemetry(block: Block, prefixes: tuple[str, ...]) -> bool:
    if block.marker is not None and block.marker.shape != "null":
        return False
    text = block.text.lstrip(WHITE_SPACE)
    return any(prefix and text.startswith(prefix) for prefix in prefixes)
