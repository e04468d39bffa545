"""What people see of a comparison: one sentence, both sides with their difference, who pays more or less, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from cachesim.report.changes import is_changed, transitions
from cachesim.report.columns import kind_of
from cachesim.report.compare import Compared, Groups, Pair, Side, compared, share, wide_row
from cachesim.report.formats import clean
from cachesim.report.render import say
from cachesim.report.runs import show_run
from cachesim.report.tables import (
    NONE,
    cell,
    change_cell,
    change_decimals,
    frame,
    money,
    money_decimals,
    number,
    percent,
    table,
    title,
)

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console
    from rich.table import Table

Row = dict[str, Any]
TOP: Final = 10
ROWS: Final = 50
"""Rows of the tables of a screen, and of one that stands alone."""
TOTALS: Final = (
    "requests", "requests_failed", "requests_rejected", "unpriced", "prompt_tokens", "read_tokens",
    "creation_5m_tokens", "creation_1h_tokens", "creation_24h_tokens", "uncached_tokens", "completion_tokens",
    "token_hit_rate", "cacheable_hit_rate", "request_hit_rate", "list", "charged", "delta", "charged_to_list",
    "rejected_list", "capped", "corrupt", "voided", "charged_per_mtok", "charged_per_request",
)  # fmt: skip
_ALWAYS: Final = ("requests", "prompt_tokens", "read_tokens", "token_hit_rate", "list", "charged", "delta")
_PER_TOKEN: Final = ("charged_per_mtok", "charged_per_request")


@dataclass(slots=True)
class Screen:
    """Everything the screen needs. groups: dimension → its groups; classes: the transitions, None if unknown.

    estimated: tokens were counted with the embedded tokenizer; remarks: (label, line) below the tables.
    """

    pair: Pair
    total: Compared
    groups: dict[str, Groups]
    classes: list[Row] | None
    estimated: bool
    remarks: Sequence[tuple[str, str]]


def read(
    con: duckdb.DuckDBPyConnection,
    pair: Pair,
    dimensions: Sequence[Sequence[str]],
    top: int,
    assumptions: Sequence[dict[str, str]],
    notes: Sequence[str],
) -> Screen:
    """What a screen of these dimensions needs, `top` groups of each; one that the log does not have is left out."""
    groups = {",".join(by): compared(con, pair, by, top) for by in dimensions}
    groups = {
        name: found for name, found in groups.items() if len(groups) == 1 or any(g.key != (None,) for g in found.shown)
    }
    runs = [show_run(con, run_no) for run_no in dict.fromkeys(side.run_no for side in pair.sides)]
    return Screen(
        pair,
        compared(con, pair).shown[0],
        groups,
        transitions(con, pair) if pair.same_requests and not pair.same_classes else None,
        any(not tokenizer["exact"] for run in runs for tokenizer in run.tokenizers),
        [*(("made", note) for note in notes), *(("assumed", assumed["text"]) for assumed in assumptions)],
    )


def print_comparison(console: Console, screen: Screen, top: int = TOP) -> list[str]:
    """Print all of it, `top` rows a table; returns the columns that did not fit."""
    print_head(console, screen)
    console.print()
    console.print(_totals_table(screen))
    dropped: list[str] = []
    for dimension, groups in screen.groups.items():
        dropped += print_groups(console, screen.pair, [dimension], groups, screen.total)
    if screen.classes is not None:
        dropped += print_classes(console, screen.classes, top)
    console.print()
    console.print(_remarks([*one_sided_lines(screen.classes or ()), *screen.remarks]))
    return dropped


def explained(pair: Pair, by: Sequence[str]) -> list[str]:
    """The columns that the screen of these groups shows, or would in a wide terminal."""
    match list(by):
        case []:
            return list(dict.fromkeys([*TOTALS, *wide_columns(pair, []), *CLASS_COLUMNS]))
        case ["class"]:
            return list(CLASS_COLUMNS)
        case ["request"]:
            return list(_REQUEST_COLUMNS)
    return [*by, *wide_columns(pair, [])]


def print_head(console: Console, screen: Screen) -> None:
    """The sentence, and what A and B are."""
    say(console, summary(screen), "bold")
    console.print()
    for letter, side in zip("AB", screen.pair.sides, strict=True):
        say(console, f"{letter}  {' · '.join(_described(side))}")


def _described(side: Side) -> list[str]:
    markers = [] if side.markers == "as-captured" else [f"markers {side.markers}"]
    period = [side.period] if side.period else []
    return [clean(text) for text in (side.policy, f"tariff {side.tariff}", *markers, *period, f"run {side.run_no}")]


def difference(pair: Pair) -> tuple[str, str]:
    """What distinguishes A and what distinguishes B, in words."""
    a, b = pair.sides
    names: tuple[list[str], list[str]] = ([], [])
    for what, prefix in (("policy", ""), ("tariff", "tariff "), ("markers", "markers "), ("period", "")):
        if getattr(a, what) != getattr(b, what):
            for own, side in zip(names, pair.sides, strict=True):
                own.append(clean(f"{prefix}{getattr(side, what) or 'all of the log'}"))
    if not names[0] or (not pair.same_requests and a.period == b.period):
        for own, side in zip(names, pair.sides, strict=True):
            own.insert(0, f"run {side.run_no}")
    return ", ".join(names[0]), ", ".join(names[1])


def summary(screen: Screen) -> str:
    """One sentence: who pays how much more or less, and how the token hit rate moves."""
    a, b = screen.total.a, screen.total.b
    before, after = difference(screen.pair)
    if not a["requests"] or not b["requests"]:
        empty = [letter for letter, row in zip("AB", (a, b), strict=True) if not row["requests"]]
        return f"Nothing to compare: no request counts on side {' and '.join(empty)} ({before} → {after})."
    label = "Estimated: " if screen.estimated else ""
    rates = _rates(a, b)
    if not screen.pair.same_requests:
        volumes = f"{number(a['prompt_tokens'])} and {number(b['prompt_tokens'])} prompt tokens"
        money_text = _per_token(a, b)
        return f"{label}{before} → {after}: {money_text}; {rates}; volumes differ ({volumes}), so money is per token."
    who = _who(screen.groups.get("principal"))
    return f"{label}{after} instead of {before}: {_bill(screen.total)}; {rates}{who}."


def _rates(a: Row, b: Row) -> str:
    before, after = (cell("token_hit_rate", row["token_hit_rate"]) for row in (a, b))
    return f"token hit rate {before} → {after}" if before != after else f"token hit rate {before} on both sides"


def _bill(total: Compared) -> str:
    change, a, b = total.charged_change, total.a["charged"], total.b["charged"]
    if change is None:
        unpriced = [
            f"{number(row['unpriced'])} on side {x}" for x, row in (("A", total.a), ("B", total.b)) if row["unpriced"]
        ]
        return f"the bills cannot be compared, requests without a price: {', '.join(unpriced)}"
    decimals = change_decimals([a, b], [change])
    if not change:
        return f"the bill stays {money(a, decimals)}"
    direction = "less" if change < 0 else "more"
    relative = f" ({percent(float(change / a), signed=True)})" if a else ""
    amount = money(abs(change), decimals)
    return f"customers pay {amount} {direction}{relative}, {money(a, decimals)} → {money(b, decimals)}"


def _per_token(a: Row, b: Row) -> str:
    before, after = a["charged_per_mtok"], b["charged_per_mtok"]
    if before is None or after is None:
        return "the bills cannot be compared, a price or every prompt token is missing"
    decimals = change_decimals([before, after], [after - before])
    relative = share(after - before, before)
    text = f" ({percent(relative, signed=True)})" if relative is not None else ""
    return f"{money(after, decimals)} instead of {money(before, decimals)} charged per million prompt tokens{text}"


def _who(principals: Groups | None) -> str:
    if principals is None or principals.count < 2 or not (principals.less or principals.more):
        return ""
    count, less, more = principals.count, principals.less, principals.more
    if count in (less, more):
        return f"; all {number(count)} principals pay {'less' if less else 'more'}"
    return f"; of {number(count)} principals {number(less)} pay less, {number(more)} more"


def _totals_table(screen: Screen) -> Table:
    """Figures down, sides across."""
    from rich.text import Text

    total = screen.total
    out = frame()
    out.add_column("")
    for head in ("A", "B", "B − A", "of A"):
        out.add_column(head, justify="right", no_wrap=True)
    ratios = () if screen.pair.same_requests else _PER_TOKEN
    names = [n for n in TOTALS if n in _ALWAYS or n in ratios or (n not in _PER_TOKEN and (total.a[n] or total.b[n]))]
    sums = [row[n] for row in (total.a, total.b) for n in ("list", "charged", "delta")]
    common = change_decimals(sums, [total.charged_change])
    for name in names:
        a, b, change = total.a[name], total.b[name], total.change[name]
        decimals = change_decimals([a, b], [change]) if name in _PER_TOKEN else common
        texts = (cell(name, a, decimals), cell(name, b, decimals), change_cell(name, change, decimals))
        style = _style(name, change)
        out.add_row(title(name), *texts[:2], Text(texts[2], style=style), _of_a(name, a, change))
    return out


def _of_a(name: str, a: Any, change: Any) -> str:
    if kind_of(name) not in ("money", "tokens") or name == "delta" or not a or change is None:
        return ""
    return percent(float(change / a), signed=True)


def _style(name: str, change: Any) -> str:
    if name not in ("charged", "delta") or not change:
        return "" if change else "dim"
    return "green" if change < 0 else "red"


def wide_columns(pair: Pair, rows: Sequence[Row]) -> list[str]:
    """The figures beside each other that say most about these sides."""
    if not pair.same_requests:
        return ["prompt_tokens_a", "prompt_tokens_b", "token_hit_rate_a", "token_hit_rate_b", "token_hit_rate_change",
                "charged_a", "charged_b", "charged_per_mtok_a", "charged_per_mtok_b", "per_mtok_share"]  # fmt: skip
    rates = ["token_hit_rate_a", "token_hit_rate_b", "token_hit_rate_change"]
    if pair.same_classes:
        rates = ["token_hit_rate_b"]
    return [*_once("requests", rows), _once("prompt_tokens", rows)[-1], *rates, "charged_a", "charged_b",
            "charged_change", "charged_share"]  # fmt: skip


def _once(name: str, rows: Sequence[Row]) -> list[str]:
    """One column where both sides agree, else one for each."""
    return [f"{name}_a", f"{name}_b"] if any(row[f"{name}_a"] != row[f"{name}_b"] for row in rows) else [name]


def print_groups(console: Console, pair: Pair, by: Sequence[str], groups: Groups, total: Compared | None) -> list[str]:
    """A table of groups, the largest changes first and the total last; returns the columns that did not fit."""
    name = " and ".join(by)
    rows = [wide_row(by, group) for group in groups.shown]
    last = wide_row((), total) if total is not None and groups.count > 1 else None
    lines = [*rows, *([last] if last else [])]
    if not any(map(_moves, groups.shown)):
        if rows:
            say(console, f"\nby {name}: nothing changes for any of {number(groups.count)}", "bold")
        return []
    say(console, f"\nby {name}, the largest changes in charged first", "bold")
    columns = [*by, *wide_columns(pair, lines)]
    decimals = _decimals(lines) if "charged_change" in columns else None
    out, dropped = table(columns, rows, console.width, total=last, keep=by, decimals=decimals)
    console.print(out)
    if hidden := groups.count - len(rows):
        together = ""
        if groups.rest is not None:
            together = (
                f" with a change of {money(groups.rest, change_decimals([], [groups.rest]), signed=True)} together"
            )
        say(console, f"{number(hidden)} more{together}: --by {','.join(by)} --top N shows more.", "dim")
    return dropped


def _decimals(rows: Sequence[Row]) -> int:
    sums = [row[name] for row in rows for name in ("charged_a", "charged_b")]
    return change_decimals(sums, [row["charged_change"] for row in rows])


def _moves(group: Compared) -> bool:
    """Whether anything of the group is other on side B."""
    return any(group.a[name] != group.b[name] for name in TOTALS)


def class_name(outcome: str, reason: str | None) -> str:
    """`zero (below_floor)`."""
    return outcome if reason is None else f"{outcome} ({reason})"


def _from_to(row: Row) -> Row:
    return {side: class_name(row[f"outcome_{x}"], row[f"reason_{x}"]) for side, x in (("from", "a"), ("to", "b"))}


CLASS_COLUMNS: Final = (
    "from", "to", "requests", "prompt_tokens_a", "read_tokens_change", "creation_tokens_change", "charged_a",
    "charged_b", "charged_change",
)  # fmt: skip
_ADDED: Final = (
    "requests", "requests_split", "prompt_tokens_a", "read_tokens_a", "read_tokens_b", "creation_tokens_a",
    "creation_tokens_b", "charged_a", "charged_b", "charged_change",
)  # fmt: skip


def print_classes(console: Console, classes: Sequence[Row], top: int) -> list[str]:
    """The transitions that change class, and the rest in one row; returns the columns that did not fit."""
    changed = [row for row in classes if is_changed(row)]
    same = [row for row in classes if not is_changed(row)]
    count = sum(row["requests"] for row in changed)
    whole = count + sum(row["requests"] for row in same)
    resplit = sum(row["requests_split"] for row in same)
    other = f", {number(resplit)} more keep their class but are split differently" if resplit else ""
    refused = any("rejected" in (row["outcome_a"], row["outcome_b"]) for row in classes)
    among = ", rejected ones among them," if refused else ""
    say(console, f"\n{number(count)} of {number(whole)} successful requests{among} change class{other}", "bold")
    if not changed:
        return []
    changed.sort(key=lambda row: -row["requests"])
    rows = [{**summed([row]), **_from_to(row)} for row in changed[:top]]
    if len(changed) > top:
        rows.append({**summed(changed[top:]), "from": f"{len(changed) - top} other changes", "to": ""})
    if same:
        rows.append({**summed(same), "from": "the same class", "to": ""})
    out, dropped = table(CLASS_COLUMNS, rows, console.width, total=summed(classes), decimals=_decimals(rows))
    console.print(out)
    return dropped


_REQUEST_COLUMNS: Final = (
    "request", "at", "principal", "model", "from", "to", "read_tokens_a", "read_tokens_b", "creation_tokens_a",
    "creation_tokens_b", "charged_a", "charged_b", "charged_change",
)  # fmt: skip


def print_changed(console: Console, rows: Iterator[Row], top: int) -> list[str]:
    """The first changed requests in log order; returns the columns that did not fit."""
    first = [{**row, **_from_to(row)} for row in islice(rows, top)]
    rest = sum(1 for _ in rows)
    say(console, f"\n{number(len(first) + rest)} requests with another class or another billed split", "bold")
    if not first:
        return []
    out, dropped = table(_REQUEST_COLUMNS, first, console.width, keep=("request",))
    console.print(out)
    if rest:
        say(console, f"{number(rest)} more: --top N shows more, --format csv all.", "dim")
    return dropped


def summed(rows: Sequence[Row]) -> Row:
    """The figures of transitions together; a sum with an unknown price is unknown, what nobody bills stays empty."""
    total: Row = {}
    for name in _ADDED:
        values = [row[name] for row in rows]
        known = [value for value in values if value is not None]
        total[name] = sum(known[1:], known[0]) if known else None
    for row in rows:
        if row["charged_change"] is None:
            total |= dict.fromkeys(("charged_a", "charged_b", "charged_change"))
    for name in ("read_tokens", "creation_tokens"):
        total[f"{name}_change"] = (total[f"{name}_b"] or 0) - (total[f"{name}_a"] or 0)
    return total


def one_sided_lines(classes: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """What one side rejects and the other bills: it is in no total of the first."""
    for here, there, column in (("A", "B", "b"), ("B", "A", "a")):
        rows = [
            r for r in classes if r[f"outcome_{column}"] == "rejected" and r[f"outcome_{here.lower()}"] != "rejected"
        ]
        if rows:
            count, charged = sum(r["requests"] for r in rows), summed(rows)[f"charged_{here.lower()}"]
            which = "request is" if count == 1 else "requests are"
            bill = NONE if charged is None else money(charged, money_decimals([charged]))
            yield (
                f"only in {here}",
                f"{number(count)} {which} billed by {here} alone: {there} answers with HTTP 400; charged {bill} under "
                f"{here}, in no total of {there}",
            )


def _remarks(lines: Sequence[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    previous = ""
    for label, line in lines:
        grid.add_row(Text("" if label == previous else label), Text(clean(line)))
        previous = label
    return grid
