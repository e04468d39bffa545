"""Which factor a model gets, from which half of its requests, and what the other half says about it."""

from __future__ import annotations

import duckdb
import pytest

from cachesim.core.calibration import INHERITED, OFF, factor_text, fitted_factor, parse_factor
from cachesim.prepare.tokenizers import UsedTokenizer
from cachesim.store.calibrate import Calibrated, Choose, calibrate
from cachesim.store.db import open_database

EMBEDDED, GIVEN = UsedTokenizer("default", "v", False), UsedTokenizer("own.json", "w", True)
Row = tuple[str, int, int | None, int]
"""Model, tokenizer number, reported prompt tokens, counted tokens."""


def calibrated(rows: list[Row], choose: Choose = lambda model: ("fitted", None)) -> Calibrated:
    """The calibration of requests that arrive in the order of `rows`."""
    con = open_database(":memory:")
    con.execute("CREATE TEMP TABLE staged_requests (row_no BIGINT, model VARCHAR, tokenizer_no INTEGER, "
                "reported_prompt_tokens BIGINT)")  # fmt: skip
    con.execute("CREATE TEMP TABLE staged_order (row_no BIGINT, seq BIGINT)")
    con.execute("CREATE TEMP TABLE staged_local (row_no BIGINT, tokens BIGINT)")
    for number, (model, tokenizer_no, reported, counted) in enumerate(rows):
        con.execute("INSERT INTO staged_requests VALUES (?, ?, ?, ?)", [number, model, tokenizer_no, reported])
        con.execute("INSERT INTO staged_order VALUES (?, ?)", [number, number])
        con.execute("INSERT INTO staged_local VALUES (?, ?)", [number, counted])
    return calibrate(con, [EMBEDDED, GIVEN], choose)


def test_odd_requests_are_fitted_to_and_even_ones_say_how_far_it_is_off() -> None:
    """Fitted to: 10 × 110 reported over 10 × 100 counted = 1.1000. Held out: 100 counted, estimated at 110."""
    held_out = [110, 110, 110, 110, 110, 110, 110, 100, 100, 88]  # off by 0 seven times, twice 10/100, once 22/88
    rows: list[Row] = [row for reported in held_out for row in (("m", 0, 110, 100), ("m", 0, reported, 100))]
    made = calibrated(rows)
    assert made.left == []
    [tokenizer] = made.tokenizers
    assert (tokenizer.version, tokenizer.exact, tokenizer.counts_no) == ("v*1.1000", False, 0)
    assert tokenizer.calibration == ("m", 11_000, "fitted", 10, 10, 0.0, 0.25)


def test_factors_of_models_are_their_own_and_weigh_tokens_not_requests() -> None:
    """Model a, odd requests: (150 + 9 × 1000) / (100 + 9 × 1000) = 9150 / 9100 = 1.00549…; model b: 2.0000."""
    a: list[Row] = [("a", 0, 150, 100), *[("a", 0, 1000, 1000)] * 19]
    b: list[Row] = [("b", 0, 200, 100)] * 20
    rows = [row for pair in zip(a, b, strict=True) for row in pair]
    assert [t.version for t in calibrated(rows).tokenizers] == ["v*1.0055", "v*2.0000"]


@pytest.mark.parametrize(
    ("rows", "left"),
    [
        ([("m", 0, 110, 100)] * 19, {"model": "m", "requests": 19, "why": "few"}),
        ([("m", 0, None, 100)] * 40, {"model": "m", "requests": 0, "why": "few"}),
        ([("m", 0, 0, 100)] * 20 + [("m", 0, 110, 0)] * 20, {"model": "m", "requests": 0, "why": "few"}),
        ([("m", 0, 301, 100)] * 20, {"model": "m", "requests": 20, "why": "factor 3.0100"}),
        ([("m", 0, 49, 100)] * 20, {"model": "m", "requests": 20, "why": "factor 0.4900"}),
    ],
)
def test_too_few_requests_or_an_impossible_factor_leave_a_model_as_it_is(rows: list[Row], left: object) -> None:
    made = calibrated(rows)
    assert (made.tokenizers, made.left) == ([], [left])


def test_the_counts_of_a_given_tokenizer_are_never_scaled() -> None:
    made = calibrated([("m", 1, 110, 100)] * 40, choose=lambda model: ("inherited", "1.1000"))
    assert (made.tokenizers, made.left) == ([], [])


def test_a_factor_decided_in_advance_is_checked_on_every_request() -> None:
    """Estimates of 120 against 100 and 150 reported: off by 0.2 each."""
    rows: list[Row] = [("m", 0, 100, 100), ("m", 0, 150, 100), ("n", 0, 100, 100), ("o", 0, None, 5)]
    chosen = {"m": ("configured", "1.2000"), "n": ("inherited", OFF), "o": ("inherited", "1.5000")}
    made = calibrated(rows, choose=lambda model: chosen[model])
    assert [t.calibration for t in made.tokenizers] == [
        ("m", 12_000, "configured", 0, 2, 0.2, 0.2),
        ("o", 15_000, "inherited", 0, 0, None, None),
    ]
    assert made.left == [{"model": "n", "requests": 1, "why": INHERITED}]


def test_factors_have_four_decimals_rounded_half_up() -> None:
    assert fitted_factor(1_100, 1_003) == 10_967  # 1.096709…
    assert fitted_factor(100_005, 100_000) == 10_001  # 1.00005
    assert fitted_factor(100_004, 100_000) == 10_000
    assert [factor_text(n) for n in (10_874, 5_000, 30_000)] == ["1.0874", "0.5000", "3.0000"]


@pytest.mark.parametrize(
    ("text", "factor_e4"),
    [("1.0874", 10_874), ("1", 10_000), ("0.5", 5_000), ("3.0", 30_000), ("3.0001", None), ("0.4999", None),
     ("1.00001", None), ("-1", None), ("1,1", None), ("1e0", None), ("", None), (" 1", None), ("٢", None)],
)  # fmt: skip
def test_a_factor_is_written_with_at_most_four_decimals(text: str, factor_e4: int | None) -> None:
    assert parse_factor(text) == factor_e4


def test_temporary_tables_are_left_as_promised() -> None:
    con: duckdb.DuckDBPyConnection = open_database(":memory:")
    con.execute("CREATE TEMP TABLE staged_requests AS SELECT 0 AS row_no, 'm' AS model, 0 AS tokenizer_no, "
                "NULL::BIGINT AS reported_prompt_tokens")  # fmt: skip
    con.execute("CREATE TEMP TABLE staged_order AS SELECT 0 AS row_no, 0 AS seq")
    con.execute("CREATE TEMP TABLE staged_local AS SELECT 0 AS row_no, 10 AS tokens")
    calibrate(con, [EMBEDDED], lambda model: ("configured", "1.5000"))
    assert con.execute("FROM staged_calibrated").fetchall() == [("m", 1, 15_000)]
