"""Canonical JSON: exactly the text that upstream's serde_json prints for a parsed value, and nothing it would refuse.

Two routes give the same answer. The fast one is orjson, right for every text without floats, zeros of doubtful sign and
suspicious nesting. The exact one follows serde_json's own number parsing digit by digit and is taken for the rest.

>>> canonical(b'{"b": 1.0, "a": "\\u00e9"}').decode()
'{"a":"é","b":1.0}'
>>> canonical(b"9007199254740993.0")
b'9007199254740994.0'
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeAlias

import orjson

Json: TypeAlias = Any
"""str, int, float, bool, None, list or dict, as `loads` returns them."""

MAX_DEPTH: Final = 127
"""Arrays and objects nested deeper than this make serde_json refuse the text."""

_U64_MAX: Final = 2**64 - 1
_I64_MIN: Final = -(2**63)
_I32_MAX: Final = 2**31 - 1
_MAX_POWER: Final = 308
_POWERS: Final = tuple(float(f"1e{n}") for n in range(_MAX_POWER + 1))
_SURROGATE_ESCAPE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class JsonError(ValueError):
    """The text is not JSON for serde_json. The message never quotes the text."""


def decode(raw: bytes, room: int = MAX_DEPTH) -> tuple[Json, bool]:
    """Parse `raw` as serde_json would; the flag says whether the value is plain (orjson prints it canonically).

    `room` is how many levels of nesting are left: 127 for a whole body, less for a piece of one.
    Raises JsonError.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _decode_exact(raw, room), False
    if _is_plain(value, room) and (
        len(raw) == len(orjson.dumps(value))  # compact, and no key was overwritten; sooner known than a text's brackets
        or raw.count(b"{") + raw.count(b"[") <= room
        or _has_no_duplicates(raw, value)
    ):
        return value, True
    return _decode_exact(raw, room), False


def loads(raw: bytes) -> Json:
    """Parse a whole JSON text as serde_json would. Raises JsonError."""
    return decode(raw)[0]


def dumps(value: Json, plain: bool | None = None) -> bytes:
    """Canonical JSON of a parsed value. `plain` is the flag of `decode`, where known."""
    if plain if plain is not None else _is_plain(value, MAX_DEPTH):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return _write(value)


def canonical(raw: bytes) -> bytes:
    """Canonical JSON of a JSON text. Raises JsonError."""
    return dumps(*decode(raw))


def renumber(value: Json) -> Json:
    """`value` after being printed and parsed once more: floats pass the approximate parser a second time."""
    if type(value) is float:
        return parse_number(format_float(value))
    if type(value) is list:
        return [renumber(item) for item in value]
    if type(value) is dict:
        return {key: renumber(item) for key, item in value.items()}
    return value


def parse_number(text: str) -> int | float:
    """A JSON number as serde_json reads it: integers of i64/u64 range exactly, all else approximately.

    Digits beyond the u64 significand are dropped, then one multiplication or division by a power of ten.
    Raises JsonError for a number outside the range of f64.
    """
    negative = text[0] == "-"
    body = text[1:] if negative else text
    mantissa, _, exponent_text = body.replace("E", "e").partition("e")
    whole, dot, fraction = mantissa.partition(".")
    if not dot and not exponent_text:
        integer = -int(whole) if negative and len(whole) < 21 else int(whole) if len(whole) < 21 else None
        if integer is not None and _I64_MIN <= integer <= _U64_MAX and not (negative and integer == 0):
            return integer
    significand, exponent = _significand(whole, fraction)
    if exponent_text:
        exponent = _add_exponent(significand, exponent, exponent_text)
    value = _scale(significand, exponent)
    return -value if negative else value


def format_float(value: float) -> str:
    """A float as serde_json prints it: fixed for decimal exponents -5 … 15, else like 1e+16 and 1.5e-7."""
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    if not e:
        return text
    if exponent == "-05":
        sign = "-" if mantissa.startswith("-") else ""
        return f"{sign}0.0000{mantissa.lstrip('-').replace('.', '')}"
    return f"{mantissa}e{exponent[0]}{exponent[1:].lstrip('0')}"


