from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import duckdb
import pytest
from sample_run import Price
from sample_sweep import UNLIMITED, Cells, Var, fill_sweep

from cachesim.report.lifetimes import GAPS, REACHES, Bands, bands, lifetimes, price_factors, seconds_of, tier_choices
from cachesim.report.sweeps import along, bound_rows, sweep_rows
from cachesim.store.db import IN_MEMORY, open_database


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return open_database(IN_MEMORY)


# Prices ×0.1 read, 1.25 (5m), 2 (1h), 2.5 (24h). 5m writes 1000 and reads 200, 1h writes 600 and reads 900.
VARIANTS = [Var(), Var(ttl="1h"), Var(ttl="5m"), Var(ttl="1h+5m"), Var(ttl="15m"), UNLIMITED]
ROWS = [
    Cells(0, {"requests": 1, "prompt": 2000, "c5": 1000, "read": 200}),
    Cells(1, {"requests": 1, "prompt": 2000, "c1": 600, "read": 900}),
    Cells(2, {"requests": 1, "prompt": 2000, "c5": 1000, "read": 200}),
    Cells(3, {"requests": 1, "prompt": 2000, "c1": 100, "c5": 700, "read": 500}),
    Cells(4, {"requests": 1, "prompt": 2000, "cx": 800, "read": 500}),
    Cells(
        5,
        {
            "gap_1_requests": 5,
            "gap_2_requests": 2,
            "gap_4_requests": 1,
            "gap_1_tokens": 900,
            "gap_4_tokens": 40,
            "reach_1_requests": 7,
            "reach_2_requests": 1,
            "reach_1_tokens": 900,
            "reach_2_tokens": 40,
        },
    ),
]


def test_what_a_lifetime_must_earn_stands_beside_what_it_did(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, ROWS)
    found = lifetimes(along(sweep_rows(con, 1), "ttl"), price_factors(con, 1))
    assert [(one.model, one.ttl, one.write, one.read) for one in found] == [
        ("m", "5m", Decimal("1.25"), Decimal("0.1")),
        ("m", "1h", Decimal("2"), Decimal("0.1")),
    ]  # 15m has no price, 1h+5m is a mix
    assert [one.reads_to_pay_back for one in found] == [1, 2]  # ⌈0.25 / 0.9⌉, ⌈1 / 0.9⌉
    assert [one.break_even for one in found] == [Fraction(25, 115), Fraction(100, 190)]
    assert [one.measured for one in found] == [200 / 1200, 900 / 1500]
    assert [one.creation_tokens for one in found] == [1000, 600]


def test_the_longer_lifetime_pays_below_the_ratio_of_the_tariff(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, ROWS)
    (choice,) = tier_choices(lifetimes(along(sweep_rows(con, 1), "ttl"), price_factors(con, 1)))
    assert (choice.short, choice.long, choice.limit) == ("5m", "1h", Fraction(115, 190))  # 1.15 / 1.9 = 0.605
    assert (choice.measured, choice.pays) == (Fraction(600, 1000), True)
    # and so it does: 5m costs 1000·1.25 + 200·0.1 + 800 = 2070, 1h costs 600·2 + 900·0.1 + 500 = 1790


def test_a_multiplier_gives_other_lifetimes_their_place(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, ROWS, multiplier="1.4")
    found = lifetimes(along(sweep_rows(con, 1), "ttl"), price_factors(con, 1))
    assert [(one.ttl, one.write) for one in found] == [
        ("5m", Decimal("1.25")),
        ("15m", Decimal("1.4")),
        ("1h", Decimal("2")),
    ]
    assert [(c.short, c.long, c.measured, c.pays) for c in tier_choices(found)] == [
        ("5m", "15m", Fraction(800, 1000), True),  # below 1.15 / 1.3 = 0.885
        ("15m", "1h", Fraction(600, 800), False),  # above 1.3 / 1.9 = 0.684
    ]


def test_prices_that_change_within_the_log_are_said_to(con: duckdb.DuckDBPyConnection) -> None:
    rows = [Cells(0, {"requests": 1, "prompt": 100}), Cells(0, {"requests": 1, "prompt": 900}, price=1)]
    other = Price(multipliers=("0.5", "1.1", "1.2", "1.3"))
    fill_sweep(con, [Var()], rows, [Price(), other])
    (factors,) = price_factors(con, 1).values()
    assert (factors.read, factors.of("5m"), factors.of("30m"), factors.several) == (
        Decimal("0.5"), Decimal("1.1"), None, True,
    )  # fmt: skip


def test_gap_bands_come_from_entries_that_never_expire(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, ROWS)
    unlimited = bound_rows(sweep_rows(con, 1), "unlimited")
    assert bands(unlimited, GAPS) == [Bands("m", (5, 2, 0, 1), (900, 0, 0, 40))]
    assert bands(unlimited, REACHES) == [Bands("m", (7, 1, 0, 0), (900, 40, 0, 0))]


def test_lifetimes_are_ordered_by_length() -> None:
    assert sorted(["1h", "2d", "90s", "15m", "24h"], key=seconds_of) == ["90s", "15m", "1h", "24h", "2d"]
    assert seconds_of("1h+5m") == 3600
