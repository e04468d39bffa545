"""Curves for a browser: one HTML file that needs no network, drawn by Vega-Lite through Altair.

Altair and vl-convert, which carries the JavaScript, are the optional extra `charts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from math import log2
from typing import TYPE_CHECKING, Any, Final

from cachesim.errors import UsageError
from cachesim.report.charts import Mark
from cachesim.report.columns import kind_of
from cachesim.report.formats import clean, money_text
from cachesim.report.sweeps import NOW, SETTINGS
from cachesim.report.tables import NONE, cell, number, table_columns, title

if TYPE_CHECKING:
    import altair as alt

Row = Mapping[str, Any]

INSTALL: Final = "install the extra that draws them: pip install 'cachesim[charts]'"
ABOUT: Final = frozenset({"run", "variant", "kind"})
"""Columns that name a row to programs and say nothing to people."""
PALETTE: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#6a3d9a", "#444444")
"""Colours that people with colour-blindness tell apart, dark enough for thin lines on white."""
GREY: Final = "#6b7280"
MARK_COLOUR: Final = "#b91c1c"
WIDTH: Final = 430
HEIGHT: Final = 230
LABEL_WIDTH: Final = 64
MARGIN: Final = 48
"""Pixels for the numbers left of a panel, so that panels stand below each other."""

_STYLE: Final = """
body{margin:2rem auto;max-width:78rem;padding:0 1.5rem;background:#fff;color:#1f2937;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.5rem;font-weight:600;margin:0 0 .25rem}
ul{margin:.5rem 0 1.5rem;padding-left:1.2rem;color:#4b5563;font-size:.875rem}
#charts{overflow-x:auto}
details{margin-top:1.5rem;font-size:.8rem}summary{cursor:pointer}
table{border-collapse:collapse;margin-top:.75rem;display:block;overflow-x:auto;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .6rem;border-bottom:1px solid #e5e7eb;text-align:right;white-space:nowrap}
th{font-weight:600}
.text{text-align:left}
"""
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
)
"""The page may run what stands in it and load nothing: not even a mistake in it can reach the network."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{notes}
<div id="charts"></div>
<details><summary>All figures</summary>
{table}
</details>
<script>{vega}</script>
<script>
vegaEmbed("#charts", {spec}, {{actions: {{export: true, source: false, compiled: false, editor: false}}}});
</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class _Question:
    """What the page draws: ys against x, a row of panels per facet; shown: the columns of a tooltip."""

    x: str
    x_title: str
    ys: Sequence[str]
    facet: str
    log_x: bool
    shown: Sequence[str]


def curve_html(
    page_title: str,
    rows: Sequence[Row],
    *,
    x: str = "floor",
    x_title: str = "floor, tokens",
    ys: Sequence[str] = ("charged", "token_hit_rate"),
    facet: str = "model",
    marks: Sequence[Mark] = (),
    notes: Sequence[str] = (),
    log_x: bool = True,
) -> str:
    """A page with a row of charts per `facet`, one chart per figure of `ys` against `x`; same input, same page.

    rows: report rows (money Decimal, rates 0…1, None unknown). Those without an `x` are not on a curve but horizontal
    lines: `now`, and bounds (no tariff) by their name. Tooltips show what a report's table shows, the table under
    the charts every figure. marks: vertical lines. notes: sentences under the title, such as assumptions. log_x: equal
    ratios are equally far apart.

    Raises UsageError where the extra `charts` is not installed.
    """
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError as error:
        raise UsageError(f"HTML charts: {error.name} is missing; {INSTALL}") from error
    figures = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in ABOUT]
    question = _Question(x, x_title, ys, facet, log_x, _told(figures, rows))
    return _PAGE.format(
        policy=_POLICY,
        title=escape(clean(page_title)),
        style=_STYLE,
        notes="\n".join(["<ul>", *(f"<li>{escape(clean(note))}</li>" for note in notes), "</ul>"]) if notes else "",
        table="\n".join(_table(rows, figures)),
        vega=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        spec=_script_json(_spec(rows, question, marks)),
    )


def _told(figures: Sequence[str], rows: Sequence[Row]) -> list[str]:
    known = [name for name in figures if any(row.get(name) is not None for row in rows)]
    return table_columns(known, [{name: row.get(name) for name in known} for row in rows])


# -- the charts


def _spec(rows: Sequence[Row], question: _Question, marks: Sequence[Mark]) -> dict[str, Any]:
    """The Vega-Lite specification: a row of panels per facet."""
    import altair as alt

    placed = [row for row in rows if row.get(question.x) is not None]
    varied = [name for name in SETTINGS if name != question.x and len({row.get(name) for row in placed}) > 1]
    lines = list(dict.fromkeys(_line(row, varied) for row in placed))
    colour = alt.Color(
        "line:N",
        title=" · ".join(map(title, varied)),
        scale=alt.Scale(domain=lines, range=[PALETTE[i % len(PALETTE)] for i in range(len(lines))]),
        legend=alt.Legend(orient="top", labelLimit=400, columns=4) if varied else None,
    )
    facets = []
    for group in dict.fromkeys(row.get(question.facet) for row in rows):
        own = [row for row in rows if row.get(question.facet) == group]
        panels = _panels(own, [m for m in marks if m.group in (None, group)], question, varied, colour)
        heading = alt.Title(NONE if group is None else clean(str(group)), anchor="start", fontSize=15)
        facets.append(alt.hconcat(*panels, spacing=40).properties(title=heading))
    page = (
        alt.vconcat(*facets, spacing=30)
        .configure(font="system-ui, sans-serif")
        .configure_axis(gridColor="#eef0f3", domainColor="#9ca3af", tickColor="#9ca3af", titleFontWeight="normal")
        .configure_view(stroke=None)
    )
    return dict(page.to_dict())


def _panels(
    rows: Sequence[Row], marks: Sequence[Mark], question: _Question, varied: Sequence[str], colour: alt.Color
) -> list[Any]:
    """One panel per figure: its curves, what has no place on the axis as horizontal lines, and the marks."""
    import altair as alt

    placed = [row for row in rows if row.get(question.x) is not None]
    axis = _x_axis([*(row[question.x] for row in placed), *(mark.at for mark in marks)], question)
    points = alt.Chart(alt.InlineData(values=[_datum(row, question, varied) for row in placed]))
    tips = [alt.Tooltip(f"tip_{name}:N", title=title(name)) for name in question.shown]
    panels = []
    for y in question.ys:
        form = "%" if kind_of(y) == "rate" else "~g"
        upwards = alt.Y(
            f"y_{y}:Q",
            title=title(y),
            scale=alt.Scale(zero=False),
            axis=alt.Axis(format=form, minExtent=MARGIN, maxExtent=MARGIN),
        )
        curves = points.encode(x=axis, y=upwards, color=colour, tooltip=tips)
        layers = [
            *_level_layers(_levels(rows, question, y)),
            *_mark_layers(marks),
            curves.mark_line(strokeWidth=2),
            curves.mark_circle(size=45, opacity=1),
        ]
        panels.append(alt.layer(*layers, width=WIDTH, height=HEIGHT))
    return panels


def _one(at: float, label: str) -> alt.Chart:
    import altair as alt

    return alt.Chart(alt.InlineData(values=[{"at": at, "label": label}]))


def _x_axis(places: Sequence[float], question: _Question) -> alt.X:
    import altair as alt

    positive = [place for place in places if place > 0]
    scale = alt.Scale(nice=False, zero=False)
    if question.log_x and len(positive) == len(places):
        scale = alt.Scale(type="log", base=2, nice=False)
    elif question.log_x:  # a logarithm has no zero: linear below the least positive value
        scale = alt.Scale(type="symlog", constant=min(positive, default=1), nice=False)
    ticks = alt.Axis(values=_ticks(places), format=",~r", labelOverlap="greedy", labelSeparation=6, grid=False)
    return alt.X("x:Q", title=question.x_title, scale=scale, axis=ticks)


def _ticks(places: Sequence[float]) -> list[float]:
    """Values that are there: of 256, 512, 768, 1024 … the doublings of the first, of others all of them."""
    every = sorted(set(places))
    least = min((place for place in every if place > 0), default=1)
    doublings = [place for place in every if place > 0 and log2(place / least).is_integer()]
    return doublings if len(doublings) > 2 else every


def _level_layers(levels: Iterable[tuple[str, float]]) -> Iterator[alt.Chart]:
    """Horizontal lines, named near their right end, one name beside the other: lines may lie close together."""
    import altair as alt

    for place, (label, at) in enumerate(levels):
        level = _one(at, label).encode(y="at:Q")
        yield level.mark_rule(color=GREY, strokeDash=[4, 4])
        text = level.mark_text(color=GREY, fontSize=11, align="right", baseline="bottom", dx=-2, dy=-2)
        yield text.encode(x=alt.value(WIDTH - LABEL_WIDTH * place), text="label:N")


def _mark_layers(marks: Sequence[Mark]) -> Iterator[alt.Chart]:
    """Vertical lines, named above the panel, one name above the other."""
    import altair as alt

    for place, mark in enumerate(marks):
        text = f"{clean(mark.label)} {_plain_number(mark.at)}"
        line = _one(mark.at, text).encode(x="at:Q")
        yield line.mark_rule(color=MARK_COLOUR, strokeDash=[2, 3])
        above = line.mark_text(color=MARK_COLOUR, fontSize=11, baseline="bottom")
        yield above.encode(y=alt.value(-3 - 13 * place), text="label:N")


# -- the data


def _line(row: Row, varied: Sequence[str]) -> str:
    """What tells the row's curve from the others of its facet."""
    return " · ".join(NONE if row.get(name) is None else clean(str(row[name])) for name in varied)


def _datum(row: Row, question: _Question, varied: Sequence[str]) -> dict[str, Any]:
    """A point: floats to draw, exact texts to read."""
    drawn = {f"y_{y}": None if row.get(y) is None else float(row[y]) for y in question.ys}
    texts = {f"tip_{name}": _exact(name, row.get(name)) for name in question.shown}
    return {"x": row[question.x], "line": _line(row, varied), **drawn, **texts}


def _levels(rows: Sequence[Row], question: _Question, y: str) -> Iterator[tuple[str, float]]:
    """Name and height of the rows without a place on the axis, but not of `off`: its zeros would squeeze the curves."""
    for row in rows:
        if row.get(question.x) is not None or row.get(y) is None:
            continue
        name = str(row.get("policy")).partition(" (")[0]
        if row.get("tariff") is not None and row.get("variant", NOW) == NOW:
            yield "now", float(row[y])
        elif row.get("tariff") is None and name != "off":
            yield clean(name), float(row[y])


def _exact(name: str, value: Any) -> str:
    if isinstance(value, Decimal):
        return money_text(value)
    return _plain_number(value) if type(value) is int else cell(name, value)


def _plain_number(value: float) -> str:
    return number(int(value)) if value == int(value) else f"{value:g}"


def _table(rows: Sequence[Row], figures: Sequence[str]) -> Iterator[str]:
    """Every figure as an HTML table: what the charts show without looking, and without JavaScript."""
    kinds = [' class="text"' if kind_of(name) == "text" else "" for name in figures]
    heads = (f"<th{kind}>{escape(title(name))}</th>" for name, kind in zip(figures, kinds, strict=True))
    yield f"<table><thead><tr>{''.join(heads)}</tr></thead><tbody>"
    for row in rows:
        texts = (escape(_exact(name, row.get(name))) for name in figures)
        yield f"<tr>{''.join(f'<td{k}>{text}</td>' for k, text in zip(kinds, texts, strict=True))}</tr>"
    yield "</tbody></table>"


def _script_json(spec: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element: no name in the data can end it."""
    return json.dumps(spec, sort_keys=True).replace("<", "\\u003c")
