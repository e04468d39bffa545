"""Tables for people: aligned numbers, honest rounding, and columns that leave by weight when the terminal is narrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, Final

from cachesim.report.columns import BY_NAME, kind_of
from cachesim.report.formats import clean, money_text
from cachesim.report.times import instant_text

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]
NONE: Final = "–"
GAP: Final = 2
MONEY_DIGITS: Final = 3
SIGNED: Final = frozenset(
    {
        "delta",
        "drift",
        "read_change",
        "delta_share",
        "change",
        "change_share",
        "revenue_change",
        "revenue_change_share",
        "charged_change",
        "charged_share",
        "per_mtok_share",
        "read_tokens_change",
        "creation_tokens_change",
        "count_change",
        "bill_change",
        "bill_change_share",
        "uncounted_tokens",
        "uncounted_per_request",
        "uncounted_per_message",
    }
)
"""Differences: a plus sign shows that they are."""
LEAST_NAME: Final = 8
KEEP: Final = 1000
"""The weight of columns that never leave a table: the ones that say what a row is about."""


def number(value: int) -> str:
    """1234567 → '1,234,567'."""
    return f"{value:,}"


def counted(noun: str, count: int) -> str:
    """`1 finding`, `4 findings`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def signed_number(value: int) -> str:
    """1234 → '+1,234', −5 → '−5', 0 → '0'."""
    return f"{'−' if value < 0 else '+' if value else ''}{abs(value):,}"


def percent(share: float, *, signed: bool = False) -> str:
    """0.612 → '61.2 %'; what would round to 0 or 100 without being it says so: '<0.1 %', '>99.9 %'."""
    scaled = abs(share) * 100
    sign = "−" if share < 0 else "+" if signed and share else ""
    if 0 < scaled < 0.05:
        return f"{sign}<0.1 %"
    if 99.95 <= scaled < 100:
        return f"{sign}>99.9 %"
    return f"{sign}{scaled:,.1f} %"


def points(difference: float) -> str:
    """0.031 → '+3.1 pp', the difference of two rates in percentage points."""
    return percent(difference, signed=True).replace("%", "pp")


def money_decimals(values: Sequence[Decimal | None]) -> int:
    """Decimals that show at least three digits of the largest value, and never fewer than two."""
    largest = max((abs(v) for v in values if v), default=Decimal(1))
    return max(2, MONEY_DIGITS - 1 - largest.adjusted())


def change_decimals(sums: Sequence[Decimal | None], changes: Sequence[Decimal | None]) -> int:
    """Decimals that also show two digits of the largest change, be it small beside the sums; at most 8."""
    needed = money_decimals(sums)
    return min(8, max(needed, money_decimals(changes) - 1)) if any(changes) else needed


def money(value: Decimal, decimals: int, *, signed: bool = False) -> str:
    """Decimal('-6.295'), 2 → '−6.30', half away from zero; what would round to zero without being it: '<0.01'."""
    sign = "−" if value < 0 else "+" if signed and value else ""
    step = Decimal(1).scaleb(-decimals)
    if value and abs(value) < step / 2:
        return f"{sign}<{step:f}"
    return f"{sign}{abs(value).quantize(step, ROUND_HALF_UP):,f}"


def cell(name: str, value: Any, decimals: int = 2) -> str:
    """The text of one value of the column `name`."""
    if value is None:
        return NONE
    match kind_of(name):
        case "count" | "tokens" if name in SIGNED:
            return signed_number(value)
        case "money":
            return money(value, decimals, signed=name in SIGNED)
        case "exact":
            return money_text(value)
        case "rate":
            return percent(value, signed=name in SIGNED)
        case "mean":
            return f"{value:{'+' if name in SIGNED else ''},.1f}".replace("-", "−")
        case "points":
            return points(value)
        case "time":
            return instant_text(value)
        case "flag":
            return "yes" if value else "no"
        case _:
            return number(value) if isinstance(value, int) else clean(str(value))


def table(
    columns: Sequence[str],
    rows: Sequence[Row],
    width: int,
    *,
    total: Row | None = None,
    keep: Sequence[str] = (),
    decimals: int | None = None,
) -> tuple[Table, list[str]]:
    """A table of `columns` at most `width` cells wide, and the names of the columns that had to leave.

    `total` becomes a last row under a line; `keep`: columns that never leave; `decimals` of money, None: as many as the
    largest sum needs. Names are never cut: they fold into
    several lines where they must.
    """
    lines = [*rows, *([total] if total else [])]
    if decimals is None:
        decimals = money_decimals([row[name] for row in lines for name in columns if kind_of(name) == "money"])
    texts = {name: [cell(name, row.get(name), decimals) for row in lines] for name in columns}
    if total:
        first = next((name for name in columns if kind_of(name) == "text"), None)
        texts = {n: [*t[:-1], "all" if n == first else "" if kind_of(n) == "text" else t[-1]] for n, t in texts.items()}
    heads = {name: title(name) for name in columns}
    widths = {name: _width(name, heads[name], texts[name], width) for name in columns}
    kept, dropped = fit(widths, width, keep)
    widths = _widen(_narrow({name: widths[name] for name in kept}, width), heads, width)
    return _build(kept, heads, texts, widths, total is not None), dropped


