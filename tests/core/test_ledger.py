"""Which tariff rows apply: window edges, ties, resolution order, and the remembered answers against a naive scan."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.core.ledger import (
    DEFAULT_CACHE_ROW,
    BaseRow,
    CacheRow,
    TariffSet,
    find_base_row,
    find_cache_row,
    find_floor,
    is_valid,
    newest_first,
)

ONE = Decimal(1)
Span = tuple[int | None, int | None]


def cache(span: Span = (None, None), floor: int = 1024, model: str = "m", name: str = "") -> CacheRow:
    return CacheRow(model, ONE, ONE, ONE, ONE, floor, *span, name=name)


def base(
    span: Span = (None, None),
    purpose: str | None = "realtime",
    window: str | None = None,
    model: str = "m",
    name: str | None = None,
) -> BaseRow:
    return BaseRow(model, ONE, ONE, purpose, window, *span, name=name)


def test_start_is_included_and_end_is_not() -> None:
    row = cache((100, 200))
    assert [is_valid(row, at) for at in (99, 100, 199, 200)] == [False, True, True, False]
    tariffs = TariffSet("t", [row], [])
    assert [tariffs.gate("m", at) for at in (99, 100, 199, 200)] == [None, 1024, 1024, None]
    assert [tariffs.cache_row("m", at) for at in (99, 100, 199, 200)] == [None, 0, 0, None]


def test_latest_start_prices_and_smallest_floor_holds() -> None:
    rows = [cache((100, None), floor=2048), cache((None, 300), floor=512), cache((200, 250), floor=4096)]
    tariffs = TariffSet("t", rows, [])
    # from 200 on the third row prices, but the second one's floor is the smallest until 300
    assert [tariffs.cache_row("m", at) for at in (0, 100, 200, 250, 300)] == [1, 0, 2, 0, 0]
    assert [tariffs.gate("m", at) for at in (0, 100, 200, 250, 300)] == [512, 512, 512, 512, 2048]


def test_of_equal_starts_the_last_cache_row_wins() -> None:
    rows = [cache((100, None), name="a"), cache((100, None), name="b"), cache((50, None), name="c")]
    assert find_cache_row(rows, 100) == rows[1]
    assert TariffSet("t", rows, []).cache_row("m", 100) == 1


def test_negative_floor_is_zero() -> None:
    assert TariffSet("t", [cache(floor=-5), cache((0, None), floor=3)], []).gate("m", 0) == 0


def test_base_rows_resolve_by_purpose_and_window() -> None:
    rows = [base(), base(purpose="batch"), base(purpose="batch", window="24h"), base(purpose=None), base(window="1h")]
    asked: list[tuple[str | None, str | None]] = [
        ("batch", "24h"),
        ("batch", "1h"),
        ("playground", None),
        (None, "1h"),
        ("odd", "1h"),
    ]
    assert [rows.index(find_base_row(rows, *ask, 0)) for ask in asked] == [2, 1, 0, 4, 4]  # type: ignore[arg-type]
    tariffs = TariffSet("t", [], rows)
    assert [tariffs.base_row("m", *ask, 0) for ask in asked] == [2, 1, 0, 4, 4]


def test_empty_window_is_a_window() -> None:
    rows = [base(purpose="batch", window=""), base()]
    assert find_base_row(rows, "batch", None, 0) == rows[1]
    assert find_base_row(rows, "batch", "", 0) == rows[0]


def test_base_rows_in_order_and_in_a_set_newest_first() -> None:
    rows = [base((None, None), name="old"), base((100, None), name="new"), base((100, None), name="newer in the file")]
    assert find_base_row(rows, None, None, 100) == rows[0], (
        "upstream's function takes the first in the list it is given"
    )
    assert [row.name for row in newest_first(rows)] == ["new", "newer in the file", "old"]
    tariffs = TariffSet("t", [], rows)
    assert [tariffs.base_row("m", None, None, at) for at in (99, 100)] == [0, 1]


def test_one_cache_row_disables_every_other_model() -> None:
    tariffs = TariffSet("t", [cache()], [])
    assert (tariffs.gate("m", 0), tariffs.gate("other", 0), tariffs.cache_row("other", 0)) == (1024, None, None)


def test_without_cache_rows_the_default_row_serves_every_model() -> None:
    tariffs = TariffSet("t", [], [])
    assert (tariffs.gate("any", 0), tariffs.cache_row("any", 0)) == (1024, 0)
    assert tariffs.all_cache_rows == [DEFAULT_CACHE_ROW]
    assert TariffSet("t", [], [], default_cache_row=None).gate("any", 0) is None


class Prices:
    """A fallback whose price changes every 100 µs; it counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, model: str, at_us: int) -> BaseRow | None:
        self.asked.append((model, at_us))
        start = at_us // 100 * 100
        return None if model == "unknown" else BaseRow(model, ONE, ONE, None, None, start, start + 100)


