from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from sample_run import HOUR_US, START_US, Price, Req, fill

from cachesim.report import tables
from cachesim.report.columns import BY_NAME, COLUMNS
from cachesim.report.facts import break_even, coverage
from cachesim.report.formats import Format, Report, clean, money_text, write
from cachesim.report.headline import headline
from cachesim.report.query import report_rows
from cachesim.report.render import first_screen, print_report
from cachesim.report.runs import show_run
from cachesim.store.db import IN_MEMORY, open_database

WORKED = Req(
    prompt=2000, completion=100, split=(1000, 0, 500), outcome="read_and_create", tiers="1h", local=2020, ideal=1500
)


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return open_database(IN_MEMORY)


def screen(con: duckdb.DuckDBPyConnection, width: int = 200, run_no: int = 1, **options: Any) -> str:
    text = io.StringIO()
    first_screen(con, run_no, Console(file=text, width=width, highlight=False), **options)
    return text.getvalue()


def written(report: Report, form: Format) -> bytes:
    out = io.BytesIO()
    write(report, form, out)
    return out.getvalue()


def by_model(con: duckdb.DuckDBPyConnection) -> Report:
    run = show_run(con, 1)
    columns = ["run", "policy", "tariff", "model", *(c.name for c in COLUMNS)]
    rows = report_rows(con, 1, ["model"])
    return Report("report", columns, rows, ["model"], [run.entry()], run.assumptions, run.problems)


def test_the_headline_says_the_rate_its_denominator_and_the_bill(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED])
    assert screen(con).splitlines()[0] == (
        # 1000 / 2000; 2.2 → 1.8: -0.4 / 2.2 = -18.2 %
        "Caching under dwctl-10.13 would serve 50.0 % of 2,000 prompt tokens from cache and"
        " change the bill from 2.20 to 1.80 (−18.2 %)."
    )


@pytest.mark.parametrize(
    ("requests", "options", "words"),
    [
        ([], {}, "Nothing was replayed"),
        ([Req(outcome="inactive", reason="unscoped")] * 2, {}, "none of 2 requests reached the cache (unscoped 2)"),
        ([Req(prompt=5, ok=False), Req(prompt=5, outcome="rejected", reason="x")], {}, "of 2, 1 failed, 1 rejected"),
        ([Req(prompt=0)], {}, "not one prompt token"),
        ([Req(prompt=5, price=None), Req(prompt=5)], {}, "the bill is unknown (1 of 2 requests have no price)"),
        ([Req(prompt=5, estimated=True)], {}, "Estimated: caching under"),
        ([Req(prompt=5)], {"exact": False}, "Estimated: caching under"),
        ([Req(prompt=5)], {}, "leave the bill at 0.00500"),
    ],
)
def test_the_headline_is_honest(
    con: duckdb.DuckDBPyConnection, requests: list[Req], options: dict[str, Any], words: str
) -> None:
    fill(con, requests, **options)
    first = screen(con).splitlines()[0]
    assert words in first
    assert first.count(". ") == 0, "one sentence"


def test_the_first_screen_has_every_fact(con: duckdb.DuckDBPyConnection) -> None:
    requests = [
        WORKED,
        Req(model="n", prompt=1000, outcome="inactive", reason="not_enabled"),
        Req(model="n", prompt=100, outcome="zero", reason="below_floor"),
        Req(model="n", prompt=100, split=(50, 0, 0), ok=False),
    ]
    problems = {"bad_lines": 3, "bad_line_reasons": {"not_json": 2, "truncated": 1}, "duplicates": 0}
    fill(con, requests, assumptions=[{"code": "x", "text": "No durations: instant completion."}], problems=problems)
    text = screen(con)
    assert "classified 3 of 4 requests (75.0 %), 2,200 of 3,200 prompt tokens (68.8 %)" in text
    assert "not classified: not_enabled 1" in text
    assert "zero 1 (below_floor 1)" in text
    assert "1 failed request is classified, but in no total and no rate" in text
    assert "between off 0.0 % (no cache) and ideal 48.4 %" in text  # 1500 / 3100
    assert (
        "standard (write 1h 2; read 0.1): pays above a cacheable hit rate of 52.6 % (1h); measured 66.7 %, pays" in text
    )
    assert "m: local count +1.0 % against 2,000 reported prompt tokens" in text
    assert "No durations: instant completion." in text
    assert "bad line reasons: not_json 2, truncated 1" in text
    assert "duplicates" not in text
    assert "cachesim report --by reason --db x.duckdb  # why" in screen(con, db="x.duckdb")
    assert BY_NAME["token_hit_rate"].definition in screen(con, explain=True)


