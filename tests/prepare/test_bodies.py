"""The reader that remembers histories must be indistinguishable from the plain one that remembers nothing."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesim.core.canonical import JsonError, loads, renumber
from cachesim.core.ingress import IngressError, translate_request
from cachesim.core.markers import MarkerFact
from cachesim.core.policy import PRESETS
from cachesim.core.prompt import ParsedPrompt, parse_body, parse_value
from cachesim.prepare.bodies import BodyReader, ReadBody
from cachesim.prepare.chains import Facts, Slots
from cachesim.prepare.memo import MessageMemo
from cachesim.prepare.nodes import Nodes

RULES = [PRESETS["dwctl-8.63"].body_rules, PRESETS["dwctl-10.13"].body_rules]


class Texts:
    """A counter that keeps the texts."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def slot(self, text: str) -> int:
        self.all.append(text)
        return len(self.all) - 1


class Reading:
    """A BodyReader and what it has seen, to compare with plain readings."""

    def __init__(self, memory_limit: int | None = None) -> None:
        self.nodes, self.facts, self.texts = Nodes(), Facts(), Texts()
        self.slots = Slots(self.texts)
        self.reader = BodyReader(RULES, self.nodes, self.facts)
        if memory_limit is not None:
            self.reader.parts.memo = MessageMemo(memory_limit)

    def read(self, body: bytes, *, messages_api: bool = False, query: bool = False) -> ReadBody:
        return self.reader.read(
            self.reader.parts.take_apart(body), self.slots, 0, messages_api=messages_api, query=query
        )

    def described(self, read: ReadBody) -> list[tuple[Any, ...]]:
        found = []
        for chain, automatic in zip(read.chains, read.automatic, strict=True):
            path, node = [], chain.node
            while node >= 0:
                path.append(node)
                node = self.nodes.parents[node]
            path.reverse()
            found.append(
                (
                    [self.nodes.digests[n] for n in path],
                    [self.texts.all[self.slots.by_node[n]] for n in path],
                    list(chain.marker_blocks),
                    [self.facts.all[f] for f in chain.marker_facts],
                    self.facts.all[automatic] if automatic >= 0 else None,
                    chain.blocks,
                )
            )
        return found


def plain(parsed: ParsedPrompt) -> tuple[Any, ...]:
    blocks, facts = parsed.markers
    texts = [block.text for block in parsed.blocks]
    return parsed.hashes, texts, blocks, facts, parsed.automatic, len(parsed.blocks)


def assert_equal_readings(reading: Reading, body: bytes) -> None:
    try:
        expected = [plain(parse_body(body, rules)) for rules in RULES]
    except JsonError:
        with pytest.raises(JsonError):
            reading.read(body)
        return
    assert reading.described(reading.read(body)) == expected


MARKERS = st.sampled_from(
    [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}, None, 5, {}, {"type": 1, "ttl": None}, {"ttl": "9h"}]
)
TEXTS = st.text(max_size=20) | st.sampled_from(["x-anthropic-billing-header: a", "{[", '"messages":[', "é\u2028😀"])
NUMBERS = st.sampled_from([0, 1, -1, 1.5, 0.1, -0.0, 1e300, 12345678901234567890, 9007199254740993.0])
PARTS = st.builds(
    lambda text, marker, marked, extra: {
        "type": "text",
        "text": text,
        **({"cache_control": marker} if marked else {}),
        **({"n": extra} if extra is not None else {}),
    },
    TEXTS,
    MARKERS,
    st.booleans(),
    st.none() | NUMBERS,
)
CALLS = st.lists(
    st.builds(
        lambda name, marker, marked: {
            "function": {"name": name, "arguments": "{}"},
            **({"cache_control": marker} if marked else {}),
        },
        TEXTS,
        MARKERS,
        st.booleans(),
    ),
    max_size=2,
)
MESSAGES = st.builds(
    lambda role, content, calls: {"role": role, "content": content, **({"tool_calls": calls} if calls else {})},
    st.sampled_from(["system", "user", "assistant", "tool", 7]),
    TEXTS | st.lists(PARTS | NUMBERS, max_size=3) | st.none(),
    CALLS,
)
TOOLS = st.lists(st.builds(lambda name, n: {"name": name, "n": n, "pad": "p" * 300}, TEXTS, NUMBERS), max_size=2)
STYLES = st.sampled_from(
    [
        {"separators": (",", ":")},
        {},
        {"separators": (",", ":"), "ensure_ascii": False},
        {"indent": 1},
    ]
)


