"""Reported token usage of any provider in one normal form, told apart by the shape of the object, never by vendor.

Two conventions exist: the input count *includes* what was read from and written to the cache (`prompt_tokens`, the
Responses API, Cohere), or it *excludes* both (Anthropic, Bedrock) and the prompt is the sum of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from cachesim.core.model import Usage

Fields: TypeAlias = Mapping[str, Any]

MAX_TOKENS: Final = 2**53
"""Larger counts are no token counts (and would not survive a JSON round trip elsewhere): treated as not reported."""

_NONE: Final[Fields] = {}
_NOTHING: Final = Usage()


class _Writes(NamedTuple):
    write_5m: int | None
    write_1h: int | None
    write_24h: int | None
    assumed: bool

    @property
    def total(self) -> int:
        return (self.write_5m or 0) + (self.write_1h or 0) + (self.write_24h or 0)


_NO_WRITES: Final = _Writes(None, None, None, False)


def normalise(usage: Fields) -> Usage:
    """The counts of `usage` that are recognised; counts that are negative or not whole are not reported ones.

    >>> normalise({"input_tokens": 4, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 6}).prompt
    100
    >>> normalise({"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 90}}).prompt
    100
    """
    if "prompt_tokens" in usage or "prompt_cache_hit_tokens" in usage:
        return _chat(usage)
    if "input_tokens" in usage:
        details = _fields(usage, "input_tokens_details") or _fields(usage, "input_token_details")
        return _responses(usage, details) if details else _messages(usage)
    if "inputTokens" in usage:
        return _bedrock(usage)
    tokens = _fields(usage, "tokens")
    return _cohere(usage, tokens) if tokens else _NOTHING


def reported(usage: object) -> Usage | None:
    """`normalise(usage)`, or None where `usage` is no object or holds nothing recognised."""
    if not isinstance(usage, dict):
        return None
    normal = normalise(usage)
    return None if normal == _NOTHING else normal


def _chat(usage: Fields) -> Usage:
    """OpenAI chat completions, OpenRouter, Mistral, DeepSeek, LiteLLM, dwctl: the prompt includes the cache."""
    details = _fields(usage, "prompt_tokens_details")
    prompt = _count(usage, "prompt_tokens")
    hit = _count(usage, "prompt_cache_hit_tokens")
    if prompt is None and hit is not None:
        prompt = hit + (_count(usage, "prompt_cache_miss_tokens") or 0)
    read = _first(
        _count(details, "cached_tokens"),
        hit,
        _count(usage, "cache_read_input_tokens"),
        _count(usage, "num_cached_tokens"),
    )
    writes = _writes(usage, _first(_count(details, "cache_write_tokens"), _count(details, "cache_creation_tokens")))
    return Usage(prompt, _count(usage, "completion_tokens"), read, *writes)


def _responses(usage: Fields, details: Fields) -> Usage:
    """OpenAI's Responses API: the input includes the cache."""
    writes = _writes(usage, _count(details, "cache_write_tokens"))
    return Usage(
        _count(usage, "input_tokens"), _count(usage, "output_tokens"), _count(details, "cached_tokens"), *writes
    )


def _messages(usage: Fields) -> Usage:
    """Anthropic's Messages API and Claude Code: the input excludes the cache."""
    read = _count(usage, "cache_read_input_tokens")
    writes = _writes(usage, None)
    prompt = _sum(_count(usage, "input_tokens"), read, writes)
    return Usage(prompt, _count(usage, "output_tokens"), read, *writes)


def _bedrock(usage: Fields) -> Usage:
    """Bedrock's Converse API: the input excludes the cache; `cacheDetails` splits the writes by lifetime."""
    read = _first(_count(usage, "cacheReadInputTokens"), _count(usage, "cacheReadInputTokenCount"))
    total = _first(_count(usage, "cacheWriteInputTokens"), _count(usage, "cacheWriteInputTokenCount"))
    details = usage.get("cacheDetails")
    tiers: dict[str, int] = {}
    for item in details if isinstance(details, list) else ():
        if isinstance(item, dict) and isinstance(item.get("ttl"), str):
            tiers[item["ttl"]] = tiers.get(item["ttl"], 0) + (_count(item, "inputTokens") or 0)
    writes = _split(total, tiers.get("5m"), tiers.get("1h"), tiers.get("24h"))
    return Usage(_sum(_count(usage, "inputTokens"), read, writes), _count(usage, "outputTokens"), read, *writes)


def _cohere(usage: Fields, tokens: Fields) -> Usage:
    """Cohere: `tokens` is what was processed, the cached part included; `billed_units` is something else."""
    return Usage(_count(tokens, "input_tokens"), _count(tokens, "output_tokens"), _count(usage, "cached_tokens"))


def _writes(usage: Fields, total: int | None) -> _Writes:
    """Writes by lifetime; `total` where the shape has its own untiered field, else Anthropic's."""
    if total is None:
        total = _count(usage, "cache_creation_input_tokens")
    tiers = _fields(usage, "cache_creation")
    if not tiers:
        return _NO_WRITES if total is None else _split(total, None, None, None)
    return _split(
        total,
        _count(tiers, "ephemeral_5m_input_tokens"),
        _count(tiers, "ephemeral_1h_input_tokens"),
        _count(tiers, "ephemeral_24h_input_tokens"),
    )


def _split(total: int | None, write_5m: int | None, write_1h: int | None, write_24h: int | None) -> _Writes:
    """Tiers as reported; what the total has beyond them counts as 5m and is marked as assumed."""
    untiered = (total or 0) - (write_5m or 0) - (write_1h or 0) - (write_24h or 0)
    if untiered > 0:
        return _Writes((write_5m or 0) + untiered, write_1h, write_24h, True)
    if total == 0 and write_5m is None:
        write_5m = 0
    return _Writes(write_5m, write_1h, write_24h, False)


def _sum(uncached: int | None, read: int | None, writes: _Writes) -> int | None:
    return None if uncached is None else uncached + (read or 0) + writes.total


def _count(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    if type(value) is int:
        return value if 0 <= value <= MAX_TOKENS else None
    if type(value) is float and value.is_integer() and 0 <= value <= MAX_TOKENS:
        return int(value)
    return None


def _fields(usage: Fields, name: str) -> Fields:
    value = usage.get(name)
    return value if isinstance(value, dict) else _NONE


def _first(*values: int | None) -> int | None:
    for value in values:
        if value is not None:
            return value
    return None
