from __future__ import annotations

import io
import json
from collections.abc import Sequence

import duckdb
import pytest
from rich.console import Console
from sample_run import Price
from sample_sweep import HOUR_US, IDEAL, OFF, UNLIMITED, Cells, Facts, Var, fill_sweep

from cachesim.cli.output import emit
from cachesim.fan_out import FanOut
from cachesim.recommend import Objective
from cachesim.report.formats import Format
from cachesim.report.tune_screen import tune_screen
from cachesim.report.tuning import read_tuning, tuning_report
from cachesim.store.db import IN_MEMORY, open_database

WEEK = Facts(168 * HOUR_US, 3600, {"m": 1024, "n": 1024})


@pytest.fixture
def con() -> duckdb.DuckDBPyConnection:
    return open_database(IN_MEMORY)


def cells(read: int, created: int, below: int, *, scale: int = 1, near: int = 0) -> dict[str, int]:
    """1,000 requests of 10 prompt tokens each that reach the cache, times `scale`; read and created in tokens."""
    found = {
        "requests": 1000, "prompt": 10_000, "read": read, "c5": created, "uncached": 10_000 - read - created,
        "asked": 1000, "below_floor": below, "near_5": near, "writes": 50, "requests_read": read // 10,
    }  # fmt: skip
    return {name: value * scale for name, value in found.items()}


# Under `now` a thousand prompts read 4000 and write 1000 tokens: 5 + 0.4 + 1.25 = 6.65 of 10.
# At 512: 6000 read, 1000 written: 3 + 0.6 + 1.25 = 4.85; at 2048: 2000 read, 500 written: 7.5 + 0.2 + 0.625 = 8.325.
POINTS = {None: (4000, 1000, 400), 512: (6000, 1000, 100), 2048: (2000, 500, 700)}
VARIANTS = [*(Var(floor=floor) for floor in POINTS), UNLIMITED, OFF, IDEAL]


def floors(models: Sequence[str] = ("m",)) -> list[Cells]:
    rows = [
        Cells(i, cells(*point, scale=scale), model=model, part=part)
        for model in models
        for i, point in enumerate(POINTS.values())
        for part, scale in (("first", 3), ("rest", 2))
    ]
    return [*rows, *(Cells(i, cells(7000, 0, 0), model=model) for i in (3, 4, 5) for model in models)]


def screen(
    con: duckdb.DuckDBPyConnection,
    *,
    width: int = 120,
    objective: Objective | None = None,
    by: Sequence[str] = ("model",),
    **options: int | str | None,
) -> str:
    out = io.StringIO()
    tuning = read_tuning(con, 1, by, objective)
    tune_screen(tuning, Console(file=out, width=width), chart=False, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_the_answer_comes_first_and_says_both_sides(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, floors(), facts=WEEK)
    lines = screen(con).splitlines()
    # five thousand requests: 5 × 6.65 = 33.25 under now, 5 × 4.85 = 24.25 at 512; list is 50
    assert (
        " ".join(lines[:2])
        .replace("  ", " ")
        .startswith(
            "For the lowest customer bill change the floor of the model: the bill goes from 33.25 to 24.25 (−27.1 %),"
        )
    )
    assert "m  1,024 → 512  saves 9.00 (−27.1 %)" in lines
    text = " ".join(" ".join(lines).split())
    assert "customers pay from 33.25 to 24.25 (−27.1 %), −51.5 % to list" in text
    assert "operator takes in 9.00 less than now (−27.1 %)" in text
    assert "tried now and 2 variants (2 floors), each a replay of 5,000 requests over 7.0 days" in text
    assert "now without expiry 70.0 %" in text


def test_the_floor_table_marks_now_and_best_in_the_order_of_floors(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, floors(), facts=WEEK)
    rows = [line.split() for line in screen(con).splitlines() if line.rstrip().endswith(("0", "1"))]
    table = [row for row in rows if row[0] in ("best", "now", "2,048") and len(row) > 6]
    assert [row[:2] for row in table[:3]] == [["best", "512"], ["now", "1,024"], ["2,048", "1,500"]]
    assert table[0][2:5] == ["4,500", "30,000", "5,000"]  # eligible 5 × 900, read, created


def test_the_curve_of_every_model_stands_in_one_chart(con: duckdb.DuckDBPyConnection) -> None:
    pytest.importorskip("cachesim.report.charts")
    fill_sweep(con, VARIANTS, floors(("m", "n")), facts=WEEK)
    out = io.StringIO()
    tune_screen(read_tuning(con, 1), Console(file=out, width=120))
    chart = out.getvalue().partition("change of the bill to now")[2].partition("\nFloors")[0]
    assert "now 1,024" in chart
    assert "best m, best n 512" in chart
    assert "a m · b n" in chart


def test_models_share_a_line_where_they_are_refused_for_one_reason(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, floors(("m", "n")), facts=Facts(2 * HOUR_US, 3600, {"m": 1024, "n": 1024}))
    text = screen(con)
    words = " ".join(text.split())
    assert words.startswith("No floor can be recommended for the lowest customer bill: the log spans 2.0 h, 24.0 h are")
    assert "all 2 models no answer the log spans 2.0 h" in words
    assert "all, the same floor for each" in text
    assert "customers" not in text  # nothing is recommended, so nobody pays anything else


def test_answers_of_several_models_are_told_apart(con: duckdb.DuckDBPyConnection) -> None:
    facts = Facts(168 * HOUR_US, 3600, {"m": 1024, "n": 1024}, ["n"])
    fill_sweep(con, VARIANTS, floors(("m", "n")), facts=facts, exact=False)
    words = " ".join(screen(con).split())
    assert "change the floor of 1 of 2 models" in words
    assert "1 model without an answer" in words
    assert "n no answer token counts are estimates" in words
    assert "n · tokens estimated" in words
    assert "m · tokens estimated" not in words


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (
            Objective.OPERATOR_REVENUE,
            "For the highest operator revenue change the floor of the model: the bill goes from",
        ),
        (Objective.TOKEN_HIT_RATE, "m 1,024 → 512 40.0 % → 60.0 %"),
        (Objective.FEWEST_LOSERS, "keep the present floor; confidence medium"),
    ],
)
def test_every_objective_has_its_words(con: duckdb.DuckDBPyConnection, objective: Objective, words: str) -> None:
    fill_sweep(con, VARIANTS, floors(), facts=WEEK)
    assert words in " ".join(screen(con, objective=objective).split())