@st.composite
def sessions(draw: st.DrawFn) -> list[bytes]:
    """Bodies of a few interleaved sessions whose histories grow, in one JSON style."""
    style = draw(STYLES)
    bodies = []
    for _ in range(draw(st.integers(1, 3))):
        history = draw(st.lists(MESSAGES, min_size=1, max_size=6))
        before = {"model": "m", **({"tools": draw(TOOLS)} if draw(st.booleans()) else {})}
        after = draw(st.sampled_from([{}, {"temperature": 0.5}, {"tools": [{"a": -0.0}]}, {"cache_control": None}]))
        for length in range(1, len(history) + 1):
            body = {**before, "messages": history[:length], **after}
            bodies.append(json.dumps(body, **style).encode("utf-8", "surrogatepass"))
    return draw(st.permutations(bodies)) if draw(st.booleans()) else bodies


@settings(max_examples=150, deadline=None)
@given(sessions())
def test_remembering_changes_nothing(bodies: list[bytes]) -> None:
    reading = Reading()
    for body in bodies + bodies:
        assert_equal_readings(reading, body)


@settings(max_examples=40, deadline=None)
@given(sessions())
def test_forgetting_changes_nothing(bodies: list[bytes]) -> None:
    reading = Reading(memory_limit=5000)
    for body in bodies + bodies:
        assert_equal_readings(reading, body)


@settings(max_examples=200, deadline=None)
@given(sessions(), st.randoms(use_true_random=False))
def test_damaged_bodies_are_judged_alike(bodies: list[bytes], chance: random.Random) -> None:
    """Bytes changed, cut out or doubled: both readings agree on what is JSON and what it says."""
    reading = Reading()
    for body in bodies:
        assert_equal_readings(reading, body)
    for body in bodies:
        start = chance.randrange(len(body) + 1)
        end = min(len(body), start + chance.randrange(4))
        middle = chance.choice([b"", body[start:end] * 2, b"\xff", b'"', b"]", b",", b"}", b'"messages":[],'])
        assert_equal_readings(reading, body[:start] + middle + body[end:])


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"b"}]}',
        b'{"messages":[{"role":"user","content":"a"}],"messages":[]}',
        b'{"messages":[],"messages":[{"role":"user","content":"a"}]}',
        b'{"x":[{"role":"user","content":"a"}],"messages":[{"role":"user","content":"a"}]}',
        b'{"x":"\\"messages\\":[","messages":[{"role":"user","content":"a"}]}',
        b'{"\\u006dessages":[{"role":"user","content":"a"}]}',
        b'{"messages":5,"messages":[{"role":"user","content":"a"}]}',
        b'{"messages":[{"role":"user","content":"a"},]}',
        b'{"messages":[{"role":"user","content":"a"}',
        b'{"messages":[{"role":"user","content":"a"}]}}',
        b'{"messages":[1,12,"x",null,{"role":"user","content":"a"}]}',
        b'{"messages":{"role":"user"}}',
        b'{"messages":[],"tools":[{"a":1e400}]}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"a","content":"\\ud800"}]}',
        b'{"messages":[{"a":' + b"[" * 124 + b"]" * 124 + b"}]}",
        b'{"messages":[{"a":' + b"[" * 125 + b"]" * 125 + b"}]}",
        b'{"messages":[],"a":' + b"[" * 126 + b"]" * 126 + b"}",
        b'{"messages":[],"a":' + b"[" * 127 + b"]" * 127 + b"}",
        b'{"messages":[{"a":' + b"[" * 200 + b"]" * 200 + b',"a":1}]}',
        b'{"messages":[' + b'{"role":"user","content":"a"} ,\n {"role":"user","content":"b"}' + b" ] }",
        b"[]",
        b"5",
        b"",
    ],
)
def test_awkward_bodies(body: bytes) -> None:
    reading = Reading()
    for _ in range(2):
        assert_equal_readings(reading, b'{"messages":[{"role":"user","content":"a"}]}')
        assert_equal_readings(reading, body)


