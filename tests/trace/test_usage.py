"""One normal form for the usage objects of all providers."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.model import Usage
from cachesim.trace.usage import MAX_TOKENS, normalise, reported

EXAMPLES: dict[str, tuple[dict[str, Any], Usage]] = {
    # input excludes the cache: prompt = 4 + 8,000 + 600
    "Anthropic, writes by lifetime": (
        {
            "input_tokens": 4,
            "cache_read_input_tokens": 8_000,
            "cache_creation_input_tokens": 600,
            "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 500},
            "output_tokens": 7,
        },
        Usage(prompt=8_604, completion=7, read=8_000, write_5m=100, write_1h=500),
    ),
    "Anthropic, untiered writes count as 5m": (
        {"input_tokens": 4, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 600, "output_tokens": 7},
        Usage(prompt=604, completion=7, read=0, write_5m=600, write_5m_assumed=True),
    ),
    "Anthropic, tiers that do not add up to the total": (
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 10,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 4},
        },
        Usage(prompt=11, write_5m=6, write_1h=4, write_5m_assumed=True),
    ),
    "Anthropic, tiers without a total": (
        {"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 4}},
        Usage(prompt=5, write_1h=4),
    ),
    "Anthropic without cache fields": ({"input_tokens": 9, "output_tokens": 2}, Usage(prompt=9, completion=2)),
    "OpenAI chat": (
        {
            "prompt_tokens": 2_000,
            "completion_tokens": 12,
            "total_tokens": 2_012,
            "prompt_tokens_details": {"cached_tokens": 1_536, "audio_tokens": 0},
        },
        Usage(prompt=2_000, completion=12, read=1_536),
    ),
    "OpenAI chat with writes": (
        {
            "prompt_tokens": 2_000,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 1_990},
        },
        Usage(prompt=2_000, completion=1, read=0, write_5m=1_990, write_5m_assumed=True),
    ),
    "OpenAI chat without details": (
        {"prompt_tokens": 50, "completion_tokens": 1, "prompt_tokens_details": None},
        Usage(prompt=50, completion=1),
    ),
    "OpenAI responses": (
        {
            "input_tokens": 900,
            "input_tokens_details": {"cached_tokens": 640, "cache_write_tokens": 0},
            "output_tokens": 30,
            "total_tokens": 930,
        },
        Usage(prompt=900, completion=30, read=640, write_5m=0),
    ),
    "DeepSeek": (
        {"prompt_tokens": 700, "completion_tokens": 5, "prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 60},
        Usage(prompt=700, completion=5, read=640),
    ),
    "DeepSeek, hits and misses only": (
        {"prompt_cache_hit_tokens": 640, "prompt_cache_miss_tokens": 60},
        Usage(prompt=700, read=640),
    ),
    # input excludes the cache: prompt = 10 + 2,000 + 300
    "Bedrock": (
        {
            "inputTokens": 10,
            "outputTokens": 3,
            "cacheReadInputTokens": 2_000,
            "cacheReadInputTokenCount": 2_000,
            "cacheWriteInputTokens": 300,
            "cacheDetails": [{"inputTokens": 100, "ttl": "5m"}, {"inputTokens": 200, "ttl": "1h"}],
            "totalTokens": 2_313,
        },
        Usage(prompt=2_310, completion=3, read=2_000, write_5m=100, write_1h=200),
    ),
    "Bedrock without details": (
        {"inputTokens": 10, "outputTokens": 3, "cacheReadInputTokens": 0, "cacheWriteInputTokens": 300},
        Usage(prompt=310, completion=3, read=0, write_5m=300, write_5m_assumed=True),
    ),
    "Mistral": (
        {"prompt_tokens": 64, "completion_tokens": 6, "num_cached_tokens": 32},
        Usage(prompt=64, completion=6, read=32),
    ),
    "Cohere": (
        {
            "billed_units": {"input_tokens": 20, "output_tokens": 2},
            "cached_tokens": 480,
            "tokens": {"input_tokens": 500, "output_tokens": 4},
        },
        Usage(prompt=500, completion=4, read=480),
    ),
    "OpenRouter": (
        {
            "prompt_tokens": 3_000,
            "completion_tokens": 9,
            "cost": 0.01,
            "prompt_tokens_details": {"cached_tokens": 2_900, "cache_write_tokens": 90},
            "cost_details": {"upstream_inference_cost": None},
        },
        Usage(prompt=3_000, completion=9, read=2_900, write_5m=90, write_5m_assumed=True),
    ),
    "dwctl": (
        {
            "prompt_tokens": 5_000,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 4_000},
            "cache_read_input_tokens": 4_000,
            "cache_creation_input_tokens": 600,
            "cache_creation": {
                "ephemeral_5m_input_tokens": 100,
                "ephemeral_1h_input_tokens": 200,
                "ephemeral_24h_input_tokens": 300,
            },
        },
        Usage(prompt=5_000, completion=2, read=4_000, write_5m=100, write_1h=200, write_24h=300),
    ),
    "LiteLLM": (
        {
            "prompt_tokens": 300,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 200, "cache_creation_tokens": 50},
            "cache_read_input_tokens": 200,
            "cache_creation_input_tokens": 50,
        },
        Usage(prompt=300, completion=2, read=200, write_5m=50, write_5m_assumed=True),
    ),
    "LiteLLM, writes by lifetime": (
        {
            "prompt_tokens": 311,
            "completion_tokens": 2,
            "prompt_tokens_details": {
                "cached_tokens": 100,
                "cache_creation_tokens": 200,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150},
            },
        },
        Usage(prompt=311, completion=2, read=100, write_5m=50, write_1h=150),
    ),
    # kinds that add up: prompt = 86 + 17,817 = total 17,913 - 10
    "Langfuse, input excludes what was read": (
        {"input": 86, "input_cached_tokens": 17_817, "output": 10, "total": 17_913},
        Usage(prompt=17_903, completion=10, read=17_817),
    ),
    # the read ones are inside the input: prompt = total 17,913 - 10, not 17,903 + 17,817
    "Langfuse, input includes what was read": (
        {"input": 17_903, "cache_read_input_tokens": 17_817, "output": 10, "total": 17_913},
        Usage(prompt=17_903, completion=10, read=17_817),
    ),
    # read beside the input, written inside it: prompt = total 1,010 - 10, not 300 + 700 + 200
    "Langfuse, input includes what was written": (
        {
            "input": 300,
            "cache_read_input_tokens": 700,
            "cache_creation_input_tokens": 200,
            "output": 10,
            "total": 1_010,
        },
        Usage(prompt=1_000, completion=10, read=700, write_5m=200, write_5m_assumed=True),
    ),
    # no total: prompt = 4 + 90 + 5 + 1 + 20 of audio
    "Langfuse, writes by lifetime, without a total": (
        {
            "input": 4,
            "input_cached_tokens": 90,
            "input_cache_creation_5m": 5,
            "input_cache_creation_1h": 1,
            "input_audio_tokens": 20,
            "output": 3,
            "output_reasoning_tokens": 2,
        },
        Usage(prompt=120, completion=5, read=90, write_5m=5, write_1h=1),
    ),
    "Langfuse, writes by lifetime and altogether": (
        {"input": 4, "cache_creation_input_tokens": 6, "input_cache_creation_5m": 6, "total": 10},
        Usage(prompt=10, write_5m=6),
    ),
    # reasoning is inside the output: 100 + 40 = total, so prompt = 140 - 40
    "Langfuse, kinds of output inside it": (
        {"input": 100, "output": 40, "output_reasoning_tokens": 30, "total": 140},
        Usage(prompt=100, completion=40),
    ),
    "Langfuse, a total that leaves no room for what was read": (
        {"input": 10, "input_cached_tokens": 90, "output": 5, "total": 15},
        Usage(prompt=100, completion=5, read=90),
    ),
    # 1,568 + 17 = total: the read ones are inside
    "Inspect, OpenAI": (
        {
            "input_tokens": 1_568,
            "output_tokens": 17,
            "total_tokens": 1_585,
            "input_tokens_cache_read": 1_024,
            "reasoning_tokens": 0,
        },
        Usage(prompt=1_568, completion=17, read=1_024),
    ),
    # 4 + 17 + 1,024 + 540 = total: beside
    "Inspect, Anthropic": (
        {
            "input_tokens": 4,
            "output_tokens": 17,
            "total_tokens": 1_585,
            "input_tokens_cache_read": 1_024,
            "input_tokens_cache_write": 540,
        },
        Usage(prompt=1_568, completion=17, read=1_024, write_5m=540, write_5m_assumed=True),
    ),
    "a bare cached_tokens is no split": ({"prompt_tokens": 9, "cached_tokens": 5}, Usage(prompt=9)),
    "both conventions' names, one of them idle": (
        {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 90,
        },
        Usage(prompt=100, completion=5, read=90),
    ),
    "counts as texts, as ClickHouse exports 64 bits": (
        {"input": "10", "input_cached_tokens": "90", "output": "5", "total": "105"},
        Usage(prompt=100, completion=5, read=90),
    ),
    "wrong values are not reported": (
        {"prompt_tokens": -1, "completion_tokens": "5.5", "prompt_tokens_details": {"cached_tokens": 1.5}},
        Usage(),
    ),
    "booleans and giants are not counts": ({"prompt_tokens": True, "completion_tokens": MAX_TOKENS + 1}, Usage()),
    "a whole float is a count": ({"prompt_tokens": 12.0, "completion_tokens": 3}, Usage(prompt=12, completion=3)),
    "nothing known": ({"tokens": 5, "foo": 1}, Usage()),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    usage, expected = EXAMPLES[name]
    assert normalise(usage) == expected


def test_reported_is_none_where_nothing_is_recognised() -> None:
    assert reported(None) is None
    assert reported([1]) is None
    assert reported({}) is None
    assert reported({"prompt_tokens": 0}) == Usage(prompt=0)


NAMES = st.sampled_from([*sorted({key for usage, _ in EXAMPLES.values() for key in usage}), "ttl", "cached_tokens"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.floats() | st.text(max_size=2),
    lambda children: st.lists(children, max_size=2) | st.dictionaries(NAMES, children, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_any_object_gives_counts_or_none(usage: dict[str, Any]) -> None:
    normal = normalise(usage)
    counts = (normal.prompt, normal.completion, normal.read, normal.write_5m, normal.write_1h, normal.write_24h)
    assert all(count is None or (type(count) is int and count >= 0) for count in counts)


def test_real_responses(real_data: Any) -> None:
    with gzip.open(real_data("cassettes") / "cassettes.jsonl.gz") as rows:
        usages = [json.loads(row)["usage"] for row in rows]
    impossible = 0
    for usage in usages:
        normal = normalise(usage)
        assert normal.prompt is not None
        written = (normal.write_5m or 0) + (normal.write_1h or 0) + (normal.write_24h or 0)
        impossible += (normal.read or 0) + written > normal.prompt
        total = usage.get("total_tokens", usage.get("totalTokens"))
        if total is not None:
            assert normal.prompt + (normal.completion or 0) == total
    assert impossible == 1  # one provider reports the same tokens as read and as written
