"""Reported token usage of any provider in one normal form, told apart by the shape of the object, never by vendor.

Two conventions exist: the input count *includes* what was read from and written to the cache (`prompt_tokens`, the
Responses API, Cohere), or it *excludes* both (Anthropic, Bedrock) and the prompt is the sum of the three. Langfuse and
Inspect pass on either; there the total that they keep beside the parts decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from cachesim.core.model import Usage

Fields: TypeAlias = Mapping[str, Any]

MAX_TOKENS: Final = 2**53
"""Larger counts are no token counts (and would not survive a JSON round trip elsewhere): treated as not reported."""

_READ_BUCKETS: Final = (
    "input_cached_tokens",
    "cache_read_input_tokens",
    "input_cache_read",
    "input_tokens_cache_read",
)
_WRITE_BUCKETS: Final = (
    "cache_creation_input_tokens",
    "input_cache_creation",
    "input_cache_write",
    "input_tokens_cache_write",
)
_TIERED_BUCKETS: Final = ("input_cache_creation_5m", "input_cache_creation_1h")
_INPUT_BUCKETS: Final = frozenset({"input_tokens", *_READ_BUCKETS, *_WRITE_BUCKETS, *_TIERED_BUCKETS})
_BUCKET_NAMES: Final = {"input", *_INPUT_BUCKETS} - {
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
}
"""Names that only such usage has; the three left out are Anthropic's own."""

_USUAL: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_USUAL_DETAILS: Final = frozenset({"cached_tokens", "audio_tokens"})
"""All that most providers report: then nothing else has to be looked for."""

_WHOLE: Final = re.compile(r"\d{1,16}", re.ASCII)
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
    idle = usage.get("input_tokens") and not usage.get("prompt_tokens")  # of gateways that write both names always
    if not idle and ("prompt_tokens" in usage or "prompt_cache_hit_tokens" in usage):
        return _chat(usage)
    if not _BUCKET_NAMES.isdisjoint(usage):
        return _buckets(usage)
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


def reported_whole(usage: object) -> Usage | None:
    """`reported`, without a prompt that has no room for what was read and written.

    Versions of LiteLLM differ in which of both the prompt tokens of Anthropic's models include (issue 13207 there:
    88 new, 120,269 read and 21,002 written were 120,357); where it shows, the whole is not known.
    """
    found = reported(usage)
    if found is None or found.prompt is None:
        return found
    cached = sum(count or 0 for count in (found.read, found.write_5m, found.write_1h, found.write_24h))
    return found if cached <= found.prompt else found._replace(prompt=None)


def _chat(usage: Fields) -> Usage:
    """OpenAI chat completions, OpenRouter, Mistral, DeepSeek, LiteLLM, dwctl: the prompt includes the cache."""
    details = _fields(usage, "prompt_tokens_details")
    prompt = _count(usage, "prompt_tokens")
    if usage.keys() <= _USUAL and details.keys() <= _USUAL_DETAILS:
        return Usage(prompt, _count(usage, "completion_tokens"), _count(details, "cached_tokens"))
    hit = _count(usage, "prompt_cache_hit_tokens")
    if prompt is None and hit is not None:
        prompt = hit + (_count(usage, "prompt_cache_miss_tokens") or 0)
    read = _first(
        _count(details, "cached_tokens"),
        hit,
        _count(usage, "cache_read_input_tokens"),
        _count(usage, "num_cached_tokens"),
    )
    written = _first(_count(details, "cache_write_tokens"), _count(details, "cache_creation_tokens"))
    writes = _writes(usage, written, _fields(details, "cache_creation_token_details"))
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


def _buckets(usage: Fields) -> Usage:
    """Langfuse's usage details and Inspect's usage: a count per kind of token, kinds added up or one inside another.

    The prompt is what the total leaves beside the output, if there is room in it for what was read and written. With
    input 100, of which 90 were read, and output 5, the total says 105 where `input` includes the read ones, and 195
    where it excludes them. Without a total the kinds are added up, as Langfuse does.
    """
    read = _first(*(_count(usage, name) for name in _READ_BUCKETS))
    written = _first(*(_count(usage, name) for name in _WRITE_BUCKETS))
    write_5m, write_1h = _count(usage, "input_cache_creation_5m"), _count(usage, "input_cache_creation_1h")
    writes = _NO_WRITES if written is write_5m is write_1h is None else _split(written, write_5m, write_1h, None)
    uncached = _and_kinds(usage, "input", _INPUT_BUCKETS)
    prompt = _sum(uncached, read, writes)
    output = _first(_count(usage, "output"), _count(usage, "output_tokens"))
    completion = _and_kinds(usage, "output", frozenset({"output_tokens"}))
    total = _first(_count(usage, "total"), _count(usage, "total_tokens"))
    if total is not None and prompt is not None:
        if output is not None and total - output in (uncached, prompt):  # the kinds of output stand inside it
            completion = output
        if total - (completion or 0) >= (read or 0) + writes.total:
            prompt = total - (completion or 0)
    return Usage(prompt, completion, read, *writes)


def _and_kinds(usage: Fields, name: str, known: frozenset[str]) -> int | None:
    """A count, also called `<name>_tokens`, with further kinds of it such as `<name>_audio_tokens`."""
    own = _first(_count(usage, name), _count(usage, name + "_tokens"))
    kinds = (kind for kind in usage if kind.startswith(name + "_") and kind not in known)
    return None if own is None else own + sum(_count(usage, kind) or 0 for kind in kinds)


def _writes(usage: Fields, total: int | None, tiers: Fields = _NONE) -> _Writes:
    """Writes by lifetime; `total` where the shape has its own untiered field, else Anthropic's; `tiers` likewise."""
    if total is None:
        total = _count(usage, "cache_creation_input_tokens")
    tiers = tiers or _fields(usage, "cache_creation")
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
    if type(value) is str and _WHOLE.fullmatch(value):  # as ClickHouse writes 64 bits, and so exports of Langfuse
        value = int(value)
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
