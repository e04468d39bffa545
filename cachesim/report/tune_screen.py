"""The screen of `tune`: answer first, then the curve, tables along every axis that was swept, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachesim.recommend import Choice, Objective
from cachesim.report.columns import BY_NAME
from cachesim.report.formats import clean
from cachesim.report.lifetimes import GAPS, REACHES, bands, lifetimes, seconds_of, tier_choices
from cachesim.report.render import explain_columns, note_dropped, say
from cachesim.report.sweeps import FAR, NOW, UNLIMITED, along, bound_rows
from cachesim.report.tables import NONE, number, table, table_columns
from cachesim.report.tune_words import (
    LABELS,
    answer_lines,
    fact_lines,
    fan_out_text,
    gaps_text,
    headline,
    lifetime_text,
    reach_text,
    tier_choice_text,
)
from cachesim.report.tuning import Row, Tuning

if TYPE_CHECKING:
    from rich.console import Console

TOP: Final = 12
"""Rows of a table along one axis, unless asked for more."""
GROUPS_SHOWN: Final = 6
_MONEY: Final = ("charged", "delta", "change", "change_share", "principals_better", "principals_worse", "unpriced")
_USE: Final = ("token_hit_rate", "cacheable_hit_rate", "request_hit_rate")
FLOOR_COLUMNS: Final = (
    "eligible", "read_tokens", "creation_tokens", *_USE, *_MONEY[:4], "index_writes", "live_entries",
    "near_5", "near_10", *_MONEY[4:],
)  # fmt: skip
TTL_COLUMNS: Final = (
    "read_tokens", "creation_tokens", "creation_5m_tokens", "creation_1h_tokens", "creation_24h_tokens",
    "creation_custom_tokens",
    *_USE[:2], *_MONEY[:4], "index_writes", "live_entries", "dead_writes", "dead_premium", *_MONEY[4:],
)  # fmt: skip
OTHER_COLUMNS: Final = (
    "eligible", "read_tokens", "creation_tokens", *_USE, *_MONEY[:4], "index_writes", "live_entries", *_MONEY[4:],
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """A section of the screen: the slice of the grid through `now` along one setting."""

    name: str
    title: str
    columns: Sequence[str]


AXES: Final = (
    Axis("floor", "Floors", FLOOR_COLUMNS),
    Axis("ttl", "Lifetimes, given to every entry", TTL_COLUMNS),
    Axis("markers", "Marker strategies", OTHER_COLUMNS),
    Axis("walk_back", "Walk-back", OTHER_COLUMNS),
    Axis("window", "Windows", OTHER_COLUMNS),
    Axis("policy", "Policies", OTHER_COLUMNS),
    Axis("tariff", "Tariffs", OTHER_COLUMNS),
)


def tune_screen(
    tuning: Tuning,
    console: Console,
    *,
    top: int = TOP,
    chart: bool = True,
    explain: bool = False,
    db: str | None = None,
) -> None:
    """Print what a sweep found. top: rows per table; chart: draw the curve of every model; explain: define columns.

    db: the --db option to repeat in suggested commands, None for the default database.
    """
    say(console, headline(tuning), "bold")
    if tuning.answers:
        _answers(tuning, console)
    if chart and "floor" in tuning.varied:
        _curve(tuning, console)
    dropped: list[str] = []
    for axis in AXES:
        if axis.name in tuning.varied:
            dropped += _section(tuning, axis, console, top)
    console.print()
    console.print(_grid(list(fact_lines(tuning, f" --db {db}" if db else "")), fold=1, dim=True))
    note_dropped(console, dropped)
    if explain:
        shown = {name: None for axis in AXES if axis.name in tuning.varied for name in (axis.name, *axis.columns)}
        explain_columns(console, list(shown))


def _answers(tuning: Tuning, console: Console) -> None:
    """Per model what to do and what it brings, and under it why."""
    from rich.cells import cell_len

    lines = answer_lines(tuning)
    widths = [max(cell_len(line[i]) for line in lines) for i in range(3)]
    console.print()
    for *cells, why in lines:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
        say(console, "  ".join(padded).rstrip())
        console.print(_grid([("", why)], fold=1))


def _grid(rows: Sequence[Sequence[str]], *, fold: int, dim: bool = False) -> Any:
    """Lines in columns, of which the one numbered `fold` takes what width is left."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for number_of_column in range(fold + 1):
        last = number_of_column == fold
        grid.add_column(style="dim" if dim and not last else "", no_wrap=not last, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


# -- the curve


def _curve(tuning: Tuning, console: Console) -> None:
    """One line per model: how its bill moves with the floor, in shares of what it is now, so that all fit one chart."""
    from cachesim.report.charts import Mark, curve_text

    figure, title = "change_share", "change of the bill to now"
    if tuning.objective is Objective.TOKEN_HIT_RATE or all(row["change"] is None for row in tuning.models):
        figure, title = "token_hit_rate", "token hit rate"
    series, marks = {}, []
    for model, rows in _blocks(tuning.models, ["model"])[:GROUPS_SHOWN]:
        name = clean(model[0] or NONE)
        points = sorted((row["floor"], row[figure]) for row in along(rows, "floor") if row["floor"] is not None)
        if any(value is not None for _, value in points):
            series[name] = points
        answer = tuning.answer(model[0])
        if isinstance(answer, Choice) and not answer.keep and answer.best is not None:
            marks.append(Mark(f"best {name}" if len(tuning.answers) > 1 else "best", answer.best))
    if not series:
        return
    present = {tuning.facts.present_floors.get(model, None) for model in series}
    if len(present) == 1 and (floor := present.pop()) is not None:
        marks.insert(0, Mark("now", floor))
    console.print()
    text = curve_text(
        series,
        x_title="floor, tokens",
        y_title=title,
        width=min(console.width, 100),
        height=12,
        marks=marks,
        y_kind="rate",
        log_x=True,
        colour=console.is_terminal,
    )
    console.out(text, highlight=False)


# -- tables along an axis


def _section(tuning: Tuning, axis: Axis, console: Console, top: int) -> list[str]:
    """A table per group, largest first, all with the same columns; the words that belong to it; what did not fit."""
    groups = [(key, rows) for key, rows in _blocks(tuning.rows, tuning.by) if len(along(rows, axis.name)) > 1]
    if not groups:  # its values come with other settings: no two variants differ in this one alone
        return []
    blocks = [*([((), tuning.totals)] if len(groups) > 1 else []), *groups[:GROUPS_SHOWN]]
    tables = [_lines(tuning, axis, key, rows, top) for key, rows in blocks]
    every = [row for lines, _ in tables for row in lines]
    columns = table_columns(axis.columns, every, machine=True)
    dropped: list[str] = []
    for lines, _ in tables:
        dropped += table([axis.name, *columns], lines, console.width, keep=[axis.name])[1]
    columns = [name for name in columns if name not in dropped]
    say(console, f"\n{axis.title}", "bold")
    for (key, rows), (lines, _) in zip(blocks, tables, strict=True):
        name = (
            " · ".join(clean(str(value or NONE)) for value in key) or f"all, the same {LABELS[axis.name][0]} for each"
        )
        say(console, f"\n{name}{_estimated(tuning, key)}")
        console.print(table([axis.name, *columns], lines, console.width, keep=[axis.name])[0])
        if "model" in tuning.by and key:
            console.print(_grid([("", line) for line in _words(tuning, axis, rows)], fold=1))
    if axis.name == "walk_back":
        found = [fan_out_text(one) for one in tuning.fan_outs] or [
            "no model: nothing alive lies further back than the walk-back looks now"
        ]
        console.print(_grid([("", line) for line in found], fold=1))
    if hidden := max((left_out for _, left_out in tables), default=0):
        say(console, f"{hidden} more rows a table: --top N shows more, --format csv every grid point.", "dim")
    if len(groups) > GROUPS_SHOWN:
        say(console, f"{len(groups) - GROUPS_SHOWN} more groups: --format csv has them.", "dim")
    return dropped


def _blocks(rows: Sequence[Row], by: Sequence[str]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """The rows of each group, the groups with the most prompt tokens under `now` first."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)

    def weight(block: tuple[tuple[Any, ...], list[Row]]) -> tuple[int, str]:
        now = next((row for row in block[1] if row["variant"] == NOW), None)
        return (-now["prompt_tokens"] if now else 0, str(block[0]))

    return sorted(found.items(), key=weight)


def _lines(tuning: Tuning, axis: Axis, key: tuple[Any, ...], rows: Sequence[Row], top: int) -> tuple[list[Row], int]:
    """The rows of one table, labelled, and how many were left out; `ideal` closes a table of marker strategies."""
    answer = tuning.answer(key[0]) if tuning.by == ["model"] and key else None
    lines = _ordered(tuning, axis, rows, answer)
    shown = _thinned(lines, top)
    left_out = len(lines) - len(shown)
    if axis.name == "markers":
        shown += [("ideal (bound)", _bare(row)) for row in bound_rows(rows, "ideal")[:1]]
    return [{**row, axis.name: label} for label, row in shown], left_out


def _bare(bound: Row) -> Row:
    """A bound has reads and nothing else."""
    kept = ("read_tokens", "token_hit_rate", "request_hit_rate")
    return {name: value if name in kept or name not in BY_NAME else None for name, value in bound.items()}


def _estimated(tuning: Tuning, key: tuple[Any, ...]) -> str:
    models = set(key) if tuning.by == ["model"] and key else set(tuning.facts.present_floors)
    return " · tokens estimated" if models & tuning.facts.estimated_models else ""


def _ordered(tuning: Tuning, axis: Axis, rows: Sequence[Row], answer: Any) -> list[tuple[str, Row]]:
    """The slice along the axis with its labels, `now` and `best` marked, in the order of the axis."""
    slice_of = along(rows, axis.name)
    now, others = slice_of[0], slice_of[1:]
    present = now[axis.name]
    if axis.name == "floor":
        floors = {tuning.facts.present_floors.get(model) for model in _models_of(tuning, rows)}
        present = floors.pop() if present is None and len(floors) == 1 else present
        others = [row for row in others if row["floor"] != present]
    best = answer.best if axis.name == "floor" and isinstance(answer, Choice) and not answer.keep else None
    lines = [(f"now {_label(axis, present)}".rstrip(), present, now)]
    lines += [
        (f"best {_label(axis, row['floor'])}" if best is not None and row["floor"] == best else
         _label(axis, row[axis.name]), row[axis.name], row)
        for row in others
    ]  # fmt: skip
    if axis.name in ("floor", "walk_back") and present is not None:
        lines.sort(key=lambda line: line[1])
    if axis.name == "ttl":
        lines[1:] = sorted(lines[1:], key=lambda line: (seconds_of(line[1]), line[1]) if line[1] else (0, ""))
    return [(label, row) for label, _, row in lines]


def _models_of(tuning: Tuning, rows: Sequence[Row]) -> list[str]:
    """The models a block is about: its own, or all of them."""
    own = {row["model"] for row in rows if "model" in row}
    return sorted(own & set(tuning.facts.present_floors)) if own else sorted(tuning.facts.present_floors)


def _label(axis: Axis, value: Any) -> str:
    if value is None:
        return "" if axis.name == "floor" else "as marked"
    return number(value) if isinstance(value, int) else clean(str(value))


def _thinned(lines: Sequence[tuple[str, Row]], top: int) -> list[tuple[str, Row]]:
    """At most about `top` lines: the marked ones, the ends, and others evenly between them."""
    if len(lines) <= top:
        return list(lines)
    wanted = {i for i, (label, _) in enumerate(lines) if label.startswith(("now", "best"))}
    step = (len(lines) - 1) / max(1, top - 1)
    wanted |= {round(i * step) for i in range(top)}
    return [line for i, line in enumerate(lines) if i in wanted]


def _words(tuning: Tuning, axis: Axis, rows: Sequence[Row]) -> list[str]:
    """What belongs below a model's table: what lifetimes must earn, when entries are read, how far back they lie."""
    if axis.name == "ttl":
        found = lifetimes(along(rows, "ttl"), tuning.factors)
        return [
            *(lifetime_text(one) for one in found),
            *(tier_choice_text(one) for one in tier_choices(found)),
            *(gaps_text(one) for one in bands(bound_rows(rows, UNLIMITED), GAPS)),
        ]
    if axis.name == "walk_back":
        return [reach_text(one) for one in bands(bound_rows(rows, FAR), REACHES)]
    return []
