"""Generated traffic is the same every time, valid in every line, grows like conversations do, and shows every habit."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter, defaultdict
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from cachesim.counting.resolve import load_tokenizer
from cachesim.synth import Plant, generate, requests_for, write
from cachesim.synth.plant import PLANT_MODEL, SLOW_MODEL
from cachesim.synth.pool import BLENDS, Pool, estimate_tokens
from cachesim.synth.text import KINDS, Writer
from cachesim.synth.words import adverb, gerund, past, third_person

ROOT = Path(__file__).parent.parent


@cache
def small() -> tuple[bytes, ...]:
    return tuple(generate(7, 300))


@cache
def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in small()]


def markers(value: Any) -> list[Any]:
    """Every cache_control in a body, in no particular order."""
    if isinstance(value, dict):
        own = [value["cache_control"]] if "cache_control" in value else []
        return own + [found for inner in value.values() for found in markers(inner)]
    return [found for inner in value for found in markers(inner)] if isinstance(value, list) else []


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content or [])


def test_same_arguments_same_bytes_and_another_seed_other_bytes() -> None:
    assert tuple(generate(7, 300)) == small()
    assert tuple(generate(8, 300)) != small()


def test_write_writes_what_generate_yields() -> None:
    out = io.BytesIO()
    assert write(out, 7, 300) == 300
    assert out.getvalue() == b"".join(small())


@pytest.mark.parametrize("requests", [0, 1, 5])
def test_exactly_as_many_lines_as_asked_for(requests: int) -> None:
    assert len(list(generate(3, requests, scale=0.2))) == requests


def test_every_line_is_a_capture_record() -> None:
    for line, record in zip(small(), records(), strict=True):
        assert line.endswith(b"}\n")
        assert b"\n" not in line[:-1]
        assert {"at", "duration_ms", "id", "principal", "session", "tags", "status", "body"} <= record.keys()
        assert datetime.fromisoformat(record["at"]).utcoffset() is not None
        assert 0 < record["duration_ms"] <= 60_000
        body = record["body"]
        assert [message["role"] for message in body["messages"]][:2] == ["system", "user"]
        for message in body["messages"]:
            assert isinstance(message["content"], str | list) or message["tool_calls"]
        usage = record.get("usage")
        assert (usage is not None) == (record["status"] == 200 and record.get("success", True))
        if usage:
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert len({record["id"] for record in records()}) == 300


def test_tool_results_answer_the_calls_before_them() -> None:
    parallel = 0
    for record in records():
        asked: list[str] = []
        for message in record["body"]["messages"]:
            if message["role"] == "tool":
                assert message["tool_call_id"] == asked.pop(0)
            else:
                assert not asked
            asked += [call["id"] for call in message.get("tool_calls", [])]
            parallel += len(asked) > 1
        for message in record["body"]["messages"]:
            for call in message.get("tool_calls", []):
                assert json.loads(call["function"]["arguments"]).keys() == {"path", "limit"}
    assert parallel


def test_lines_arrive_in_order() -> None:
    times = [record["at"] for record in records()]
    assert times == sorted(times)


def test_a_small_run_has_several_of_everything() -> None:
    assert len({record["principal"] for record in records()}) >= 4
    assert len({record["body"]["model"] for record in records()}) >= 3
    assert len({record["session"] for record in records()}) >= 15
    assert len({record["tags"]["app"].split("-")[-1] for record in records()}) == 11


def test_sessions_grow_and_repeat_their_history() -> None:
    sessions = defaultdict(list)
    for record in records():
        if "timestamp" not in record["tags"]["app"]:
            sessions[record["session"]].append([text_of(m) for m in record["body"]["messages"]][1:])
    repeated = grown = 0
    for turns in sessions.values():
        for before, after in pairwise(turns):
            grown += len(after) > len(before)
            repeated += after[: len(before) - 1] == before[:-1]
    steps = sum(len(turns) - 1 for turns in sessions.values())
    assert repeated == steps
    assert grown > steps * 0.9


def test_histories_repeat_many_times_in_bytes() -> None:
    total = unique = 0
    seen = set()
    for line in generate(7, 1500):
        for message in json.loads(line)["body"]["messages"]:
            text = text_of(message)
            total += len(text)
            unique += len(text) if text not in seen else 0
            seen.add(text)
    assert 6 < total / unique < 14


def test_a_line_has_about_30_kb() -> None:
    assert 24_000 < sum(map(len, generate(7, 1500))) / 1500 < 36_000


def test_scale_shortens_lines() -> None:
    assert sum(map(len, generate(7, 300, scale=0.3))) < 0.6 * sum(map(len, small()))


def test_every_marker_habit_occurs() -> None:
    seen: Counter[str] = Counter()
    for record in records():
        body = record["body"]
        found = markers(body)
        seen["none"] += not found
        seen["automatic"] += "cache_control" in body
        seen["tools"] += "cache_control" in body.get("tools", [{}])[-1]
        seen["5m"] += {"type": "ephemeral"} in found
        seen["1h"] += {"type": "ephemeral", "ttl": "1h"} in found
        seen["two"] += len(found) == 2
        seen["query"] += "cacheBreakpoint=lastUserMessage" in record.get("uri", "")
        system = text_of(body["messages"][0])
        seen["telemetry"] += system.startswith("x-anthropic-billing-header:")
        seen["timestamp"] += system.startswith("Current time: " + record["at"])
        seen["batch"] += record.get("purpose") == "batch"
    assert all(seen.values()), seen


def test_a_larger_run_has_failures_duplicates_fan_out_and_bad_markers() -> None:
    seen: Counter[str] = Counter()
    previous: list[tuple[str, datetime, Any]] = []
    good = ({"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"})
    for line in generate(7, 1500, scale=0.3):
        record = json.loads(line)
        seen[str(record["status"])] += 1
        seen["broken stream"] += record.get("success") is False
        seen["bad marker"] += any(marker not in good for marker in markers(record["body"]))
        at = datetime.fromisoformat(record["at"])
        last = text_of(record["body"]["messages"][-1])
        seen["sub-task"] += last.startswith("Sub-task ")
        close = [
            body for session, then, body in previous[-20:] if session == record["session"] and (at - then).seconds < 1
        ]
        seen["concurrent twin"] += record["body"] in close
        previous.append((record["session"], at, record["body"]))
    assert all(seen[key] for key in ("429", "500", "broken stream", "bad marker", "sub-task", "concurrent twin")), seen


def test_think_times_reach_over_every_ttl() -> None:
    sessions = defaultdict(list)
    for line in generate(7, 1500, scale=0.2):
        record = json.loads(line)
        sessions[record["session"]].append(datetime.fromisoformat(record["at"]))
    gaps = [(b - a).total_seconds() for times in sessions.values() for a, b in pairwise(times)]
    bands = Counter("<5m" if gap < 300 else "5-60m" if gap < 3600 else "1-8h" for gap in gaps)
    assert bands["<5m"] > bands["5-60m"] > bands["1-8h"] > 0
    assert max(gaps) < 8 * 3600 + 120


def test_short_prompts_lie_on_both_sides_of_the_floor() -> None:
    prompts = [
        record["usage"]["prompt_tokens"]
        for record in map(json.loads, generate(7, 600, scale=0.3))
        if record["tags"]["app"].endswith("triage") and "usage" in record
    ]
    assert min(prompts) < 1024 < max(prompts)


def test_own_models_principals_and_days() -> None:
    got = [json.loads(line) for line in generate(1, 400, models=['m"1'], principals=["a", "ü"], days=3, scale=0.2)]
    assert {record["body"]["model"] for record in got} == {'m"1'}
    assert {record["principal"] for record in got} == {"a", "ü"}
    assert {record["at"][:10] for record in got} >= {"2026-03-02", "2026-03-03", "2026-03-04"}


# -- what is planted


FLOOR = 300


@cache
def planted() -> dict[str, list[dict[str, Any]]]:
    """The requests of a week with both plants, by kind; `other`: all that is not planted."""
    found = defaultdict(list)
    for line in generate(7, 300, days=7, plant=Plant(FLOOR, ttl=True)):
        record = json.loads(line)
        kind = record["tags"]["app"].split("-")[-1]
        found[kind if kind in ("single", "repeated", "slow") else "other"].append(record)
    return found


def words_marked(record: dict[str, Any]) -> int:
    (part,) = record["body"]["messages"][0]["content"]
    assert part["cache_control"] == {"type": "ephemeral"}
    return len(part["text"].split(" "))


def by_prefix(requests: list[dict[str, Any]]) -> list[list[datetime]]:
    """The arrivals of the requests that share a text up to the breakpoint and a principal."""
    times = defaultdict(list)
    for record in requests:
        key = (record["principal"], record["body"]["messages"][0]["content"][0]["text"])
        times[key].append(datetime.fromisoformat(record["at"]))
    return list(times.values())


def test_what_is_planted_comes_on_top_and_changes_nothing_else() -> None:
    without = list(generate(7, 300, days=7))
    with_plants = list(generate(7, 300, days=7, plant=Plant(FLOOR, ttl=True)))
    assert set(without) <= set(with_plants)
    assert [line for line in with_plants if b'"id":"r' in line] == without
    assert with_plants == list(generate(7, 300, days=7, plant=Plant(FLOOR, ttl=True)))
    times = [json.loads(line)["at"] for line in with_plants]
    assert times == sorted(times)
    assert len({json.loads(line)["id"] for line in with_plants}) == len(with_plants)


def test_single_prompts_end_below_the_planted_floor_and_repeated_ones_begin_at_it() -> None:
    single, repeated = planted()["single"], planted()["repeated"]
    assert {record["body"]["model"] for record in single + repeated} == {PLANT_MODEL}
    assert min(len(single), len(repeated)) >= 600
    counts = [words_marked(record) for record in single]
    assert 180 <= min(counts) < 190 < max(counts) == 270  # 0.6 · 300 and 0.9 · 300
    counts = [words_marked(record) for record in repeated]
    assert 300 == min(counts) < 410 < max(counts) <= 420  # 1.0 · 300 and 1.4 · 300
    assert all(len(times) == 1 for times in by_prefix(single))
    sessions = by_prefix(repeated)
    assert {len(times) for times in sessions} == {4, 5, 6, 7, 8}
    gaps = [(b - a).total_seconds() for times in sessions for a, b in pairwise(times)]
    assert 20 <= min(gaps) < max(gaps) < 300


def test_slow_sessions_pause_between_ten_and_fifty_minutes() -> None:
    slow = planted()["slow"]
    assert {record["body"]["model"] for record in slow} == {SLOW_MODEL}
    gaps = [(b - a).total_seconds() for times in by_prefix(slow) for a, b in pairwise(times)]
    assert 600 <= min(gaps) < max(gaps) <= 3000
    assert min(map(words_marked, slow)) > 1024


def test_every_part_of_the_log_has_its_share_of_the_plant() -> None:
    for kind in ("single", "repeated", "slow"):
        days = Counter(record["at"][:10] for record in planted()[kind])
        assert min(days[f"2026-03-0{day}"] for day in range(2, 9)) >= 40, kind


def test_planted_counts_are_exact_for_words_and_nearly_so_for_the_embedded_tokenizer() -> None:
    words, embedded = load_tokenizer(str(ROOT / "fixtures" / "words-tokenizer.json")), load_tokenizer("default")
    for kind in ("single", "repeated", "slow"):
        for record in planted()[kind][:30]:
            texts = [text_of(message) for message in record["body"]["messages"]]
            assert sum(words.count_batch(texts)) == record["usage"]["prompt_tokens"]
            assert words.count_batch(texts)[0] == words_marked(record)
            assert abs(embedded.count_batch(texts)[0] - words_marked(record)) <= 3
            assert record["status"] == 200


def test_a_log_of_a_size_has_about_that_size() -> None:
    for plant in (Plant(), Plant(2000), Plant(1000, ttl=True)):
        for wanted in (40e6, 200e6):
            size = sum(map(len, generate(1, requests_for(wanted, plant), plant=plant)))
            assert 0.8 < size / wanted < 1.2


def test_prompt_tokens_are_plausible() -> None:
    """The estimate stays within 15 % of the embedded tokenizer's count of the texts, scaffolding included."""
    tokenizer = load_tokenizer("default")
    pool = Pool(3, 100)
    for blend in BLENDS:
        drawn = [pool.draw(Random(seed), blend, 3000) for seed in range(20)]
        counted = sum(tokenizer.count_batch([json.loads(b'"' + text + b'"') for text, _ in drawn]))
        assert counted * 0.95 < sum(tokens for _, tokens in drawn) < counted * 1.25


