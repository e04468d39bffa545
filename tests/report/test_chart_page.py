"""HTML charts: one file that loads nothing, with every point, mark and figure; a word where the extra is missing."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from cachesim.errors import UsageError
from cachesim.report.chart_page import curve_html
from cachesim.report.charts import Mark


def row(model: str, floor: int | None, charged: str | None, rate: float, **more: Any) -> dict[str, Any]:
    money = None if charged is None else Decimal(charged)
    named = {"run": "ab12", "policy": "dwctl-10.13", "tariff": "default", "model": model, "floor": floor}
    return {**named, "requests": 120, "token_hit_rate": rate, "charged": money, **more}


ROWS = [
    row("small", None, "0.125", 0.5),
    row("small", None, None, 0.75, policy="ideal", tariff=None),
    row("small", None, None, 0.0, policy="off", tariff=None),
    row("small", 512, "0.1000000000000000000001", 0.6),
    row("small", 1024, "0.125", 0.5),
    row("large", 512, "12.5", 0.4),
    row("large", 1024, None, 0.3),
]
MARKS = [Mark("now", 1024), Mark("best", 512, "small")]


def page(rows: list[dict[str, Any]], **options: Any) -> str:
    pytest.importorskip("altair", reason="the extra `charts` is not installed")
    pytest.importorskip("vl_convert", reason="the extra `charts` is not installed")
    return curve_html("Which floor?", rows, marks=MARKS, **options)


@cache
def whole_page() -> str:
    return page(ROWS)


def spec_of(text: str) -> dict[str, Any]:
    """The Vega-Lite specification in the page."""
    found = re.search(r'^vegaEmbed\("#charts", (\{.*\}), \{actions', text, re.MULTILINE)
    assert found
    spec: dict[str, Any] = json.loads(found[1])
    return spec


def panels_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for facet in spec["vconcat"] for panel in facet["hconcat"]]


def values_of(spec: dict[str, Any], panel: dict[str, Any], kind: str) -> list[list[dict[str, Any]]]:
    """The data behind every layer of a panel that draws `kind`."""
    layers = [layer for layer in panel["layer"] if layer["mark"]["type"] == kind]
    return [spec["datasets"][layer.get("data", panel.get("data"))["name"]] for layer in layers]


def points_of(spec: dict[str, Any], panel: dict[str, Any]) -> list[dict[str, Any]]:
    (points,) = values_of(spec, panel, "circle")
    return points


class References(HTMLParser):
    """Every attribute with which a page could load something, and the content security policy."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag == "meta" and ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""


def test_the_page_loads_nothing_and_is_not_allowed_to() -> None:
    seen = References()
    text = whole_page()
    seen.feed(text)
    assert seen.loaded == []
    assert "default-src 'none'" in seen.policy
    assert "http" not in seen.policy
    assert not re.search(r"@import|url\(\s*['\"]?http", text.partition("<script>")[0])


def test_every_facet_has_a_panel_per_figure_with_every_point() -> None:
    spec = spec_of(whole_page())
    assert [facet["title"]["text"] for facet in spec["vconcat"]] == ["small", "large"]
    drawn = [[(p["x"], p[f"y_{y}"]) for p in points_of(spec, panel)]
             for y, panel in zip(["charged", "token_hit_rate"] * 2, panels_of(spec), strict=True)]  # fmt: skip
    assert drawn == [
        [(512, 0.1), (1024, 0.125)], [(512, 0.6), (1024, 0.5)], [(512, 12.5), (1024, None)], [(512, 0.4), (1024, 0.3)],
    ]  # fmt: skip


def test_money_stays_exact_in_what_can_be_read() -> None:
    text = whole_page()
    first = points_of(spec_of(text), panels_of(spec_of(text))[0])[0]
    assert first["tip_charged"] == "0.1000000000000000000001"
    assert "<td>0.1000000000000000000001</td>" in text


def test_marks_stand_in_their_facet_and_levels_are_named() -> None:
    """`best` is small's alone; ideal has no charge, `off` no line at all."""
    spec = spec_of(whole_page())
    texts = [[one["label"] for (one,) in values_of(spec, panel, "text")] for panel in panels_of(spec)]
    assert texts == [
        ["now", "now 1,024", "best 512"], ["now", "ideal", "now 1,024", "best 512"], ["now 1,024"], ["now 1,024"],
    ]  # fmt: skip


def test_what_varies_besides_the_floor_is_a_colour() -> None:
    rows = [
        row("m", floor, "1", 0.5, ttl=ttl, tariff=t) for floor in (1, 2) for ttl in ("5m", "1h") for t in ("a", "b")
    ]
    spec = spec_of(page(rows))
    circle = next(layer for layer in panels_of(spec)[0]["layer"] if layer["mark"]["type"] == "circle")
    assert circle["encoding"]["color"]["title"] == "tariff · ttl"
    assert circle["encoding"]["color"]["scale"]["domain"] == ["a · 5m", "b · 5m", "a · 1h", "b · 1h"]


def test_a_floor_of_zero_has_a_place() -> None:
    spec = spec_of(page([row("m", 0, "1", 0.5), row("m", 256, "1", 0.5)]))
    circle = next(layer for layer in panels_of(spec)[0]["layer"] if layer["mark"]["type"] == "circle")
    assert circle["encoding"]["x"]["scale"] == {"constant": 256, "nice": False, "type": "symlog"}


def test_no_name_can_end_the_script_or_the_markup() -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    text = page([row(evil, 512, "1", 0.5)], notes=[evil])
    assert evil not in text
    assert text.count("<script>") == 2
    assert spec_of(text)["vconcat"][0]["title"]["text"] == evil


def test_the_same_rows_give_the_same_page() -> None:
    assert page(ROWS) == whole_page()


@pytest.mark.parametrize("missing", ["altair", "vl_convert"])
def test_without_the_extra_the_error_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=r"HTML charts: .*missing; .* pip install 'cachesim\[charts\]'$"):
        curve_html("Which floor?", ROWS)
