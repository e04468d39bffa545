"""Canonical JSON: the fast route, the exact route, and serde_json's numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core import canonical as c
from cachesim.core.canonical import JsonError, canonical, decode, dumps, format_float, loads, parse_number

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
STYLES = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False}])


NO_FLOATS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(NO_FLOATS, STYLES)
def test_canonical_text_without_floats_is_a_fixed_point(value: object, style: dict[str, object]) -> None:
    """With floats it need not be: upstream's parser is approximate, and every pass may move the last digit."""
    text = canonical(json.dumps(value, **style).encode())  # type: ignore[arg-type]
    assert canonical(text) == text
    assert loads(text) == value


@given(JSON, STYLES)
def test_both_routes_agree(value: object, style: dict[str, object]) -> None:
    raw = json.dumps(value, **style).encode()  # type: ignore[arg-type]
    fast, plain = decode(raw)
    exact = c._decode_exact(raw, c.MAX_DEPTH)
    assert fast == exact
    assert dumps(fast, plain) == c._write(exact)


@given(st.binary(max_size=40))
def test_anything_else_is_a_json_error(raw: bytes) -> None:
    message = ""
    try:
        canonical(raw)
    except JsonError as error:
        message = str(error)
    assert len(message) < 60  # it never quotes the text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 18446744073709551616.0),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -9223372036854775809.0),
        ("9007199254740993.0", 9007199254740994.0),  # 90071992547409930 is rounded, then divided by ten
        ("1e-400", 0.0),
        ("0e999999999999", 0.0),
        ("1E+2", 100.0),
        ("123456789012345678901234567890", 1.2345678901234567e29),
    ],
)
def test_numbers_follow_upstreams_parser(text: str, value: float) -> None:
    found = parse_number(text)
    assert (found, type(found)) == (value, type(value))


def test_minus_zero_is_a_float() -> None:
    assert canonical(b"[-0,-0.0,0,0.0]") == b"[-0.0,-0.0,0,0.0]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e16, "1e+16"), (1e15, "1000000000000000.0"), (1e-5, "0.00001"), (-1.5e-5, "-0.000015"), (1.5e-7, "1.5e-7")],
)
def test_floats_are_printed_as_upstream_prints_them(value: float, text: str) -> None:
    assert format_float(value) == text


@pytest.mark.parametrize(
    "raw",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"\xef\xbb\xbf1",
        b'"\\ud800"',
        b'{"a":"\\udc00","a":1}',
        b"1 2",
        b"01",
        *[b"[" * 128 + b"]" * 128, b"\xff", b'"\x01"', b"", b" ", b"1.", b".5", b"+1", b'{"a":1e999,"a":1}'],
    ],
)
def test_what_serde_json_refuses(raw: bytes) -> None:
    with pytest.raises(JsonError):
        canonical(raw)


def test_127_levels_pass_even_beside_an_overwritten_key() -> None:
    deep = b"[" * 126 + b"]" * 126
    assert canonical(b'{"a":' + deep + b"}") == b'{"a":' + deep + b"}"
    with pytest.raises(JsonError):
        canonical(b'{"a":[' + deep + b'],"a":1}')