def test_a_forged_role_cannot_merge_two_histories() -> None:
    """A role with a NUL byte can repeat another prompt's hash input; the hash is shared, the boundary is not."""
    two = b'{"messages":[{"role":"a","content":[{}]},{"role":"b","content":[{}]}]}'
    one = b'{"messages":[{"role":"a\\u0000{}b","content":[{}]}]}'
    reading = Reading()
    deep, flat = reading.read(two).chains[0], reading.read(one).chains[0]
    assert reading.nodes.digests[deep.node] == reading.nodes.digests[flat.node]
    assert (deep.node, deep.blocks, flat.blocks) != (flat.node, 2, 1)
    assert reading.nodes.prefixes[deep.node] == reading.nodes.prefixes[flat.node]
    assert reading.nodes.parents[flat.node] == -1


def test_the_query_parameter_marks_the_last_block_unless_the_body_speaks() -> None:
    reading = Reading()
    body = b'{"messages":[{"role":"user","content":[{"text":"a","n":9007199254740993.0}]}]}'
    described = reading.described(reading.read(body, query=True))
    assert described[0][4] is None  # 8.63 knows no such parameter
    assert described[1][4] == MarkerFact("object", "ephemeral", "1h")
    # 10.13 injects the marker by printing the body again: the number passes the approximate parser twice.
    assert described[0][0] == parse_body(body, RULES[0]).hashes
    assert described[1][0] == parse_value(loads(body), RULES[1], reserialised=True).hashes
    own = b'{"messages":[{"role":"user","content":"a"}],"cache_control":{"type":"ephemeral"}}'
    assert reading.described(reading.read(own, query=True))[1][4] == MarkerFact("object", "ephemeral", "<missing>")


def test_the_query_parameter_after_the_translation_prints_once_more() -> None:
    """A rule set that drops the body's own top-level marker leaves the place to the query parameter's."""
    drops = replace(RULES[1], ingress_top_level_marker=False)
    reading = Reading()
    reading.reader.rules = (RULES[1], drops)
    value = {
        "model": "c",
        "max_tokens": 1,
        "cache_control": {"type": "ephemeral"},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "tools": [{"name": "f", "input_schema": {"n": 9007199254740993.0}}],
    }
    raw = json.dumps(value).replace("9007199254740992.0", "9007199254740993.0").encode()
    described = reading.described(reading.read(raw, messages_api=True, query=True))
    assert [own[4] for own in described] == [
        MarkerFact("object", "ephemeral", "<missing>"),
        MarkerFact("object", "ephemeral", "1h"),
    ]
    translated = translate_request(loads(raw), RULES[1])
    once = parse_value(translated, RULES[1], reserialised=True)
    twice = parse_value(renumber(translated), RULES[1], reserialised=True)
    assert [own[0] for own in described] == [once.hashes, twice.hashes]


ANTHROPIC_PARTS = st.builds(
    lambda kind, text, marked: {
        **kind,
        **({"text": text} if kind["type"] == "text" else {}),
        **({"cache_control": {"type": "ephemeral"}} if marked else {}),
    },
    st.sampled_from(
        [
            {"type": "text"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 0.1}},
            {"type": "tool_result", "tool_use_id": "t", "content": "r"},
            {"type": "thinking", "thinking": "h", "signature": "s"},
        ]
    ),
    TEXTS,
    st.booleans(),
)
ANTHROPIC = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "assistant", "system"]),
    TEXTS | st.lists(ANTHROPIC_PARTS, min_size=1, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ANTHROPIC, min_size=1, max_size=5), TEXTS | st.none(), st.booleans())
def test_messages_bodies_are_translated_piece_by_piece(
    history: list[dict[str, Any]], system: str | None, top: bool
) -> None:
    """Piecewise translation of remembered messages equals the translation of the whole body."""
    reading = Reading()
    for length in range(1, len(history) + 1):
        body = {
            "model": "c",
            "max_tokens": 9,
            "messages": history[:length],
            "tools": [{"name": "f", "input_schema": {"type": "object", "minimum": 0.5}}],
            **({"system": system} if system is not None else {}),
            **({"cache_control": {"type": "ephemeral"}} if top else {}),
        }
        raw = json.dumps(body).encode()
        read = reading.read(raw, messages_api=True)
        described = reading.described(read)
        for chain, rules, got in zip(read.chains, RULES, described, strict=True):
            try:
                translated = translate_request(loads(raw), rules)
            except IngressError:
                assert chain.error is not None
                continue
            assert chain.error is None
            assert got == plain(parse_value(translated, rules, reserialised=True))
