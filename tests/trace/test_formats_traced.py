"""The logs of Langfuse, OpenHands and Inspect: what is easily misread in them, one trap a test."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from cachesim.core.model import BadLine, LogRecord, Usage
from cachesim.trace.formats import FORMATS
from cachesim.trace.formats.base import DECODE_ERRORS, RESPONSE_CACHE, NotARequest, explain
from cachesim.trace.formats.inspect import decode_document
from cachesim.trace.formats.langfuse import NOT_A_GENERATION, decode_line, decode_trace
from cachesim.trace.formats.openhands import decode_line as decode_openhands
from cachesim.trace.times import parse_time

KEY = "sk-secret-1"
USER = {"role": "user", "content": "Hello."}
AT = "2026-03-01T09:00:00Z"
GENERATION: dict[str, Any] = {"type": "GENERATION", "traceId": "t", "startTime": AT, "model": "m", "input": [USER]}
CALL: dict[str, Any] = {"messages": [USER], "kwargs": {}, "response": {"model": "m"}, "timestamp": 1772355601.5}


def langfuse(**fields: Any) -> LogRecord:
    return decode_line(json.dumps(GENERATION | fields).encode(), 0, 1, 0)


def openhands(**fields: Any) -> LogRecord:
    return decode_openhands(json.dumps(CALL | fields).encode(), 0, 1, 0)


def inspect(*events: dict[str, Any], **sample: Any) -> list[LogRecord | BadLine | NotARequest]:
    """An evaluation of one sample with these model events."""
    model = {"event": "model", "timestamp": AT, "model": "vendor/m"}
    log = {"eval": {"task": "t"}, "samples": [{"id": 1, "events": [model | event for event in events]} | sample]}
    return list(decode_document(json.dumps(log).encode(), 0))


def one(*events: dict[str, Any], **sample: Any) -> LogRecord:
    (record,) = inspect(*events, **sample)
    assert isinstance(record, LogRecord)
    return record


def body(record: LogRecord) -> dict[str, Any]:
    return json.loads(record.body or b"")


def test_langfuse_only_generations_are_requests() -> None:
    for kind in ("SPAN", "EVENT", "EMBEDDING", "TOOL", "AGENT"):
        with pytest.raises(NotARequest) as caught:
            langfuse(type=kind)
        assert caught.value.reason == NOT_A_GENERATION


def test_langfuse_names_are_in_camel_case_or_with_underscores() -> None:
    camel = langfuse(endTime="2026-03-01T09:00:01Z", userId="u", sessionId="s", usageDetails={"input": 4, "output": 1})
    row = {
        "type": "GENERATION", "trace_id": "t", "start_time": "2026-03-01 09:00:00", "end_time": "2026-03-01 09:00:01",
        "provided_model_name": "m", "input": json.dumps([USER]), "user_id": "u", "session_id": "s",
        "usage_details": json.dumps({"input": 4, "output": 1}), "model_parameters": "{}",
    }  # fmt: skip
    snake = decode_line(json.dumps(row).encode(), 0, 1, 0)
    snake.digest = camel.digest
    assert snake == camel
    assert (camel.duration_us, camel.principal, camel.session, camel.usage) == (1_000_000, "u", "s", Usage(4, 1))


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ([USER], [USER]),
        (json.dumps([USER]), [USER]),
        ({"messages": [USER], "tools": []}, [USER]),
        (json.dumps({"messages": [USER]}), [USER]),
        (USER, [USER]),
        ("Hello.", [USER]),
        ("[INST] Hello.", [USER | {"content": "[INST] Hello."}]),  # begins like an array, but is none
        ("{{name}}", [USER | {"content": "{{name}}"}]),
        ('"Hello."', [USER | {"content": '"Hello."'}]),  # quotation marks of the text itself
    ],
)
def test_langfuse_input_is_messages_a_body_or_text(given: Any, messages: list[dict[str, Any]]) -> None:
    assert body(langfuse(input=given))["messages"] == messages


def test_langfuse_input_that_is_no_request_is_refused() -> None:
    for value, code in (
        ({"question": "?"}, "bad_field:input"),
        (5, "bad_field:input"),
        (None, "missing_body"),
        ("", "missing_body"),
    ):
        with pytest.raises(DECODE_ERRORS) as caught:
            langfuse(input=value)
        assert explain(caught.value)[0] == code


def test_langfuse_parameters_are_texts_and_max_tokens_is_none_for_upstream_then() -> None:
    record = langfuse(input={"system": "s", "messages": [USER]}, modelParameters={"max_tokens": "20"})
    assert record.uri == "/v1/messages"
    assert body(record)["max_tokens"] == 1


@pytest.mark.parametrize(
    ("details", "usage"),
    [
        # kinds that add up to the total: 20 + 70 + 10 + 4 = 104
        ({"input": 20, "input_cached_tokens": 70, "input_cache_creation": 10, "output": 4, "total": 104},
         Usage(100, 4, 70, 10, write_5m_assumed=True)),
        # the input includes what was read: 100 + 4 = 104
        ({"input": 100, "cache_read_input_tokens": 70, "output": 4, "total": 104}, Usage(100, 4, 70)),
        # no total: the kinds add up
        ({"input": 30, "cache_read_input_tokens": 70, "output": 4}, Usage(100, 4, 70)),
        ({"input": 0, "input_cache_creation_5m": 60, "input_cache_creation_1h": 40, "output": 4},
         Usage(100, 4, None, 60, 40)),
        ({"input": 90, "input_audio_tokens": 10, "output": 4}, Usage(100, 4)),
        ({"prompt_tokens": 100, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 70}},
         Usage(100, 4, 70)),
        ({"input": 0, "output": 0, "total": 0}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_langfuse_usage_has_free_keys(details: dict[str, Any], usage: Usage | None) -> None:
    assert langfuse(usageDetails=details).usage == usage
    assert langfuse(usageDetails=json.dumps(details)).usage == usage


def test_langfuse_older_usage_may_count_something_else_than_tokens() -> None:
    usage = {"input": 400, "output": 16, "total": 416}
    assert langfuse(usageDetails=None, usage=usage | {"unit": "TOKENS"}).usage == Usage(400, 16)
    assert langfuse(usageDetails=None, usage=usage | {"unit": "CHARACTERS"}).usage is None
    for details in (None, usage, json.dumps(usage)):  # Langfuse makes the details of the older usage, unit or not
        for older in (usage | {"unit": "CHARACTERS"}, json.dumps({"unit": "SECONDS"})):
            assert langfuse(usageDetails=details, usage=older).usage is None
        assert langfuse(usageDetails=details, usage=usage, unit="CHARACTERS").usage is None
    assert langfuse(usageDetails=usage, usage={"unit": "TOKENS"}).usage == Usage(400, 16)


def test_langfuse_levels_costs_and_keys() -> None:
    assert (langfuse(level="ERROR").status, langfuse(level="ERROR").success) == (500, False)
    assert (langfuse(level="WARNING").status, langfuse(level="WARNING").success) == (200, None)
    assert langfuse(costDetails={"total": 0.5}, totalCost=9).cost == Decimal("0.5")
    assert langfuse(costDetails={}, calculatedTotalCost="0.25").cost == Decimal("0.25")
    assert str(langfuse(userId=KEY).principal).startswith("sha256:")
    assert langfuse(userId="").principal is None


def test_a_langfuse_trace_gives_its_user_and_session_to_its_generations() -> None:
    trace = {"id": "t", "userId": "u", "sessionId": "s", "observations": [GENERATION, GENERATION | {"userId": "v"}]}
    assert [known.name for known in FORMATS.values() if known.detect(trace)] == ["langfuse-trace"]
    records = [item for item in decode_trace(json.dumps(trace).encode(), 0) if isinstance(item, LogRecord)]
    assert [(record.principal, record.session, record.line) for record in records] == [("u", "s", 1), ("v", "s", 2)]


def test_openhands_logs_at_the_end_of_a_call() -> None:
    record = openhands(latency_sec=1.5)
    assert (record.at_us, record.duration_us) == (parse_time(AT), 1_500_000)  # 09:00:01.5 − 1.5 s
    assert (openhands().at_us, openhands().duration_us) == (parse_time("2026-03-01T09:00:01.5Z"), None)


def test_openhands_tools_that_stand_in_the_prompt_are_not_sent_again() -> None:
    tools = [{"type": "function", "function": {"name": "ls"}}]
    assert body(openhands(tools=tools))["tools"] == tools
    for name in ("raw_messages", "fncall_messages"):
        assert "tools" not in body(openhands(**{"tools": tools, name: [USER]}))
    assert body(openhands(tools=[], raw_messages=[USER], kwargs={"tools": tools}))["tools"] == tools


def test_openhands_usage_is_litellms_whose_prompt_may_leave_out_the_cached_tokens() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 90}}
    assert openhands(response={"usage": usage}).usage == Usage(None, 4, 90)
    assert openhands(response={"usage": usage | {"prompt_tokens": 102}}).usage == Usage(102, 4, 90)


def test_openhands_failures_costs_models_and_sessions() -> None:
    failed = openhands(error="RateLimitError", response=None, kwargs={"model": "asked"})
    assert (failed.status, failed.success, body(failed)["model"]) == (500, False, "asked")
    assert (openhands().status, openhands().success, openhands().model) == (200, True, "m")
    assert openhands(cost=0).cost is openhands(cost="0.0").cost is None  # what OpenHands writes where it knows no price
    assert openhands(cost=0.5).cost == Decimal("0.5")
    assert openhands(kwargs={"extra_body": {"metadata": {"session_id": "s"}}}).session == "s"
    assert openhands(kwargs={"extra_body": "text"}).session is None
    assert json.loads(openhands(messages=None, input=[USER]).body or b"")["input"] == [USER]


def test_openhands_arguments_that_are_null_are_absent() -> None:
    """As a struct column of Parquet writes what other rows have."""
    kwargs = {"model": None, "tools": None, "temperature": None, "extra_body": None}
    tools = [{"type": "function", "function": {"name": "ls"}}]
    for given in (kwargs, None):
        assert body(openhands(kwargs=given, tools=tools)) == {"model": "m", "tools": tools, "messages": [USER]}


def test_inspect_the_call_is_what_was_sent() -> None:
    record = one({"call": {"request": {"model": "m", "messages": [USER]}}, "input": [{"role": "user", "content": "x"}]})
    assert body(record) == {"model": "m", "messages": [USER]}
    assert (record.model, record.session) == (None, "t/1/1")


def test_inspect_without_a_call_its_own_messages_are_translated() -> None:
    messages = [
        {"id": "a", "role": "system", "content": "s"},
        {"role": "assistant", "content": [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "x"}],
         "tool_calls": [{"id": "c", "function": "ls", "arguments": {"b": 1}}]},
        {"role": "tool", "content": "y", "tool_call_id": "c", "function": "ls"},
    ]  # fmt: skip
    tools = [{"name": "ls", "description": "d", "parameters": {"type": "object"}, "options": None}]
    assert body(one({"input": messages, "tools": tools})) == {
        "model": "vendor/m",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": [{"type": "text", "text": "x"}],
             "tool_calls": [{"id": "c", "type": "function", "function": {"name": "ls", "arguments": '{"b":1}'}}]},
            {"role": "tool", "content": "y", "tool_call_id": "c"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "ls", "description": "d", "parameters": {"type": "object"},
        }}],
    }  # fmt: skip


def test_inspect_references_are_replaced_by_what_they_refer_to() -> None:
    pool = [USER, {"role": "user", "content": "attachment://a1"}]
    texts = {"a1": 'long "text"'}
    expected = [USER, {"role": "user", "content": 'long "text"'}]
    assert body(one({"input_refs": [[0, 2]]}, message_pool=pool, attachments=texts))["messages"] == expected
    pools = {"events_data": {"messages": [], "calls": pool}, "attachments": texts}
    call = {"request": {"model": "m"}, "call_refs": [[0, 1], [1, 2]], "call_key": "messages"}
    assert body(one({"call": call}, **pools))["messages"] == expected
    for refs in ([[0, 3]], [[-1, 1]], [[2, 1]]):
        (bad,) = inspect({"input_refs": refs}, message_pool=pool, attachments=texts)
        assert isinstance(bad, BadLine)
        assert bad.reason == "bad_field:refs"


def test_inspect_references_that_a_text_quotes_are_left_as_they_are() -> None:
    said = [{"role": "user", "content": 'see "attachment://a1"'}]
    assert body(one({"input": said}, attachments={"a1": "x"}))["messages"] == said


def test_inspect_what_is_missing_is_a_bad_record() -> None:
    found = inspect(
        {"input": [{"role": "user", "content": "attachment://dead"}]},
        {"input": []},
        {"input": [{"role": "user", "content": [{"type": "image", "image": "<base64-data-removed>"}]}]},
    )
    assert [item.reason for item in found if isinstance(item, BadLine)] == [
        "missing_attachment",
        "missing_body",
        "cut_body",
    ]
    with pytest.raises(DECODE_ERRORS) as caught:
        list(decode_document(b'{"eval":{},"samples":null}', 0))
    assert explain(caught.value)[0] == "missing_samples"


def test_inspect_its_own_cache_failures_and_usage() -> None:
    (cached,) = inspect({"cache": "read", "input": [USER]})
    assert isinstance(cached, NotARequest)
    assert cached.reason == RESPONSE_CACHE
    failed = one({"error": "e", "input": [USER]})
    assert (failed.status, failed.success) == (500, False)
    assert (one({"pending": True, "input": [USER]}).status, one({"cache": "write", "input": [USER]}).status) == (
        500,
        200,
    )
    # Anthropic's input excludes the cache, as the total tells: 12 + 100 + 3 = 115
    usage = {"input_tokens": 12, "input_tokens_cache_read": 100, "output_tokens": 3, "total_tokens": 115}
    assert one({"output": {"usage": usage}, "input": [USER]}).usage == Usage(112, 3, 100)
    # OpenAI's includes it: 112 + 3 = 115
    assert one({"output": {"usage": usage | {"input_tokens": 112}}, "input": [USER]}).usage == Usage(112, 3, 100)
    answer = {"usage": {"prompt_tokens": 50, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 32}}}
    called = {"call": {"request": {"model": "m", "messages": [USER]}, "response": answer}}
    assert one(called | {"output": {"usage": usage}}).usage == Usage(50, 1, 32)