def change_cell(name: str, value: Any, decimals: int = 2) -> str:
    """The text of a difference in the column `name`: always with its sign, a rate's in percentage points."""
    if value is None:
        return NONE
    match kind_of(name):
        case "money":
            return money(value, decimals, signed=True)
        case "rate":
            return points(value)
        case _:
            return signed_number(value)


def title(name: str) -> str:
    """What stands above a column."""
    return BY_NAME[name].title if name in BY_NAME else name if name.startswith("tag:") else name.replace("_", " ")


def _width(name: str, head: str, texts: Sequence[str], width: int) -> int:
    from rich.cells import cell_len

    longest = max(map(cell_len, texts), default=0)
    if kind_of(name) == "text":
        longest = min(longest, max(24, width // 3))
    return max(longest, max(map(cell_len, head.split()), default=0))


def fit(widths: dict[str, int], width: int, keep: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Column names that fit into `width` in order, and those dropped, lightest first; `keep` are never dropped."""
    kept, dropped = list(widths), []
    while _needed(widths[name] for name in kept) > width:
        lightest = min((name for name in kept if name not in keep), key=weight, default=None)
        if lightest is None or weight(lightest) >= KEEP:
            break
        kept.remove(lightest)
        dropped.append(lightest)
    return kept, dropped


def _needed(widths: Iterable[int]) -> int:
    return sum(width + GAP for width in widths) - 1


def _narrow(widths: dict[str, int], width: int) -> dict[str, int]:
    """Fold names more often where even what never leaves is too wide: a figure must not be cut, whatever it is."""
    out = dict(widths)
    names = [name for name in widths if kind_of(name) == "text"]
    while names and _needed(out.values()) > width:
        widest = max(names, key=lambda name: out[name])
        if out[widest] <= LEAST_NAME:
            break
        out[widest] -= 1
    return out


def _widen(widths: dict[str, int], heads: dict[str, str], width: int) -> dict[str, int]:
    """Give headings one line instead of several as long as there is room, the heaviest columns first."""
    out = dict(widths)
    for name in sorted(widths, key=weight, reverse=True):
        wider = {**out, name: max(out[name], len(heads[name]))}
        if _needed(wider.values()) <= width:
            out = wider
    return out


def weight(name: str) -> int:
    """How long a column stays in a narrow table."""
    if name in BY_NAME:
        return BY_NAME[name].weight
    return _OTHER_WEIGHTS.get(name, KEEP)


_OTHER_WEIGHTS: Final = {
    "outcome": 99, "at": 45, "reason": 48, "principal": 28, "session": 8, "log_format": 3, "tier": 34, "ttl_tier": 35,
    "succeeded": 4, "prompt_estimated": 4, "bill_state": 5, "committed": 22, "billed_read_tokens": 21,
    "billed_creation_5m_tokens": 19, "billed_creation_1h_tokens": 18, "billed_creation_24h_tokens": 17,
    "billed_uncached_tokens": 16, "first_at": 40, "last_at": 50, "bytes": 20, "records": 90, "bad_lines": 80,
    "principals": 30, "sessions": 20, "parsed": 60, "marked": 55, "with_usage": 45, "not_cacheable": 46,
    "unparseable": 47, "made": 30, "made_by": 35, "tariffs": 40, "policies": 60,
}  # fmt: skip


def _build(
    kept: Sequence[str], heads: dict[str, str], texts: dict[str, list[str]], widths: dict[str, int], has_total: bool
) -> Table:
    from rich.text import Text

    out = frame()
    for name in kept:
        textual = kind_of(name) in ("text", "time", "flag")
        justify: Any = "left" if textual else "right"
        fold: Any = "fold" if textual else "ellipsis"
        out.add_column(heads[name], justify=justify, overflow=fold, width=widths[name], vertical="bottom")
    count = len(texts[kept[0]]) if kept else 0
    for i in range(count):
        last = has_total and i == count - 1
        if last and count > 1:
            out.add_section()
        out.add_row(
            *(Text(texts[name][i], style=_style(name, texts[name][i])) for name in kept), style="bold" if last else ""
        )
    return out


def frame() -> Table:
    """An empty table with a line under the headings and above each further section."""
    from rich.box import Box
    from rich.table import Table

    lines = Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")
    return Table(box=lines, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")


def _style(name: str, text: str) -> str:
    if text == NONE or text == "0":
        return "dim"
    if name in ("delta", "change", "charged_change", "bill_change"):
        return "green" if text.startswith("−") else "red" if text.startswith("+") else ""
    return "cyan" if name == "token_hit_rate" else ""


def table_columns(columns: Sequence[str], rows: Sequence[Row], *, machine: bool = False) -> list[str]:
    """The columns a table shows: those for machines only if asked, those about exceptions only where there is one."""
    shown = []
    for name in columns:
        kind = BY_NAME[name].shown if name in BY_NAME else "always"
        if kind == "always" or (kind == "machine" and machine) or (kind == "if_any" and any(r[name] for r in rows)):
            shown.append(name)
    return shown