def test_fallback_is_asked_once_per_stretch_and_flagged() -> None:
    prices = Prices()
    tariffs = TariffSet("t", [], [base(model="own")], fallback_base=prices)
    times = [150, 199, 100, 250, 160, 450, 250, 320]
    assert [tariffs.base_row("m", "batch", "24h", at) for at in times] == [1, 1, 1, 2, 1, 3, 2, 4]
    assert prices.asked == [("m", 150), ("m", 250), ("m", 450), ("m", 320)]
    assert [row.assumed for row in tariffs.all_base_rows] == [False, True, True, True, True]
    assert [tariffs.base_row("unknown", None, None, at) for at in (0, 999)] == [None, None]
    assert len(prices.asked) == 5, "an unknown model is unknown at every time"
    assert tariffs.base_row("own", None, None, 0) == 0


def test_models_with_own_rows_never_fall_back() -> None:
    tariffs = TariffSet("t", [], [base((100, None))], fallback_base=Prices())
    assert tariffs.base_row("m", None, None, 99) is None


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ([cache()], [replace(cache(), read=Decimal("0.8"), name="other")], True),
        ([cache()], [cache((None, 100)), cache((100, None))], True),
        ([cache(floor=-1)], [cache(floor=0)], True),
        ([cache()], [cache(), cache((5, 9), floor=2000)], True),
        ([cache()], [cache(), cache((5, 9), floor=2)], False),
        ([cache()], [cache(floor=1025)], False),
        ([cache()], [cache((0, None))], False),
        ([cache((0, 10))], [cache((0, 11))], False),
        ([cache()], [cache(model="n")], False),
        ([cache()], [cache(), cache(model="n")], False),
        ([], [cache(model="*")], False),
        ([cache()], [cache(), cache((7, 7), model="n")], True),
    ],
)
def test_gates_key_compares_windows_and_floors_only(left: list[CacheRow], right: list[CacheRow], equal: bool) -> None:
    assert (TariffSet("a", left, []).gates_key() == TariffSet("b", right, []).gates_key()) is equal


def test_gates_key_of_sets_that_enable_nothing() -> None:
    nothing = TariffSet("a", [], [], default_cache_row=None)
    assert nothing.gates_key() == TariffSet("b", [cache((7, 7))], []).gates_key()
    assert nothing.gates_key() != TariffSet("c", [], []).gates_key()


instants = st.none() | st.integers(0, 12)
models = st.sampled_from("mn")
purposes = st.sampled_from(["realtime", "batch", "platform", None])
windows = st.sampled_from([None, "24h", ""])
spans = st.tuples(instants, instants)
cache_rows = st.lists(st.builds(cache, spans, st.integers(-1, 3), models), max_size=6)
base_rows = st.lists(st.builds(base, spans, purposes, windows, models), max_size=6)


@given(cache_rows)
def test_gates_and_cache_rows_equal_a_naive_scan(rows: list[CacheRow]) -> None:
    tariffs = TariffSet("t", rows, [], default_cache_row=None)
    for model in "mno":
        mine = [row for row in rows if row.model == model]
        for at in range(-1, 14):
            assert tariffs.gate(model, at) == find_floor(mine, at)
            number = tariffs.cache_row(model, at)
            assert (None if number is None else tariffs.all_cache_rows[number]) == find_cache_row(mine, at)


@given(base_rows, st.sampled_from([None, "batch", "playground"]), st.sampled_from([None, "24h", ""]))
def test_base_rows_equal_a_naive_scan(rows: list[BaseRow], purpose: str | None, window: str | None) -> None:
    tariffs = TariffSet("t", [], rows)
    for model in "mno":
        mine = newest_first(row for row in rows if row.model == model)
        for at in range(-1, 14):
            number = tariffs.base_row(model, purpose, window, at)
            found = None if number is None else tariffs.all_base_rows[number]
            assert found == find_base_row(mine, purpose, window, at)


@given(cache_rows, cache_rows)
def test_gates_key_is_equal_exactly_if_all_gates_are(left: list[CacheRow], right: list[CacheRow]) -> None:
    a, b = TariffSet("a", left, [], default_cache_row=None), TariffSet("b", right, [], default_cache_row=None)
    same = all(a.gate(model, at) == b.gate(model, at) for model in "mn" for at in range(-1, 14))
    assert (a.gates_key() == b.gates_key()) is same
