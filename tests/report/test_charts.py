"""Terminal curves: what is drawn where, what is marked, and that no chart is ever too wide, coloured or random."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from cachesim.report.charts import Mark, Points, curve_text
from cachesim.report.column import Kind

FLOORS = (256, 512, 1024, 2048, 4096)
BILL: Points = list(zip(FLOORS, map(Decimal, ("0.30", "0.26", "0.22", "0.24", "0.30")), strict=True))


def ticks_of(text: str) -> list[str]:
    """The labels of the vertical axis, from the top."""
    return [line.partition("┤")[0].strip() for line in text.split("\n") if "┤" in line]


def test_a_curve_with_its_axes_and_marks() -> None:
    """Doublings are equally far apart; letters stand at the five values, the lines only connect them."""
    marks = [Mark("now", 2048), Mark("best", 1024)]
    text = curve_text(
        {"small": BILL}, x_title="floor, tokens", y_title="charged", width=48, height=8, marks=marks, log_x=True
    )
    assert text.split("\n") == [
        "charged",
        "                      best 1,024",
        "                                 now 2,048",
        "0.30 ┤a⠢⢄⡀                 ⡂         ⡂        ⡠a",
        "     │   ⠈⠒⠤⣀              ⡂         ⡂     ⢀⠔⠊",
        "     │       ⠑⠢⢄⡀          ⡂         ⡂   ⢀⠔⠁",
        "0.25 ┤          a⠒⠤⡀       ⡂         ⡂ ⡠⠔⠁",
        "     │             ⠈⠑⠤⣀    ⡂        ⢀a⠊",
        "     │                 ⠑⠢⣀ ⡂ ⢀⣀⡠⠤⠒⠒⠉⠁⡂",
        "     │                    ⠉a⠉⠁       ⡂",
        "0.20 ┤                     ⡂         ⡂",
        "     └┬─────────┬──────────┬─────────┬─────────┬",
        "      256      512       1,024     2,048   4,096",
        "                    floor, tokens",
        "a small",
    ]


def test_on_a_linear_axis_equal_differences_are_equally_far_apart() -> None:
    text = curve_text({"m": [(0, 1), (50, 1), (100, 1)]}, x_title="x", y_title="y", width=46, height=8)
    line = next(line for line in text.split("\n") if "a" in line)
    first, middle, last = (i for i, cell in enumerate(line) if cell == "a")
    assert abs((middle - first) - (last - middle)) <= 1


def test_zero_has_a_place_left_of_the_least_positive_value_of_a_logarithmic_axis() -> None:
    text = curve_text({"m": [(0, 1), (512, 2), (1024, 3)]}, x_title="x", y_title="y", width=40, log_x=True)
    labels = text.split("\n")[-3].split()
    assert labels == ["0", "512", "1,024"]


def test_an_unknown_value_leaves_a_gap() -> None:
    """(1, 5) and (3, 5) are not connected over the unknown value between them; (3, 5) and (4, 5) are."""
    points: Points = [(1, 5), (2, None), (3, 5), (4, 5)]
    text = curve_text({"m": points}, x_title="x", y_title="y", width=40, height=8)
    line = next(line for line in text.split("\n") if "a" in line).partition("┤")[2]
    before, between, after, _ = line.split("a")
    assert (before, between.strip(" ⠁⠂⠄⡀⢀⣀⠈⠐⠠"), after.strip()) == ("", "", after)
    assert between.count(" ") > 20


def test_rates_are_in_percent_and_ticks_are_round() -> None:
    text = curve_text(
        {"m": [(1, 0.5), (2, 0.1)]}, x_title="x", y_title="token hit rate", width=40, height=12, y_kind="rate"
    )
    assert [line.partition("┤")[0].strip() for line in text.split("\n") if "┤" in line] == [
        "60 %",
        "40 %",
        "20 %",
        "0 %",
    ]


def test_small_differences_get_the_decimals_they_need() -> None:
    points: Points = [(1, Decimal("12.000031")), (2, Decimal("12.000034"))]
    text = curve_text({"m": points}, x_title="x", y_title="charged", width=40, height=12)
    assert ticks_of(text) == ["12.000034", "12.000033", "12.000032", "12.000031"]


def test_marks_of_one_place_share_a_label_and_widen_the_axis() -> None:
    marks = [Mark("now", 8192), Mark("best", 8192)]
    text = curve_text({"m": BILL}, x_title="floor", y_title="charged", width=60, marks=marks)
    assert text.split("\n")[1].strip() == "now, best 8,192"
    assert text.split("\n")[-3].split()[-1] == "8,192"


def test_the_axis_is_written_as_asked() -> None:
    names = {300: "5m", 900: "15m", 3600: "1h"}
    text = curve_text(
        {"m": [(300, 1), (900, 2), (3600, 3)]}, x_title="lifetime", y_title="y", width=40, log_x=True,
        x_text=lambda seconds: names[int(seconds)],
    )  # fmt: skip
    assert text.split("\n")[-3].split() == ["5m", "15m", "1h"]


def test_the_legend_has_a_letter_for_every_series_and_breaks_where_it_must() -> None:
    series: dict[str, Points] = {"first model": BILL, "second model": BILL, "third\x1b[31m model": BILL}
    text = curve_text(series, x_title="floor", y_title="charged", width=34)
    assert text.split("\n")[-2:] == ["a first model · b second model", "c third\\x1b[31m model"]


def test_names_wider_than_the_legend_fold_and_stay_apart() -> None:
    series: dict[str, Points] = {"m" * 30 + "-east": BILL, "m" * 30 + "-west": BILL}
    legend = curve_text(series, x_title="floor", y_title="charged", width=26).split("\n")[-4:]
    assert legend == ["a " + "m" * 24, "mmmmmm-east", "b " + "m" * 24, "mmmmmm-west"]


@pytest.mark.parametrize("colour", [False, True])
def test_colour_is_there_only_where_it_is_wanted(colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = curve_text({"m": BILL}, x_title="floor", y_title="charged", width=60, colour=colour)
    assert ("\x1b[" in text) is colour


def test_without_a_known_value_there_is_a_remark_instead() -> None:
    text = curve_text({"m": [(256, None)]}, x_title="floor", y_title="charged", width=60)
    assert text == "no chart: charged is unknown everywhere"


def test_a_terminal_too_narrow_gets_a_remark_that_fits() -> None:
    """`0.30 ┤` and a drawing of 20 columns."""
    narrow = {"x_title": "floor", "y_title": "charged"}
    assert curve_text({"m": BILL}, width=25, **narrow) == "no chart: 26 columns nee…"
    assert curve_text({"m": BILL}, width=26, **narrow).startswith("charged\n")


VALUES = st.one_of(
    st.none(),
    st.decimals(-(10**9), 10**9, allow_nan=False, places=6),
    st.floats(-1e9, 1e9, allow_nan=False),
    st.just(0),
)
CURVES = st.dictionaries(
    st.text(max_size=60), st.lists(st.tuples(st.integers(0, 2**31), VALUES), max_size=8), min_size=1, max_size=6
)
MARKS = st.lists(st.builds(Mark, st.text(max_size=40), st.integers(0, 2**31)), max_size=3)


KINDS = ("money", "rate", "count")


@settings(max_examples=150, deadline=None)
@given(CURVES, MARKS, st.integers(1, 160), st.integers(4, 30), st.booleans(), st.sampled_from(["money", "rate"]))
def test_whatever_is_drawn_it_fits_and_is_the_same_again(
    series: dict[str, Points], marks: list[Mark], width: int, height: int, log_x: bool, kind: Kind
) -> None:
    drawn = [
        curve_text(
            series, x_title="floor, tokens", y_title="charged", width=width, height=height, marks=marks,
            y_kind=kind, log_x=log_x,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert max(map(cell_len, drawn[0].split("\n"))) <= width
    assert "\x1b" not in drawn[0]
    assert drawn[0] == drawn[1]
