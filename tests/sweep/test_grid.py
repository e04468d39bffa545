from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.errors import UsageError
from cachesim.sweep.grid import (
    MOST_SECONDS,
    Axes,
    Lifetimes,
    lifetime_name,
    parse_floors,
    parse_multipliers,
    parse_ttl,
    parse_ttls,
    parse_walk_backs,
    parse_windows,
    unpriced_lifetimes,
)


@pytest.mark.parametrize(
    ("text", "floors"),
    [
        ("256:8192:256", list(range(256, 8193, 256))),
        ("0:1000:300", [0, 300, 600, 900]),  # 1000 is not met, so it is not a floor
        ("1024", [1024]),
        ("2048,512, 1024,512", [512, 1024, 2048]),
        ("256:768:256,600,768", [256, 512, 600, 768]),
        ("5:5:1", [5]),
    ],
)
def test_floors_are_lists_ranges_and_mixtures(text: str, floors: list[int]) -> None:
    assert parse_floors(text) == floors


@given(start=st.integers(0, 5000), count=st.integers(1, 200), step=st.integers(1, 500))
def test_a_range_holds_its_start_and_every_step_up_to_its_stop(start: int, count: int, step: int) -> None:
    stop = start + (count - 1) * step
    assert parse_floors(f"{start}:{stop}:{step}") == [start + i * step for i in range(count)]
    assert parse_floors(f"{start}:{stop + step - 1}:{step}") == parse_floors(f"{start}:{stop}:{step}")


@pytest.mark.parametrize(
    ("text", "lifetimes"),
    [
        ("5m", Lifetimes("5m", 300, 300)),
        ("900s", Lifetimes("15m", 900, 900)),
        ("1h+5m", Lifetimes("1h+5m", 3600, 300)),
        ("24h + 1h", Lifetimes("24h+1h", 86_400, 3600)),
        ("1d", Lifetimes("24h", 86_400, 86_400)),
        ("1h+15m", Lifetimes("1h+15m", 3600, 900)),
        ("15m+900s", Lifetimes("15m", 900, 900)),
    ],
)
def test_a_lifetime_is_one_or_two_and_named_as_upstream_would(text: str, lifetimes: Lifetimes) -> None:
    assert parse_ttl(text) == lifetimes


@given(st.integers(1, MOST_SECONDS))
def test_the_name_of_a_lifetime_reads_back_as_itself(seconds: int) -> None:
    assert parse_ttl(lifetime_name(seconds)) == Lifetimes(lifetime_name(seconds), seconds, seconds)
    assert parse_ttl(f"{seconds}s") == parse_ttl(lifetime_name(seconds))


def test_lists_keep_the_order_given_and_every_value_once() -> None:
    assert [ttl.name for ttl in parse_ttls(["1h,5m", "60m,15m"])] == ["1h", "5m", "15m"]
    assert parse_walk_backs(["20,10", "20"]) == (20, 10)
    assert parse_windows(["fixed,sliding"]) == ("fixed", "sliding")
    assert parse_multipliers(["15m=1.4,30m=1.60", "900s=1.40"]) == {"15m": Decimal("1.4"), "30m": Decimal("1.6")}


def test_what_neither_a_tariff_nor_a_multiplier_prices_has_tokens_only() -> None:
    ttls = [None, *parse_ttls(["5m,15m,1h+30m,15m"])]
    assert unpriced_lifetimes(ttls, {}) == ["15m", "30m"]
    assert unpriced_lifetimes(ttls, parse_multipliers(["15m=1.4"])) == ["30m"]


@pytest.mark.parametrize(
    ("parse", "argument", "words"),
    [
        (parse_floors, "256:8192", "START:STOP:STEP was expected"),
        (parse_floors, "256:8192:0", "goes upwards"),
        (parse_floors, "8192:256:256", "goes upwards"),
        (parse_floors, "0:2147483647:1", "larger STEP"),
        (parse_floors, "-1", "whole number of tokens"),
        (parse_floors, "1e3", "whole number of tokens"),
        (parse_floors, "2147483648", "2,147,483,647"),
        (parse_floors, "512,,1024", "empty value"),
        (parse_floors, "", "empty value"),
        (parse_ttl, "5", "like 15m"),
        (parse_ttl, "0m", "like 15m"),
        (parse_ttl, "11y", "like 15m"),
        (parse_ttl, "4000d", "up to 10 years"),
        (parse_ttl, "1h+5m+1m", "at most two"),
        (parse_ttl, "15m+30m", "one of two different lifetimes"),
        (parse_ttl, "1h+", "like 15m"),
        (parse_windows, ["slidding"], "did you mean sliding"),
        (parse_walk_backs, ["0"], "from 1 to"),
        (parse_multipliers, ["15m"], "LIFETIME=FACTOR"),
        (parse_multipliers, ["1h=2"], "the tariff prices 1h"),
        (parse_multipliers, ["15m=1.4", "15m=1.5"], "two factors"),
        (parse_multipliers, ["15m=NaN"], "from 0 to 1000"),
        (parse_multipliers, ["15m=-1"], "from 0 to 1000"),
        (parse_multipliers, ["15m=one"], "from 0 to 1000"),
        (parse_multipliers, ["15m=1.2345678"], "at most 6 decimals"),
    ],
)
def test_what_does_not_fit_is_a_usage_error(parse: Callable[[Any], object], argument: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(argument)


def test_an_empty_axis_stays_as_the_run_has_it() -> None:
    axes = Axes()
    assert (axes.floors, axes.ttls, axes.windows, axes.walk_backs) == ((), (), (), ())
    assert (axes.strategies, axes.tariffs, axes.policies, dict(axes.multipliers)) == ((), (), (), {})
