"""Curves for a terminal: one figure against one axis, a line a series, on a canvas of braille dots.

Money and rates come in exact; they become floats only to find the dot they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import pairwise
from math import log2
from string import ascii_letters
from typing import TYPE_CHECKING, Final

from cachesim.report.column import Kind
from cachesim.report.formats import clean
from cachesim.report.tables import money, number

if TYPE_CHECKING:
    from plotille import Canvas  # type: ignore[import-untyped]

Value = Decimal | float | None
Points = Sequence[tuple[float, Value]]
Written = Callable[[float], str]

LEAST_COLUMNS: Final = 20
"""A drawing narrower than this says nothing: there is a remark instead."""
ROWS_PER_TICK: Final = 4
COLUMNS_PER_LETTER: Final = 4
"""Letters on a line are at least this far apart, or the line could not be seen between them."""
COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue", "red")
MARK_COLOUR: Final = "bright_black"
_DOTS_WIDE: Final = 2
_DOTS_HIGH: Final = 4
_BLANK: Final = "\N{BRAILLE PATTERN BLANK}"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the horizontal axis that the reader has to find: `now`, `best`.

    group: the facet it belongs to (a model), None: every one; only pages have facets.
    """

    label: str
    at: float
    group: str | None = None


def curve_text(
    series: Mapping[str, Points],
    *,
    x_title: str,
    y_title: str,
    width: int,
    height: int = 16,
    marks: Sequence[Mark] = (),
    y_kind: Kind = "money",
    log_x: bool = False,
    x_text: Written | None = None,
    colour: bool = False,
) -> str:
    """The chart as lines at most `width` cells wide, the drawing `height` lines high; the same input, the same text.

    series: (x, y) by name; a y of None is unknown and leaves a gap. Letters stand where values are, lines only connect
    them. log_x: equal ratios are equally far apart (an x of 0 stands an octave left of the least positive one).
    x_text: how a value of that axis is written (default: as a count). colour: only for a terminal that shows it;
    without it there is no escape sequence in the text.
    """
    known = [y for points in series.values() for _, y in points if y is not None]
    if not known:
        return _cut(f"no chart: {y_title} is unknown everywhere", width)
    ticks = _y_ticks(min(known), max(known), max(2, height // ROWS_PER_TICK))
    left = _left_side(ticks, y_kind, height)
    margin = len(left[0])
    if width < margin + LEAST_COLUMNS:
        return _cut(f"no chart: {margin + LEAST_COLUMNS} columns needed", width)
    axis = _axis([*(x for points in series.values() for x, _ in points), *(m.at for m in marks)], log_x, width - margin)
    limits = float(ticks[0]), float(ticks[-1])
    drawing = _draw(list(series.values()), [m.at for m in marks], axis, limits, height, colour)
    write = x_text or _count
    axis_lines = _x_labels(axis, write, {m.at for m in marks})
    lines = [
        _cut(y_title, width),
        *(" " * margin + line for line in _mark_lines(marks, axis, write)),
        *(start + line for start, line in zip(left, drawing, strict=True)),
        " " * (margin - 1) + axis_lines[0],
        " " * margin + axis_lines[1],
        " " * margin + _cut(x_title, axis.columns).center(axis.columns),
        *_legend(list(series), width, colour),
    ]
    return "\n".join(line.rstrip() for line in lines)


# -- the axes


@dataclass(frozen=True, slots=True)
class _Axis:
    """The horizontal axis: the dot that every one of its values stands on, by value, ascending."""

    columns: int
    dots: dict[float, int]

    def column(self, x: float) -> int:
        return self.dots[x] // _DOTS_WIDE


def _axis(values: Iterable[float], log: bool, columns: int) -> _Axis:
    every = sorted(set(values))
    least = min((x for x in every if x > 0), default=1)
    places = [log2(x if x > 0 else least / 2) if log else float(x) for x in every]
    span = places[-1] - places[0]
    last = columns * _DOTS_WIDE - 1
    dots = [round((place - places[0]) / span * last) if span else last // 2 for place in places]
    return _Axis(columns, dict(zip(every, dots, strict=True)))


def _y_ticks(least: Decimal | float, most: Decimal | float, about: int) -> list[Decimal]:
    """Round values from below the least to above the most figure, some `about` many: steps of 1, 2, 2.5 or 5 × 10ⁿ.

    From 0.21 to 0.3 in about 4 steps: 0.2, 0.225, 0.25, 0.275, 0.3.
    """
    low, high = Decimal(str(least)), Decimal(str(most))
    if low == high:
        spread = abs(low) / 10 or Decimal(1)
        low, high = low - spread, high + spread
    rough = (high - low) / about
    power = Decimal(1).scaleb(rough.adjusted())
    step = next(factor * power for factor in map(Decimal, ("1", "2", "2.5", "5", "10")) if factor * power >= rough)
    first = int((low / step).to_integral_value(ROUND_FLOOR))
    last = int((high / step).to_integral_value(ROUND_CEILING))
    return [step * i for i in range(first, last + 1)]


def _y_text(tick: Decimal, step: Decimal, kind: Kind) -> str:
    decimals = max(0, -int(step.normalize().as_tuple().exponent))
    if kind == "rate":
        sign = "−" if tick < 0 else ""
        return f"{sign}{abs(tick) * 100:.{max(0, decimals - 2)}f} %"
    return money(tick, max(2, decimals) if kind == "money" else decimals)


def _left_side(ticks: Sequence[Decimal], kind: Kind, height: int) -> list[str]:
    """What stands left of every line of the drawing, from the top: the label of a tick, and the axis."""
    labels = [_y_text(tick, ticks[1] - ticks[0], kind) for tick in ticks]
    width = max(map(len, labels))
    lines = [" " * width + " │"] * height
    for tick, label in zip(ticks, labels, strict=True):
        row = _y_dot(float(tick), (float(ticks[0]), float(ticks[-1])), height) // _DOTS_HIGH
        lines[height - 1 - row] = f"{label.rjust(width)} ┤"
    return lines


def _x_labels(axis: _Axis, write: Written, wanted: set[float]) -> list[str]:
    """The axis and its labels, of values that are there: ends, marks, then the roundest, as far as they fit."""
    ends = {min(axis.dots), max(axis.dots)}
    order = sorted(axis.dots, key=lambda x: (x not in ends, x not in wanted, -_roundness(x), x))
    line, taken = ["─"] * axis.columns, [" "] * (axis.columns + 2)
    for x in order:
        text = _cut(write(x), axis.columns)
        start = _inside(axis.column(x) - len(text) // 2, len(text), axis.columns)
        if all(cell == " " for cell in taken[max(start - 1, 0) : start + len(text) + 1]):
            taken[start : start + len(text)] = text
            line[axis.column(x)] = "┬"
    return ["└" + "".join(line), "".join(taken)]


def _roundness(x: float) -> int:
    """How often 2 divides a whole number: among 256, 512, 768 and 1024 the powers of two come first."""
    return (int(x) & -int(x)).bit_length() if x == int(x) else 0


def _mark_lines(marks: Sequence[Mark], axis: _Axis, write: Written) -> list[str]:
    """The labels of the marks above their columns, in as many lines as it takes."""
    lines: list[str] = []
    for x in sorted({mark.at for mark in marks}):
        names = ", ".join(dict.fromkeys(clean(mark.label) for mark in marks if mark.at == x))
        text = _cut(f"{names} {write(x)}", axis.columns)
        start = _inside(axis.column(x) - _cells(text) // 2, _cells(text), axis.columns)
        place = next((i for i, line in enumerate(lines) if _cells(line) + 2 <= start), None)
        if place is None:
            lines.append(" " * start + text)
        else:
            lines[place] += " " * (start - _cells(lines[place])) + text
    return lines


def _inside(start: int, length: int, columns: int) -> int:
    return max(0, min(start, columns - length))


# -- the drawing


def _draw(
    curves: Sequence[Points],
    marks: Sequence[float],
    axis: _Axis,
    limits: tuple[float, float],
    height: int,
    colour: bool,
) -> list[str]:
    """The lines of the canvas, from the top; its coordinates are dots."""
    from plotille import Canvas

    canvas = Canvas(axis.columns, height, 0, 0, axis.columns * _DOTS_WIDE, height * _DOTS_HIGH)
    for x in marks:
        for dot in range(0, height * _DOTS_HIGH, 2):
            canvas.point(axis.column(x) * _DOTS_WIDE, dot, color=MARK_COLOUR if colour else None)
    for place, points in enumerate(curves):
        run: list[tuple[int, int]] = []
        runs = [run]
        for x, y in sorted(points, key=lambda point: point[0]):
            if y is None:
                runs.append(run := [])
            else:
                run.append((axis.dots[x], _y_dot(float(y), limits, height)))
        for run in runs:
            _draw_run(canvas, run, _letter(place), _colour(place) if colour else None)
    return str(canvas.plot("\n")).replace(_BLANK, " ").split("\n")


def _draw_run(canvas: Canvas, run: Sequence[tuple[int, int]], letter: str, colour: str | None) -> None:
    for (x, y), (next_x, next_y) in pairwise(run):
        canvas.line(x, y, next_x, next_y, color=colour)
    free = 0
    for x, y in run:
        if x // _DOTS_WIDE >= free:
            canvas.point(x, y, color=colour, marker=letter)
            free = x // _DOTS_WIDE + COLUMNS_PER_LETTER


def _y_dot(value: float, limits: tuple[float, float], height: int) -> int:
    low, high = limits
    return round((value - low) / (high - low) * (height * _DOTS_HIGH - 1))


def _letter(place: int) -> str:
    return ascii_letters[place % len(ascii_letters)]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _legend(names: Sequence[str], width: int, colour: bool) -> list[str]:
    """Letter and name of every series, several to a line where they fit; a name wider than a line folds."""
    from plotille import color
    from rich.cells import chop_cells

    lines: list[str] = []
    used = width
    for place, name in enumerate(names):
        text = f"{_letter(place)} {clean(name)}"
        pieces = chop_cells(text, max(width, 2))
        shown = [color(piece, fg=_colour(place)) if colour else piece for piece in pieces]
        if used + 3 + _cells(text) <= width:
            lines[-1] += f" · {shown[0]}"
            used += 3 + _cells(text)
        else:
            lines += shown
            used = _cells(pieces[-1])
    return lines


def _count(x: float) -> str:
    return number(int(x)) if x == int(x) else f"{x:g}"


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, width: int) -> str:
    """`text` in at most `width` cells; what had to be cut ends in `…`."""
    from rich.cells import set_cell_size

    if _cells(text) <= width:
        return text
    return f"{set_cell_size(text, width - 1).rstrip()}…" if width > 0 else ""
