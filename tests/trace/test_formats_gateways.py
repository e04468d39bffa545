"""The logs of LiteLLM, Helicone and Portkey: what is easily misread in them, one trap a test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats import FORMATS
from cachesim.trace.formats.base import DECODE_ERRORS, RESPONSE_CACHE, NotARequest, explain
from cachesim.trace.times import parse_time

KEY = "sk-secret-1"
DIGEST = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
HASH = DIGEST.removeprefix("sha256:")
USER = {"role": "user", "content": "Hello."}
BODY = {"model": "m", "messages": [USER]}
AT_US = parse_time("2026-03-01T09:00:00Z")

LEAST: dict[str, dict[str, Any]] = {
    "litellm": {"call_type": "acompletion", "messages": [USER], "model_group": "m", "model_parameters": {}},
    "litellm-spend-logs": {
        "call_type": "acompletion", "request_id": "r", "spend": 0, "proxy_server_request": json.dumps(BODY),
    },
    "helicone": {"request_id": "r", "request_created_at": "2026-03-01T09:00:00Z", "request_body": BODY},
    "portkey": {"created_at": "2026-03-01T09:00:00Z", "ai_model": "m", "request": BODY},
}  # fmt: skip
"""What a row of each format must have to be a request."""

Decode = Callable[..., LogRecord]


def decoder(name: str) -> Decode:
    def decode(**fields: Any) -> LogRecord:
        decode_line = FORMATS[name].decode_line
        assert decode_line is not None
        return decode_line(json.dumps(LEAST[name] | fields).encode(), 0, 1, 0)

    return decode


litellm, spend, helicone, portkey = map(decoder, LEAST)


def reason(decode: Decode, **fields: Any) -> str:
    with pytest.raises(DECODE_ERRORS) as caught:
        decode(**fields)
    return explain(caught.value)[0]


def left_out(decode: Decode, **fields: Any) -> str:
    with pytest.raises(NotARequest) as caught:
        decode(**fields)
    return caught.value.reason


@pytest.mark.parametrize("name", LEAST)
def test_the_least_row_is_found_and_read(name: str) -> None:
    assert [known.name for known in FORMATS.values() if known.detect(LEAST[name])] == [name]
    record = decoder(name)()
    assert json.loads(record.body or b"") == BODY
    assert (record.status, record.usage, record.principal, record.session) == (200, None, None, None)


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


def test_helicone_columns_exclude_the_cache_and_the_answer_comes_first() -> None:
    columns = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_read_tokens": 80}
    columns["prompt_cache_write_tokens"] = 10
    assert helicone(**columns).usage == Usage(100, 2, 80, 10, write_5m_assumed=True)  # 10 + 80 + 10
    answer = {"usage": {"prompt_tokens": 99, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}}
    assert helicone(response_body=answer, **columns).usage == Usage(99, 3, 64)
    assert helicone(response_body=json.dumps(answer), **columns).usage == Usage(99, 3, 64)
    assert helicone(prompt_tokens=0).usage is None


def test_helicone_answers_of_its_own_cache_never_reached_a_provider() -> None:
    assert left_out(helicone, cache_reference_id="3b0c8f0e-1111-4222-8333-444455556666") == RESPONSE_CACHE
    assert helicone(cache_reference_id="00000000-0000-0000-0000-000000000000").status == 200


def test_helicone_negative_statuses_are_requests_without_an_answer() -> None:
    for status in (-1, -2, -3, -4):  # timed out, pending, cancelled …
        assert (helicone(response_status=status).status, helicone(response_status=status).success) == (0, False)
    assert (helicone(response_status="529").status, helicone(response_status=200).success) == (529, None)


def test_helicone_path_query_user_and_session() -> None:
    record = helicone(
        request_path="https://gateway.example/v1/chat/completions?cacheBreakpoint=tools",
        helicone_user="u", request_user_id="v", delay_ms="1.5",
        request_properties={"Helicone-Session-Id": "s", "Helicone-Other": "x", "app": "web"},
    )  # fmt: skip
    assert record.uri == "/v1/chat/completions?cacheBreakpoint=tools"
    assert (record.principal, record.session, record.tags) == ("u", "s", {"app": "web"})
    assert record.duration_us == 1500
    assert helicone(request_user_id=f"Bearer {KEY}").principal == DIGEST


def test_helicone_a_request_without_its_body_or_images_is_refused() -> None:
    for nothing in (None, {}, ""):
        assert reason(helicone, request_body=nothing) == "missing_body"
    image = {"type": "image_url", "image_url": {"url": '<helicone-asset-id key="1"/>'}}
    assert reason(helicone, request_body={"messages": [{"role": "user", "content": [image]}]}) == "cut_body"


def test_portkey_columns_vary() -> None:
    inner = {"url": "https://api.example", "headers": {"authorization": f"Bearer {KEY}"}, "body": BODY}
    for request in (BODY, json.dumps(BODY), inner, json.dumps(inner)):
        record = portkey(request=request)
        assert json.loads(record.body or b"") == BODY
        assert KEY not in repr(record)
    apart = portkey(**{"request": None, "request.body": BODY})
    assert json.loads(apart.body or b"") == BODY
    assert reason(portkey, request=None) == "missing_body"


def test_portkey_reads_the_split_inside_the_response_wherever_that_stands() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}
    for response in ({"usage": usage}, {"body": {"usage": usage}}, json.dumps({"usage": usage})):
        assert portkey(response=response, req_units=1).usage == Usage(50, 5, 40)
    assert portkey(**{"response.body": {"usage": usage}}).usage == Usage(50, 5, 40)
    assert portkey(response={}, req_units=7, res_units=2).usage == Usage(7, 2)
    assert portkey(req_units=0, res_units=0).usage is None


def test_a_key_among_tags_is_digested() -> None:
    assert portkey(metadata={"caller": KEY}).tags == {"caller": DIGEST}
    assert helicone(request_properties={"caller": f"Bearer {KEY}"}).tags == {"caller": DIGEST}


def test_portkey_answers_of_its_own_cache_never_reached_a_provider() -> None:
    for status in ("HIT", "SEMANTIC HIT", "hit"):
        assert left_out(portkey, cache_status=status) == RESPONSE_CACHE
    for status in ("MISS", "SEMANTIC MISS", "DISABLED", "REFRESH", None):
        assert portkey(cache_status=status).status == 200


def test_portkey_costs_are_cents_and_metadata_names_the_user() -> None:
    record = portkey(cost=0.042, response_time=1500, metadata='{"_user":"u","_organisation":"o","app":"web"}')
    assert record.cost == Decimal("0.00042")
    assert (record.principal, record.tags, record.duration_us) == ("u", {"app": "web"}, 1_500_000)
    assert portkey(is_success=False).status == 500
    assert (portkey(is_success=False, response_status_code=429).status, portkey(is_success="true").success) == (
        429,
        None,
    )


@pytest.mark.parametrize("name", LEAST)
@given(value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(KEY),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2), max_leaves=4,
), field=st.integers(0, 100))  # fmt: skip
def test_any_value_anywhere_is_a_record_or_an_error_with_words(name: str, value: Any, field: int) -> None:
    """And no key is kept where users are named."""
    names = FIELDS[name]
    wrong = {names[field % len(names)]: value}
    try:
        record = decoder(name)(**wrong)
    except NotARequest:
        return
    except DECODE_ERRORS as error:
        assert KEY not in "".join(explain(error))
        return
    assert KEY not in f"{record.principal}{record.tags}"


FIELDS = {
    "litellm": [
        "call_type", "id", "trace_id", "status", "startTime", "endTime", "model", "model_group", "messages",
        "model_parameters", "response", "metadata", "error_information", "cache_hit", "prompt_tokens", "response_cost",
    ],
    "litellm-spend-logs": [
        "request_id", "api_key", "user", "startTime", "model", "proxy_server_request", "messages", "metadata",
        "cache_hit", "status", "prompt_tokens", "spend", "session_id",
    ],
    "helicone": [
        "request_id", "request_created_at", "response_created_at", "delay_ms", "request_path", "request_body",
        "response_body", "response_status", "request_user_id", "request_properties", "cache_reference_id", "cost",
    ],
    "portkey": [
        "id", "created_at", "request", "response", "ai_model", "req_units", "cost", "response_time",
        "response_status_code", "is_success", "cache_status", "metadata",
    ],
}  # fmt: skip
