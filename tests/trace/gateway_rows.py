"""Rows of the logs of gateways, each with the fields that a test gives it, and what becomes of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from cachesim.core.model import LogRecord
from cachesim.trace.formats import FORMATS
from cachesim.trace.formats.base import DECODE_ERRORS, NotARequest, explain

KEY = "sk-secret-1"
DIGEST = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
HASH = DIGEST.removeprefix("sha256:")
USER = {"role": "user", "content": "Hello."}
BODY = {"model": "m", "messages": [USER]}

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
