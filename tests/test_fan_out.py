from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.config import ModelConfig, load_config, load_tariff_set
from cachesim.core.gates import AS_CAPTURED
from cachesim.core.policy import PRESETS
from cachesim.fan_out import FanOut, Miss, fan_outs, summary
from cachesim.pipeline import Preparation, body_rule_sets, prepare
from cachesim.store.db import open_database
from cachesim.trace.open import find_sources
from cachesim.trace.reader import ReadOptions

FIXTURES = Path(__file__).parents[1] / "fixtures"
NEW = replace(PRESETS["dwctl-10.13"], min_prefix_tokens=20)


def found(walk_back: int, *, collapse: bool = False, floor: int = 20) -> list[FanOut]:
    """The fan-outs of the golden log: r2 and r4 are 24 blocks after the last breakpoint, r3 is 2 and r5 is 10."""
    folder = FIXTURES / "sweeps"
    config = replace(load_config([]), models={"*": ModelConfig(str(FIXTURES / "words-tokenizer.json"), None)})
    with open_database(":memory:") as con:
        sources = find_sources([str(folder / "fan-out/log.jsonl")])[0]
        trace = prepare(con, Preparation(sources, ReadOptions(), config, body_rule_sets([])))
        policy = replace(NEW, walk_back=walk_back, collapse_tool_runs=collapse, min_prefix_tokens=floor)
        return fan_outs(con, trace, policy, AS_CAPTURED, load_tariff_set(str(folder / "tariff.toml")))


@pytest.mark.parametrize(
    ("walk_back", "requests", "tokens", "walk_backs"),
    [
        (20, 2, 25 + 80, (25, 25, 25)),  # r2 misses r1's 25 tokens, r4 misses r3's 80: both 24 blocks before their end
        (10, 3, 25 + 80 + 128, (25, 25, 25)),  # and r5 misses r4's 128, 10 blocks back: 11 with the breakpoint itself
        (24, 2, 25 + 80, (25, 25, 25)),
    ],
)
def test_what_lies_beyond_the_walk_back_is_counted_with_the_walk_back_that_reaches_it(
    walk_back: int, requests: int, tokens: int, walk_backs: tuple[int, ...]
) -> None:
    (one,) = found(walk_back)
    assert (one.requests, one.tokens, one.by_tools, one.walk_backs) == (requests, tokens, requests, walk_backs)


def test_a_walk_back_that_reaches_everything_misses_nothing() -> None:
    assert found(25) == []
    assert found(40) == []
    assert found(20, collapse=True) == []  # a run of calls, or of results, is one position there


def test_misses_are_summed_by_model_with_their_walk_backs() -> None:
    misses = [Miss("a", needed, 10, needed - 1, tools) for needed, tools in ((40, 39), (21, 0), (25, 13), (90, 44))]
    # 13 of 24 blocks are tools, 44 of 89 are not more than half
    assert summary([Miss("b", 30, 50, 29, 29), *misses]) == [
        FanOut("b", 1, 50, 1, (30, 30, 30)),
        FanOut("a", 4, 40, 2, (25, 90, 90)),  # half of four: the second; 90 %: the fourth
    ]
    assert summary([]) == []


@given(st.lists(st.integers(21, 500), min_size=1))
def test_each_walk_back_reaches_the_share_it_is_told_for(needed: list[int]) -> None:
    (one,) = summary([Miss("m", n, 1, n, 0) for n in needed])
    for share, walk_back in zip((50, 90, 100), one.walk_backs, strict=True):
        assert 100 * sum(n <= walk_back for n in needed) >= share * len(needed)
        assert 100 * sum(n < walk_back for n in needed) < share * len(needed)


def test_what_the_floor_turns_to_zero_is_no_miss() -> None:
    """No walk-back lifts a prompt over the floor: with 100 tokens r2 (73) and r3 (80) stay zero, r4 (128) writes."""
    assert found(20, floor=100) == []
