"""LiteLLM's payloads and SpendLogs: what is easily misread in them, one trap a test."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from gateway_rows import BODY, DIGEST, HASH, KEY, USER, Decode, left_out, litellm, reason, spend

from cachesim.core.model import Usage
from cachesim.trace.formats.base import RESPONSE_CACHE
from cachesim.trace.times import parse_time

AT_US = parse_time("2026-03-01T09:00:00Z")


@pytest.mark.parametrize("decode", [litellm, spend])
@pytest.mark.parametrize(
    ("start", "end", "lasted_us"),
    [
        (1772355600.25, 1772355601.5, 1_250_000),
        ("1772355600.25", "1772355601.5", 1_250_000),  # every cell of a CSV file is text
        ("2026-03-01 09:00:00.250000", "2026-03-01 09:00:01.500000", 1_250_000),
        ("2026-03-01T09:00:00.250000+00:00", 1772355601.5, 1_250_000),
        (1772355600250, None, None),  # epoch milliseconds
    ],
)
def test_litellm_times_are_epoch_numbers_or_texts(decode: Decode, start: Any, end: Any, lasted_us: int | None) -> None:
    record = decode(startTime=start, endTime=end)
    assert (record.at_us, record.duration_us) == (AT_US + 250_000, lasted_us)


@pytest.mark.parametrize("decode", [litellm, spend])
def test_litellm_an_end_before_its_start_is_no_duration(decode: Decode) -> None:
    assert reason(decode, startTime=1772355601, endTime=1772355600) == "bad_field:endTime"


@pytest.mark.parametrize("decode", [litellm, spend])
def test_litellm_answers_of_its_own_cache_never_reached_a_provider(decode: Decode) -> None:
    for hit in (True, "True", "true"):
        assert left_out(decode, cache_hit=hit) == RESPONSE_CACHE
    for miss in (False, None, "False", "None", ""):
        assert decode(cache_hit=miss).status == 200


@pytest.mark.parametrize("decode", [litellm, spend])
def test_litellm_failures_have_the_code_of_their_error(decode: Decode) -> None:
    error = {"error_code": "429", "error_class": "RateLimitError"}
    failed = decode(status="failure", error_information=error, metadata={"error_information": error})
    assert (failed.status, failed.success) == (429, False)
    unknown = decode(status="failure", error_information={"error_code": "none"})
    assert (unknown.status, unknown.success) == (500, False)
    assert (decode(status="success").status, decode(status="success").success) == (200, True)


def test_litellm_the_key_comes_before_the_user_the_team_and_the_organisation() -> None:
    names = {"user_api_key_hash": HASH, "user_api_key_user_id": "u", "user_api_key_team_id": "t"}
    assert litellm(metadata=names).principal == DIGEST  # hashed by LiteLLM as we would have hashed the key
    assert litellm(metadata=names | {"user_api_key_hash": None}).principal == "u"
    assert litellm(metadata={"user_api_key_team_id": "t", "user_api_key_org_id": "o"}).principal == "t"
    assert litellm(metadata={"user_api_key_hash": KEY}).principal == DIGEST  # a key in clear is none afterwards
    assert spend(api_key=HASH, user="u").principal == DIGEST
    assert spend(api_key="", user="", team_id="t").principal == "t"
    assert spend(api_key=KEY).principal == DIGEST


def test_litellm_the_alias_is_the_model_and_parameters_are_part_of_the_body() -> None:
    marked = [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}]
    record = litellm(
        messages=marked, model="vendor/m-2", model_group="m", model_parameters={"tools": [], "model": "other"}
    )
    assert record.model == "m"
    assert json.loads(record.body or b"") == {"model": "m", "messages": marked, "tools": []}
    assert litellm(model="vendor/m-2", model_group=None).model == "vendor/m-2"
    assert spend(model_group="alias", model="vendor/m-2").model == "alias"


@pytest.mark.parametrize(
    ("call_type", "uri", "messages", "name"),
    [
        ("completion", "/v1/chat/completions", [USER], "messages"),
        ("acompletion", "/v1/chat/completions", [USER], "messages"),
        ("anthropic_messages", "/v1/messages", [USER], "messages"),
        ("aresponses", "/v1/responses", "Hello.", "input"),
        ("atext_completion", "/v1/completions", "Hello.", "prompt"),
        ("atext_completion", "/v1/completions", "[INST] Hello.", "prompt"),
        ("aembedding", "/v1/embeddings", ["Hello."], "input"),
        ("aimage_generation", "/v1/aimage_generation", "Hello.", "input"),
    ],
)
def test_litellm_logs_every_api_as_messages(call_type: str, uri: str, messages: Any, name: str) -> None:
    record = litellm(call_type=call_type, messages=messages)
    assert record.uri == uri
    assert json.loads(record.body or b"")[name] == messages


def test_a_messages_body_without_max_tokens_would_be_refused() -> None:
    """Upstream answers 400 to one; LiteLLM logs it among the parameters, if at all."""
    parameters = {"system": "s"}
    read = litellm(call_type="anthropic_messages", model_parameters=parameters)
    assert json.loads(read.body or b"")["max_tokens"] == 1
    given = litellm(call_type="anthropic_messages", model_parameters=parameters | {"max_tokens": 9})
    assert json.loads(given.body or b"")["max_tokens"] == 9


def test_litellm_usage_is_the_providers_then_litellms_and_zero_is_unknown() -> None:
    counted = {"prompt_tokens": 9, "completion_tokens": 2}
    own = counted | {"prompt_tokens_details": {"cached_tokens": 4}}
    theirs = {"input_tokens": 1, "cache_read_input_tokens": 8, "output_tokens": 2}
    assert litellm(response={"usage": theirs}, metadata={"usage_object": own}, **counted).usage == Usage(9, 2, 8)
    assert litellm(response="a text", metadata={"usage_object": own}, **counted).usage == Usage(9, 2, 4)
    assert litellm(response=None, **counted).usage == Usage(9, 2)
    assert litellm(prompt_tokens=0, completion_tokens=0).usage is None
    extra = {"additional_usage_values": {"cache_read_input_tokens": 4, "cache_creation_input_tokens": 3}}
    assert spend(metadata=json.dumps({"usage_object": own} | extra), **counted).usage == Usage(9, 2, 4)
    assert spend(metadata=json.dumps(extra), **counted).usage == Usage(9, 2, 4, 3, write_5m_assumed=True)
    assert spend(prompt_tokens="0").usage is None


def test_litellm_prompt_tokens_without_room_for_the_cached_ones_are_not_the_whole_prompt() -> None:
    usage = {"prompt_tokens": 120, "completion_tokens": 4, "cache_read_input_tokens": 110}
    assert litellm(response={"usage": usage}).usage == Usage(120, 4, 110)
    written = usage | {"cache_creation_input_tokens": 20}  # 110 + 20 > 120
    assert litellm(response={"usage": written}).usage == Usage(None, 4, 110, 20, write_5m_assumed=True)
    assert spend(metadata=json.dumps({"usage_object": written})).usage == Usage(None, 4, 110, 20, write_5m_assumed=True)


def test_litellm_a_cost_that_could_not_be_computed_is_no_zero() -> None:
    assert litellm(response_cost=0.125).cost == Decimal("0.125")
    assert litellm(response_cost=0, response_cost_failure_debug_info={"error_str": "no price"}).cost is None


def test_litellm_bodies_that_are_not_what_was_sent_are_refused() -> None:
    cut = [{"role": "user", "content": "a... (litellm_truncated skipped 4000 chars) ...b"}]
    assert reason(litellm, messages=cut) == "cut_body"
    assert reason(litellm, messages="redacted-by-litellm") == "redacted_body"
    assert reason(litellm, messages=[{"role": "user", "content": "redacted-by-litellm"}]) == "redacted_body"
    assert reason(litellm, messages=None) == "missing_body"


def test_spend_logs_hold_the_body_as_text_of_json_and_messages_are_empty_by_default() -> None:
    written = '{"model": "m",  "messages": [{"role": "user", "content": "1.0 \\u00e9"}], "temperature": 1.00}'
    assert spend(proxy_server_request=written, messages={}).body == written.encode()
    old = spend(proxy_server_request="{}", messages=json.dumps([USER]), model="m")
    assert json.loads(old.body or b"") == BODY
    for nothing in ("{}", {}, None, ""):
        assert reason(spend, proxy_server_request=nothing, messages={}) == "missing_body"


def test_spend_logs_body_of_the_messages_api_is_known_by_its_shape() -> None:
    request = {"model": "m", "max_tokens": 5, "system": "s", "messages": [USER]}
    assert spend(proxy_server_request=request).uri == "/v1/messages"
    assert spend(proxy_server_request=request | {"system": None}).uri == "/v1/chat/completions"