def test_principals_above_list_are_counted_over_the_whole_log(con: duckdb.DuckDBPyConnection) -> None:
    # under now all that anybody does is write: 7 + 3 × 1.25 is above list; at 2048 nothing is written
    points = {None: (0, 3000, 100), 2048: (0, 0, 1000)}
    rows = [
        Cells(i, cells(*point, scale=scale), principal=principal, part=part)
        for principal in ("a", "b")
        for i, point in enumerate(points.values())
        for part, scale in (("first", 3), ("rest", 2))
    ]
    fill_sweep(con, [Var(), Var(floor=2048)], rows, facts=WEEK)
    assert "m 1,024 → 2,048 2 → 0 principals above list" in " ".join(
        screen(con, objective=Objective.FEWEST_LOSERS).split()
    )


def test_lifetimes_have_their_cost_and_what_they_must_earn(con: duckdb.DuckDBPyConnection) -> None:
    one = {"requests": 1, "prompt": 2000}
    variants = [Var(), Var(ttl="1h"), Var(ttl="5m"), Var(ttl="1h+5m"), Var(ttl="15m"), UNLIMITED]
    gaps = {"gap_1_requests": 3, "gap_2_requests": 1, "gap_1_tokens": 900, "gap_2_tokens": 100}
    rows = [
        Cells(0, {**one, "c5": 1000, "read": 200, "uncached": 800}),
        Cells(1, {**one, "c1": 600, "read": 900, "uncached": 500}),
        Cells(2, {**one, "c5": 1000, "read": 200, "uncached": 800}),
        Cells(3, {**one, "c1": 100, "c5": 700, "read": 500, "uncached": 700}),
        Cells(4, {**one, "cx": 800, "read": 500, "uncached": 700}),
        Cells(5, {**one, **gaps}),
    ]
    fill_sweep(con, variants, rows)
    text = screen(con, width=160)
    words = " ".join(text.split())
    # now 0.8 + 0.02 + 1.25 = 2.07; 1h 0.5 + 0.09 + 1.2 = 1.79; 1h+5m 0.7 + 0.05 + 0.875 + 0.2 = 1.825
    assert words.startswith(
        "Of 5 variants lifetime 1h is the cheapest for customers: the bill goes from 2.07 to 1.79 (−13.5 %)."
    )
    order = [line.split()[0] for line in text.splitlines() if line.startswith(("now", "5m ", "15m ", "1h"))]
    assert order[:5] == ["now", "5m", "15m", "1h", "1h+5m"]
    assert "1h: a write (×2, read ×0.1) pays back after 2 reads, above a cacheable hit rate of 52.6 %" in words
    assert "1h instead of 5m pays below 0.605 of the tokens written; measured 0.600, pays" in words
    assert (
        "4 requests would read; of their tokens, by the time since the entry was last touched: under 5m 90.0 %" in words
    )
    assert "15m: a write" not in words


def test_strategies_stand_beside_ideal(con: duckdb.DuckDBPyConnection) -> None:
    variants = [Var(), Var(markers="automatic"), IDEAL]
    rows = [
        Cells(i, {"requests": 1, "prompt": 1000, "read": n, "uncached": 1000 - n}) for i, n in enumerate((0, 300, 900))
    ]
    fill_sweep(con, variants, rows)
    lines = [line.split() for line in screen(con).splitlines()]
    assert [line[:2] for line in lines if line and line[0] in ("automatic", "ideal")] == [
        ["automatic", "0"],
        ["ideal", "(bound)"],
    ]
    ideal = next(line for line in lines if line and line[0] == "ideal")
    assert "90.0" in ideal
    assert "0.00" not in ideal  # a bound has no bill