def _is_plain(value: Json, room: int) -> bool:
    """No float, no zero (orjson forgets the sign of -0) and at most `room` levels."""
    kind = type(value)
    if kind is str:
        return True
    if kind is dict:
        items = value.values()
    elif kind is list:
        items = value
    else:
        return kind is not float and (kind is not int or value != 0)
    if room <= 0:
        return False
    room -= 1
    for item in items:  # noqa: SIM110  a generator costs twice as much, and this runs for every unseen message
        if type(item) is not str and not _is_plain(item, room):
            return False
    return True


def _has_no_duplicates(raw: bytes, value: Json) -> bool:
    """True only if no key was overwritten: raw, compact or with `, ` and `: `, is as long as its canonical text."""
    surplus = len(raw) - len(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    return surplus == 0 or surplus == _separators(value)


def _separators(value: Json) -> int:
    """How many `,` and `:` the compact text of `value` has outside strings."""
    if type(value) is dict:
        return max(0, 2 * len(value) - 1) + sum(_separators(item) for item in value.values())
    if type(value) is list:
        return max(0, len(value) - 1) + sum(_separators(item) for item in value)
    return 0


def _decode_exact(raw: bytes, room: int) -> Json:
    if raw.count(b"{") + raw.count(b"[") > room and _depth(raw) > room:
        raise JsonError("nested too deeply")
    if _SURROGATE_ESCAPE.search(raw):
        _refuse_lone_surrogates(raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise JsonError("invalid UTF-8") from None
    try:
        return json.loads(text, parse_int=parse_number, parse_float=parse_number, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonError(f"not JSON at character {error.pos}") from None


def _refuse_constant(name: str) -> Json:
    raise JsonError(f"{name} is not JSON")


def _refuse_lone_surrogates(raw: bytes) -> None:
    """Python's decoder lets them pass and forgets overwritten keys, so every string token is asked on its own."""
    for token in _STRING.findall(raw):
        if _SURROGATE_ESCAPE.search(token):
            try:
                orjson.loads(token)
            except orjson.JSONDecodeError:
                raise JsonError("lone surrogate") from None


def _depth(raw: bytes) -> int:
    deepest = depth = 0
    for match in _STRING_OR_BRACKET.finditer(raw):
        token = match.group()
        if token in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif token in (b"]", b"}"):
            depth -= 1
    return deepest


def _significand(whole: str, fraction: str) -> tuple[int, int]:
    """The u64 significand and its decimal exponent; digits from the first that would overflow are dropped."""
    significand = 0
    exponent = 0
    for position, digit in enumerate(whole):
        grown = significand * 10 + int(digit)
        if grown > _U64_MAX:
            exponent = len(whole) - position
            break
        significand = grown
    for digit in fraction:
        grown = significand * 10 + int(digit)
        if grown > _U64_MAX:
            break
        significand = grown
        exponent -= 1
    return significand, exponent


def _add_exponent(significand: int, exponent: int, text: str) -> int:
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-").lstrip("0") or "0"
    if len(digits) > 10 or int(digits) > _I32_MAX:
        if significand and sign > 0:
            raise JsonError("number out of range")
        return -_I32_MAX if significand else 0
    return exponent + sign * int(digits)


def _scale(significand: int, exponent: int) -> float:
    value = float(significand)
    while abs(exponent) > _MAX_POWER:
        if value == 0.0:
            return value
        if exponent >= 0:
            raise JsonError("number out of range")
        value /= 1e308
        exponent += _MAX_POWER
    if exponent < 0:
        return value / _POWERS[-exponent]
    value *= _POWERS[exponent]
    if value == float("inf"):
        raise JsonError("number out of range")
    return value


def _write(value: Json) -> bytes:
    kind = type(value)
    if kind is dict:
        return b"{" + b",".join(orjson.dumps(k) + b":" + _write(value[k]) for k in sorted(value)) + b"}"
    if kind is list:
        return b"[" + b",".join(_write(item) for item in value) + b"]"
    if kind is float:
        return format_float(value).encode()
    return orjson.dumps(value)
