"""A whole request body → blocks, prefix hashes and marker facts, in one plain pass without any memory.

This is the reading to compare with: `cachesim.prepare` gives the same answer while parsing repeated history only once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cachesim.core.blocks import Block, message_blocks, tool_blocks
from cachesim.core.canonical import Json, loads, renumber
from cachesim.core.markers import MarkerFact, marker_fact
from cachesim.core.policy import BodyRules


@dataclass(slots=True)
class ParsedPrompt:
    """blocks[i] closes the prefix whose SHA-256 is hashes[i]; automatic is the top-level marker, if one was sent."""

    blocks: list[Block] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    automatic: MarkerFact | None = None
    model: str | None = None

    @property
    def markers(self) -> tuple[list[int], list[MarkerFact]]:
        """Positions and facts of the marked blocks, in block order."""
        marked = [(position, block.marker) for position, block in enumerate(self.blocks) if block.marker is not None]
        return [position for position, _ in marked], [fact for _, fact in marked]


def parse_body(body: bytes, rules: BodyRules) -> ParsedPrompt:
    """Parse a chat-completions body. Raises JsonError where upstream could not parse it."""
    return parse_value(loads(body), rules)


def parse_value(value: Json, rules: BodyRules, *, reserialised: bool = False) -> ParsedPrompt:
    """The same for a parsed body; `reserialised`: upstream printed and parsed it once more before classifying."""
    parsed = ParsedPrompt()
    if type(value) is not dict:
        return parsed
    if reserialised:
        value = renumber(value)
    tools, messages = value.get("tools"), value.get("messages")
    if type(tools) is list:
        for tool in tools:
            parsed.blocks.extend(tool_blocks(tool, rules))
    if type(messages) is list:
        for message in messages:
            parsed.blocks.extend(message_blocks(message, rules))
    running = hashlib.sha256()
    for block in parsed.blocks:
        running.update(block.feed)
        parsed.hashes.append(running.digest())
    if value.get("cache_control") is not None:
        parsed.automatic = marker_fact(value["cache_control"])
    model = value.get("model")
    parsed.model = model if type(model) is str else None
    return parsed