def test_several_variants_have_a_comparison_and_a_block_each(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED], policies=[("dwctl-8.63", "default"), ("dwctl-10.13", "flat")])
    lines = screen(con).splitlines()
    assert "dwctl-8.63 · tariff default" in lines
    assert "dwctl-10.13 · tariff flat" in lines
    assert sum(line.startswith(("off ", "ideal ")) for line in lines) == 2


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal_and_no_name_is_cut(con: duckdb.DuckDBPyConnection, width: int) -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct-with-a-very-long-tail-that-matters-v2"
    twin = name[:-1] + "3"
    fill(con, [Req(model=m, prompt=10**9, completion=10**8, split=(10**8, 10**8, 0), local=7) for m in (name, twin)])
    text = screen(con, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "v2" in text
    assert "v3" in text
    assert "…" not in text
    missing = "Too narrow for" in text
    assert missing == (width < 200)


def test_columns_leave_by_weight_and_groups_never() -> None:
    widths = {"reason": 10, "requests": 8, "token_hit_rate": 6, "completion_tokens": 9, "charged": 7}
    assert tables.fit(widths, 200, ["reason"]) == (list(widths), [])
    kept, dropped = tables.fit(widths, 30, ["reason"])
    assert kept == ["reason", "token_hit_rate", "charged"]
    assert dropped == ["completion_tokens", "requests"]
    assert tables.fit(widths, 1, ["reason"])[0] == ["reason"]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (tables.percent(0.612), "61.2 %"),
        (tables.percent(0.0), "0.0 %"),
        (tables.percent(0.0001), "<0.1 %"),
        (tables.percent(0.99999), ">99.9 %"),
        (tables.percent(1.0), "100.0 %"),
        (tables.percent(-0.02, signed=True), "−2.0 %"),
        (tables.money(Decimal("1234567.891"), 2), "1,234,567.89"),
        (tables.money(Decimal("-6.294"), 2, signed=True), "−6.29"),
        (tables.money(Decimal("0.0001"), 2), "<0.01"),
        (tables.money(Decimal(0), 2, signed=True), "0.00"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected


def test_small_money_gets_as_many_decimals_as_it_needs() -> None:
    assert tables.money_decimals([Decimal("12.31"), Decimal("0.004")]) == 2
    assert tables.money_decimals([Decimal("0.00423"), None]) == 5
    assert tables.money_decimals([]) == 2


def test_terminal_escapes_never_reach_the_terminal(con: duckdb.DuckDBPyConnection) -> None:
    evil = "gpt\x1b[31m\x07\u202e\nnext [bold]"
    fill(con, [Req(model=evil, prompt=5, local=5), WORKED])
    text = screen(con)
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert clean(evil) == r"gpt\x1b[31m\x07\u202e\nnext [bold]"
    assert clean(evil) in text


def test_money_for_programs_is_exact_and_plain() -> None:
    assert money_text(Decimal("1.80000000000000000000")) == "1.8"
    assert money_text(Decimal("1E-7")) == "0.0000001"
    assert money_text(Decimal("100")) == "100"
    assert money_text(Decimal("-0.00")) == "0"
    long = "123456789012345678.12345678901234567891"  # more than the 28 digits of the default context
    assert money_text(Decimal(long)) == long


@given(st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-(10**17), max_value=10**17))
def test_money_text_keeps_the_value(value: Decimal) -> None:
    text = money_text(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert text != "-0"


def test_json_is_one_document_and_the_same_bytes_twice(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED, Req(model="x", prompt=3, split=(1, 0, 0))], problems={"bad_lines": 1})
    first, second = written(by_model(con), Format.JSON), written(by_model(con), Format.JSON)
    assert first == second
    found = json.loads(first)
    assert list(found) == ["schema", "command", "runs", "by", "assumptions", "problems", "rows"]
    assert found["schema"] == "cachesim.report/1"
    assert found["problems"] == {"bad_lines": 1}
    row, third = found["rows"]
    assert (row["charged"], row["delta"], row["token_hit_rate"]) == ("1.8", "-0.4", 0.5)
    assert (row["drift"], third["token_hit_rate"], third["drift"]) == (0.01, 0.333333, None)
    assert row["run"] == found["runs"][0]["run"]
    assert b"run_no" not in first
    assert b"2026-02-03" not in first


def test_an_empty_json_report_is_valid() -> None:
    assert json.loads(written(Report("report", ["run"], []), Format.JSON))["rows"] == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_text_is_never_a_formula_and_numbers_stay_numbers(con: duckdb.DuckDBPyConnection, start: str) -> None:
    evil = f'{start}cmd|"x",1'
    fill(con, [Req(model=evil, prompt=2000, split=(2000, 0, 0))])
    (row,) = csv.DictReader(io.StringIO(written(by_model(con), Format.CSV).decode(), newline=""))
    assert row["model"] == f"'{evil}"
    assert row["delta"] == "-1.8"  # 2000 * 0.001 * (0.1 - 1)
    assert row["recorded_cost"] == ""


def test_markdown_is_a_table_whatever_the_names(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(model="a|b\n*c*", prompt=1)])
    lines = written(by_model(con), Format.MD).decode().splitlines()
    assert len(lines) == 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert r"a\|b" in lines[2]


