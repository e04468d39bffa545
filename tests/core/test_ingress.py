"""Messages API requests become the chat-completions messages that upstream's ingress would make of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.ingress import (
    IngressError,
    check_request,
    translate_message,
    translate_request,
    translate_system,
    translate_tool,
)
from cachesim.core.policy import PRESETS

NEW = PRESETS["dwctl-10.13"].body_rules
OLD = PRESETS["dwctl-8.63"].body_rules
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


SYSTEMS = {
    "a string": ("Be brief.", [{"role": "system", "content": "Be brief."}]),
    "no system": (None, []),
    "an empty string": ("", []),
    "no blocks": ([], []),
    "only dropped blocks": ([{"type": "document", "source": 1}], []),
    "blocks keep type, text and marker": (
        [text("a", citations=[1]), text("b", cache_control=HOUR), text("c", cache_control=None)],
        [{"role": "system", "content": [text("a"), text("b", cache_control=HOUR), text("c")]}],
    ),
    "an empty text block stays": ([text("")], [{"role": "system", "content": [text("")]}]),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("rules", [OLD, NEW])
def test_system(name: str, rules: Any) -> None:
    value, expected = SYSTEMS[name]
    assert translate_system(value, rules) == expected


USER = {
    "a string stays a string": ("Hi", [{"role": "user", "content": "Hi"}]),
    "an empty string stays": ("", [{"role": "user", "content": ""}]),
    "no blocks, no message": ([], []),
    "only dropped blocks, no message": (
        [{"type": "document"}, {"type": "tool_use", "id": "a", "name": "b", "input": 1}],
        [],
    ),
    "text and images in order": (
        [
            text("look", cache_control=MARK, extra=1),
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                "cache_control": HOUR,
            },
            {"type": "thinking", "thinking": "hm"},
        ],
        [
            {
                "role": "user",
                "content": [
                    text("look", cache_control=MARK),
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}, "cache_control": HOUR},
                ],
            }
        ],
    ),
    "tool results come first": (
        [
            text("and now?"),
            {"type": "tool_result", "tool_use_id": "t1", "content": "sunny", "is_error": False},
            {"type": "tool_result", "tool_use_id": "t2", "content": [text("a"), {"type": "image"}, 3, text("b")]},
            {"type": "tool_result", "tool_use_id": "t3"},
            {"type": "tool_result", "tool_use_id": "t4", "content": None, "cache_control": None},
        ],
        [
            {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "t2", "content": "ab"},
            {"role": "tool", "tool_call_id": "t3", "content": ""},
            {"role": "tool", "tool_call_id": "t4", "content": ""},
            {"role": "user", "content": [text("and now?")]},
        ],
    ),
}


@pytest.mark.parametrize("name", USER)
@pytest.mark.parametrize("rules", [OLD, NEW])
def test_user(name: str, rules: Any) -> None:
    content, expected = USER[name]
    assert translate_message({"role": "user", "content": content}, rules) == expected


def test_a_marked_tool_result_is_a_text_array_only_where_the_rule_says_so() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "ok", "cache_control": HOUR}
    message = {"role": "user", "content": [result]}
    marked = [{"role": "tool", "tool_call_id": "t", "content": [text("ok", cache_control=HOUR)]}]
    plain = [{"role": "tool", "tool_call_id": "t", "content": "ok"}]
    assert translate_message(message, NEW) == marked
    assert translate_message(message, replace(NEW, ingress_text_markers=False)) == plain


def test_a_marked_empty_tool_result_keeps_its_marker() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "cache_control": MARK}
    (message,) = translate_message({"role": "user", "content": [result]}, NEW)
    assert message["content"] == [text("", cache_control=MARK)]


ASSISTANT = {
    "a string": ("Done.", {"content": "Done."}),
    "an empty string is null": ("", {"content": None}),
    "no blocks": ([], {"content": None}),
    "texts are joined without separator": ([text("a"), {"type": "thinking"}, text("b")], {"content": "ab"}),
    "the last marker wins": (
        [text("a", cache_control=MARK), text("b", cache_control=HOUR), text("c")],
        {"content": [text("abc", cache_control=HOUR)]},
    ),
    "empty text loses its marker": ([text("", cache_control=MARK)], {"content": None}),
    "a null marker is none": ([text("a", cache_control=None)], {"content": "a"}),
    "tool calls with sorted compact arguments": (
        [
            text("Let me see."),
            {"type": "tool_use", "id": "t1", "name": "ls", "input": {"path": "é", "all": True, "n": 1.0}},
            {"type": "tool_use", "id": "t2", "name": "pwd", "input": {}, "cache_control": MARK},
        ],
        {
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "ls", "arguments": '{"all":true,"n":1.0,"path":"é"}'},
                },
                {"id": "t2", "type": "function", "function": {"name": "pwd", "arguments": "{}"}, "cache_control": MARK},
            ],
        },
    ),
}


@pytest.mark.parametrize("name", ASSISTANT)
def test_assistant(name: str) -> None:
    content, expected = ASSISTANT[name]
    assert translate_message({"role": "assistant", "content": content}, NEW) == [{"role": "assistant", **expected}]


def test_old_versions_drop_markers_of_assistant_blocks() -> None:
    call = {"type": "tool_use", "id": "t", "name": "ls", "input": {}, "cache_control": MARK}
    (message,) = translate_message({"role": "assistant", "content": [text("a", cache_control=MARK), call]}, OLD)
    assert message["content"] == "a"
    assert message["tool_calls"] == [{"id": "t", "type": "function", "function": {"name": "ls", "arguments": "{}"}}]


TOOLS = {
    "absent parts get their defaults": (
        {"name": "ls"},
        {"type": "function", "function": {"name": "ls", "description": None, "parameters": {"type": "object"}}},
    ),
    "a null schema is an absent one": (
        {"name": "ls", "description": None, "input_schema": None, "cache_control": None},
        {"type": "function", "function": {"name": "ls", "description": None, "parameters": {"type": "object"}}},
    ),
    "the marker stays, other keys go": (
        {
            "name": "ls",
            "type": "custom",
            "description": "List",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": HOUR,
        },
        {
            "type": "function",
            "function": {"name": "ls", "description": "List", "parameters": {"type": "object", "properties": {}}},
            "cache_control": HOUR,
        },
    ),
}


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.parametrize("rules", [OLD, NEW])
def test_tool(name: str, rules: Any) -> None:
    tool, expected = TOOLS[name]
    assert translate_tool(tool, rules) == expected


def test_system_messages_in_place_are_a_rule() -> None:
    message = {"role": "system", "content": [text("Now in French.", cache_control=MARK)]}
    assert translate_message(message, NEW) == [message]
    with pytest.raises(IngressError):
        translate_message(message, OLD)


def test_a_whole_request() -> None:
    body = {
        "model": "sonnet",
        "max_tokens": 5,
        "system": "Be brief.",
        "cache_control": HOUR,
        "tools": [{"name": "ls"}],
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    }
    expected = {
        "model": "sonnet",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
        ],
        "tools": [TOOLS["absent parts get their defaults"][1]],
        "cache_control": HOUR,
    }
    assert translate_request(body, NEW) == expected
    del expected["cache_control"]
    assert translate_request(body, OLD) == expected


REFUSED_REQUESTS = [
    {},
    {"max_tokens": None},
    {"max_tokens": "5"},
    {"max_tokens": 5.0},
    {"max_tokens": True},
    {"max_tokens": -1},
    {"max_tokens": 2**32},
    {"max_tokens": 1, "system": 5},
    {"max_tokens": 1, "system": ["text"]},
    {"max_tokens": 1, "system": [{"type": "text"}]},
    {"max_tokens": 1, "tools": {}},
    {"max_tokens": 1, "tools": ["ls"]},
    {"max_tokens": 1, "tools": [{"description": "no name"}]},
    {"max_tokens": 1, "tools": [{"name": "ls", "description": 5}]},
    {"max_tokens": 1, "stream": None},
    {"max_tokens": 1, "temperature": "hot"},
    {"max_tokens": 1, "top_k": -1},
    {"max_tokens": 1, "stop_sequences": [1]},
]


@pytest.mark.parametrize("request_", REFUSED_REQUESTS, ids=json.dumps)
def test_refused_requests(request_: dict[str, Any]) -> None:
    with pytest.raises(IngressError):
        check_request(request_)


def test_accepted_requests() -> None:
    accepted = [
        {"max_tokens": 0},
        {"max_tokens": 2**32 - 1, "system": None, "tools": None, "stream": True, "temperature": 0.5, "top_k": 3},
        {"max_tokens": 1, "system": [{"type": "new kind"}], "stop_sequences": ["\n"], "unknown": {}},
    ]
    assert [check_request(request) for request in accepted] == [None] * 3


REFUSED_MESSAGES = [
    "Hi",
    {"content": "Hi"},
    {"role": 5, "content": "Hi"},
    {"role": "tool", "content": "Hi"},
    {"role": "developer", "content": "Hi"},
    {"role": "user"},
    {"role": "user", "content": None},
    {"role": "user", "content": {"type": "text", "text": "Hi"}},
    {"role": "user", "content": ["Hi"]},
    {"role": "user", "content": [{"text": "Hi"}]},
    {"role": "user", "content": [{"type": "text", "text": 5}]},
    {"role": "user", "content": [{"type": "image"}]},
    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]},
    {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "aGk="}}]},
    {"role": "user", "content": [{"type": "tool_result", "content": "ok"}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": 5}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "is_error": "no"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "ls"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "input": {}}]},
]


@pytest.mark.parametrize("message", REFUSED_MESSAGES, ids=json.dumps)
def test_refused_messages(message: Any) -> None:
    with pytest.raises(IngressError) as caught:
        translate_message(message, NEW)
    assert "Hi" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=6,
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "tool_use", "tool_result", "thinking"])},
    optional=dict.fromkeys(("text", "source", "id", "name", "input", "tool_use_id", "content", "cache_control"), JSON),
)


@given(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant", "system"]),
            "content": st.text() | st.lists(BLOCK | JSON, max_size=3),
        }
    )
    | JSON
)
def test_any_json_is_translated_or_refused(message: Any) -> None:
    before = json.dumps(message)
    try:
        translated = translate_message(message, NEW)
    except IngressError:
        translated = []
    assert all(m["role"] in ("user", "assistant", "system", "tool") for m in translated)
    assert json.dumps(message) == before


def test_the_marked_bodies_of_real_clients_translate(real_data: Any) -> None:
    with gzip.open(real_data("cassettes") / "cassettes.jsonl.gz") as rows:
        bodies = [
            json.loads(row["request_body"])
            for row in map(json.loads, rows)
            if "anthropic.com/v1/messages" in row["url"]
        ]
    assert len(bodies) == 20
    sent = sum(json.dumps(body).count('"cache_control"') for body in bodies)
    kept = sum(json.dumps(translate_request(body, NEW)).count('"cache_control"') for body in bodies)
    assert (sent, kept) == (20, 20)
