"""What `cachesim tariffs` shows people: the tables of a set, and the changes between two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.ledger import TariffSet
from cachesim.report.render import explain_columns, note_dropped, say
from cachesim.report.tables import NONE, counted, number, table, table_columns
from cachesim.report.times import instant_text
from cachesim.tariffs.rows import BASE_FIGURES, BREAK_EVEN, CACHE_FIGURES, SCOPE

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, Any]
_FIGURES: Final = {"cache": (*CACHE_FIGURES, "break_even_reads"), "base": ("purpose", *BASE_FIGURES)}
_TITLES: Final = {"cache": "cache tariffs (factors on the input price)", "base": "base tariffs (per million tokens)"}
_REST: Final = ("holds", "age_days", "sets_price", "source")
_SIGNS: Final = {"added": ("+", "green"), "removed": ("−", "red"), "changed": ("~", "yellow")}
_HEAD: Final = ("status", "ledger", "model", "purpose", "completion_window", "valid_from", "source_a", "source_b")


def print_set(out: Console, tariff: TariffSet, rows: Sequence[Row], as_of_us: int | None, *, explain: bool) -> None:
    """One table per ledger of the set, its warnings, and with `explain` what the columns mean."""
    models = len({row["model"] for row in rows})
    as_of = "" if as_of_us is None else f"; ages as of {instant_text(as_of_us // 1_000_000 * 1_000_000)}"
    say(out, f"Tariff set {tariff.name}: {counted('tariff', len(rows))} of {counted('model', models)}{as_of}.", "bold")
    dropped: list[str] = []
    shown: list[str] = []
    for ledger, group in groupby(rows, key=lambda row: row["ledger"]):
        listed = [_shown(row) for row in group]
        columns = table_columns(list(_columns(ledger, listed)), listed)
        grid, left = table(columns, listed, out.width, keep=("model",))
        say(out, f"\n{_TITLES[ledger]}", "bold")
        out.print(grid)
        dropped += left
        shown += columns
    out.print()
    for text in tariff.warnings:
        say(out, text)
    note_dropped(out, dropped)
    if explain:
        explain_columns(out, list(dict.fromkeys(shown)))


def _shown(row: Row) -> Row:
    """The row with what people read in fewer, shorter columns than programs."""
    prices = row["source"].partition(": ")[0]
    return row | {
        "purpose": None if row["purpose"] is None else " ".join(filter(None, (row[name] for name in SCOPE))),
        "break_even_reads": _break_even(row),
        "holds": _holds(row),
        "source": row["source"] if not row["assumed"] else "assumed" if row["ledger"] == "cache" else prices,
    }


def _break_even(row: Row) -> str:
    return " / ".join(NONE if row[name] is None else number(row[name]) for name in BREAK_EVEN)


def _holds(row: Row) -> str:
    begins, ends = (None if row[name] is None else _short(row[name]) for name in ("valid_from", "valid_until"))
    if begins is None:
        return "always" if ends is None else f"until {ends}"
    return f"from {begins}" if ends is None else f"{begins} – {ends}"


def _short(at_us: int) -> str:
    """A date for its midnight in UTC.

    >>> _short(86_400_000_000), _short(86_401_000_000)
    ('1970-01-02', '1970-01-02T00:00:01Z')
    """
    return instant_text(at_us).removesuffix("T00:00:00Z")


def _columns(ledger: str, rows: Sequence[Row]) -> Iterator[str]:
    """Those of the ledger; what no row of it has is left out, and who sets the price where all do."""
    for name in ("model", "name", *_FIGURES[ledger], *_REST):
        if name == "sets_price":
            if any(row[name] is False for row in rows):
                yield name
        elif name != "name" or any(row[name] for row in rows):
            yield name


def print_changes(out: Console, rows: Sequence[Row], a: str, b: str) -> None:
    """One block per row of a ledger that was added, removed or changed."""
    if not rows:
        say(out, f"{a} and {b} hold the same tariffs.")
        return
    for head, group in groupby(rows, key=lambda row: tuple(row[name] for name in _HEAD)):
        status, ledger, model, purpose, window, begins, *sources = head
        sign, style = _SIGNS[status]
        scope = " ".join(part for part in (ledger, model, purpose, window) if part is not None)
        since = "always" if begins is None else f"from {instant_text(begins)}"
        say(out, f"{sign} {scope} {since}  ({' → '.join(source for source in sources if source)})", style)
        for row in group:
            sides = [side for side in ("before", "after") if status == "changed" or row[side] is not None]
            say(out, f"    {row['field']}: {' → '.join(row[side] or NONE for side in sides)}")
