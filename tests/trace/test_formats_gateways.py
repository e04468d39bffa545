"""The logs of gateways: what is easily misread in those of Helicone and Portkey, and what holds for all of them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from gateway_rows import BODY, DIGEST, KEY, LEAST, decoder, helicone, left_out, portkey, reason
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.model import Usage
from cachesim.trace.formats import FORMATS
from cachesim.trace.formats.base import DECODE_ERRORS, RESPONSE_CACHE, NotARequest, explain


@pytest.mark.parametrize("name", LEAST)
def test_the_least_row_is_found_and_read(name: str) -> None:
    assert [known.name for known in FORMATS.values() if known.detect(LEAST[name])] == [name]
    record = decoder(name)()
    assert json.loads(record.body or b"") == BODY
    assert (record.status, record.usage, record.principal, record.session) == (200, None, None, None)


def test_helicone_columns_exclude_the_cache_and_the_answer_comes_first() -> None:
    columns = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_cache_read_tokens": 80}
    columns["prompt_cache_write_tokens"] = 10
    assert helicone(**columns).usage == Usage(100, 2, 80, 10, write_5m_assumed=True)  # 10 + 80 + 10
    answer = {"usage": {"prompt_tokens": 99, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}}
    assert helicone(response_body=answer, **columns).usage == Usage(99, 3, 64)
    assert helicone(response_body=json.dumps(answer), **columns).usage == Usage(99, 3, 64)
    assert helicone(prompt_tokens=0).usage is None
    assert helicone(prompt_tokens=0, prompt_cache_read_tokens=80).usage == Usage(80, None, 80)  # nothing but read


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


def test_a_null_among_tags_is_no_tag() -> None:
    """As a struct column of Parquet writes the tags that other rows have."""
    tags = {"app": "web", "team": None}
    assert portkey(metadata=tags | {"_user": None}).tags == helicone(request_properties=tags).tags == {"app": "web"}
    assert helicone(request_properties={"Helicone-Session-Id": None}).session is None
    assert helicone(request_properties={"Helicone-Session-Id": 7}).session == "7"


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


def test_portkey_says_itself_what_succeeded() -> None:
    assert (portkey(is_success=False).status, portkey(is_success=False).success) == (500, False)
    assert portkey(is_success=False, response_status_code=429).status == 429
    for said in (True, "true"):  # without it, a request whose tokens Portkey does not know would have failed
        assert portkey(is_success=said, response_status_code=200, req_units=0).success is True
    assert portkey(response_status_code=200).success is None


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
        told = "".join(explain(error))
    else:
        told = f"{record.principal}{record.tags}"
    assert KEY not in told


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
