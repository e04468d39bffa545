"""Times and durations in logs and arguments as whole microseconds, exactly."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

SECOND_US: Final = 1_000_000
SECONDS_BELOW: Final = 10**11
"""An epoch number below this counts seconds (up to the year 5138), else milliseconds (from 1973)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_NAIVE: Final = datetime(1970, 1, 1)
_START_US: Final = -62_135_596_800 * SECOND_US  # the year 1
END_US: Final = 253_402_300_800 * SECOND_US  # the year 10000
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s?(?:([Zz]|UTC)|([+-]\d\d):?(\d\d)?)?)?",
    re.ASCII,
)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m|h|d)", re.ASCII)
_UNITS_US: Final = {
    "us": 1,
    "µs": 1,
    "ms": 1_000,
    "s": SECOND_US,
    "m": 60 * SECOND_US,
    "h": 3600 * SECOND_US,
    "d": 86_400 * SECOND_US,
}


def parse_time(value: object) -> int:
    """A time as written in a log: RFC 3339 text (naive text is UTC), or epoch seconds or milliseconds.

    Digits beyond microseconds are cut off. A leap second counts as the second after it. Raises ValueError.

    >>> parse_time("1970-01-01T01:00:00.5+01:00"), parse_time(1.25), parse_time(1_700_000_000_123)
    (500000, 1250000, 1700000000123000)
    """
    if isinstance(value, str):
        return _parse_text(value)
    if type(value) is int or type(value) is float:
        return _from_epoch(value)
    raise ValueError("neither a time nor a number")


def format_us(at_us: int) -> str:
    """RFC 3339 in UTC, with microseconds only where they are not zero. Years 1 to 9999.

    >>> format_us(1_700_000_000_000_000), format_us(500_000)
    ('2023-11-14T22:13:20Z', '1970-01-01T00:00:00.500000Z')
    """
    return (_EPOCH_NAIVE + timedelta(microseconds=at_us)).isoformat() + "Z"


def parse_duration(text: str) -> int:
    """A duration with its unit (us, ms, s, m, h, d) in microseconds. Raises ValueError.

    >>> parse_duration("250ms"), parse_duration("1.5h")
    (250000, 5400000000)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a duration: expected a number and a unit of us, ms, s, m, h, d, such as 250ms or 1h")
    return int(Decimal(match[1]) * _UNITS_US[match[2]])


def decimal_of(number: float) -> Decimal:
    """A JSON number as it was written: the shortest decimal text of a float is what a log line held."""
    return Decimal(number) if type(number) is int else Decimal(repr(number))


def _from_epoch(number: float) -> int:
    if not 0 <= number < END_US // 1000:
        raise ValueError("not epoch seconds or milliseconds between 1970 and the year 9999")
    scale = SECOND_US if number < SECONDS_BELOW else 1_000
    if type(number) is int:
        return number * scale
    return int(decimal_of(number) * scale)


def _parse_text(text: str) -> int:
    # Fast path: the C parser is right for this exact layout, and too lenient for others.
    if len(text) >= 20 and text[10] == "T" and text[4] == text[7] == "-" and text[16] == ":" and text[-1] == "Z":
        try:
            delta = datetime.fromisoformat(text) - _EPOCH
        except ValueError:
            return _parse_slowly(text)
        if text[19:-1].lstrip(".0123456789") == "" and text[19] in ".Z":
            return (delta.days * 86_400 + delta.seconds) * SECOND_US + delta.microseconds
    return _parse_slowly(text)


def _parse_slowly(text: str) -> int:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a time: expected RFC 3339 such as 2026-01-31T12:00:00Z, or epoch seconds or milliseconds")
    day, clock, second, fraction, _, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock or '00:00'}")
    except ValueError:
        raise ValueError("not a time: no such day or hour") from None
    seconds = int(second or 0)
    offset = int(hours or 0) * 60 + int((hours or "+")[0] + (minutes or "0"))
    if seconds > 60 or abs(offset) >= 24 * 60 or int(minutes or 0) > 59:
        raise ValueError("not a time: no such second or offset")
    delta = moment - _EPOCH_NAIVE
    whole = delta.days * 86_400 + delta.seconds + seconds - offset * 60
    at_us = whole * SECOND_US + int((fraction or "0")[:6].ljust(6, "0"))
    if not _START_US <= at_us < END_US:
        raise ValueError("not a time between the years 1 and 9999")
    return at_us