def test_parquet_has_the_same_columns_and_values(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED, Req(model=None, price=None)])
    report = by_model(con)
    frame = pl.read_parquet(io.BytesIO(written(report, Format.PARQUET)))
    assert frame.columns == list(report.columns)
    assert frame["charged"].to_list() == [Decimal("1.8"), None]  # exact, and a sum of it is too
    assert frame["token_hit_rate"].to_list() == [0.5, None]
    assert frame["model"].to_list() == ["m", None]


def test_break_even_names_the_rate_that_pays(con: duckdb.DuckDBPyConnection) -> None:
    prices = [Price(), Price(name="dear", multipliers=("0.8", "1.5", "2", "2.5")), Price(multipliers=None)]
    # dear: reads save 100 * 0.2 = 20, writes cost 100 * 0.5 = 50 more: does not pay although 50 % were read
    fill(con, [WORKED, Req(prompt=200, split=(100, 100, 0), price=1), Req(prompt=9, price=2)], prices)
    standard, dear = break_even(con, 1, 0)
    assert [f"{standard.rate(tier):.3f}" for tier in range(3)] == [
        "0.217",
        "0.526",
        "0.625",
    ]  # 0.25/1.15, 1/1.9, 1.5/2.4
    assert (standard.pays, standard.measured) == (True, 1000 / 1500)
    assert (dear.pays, dear.measured) == (False, 0.5)


def test_coverage_counts_everything_once(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [WORKED, Req(prompt=1, outcome="inactive", reason="unscoped"), Req(prompt=2, ok=False)])
    seen = coverage(con, 1, 0)
    assert (seen.requests, seen.classified, seen.failed) == (3, 2, 1)
    assert (seen.prompt_tokens, seen.classified_tokens) == (2003, 2002)
    assert "classified" not in headline(report_rows(con, 1)[0], seen)


def test_a_grouped_table_ends_with_the_total_of_its_block(con: duckdb.DuckDBPyConnection) -> None:
    fill(con, [Req(model=m, prompt=n, at_us=START_US + n * HOUR_US) for m, n in (("a", 1), ("b", 2))])
    text = io.StringIO()
    rows, totals = report_rows(con, 1, ["model"]), report_rows(con, 1)
    print_report(
        Console(file=text, width=160), ["model"], rows, totals, ["policy", "model", "requests", "prompt_tokens"]
    )
    lines = text.getvalue().rstrip().splitlines()
    assert lines[0] == "dwctl-10.13 · tariff default"
    assert lines[-1].split() == ["all", "2", "3"]