def test_fan_outs_stand_below_the_walk_backs(con: duckdb.DuckDBPyConnection) -> None:
    point = {"requests": 1, "prompt": 1000}
    far = {"reach_1_requests": 3, "reach_2_requests": 1, "reach_1_tokens": 900, "reach_2_tokens": 100}
    rows = [Cells(0, point), Cells(1, {**point, "read": 300}), Cells(2, {**point, **far})]
    fill_sweep(con, [Var(), Var(walk_back=40), Var(policy="far", tariff=None, kind="bound")], rows)
    tuning = read_tuning(con, 1)
    tuning.fan_outs = [FanOut("m", 2, 1050, 2, (25, 25, 31))]
    out = io.StringIO()
    tune_screen(tuning, Console(file=out, width=200), chart=False)
    assert (
        "m: 2 requests found 1,050 tokens less than lay alive further back, 2 of them after tool calls and results;"
        " walk-backs that reach them: 25 for 50 %, 25 for 90 %, 31 for 100 %"
    ) in out.getvalue()
    assert (
        "if the walk-back had no end, 4 requests would read; of their tokens, by the walk-back that finds them:"
        " up to 20 90.0 % · 21 to 40 10.0 % · 41 to 80 0.0 % · more 0.0 %"
    ) in out.getvalue()
    assert tuning_report(tuning).more["fan_outs"] == [
        {"model": "m", "requests": 2, "missed_tokens": 1050, "by_tools": 2,
         "walk_back_for_50": 25, "walk_back_for_90": 25, "walk_back_for_100": 31}
    ]  # fmt: skip
    assert "no model: nothing alive lies further back than the walk-back looks now" in screen(con)


def test_a_sweep_in_unknown_money_says_what_reads_most(con: duckdb.DuckDBPyConnection) -> None:
    rows = [Cells(i, {"requests": 1, "prompt": 1000, "read": n}, price=None) for i, n in enumerate((0, 300))]
    fill_sweep(con, [Var(), Var(walk_back=40)], rows)
    assert "The bill is unknown; of 2 variants walk-back 40 reads most." in screen(con)


def test_long_tables_keep_now_best_and_the_ends(con: duckdb.DuckDBPyConnection) -> None:
    grid = [None, *range(100, 4100, 100)]
    variants = [Var(floor=floor) for floor in grid]
    rows = [
        Cells(i, cells(6000 if floor == 700 else 4000, 1000, 100 if floor and floor < 1024 else 400), part=part)
        for i, floor in enumerate(grid)
        for part in ("first", "rest")
    ]
    fill_sweep(con, variants, rows, facts=WEEK)
    lines = [line.split() for line in screen(con, top=5).splitlines()]
    shown = [" ".join(line[:2]) if line[0] in ("now", "best") else line[0] for line in lines if len(line) > 8]
    assert {"100", "best 700", "now 1,024", "4,000"} <= set(shown)
    assert "more rows a table" in screen(con, top=5)
    assert "more rows a table" not in screen(con, top=50)


def test_suggested_commands_repeat_the_database(con: duckdb.DuckDBPyConnection) -> None:
    fill_sweep(con, VARIANTS, floors(), facts=WEEK)
    assert "cachesim losers --db runs.duckdb" in screen(con, db="runs.duckdb")
    assert "cachesim losers  #" in screen(con)


def test_names_from_logs_cannot_write_to_the_terminal(con: duckdb.DuckDBPyConnection) -> None:
    evil = "m\x1b[31m[bold]"
    fill_sweep(con, VARIANTS, floors((evil, "n")), facts=WEEK)
    text = screen(con)
    assert "\x1b" not in text
    assert "m\\x1b[31m[bold]" in text


def test_programs_get_the_grid_and_the_answers(
    con: duckdb.DuckDBPyConnection, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    fill_sweep(con, VARIANTS, floors(), [Price()], facts=WEEK)
    emit(tuning_report(read_tuning(con, 1)), Format.JSON, None)
    made = json.loads(capfdbinary.readouterr().out)
    assert (made["command"], made["objective"], len(made["rows"])) == ("tune", "customer-cost", 6)
    (answer,) = made["recommendations"]
    assert answer["answer"] == "change"
    assert (answer["floor_now"], answer["floor_best"], answer["charged_now"], answer["charged_best"]) == (
        1024, 512, "33.25", "24.25",
    )  # fmt: skip
    assert (answer["promised"], answer["confirmed"]) == (0.270677, 0.270677)  # 1.8 / 6.65
    best = made["rows"][1]
    assert (best["variant"], best["floor"], best["change"], best["eligible"]) == (1, 512, "-9", 4500)
    assert made["runs"][0]["variants"][0] == {
        "kind": "policy", "policy": "dwctl-10.13", "tariff": "default", "markers": "as-captured",
    }  # fmt: skip
    assert len(made["runs"][0]["variants"]) == 4  # the floors are in the rows