def test_estimate_tokens() -> None:
    # def, load, _, all, (, x, ):
    assert estimate_tokens("def load_all(x):") == 7
    # 12345 is 123 + 45; an 18-letter word is two pieces of nine; a run of marks or of line ends is one
    assert estimate_tokens("12345 abcdefghijklmnopqr") == 4
    assert estimate_tokens("a\n\n  b !!!") == 4
    assert estimate_tokens("") == 0


def test_templates_leave_no_hole() -> None:
    writer = Writer(Random(5))
    for kind in KINDS:
        for _ in range(150):
            assert "«" not in writer.text(kind)


def test_inflections() -> None:
    assert [past(verb) for verb in ("walk", "write", "copy", "stop", "use", "play")] == [
        *("walked", "written", "copied", "stopped", "used", "played")
    ]
    assert [gerund(verb) for verb in ("walk", "write", "run", "see", "tie")] == [
        *("walking", "writing", "running", "seeing", "tying")
    ]
    assert [third_person(verb) for verb in ("push", "copy", "play")] == ["pushes", "copies", "plays"]
    assert [adverb(word) for word in ("quick", "happy", "basic", "stable")] == [
        "quickly",
        "happily",
        "basically",
        "stably",
    ]


def test_the_demo_is_what_its_recipe_makes() -> None:
    path = ROOT / "fixtures" / "demo.jsonl.gz"
    assert path.stat().st_size <= 400_000
    same = gzip.decompress(path.read_bytes()) == b"".join(generate(7, 420, scale=0.25))
    assert same, "run python tools/make_demo.py"  # a diff of megabytes would take hours to print
