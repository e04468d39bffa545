"""Times are read exactly, without float rounding."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.trace.times import format_us, parse_duration, parse_time

NOON = 1_767_355_200_000_000  # 2026-01-02T12:00:00Z = 20,455 days and 43,200 seconds after the epoch


def test_the_reference_instant() -> None:
    assert NOON == (20_455 * 86_400 + 43_200) * 1_000_000


SAME = [
    "2026-01-02T12:00:00Z",
    "2026-01-02t12:00:00z",
    "2026-01-02 12:00:00",
    "2026-01-02T12:00:00.000000",
    "2026-01-02T12:00:00.0000000000Z",
    "2026-01-02T12:00:00+00:00",
    "2026-01-02T12:00:00-00:00",
    "2026-01-02T17:30:00+05:30",
    "2026-01-02T06:30:00-0530",
    "2026-01-03T02:00:00+14",
    "2026-01-02 12:00:00 UTC",
    "2026-01-02T12:00Z",
    " 2026-01-02T12:00:00Z\n",
    1_767_355_200,
    1_767_355_200.0,
    1_767_355_200_000,
    1_767_355_200_000.0,
]


@pytest.mark.parametrize("value", SAME)
def test_many_ways_to_write_one_instant(value: Any) -> None:
    assert parse_time(value) == NOON


EXAMPLES = [
    ("2026-01-02T12:00:00.5Z", NOON + 500_000),
    ("2026-01-02T12:00:00,25Z", NOON + 250_000),
    ("2026-01-02 12:00:00.000001", NOON + 1),
    ("2026-01-02T12:00:00.1234569Z", NOON + 123_456),
    ("2026-01-02T12:00:00.123456999+00:00", NOON + 123_456),
    ("2026-01-02", NOON - 43_200_000_000),
    ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
    ("1969-12-31T23:59:59.999999Z", -1),
    (1_767_355_200.000001, NOON + 1),
    (1_767_355_200.123456, NOON + 123_456),
    (1_767_355_200_000.001, NOON + 1),
    (0, 0),
    (99_999_999_999, 99_999_999_999_000_000),
    (100_000_000_000, 100_000_000_000_000),
]


@pytest.mark.parametrize(("value", "expected"), EXAMPLES)
def test_examples(value: Any, expected: int) -> None:
    assert parse_time(value) == expected


REFUSED = [
    "",
    "now",
    "2026-01-02T12:00:00Zjunk",
    "20260102T120000Z",
    "2026-W01-5T12:00:00Z",
    "2026-02-30T12:00:00Z",
    "2026-01-02T25:00:00Z",
    "2026-01-02T12:00:61Z",
    "2026-01-02T12:00:00+24:00",
    "2026-01-02T12:00:00+01:60",
    "2026-01-02X12:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "٢٠٢٦-01-02T12:00:00Z",
    "1767355200",
    -1,
    -0.5,
    1_767_355_200_000_000,  # microseconds
    float("nan"),
    float("inf"),
    10**400,
    True,
    None,
    [],
    {},
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: str(value)[:30])
def test_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not a|not epoch|neither"):
        parse_time(value)


def test_format() -> None:
    assert format_us(NOON) == "2026-01-02T12:00:00Z"
    assert format_us(NOON + 1) == "2026-01-02T12:00:00.000001Z"
    assert format_us(-1) == "1969-12-31T23:59:59.999999Z"


INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(UTC))


@given(INSTANTS, st.integers(-23 * 60, 23 * 60))
def test_text_round_trips_in_every_zone(moment: datetime, minutes: int) -> None:
    expected = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_time(format_us(expected)) == expected
    assert parse_time(moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()) == expected


@given(st.integers(0, 4_000_000_000 * 1_000_000))
def test_epoch_seconds_as_a_json_float_keep_every_microsecond(at_us: int) -> None:
    written = f"{at_us // 1_000_000}.{at_us % 1_000_000:06d}"
    assert parse_time(float(written)) == at_us


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.from_regex(r"\d{4}-\d\d-\d\d.\d\d:\d\d.*")))
def test_anything_is_a_time_or_a_value_error(value: Any) -> None:
    try:
        at_us = parse_time(value)
    except ValueError:
        return
    assert parse_time(format_us(at_us)) == at_us


@pytest.mark.parametrize(
    ("text", "expected"),
    [("250ms", 250_000), ("1s", 1_000_000), ("5m", 300_000_000), ("1h", 3_600_000_000), ("0.5 s", 500_000), ("7us", 7)],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "-1s", "1 fortnight", "1e3s", "s", ".5s"])
def test_refused_durations(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number and a unit"):
        parse_duration(text)
