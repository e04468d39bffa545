"""An upgrade rule by rule as rows: what each step changes, adding up to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cachesim.report.changes import is_changed, transitions
from cachesim.report.compare import Pair, Side, difference, share, total_of
from cachesim.report.query import Filters, variant_rows, variants_of
from cachesim.report.render import say
from cachesim.report.tables import cell, change_decimals, money, percent, table

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

Row = dict[str, Any]
STEP_COLUMNS: Final = (
    "rule", "upstream", "rules", "policy", "requests_changed", "requests_split", "requests_rejected_a",
    "requests_rejected_b", "token_hit_rate_a", "token_hit_rate_b", "token_hit_rate_change", "charged_a", "charged_b",
    "charged_change",
)  # fmt: skip
SHOWN: Final = (
    "rule", "upstream", "requests_changed", "requests_split", "requests_rejected_b", "token_hit_rate_b",
    "token_hit_rate_change", "charged_a", "charged_b", "charged_change",
)  # fmt: skip


def step_rows(
    con: duckdb.DuckDBPyConnection, run_no: int, steps: Sequence[tuple[str, str, tuple[str, ...]]], filters: Filters
) -> list[Row]:
    """One row a step with the columns of STEP_COLUMNS; a is before the step, b after it.

    run_no: a run whose variants are the policies before and after each step; steps: name, upstream version ("" if
    none), rules. The changes in charged add up to that of the whole way, exactly.
    """
    variants = [v for v in variants_of(con, run_no) if v.kind == "policy"]
    totals = dict(variant_rows(con, run_no, [], filters))
    row = con.execute("SELECT digest, trace_no FROM runs WHERE run_no = ?", [run_no]).fetchone()
    assert row is not None
    digest, trace_no = row
    sides = [
        Side(run_no, digest, trace_no, v.variant_no, v.policy, v.tariff or "", v.markers, filters) for v in variants
    ]
    rows = []
    for number, (name, upstream, rules) in enumerate(steps):
        a, b = sides[number], sides[number + 1]
        classes = transitions(con, Pair(a, b, same_requests=True))
        figures = _beside(totals[a.variant_no], totals[b.variant_no])
        rows.append(
            {
                "rule": name,
                "upstream": upstream or None,
                "rules": " ".join(rules),
                "policy": b.policy,
                "requests_changed": sum(c["requests"] for c in classes if is_changed(c)),
                "requests_split": sum(c["requests_split"] for c in classes if not is_changed(c)),
                **figures,
            }
        )
    return rows


def _beside(a: Row, b: Row) -> Row:
    beside = {
        f"{n}_{x}": row[n]
        for n in ("requests_rejected", "token_hit_rate", "charged")
        for x, row in zip("ab", (a, b), strict=True)
    }
    return {**beside, **{f"{name}_change": difference(a[name], b[name]) for name in ("charged", "token_hit_rate")}}


def whole(rows: Sequence[Row]) -> Row:
    """The way from the first step's before to the last step's after; counts are sums over the steps."""
    first, last = rows[0], rows[-1]
    return {
        **{name: first[name] for name in STEP_COLUMNS if name.endswith("_a")},
        **{name: last[name] for name in STEP_COLUMNS if name.endswith("_b")},
        "requests_changed": sum(row["requests_changed"] for row in rows),
        "requests_split": sum(row["requests_split"] for row in rows),
        "charged_change": total_of([row["charged_change"] for row in rows]),
        "token_hit_rate_change": difference(first["token_hit_rate_a"], last["token_hit_rate_b"]),
    }


def print_steps(console: Console, before: str, after: str, rows: Sequence[Row]) -> list[str]:
    """The sentence and the table, the whole way as its last row; returns the columns that did not fit."""
    total = whole(rows)
    say(console, _sentence(before, after, rows, total), "bold")
    console.print()
    shown = [name for name in SHOWN if name != "requests_rejected_b" or any(row[name] for row in rows)]
    out, dropped = table(shown, rows, console.width, total=total if len(rows) > 1 else None, keep=("rule",))
    console.print(out)
    say(console, "each row: the rules so far and this one, against the rules so far; the changes add up", "dim")
    return dropped


def _sentence(before: str, after: str, rows: Sequence[Row], total: Row) -> str:
    rate = " → ".join(cell("token_hit_rate", total[f"token_hit_rate_{side}"]) for side in "ab")
    head = f"From {before} to {after}, one rule at a time: "
    change, charged = total["charged_change"], total["charged_a"]
    if change is None:
        return f"{head}token hit rate {rate}; the bill is unknown, some requests have no price."
    decimals = change_decimals([charged, total["charged_b"]], [change])
    relative = share(change, charged)
    of_a = f" ({percent(relative, signed=True)})" if relative else ""
    moved = f"charged {money(change, decimals, signed=True)}{of_a}, token hit rate {rate}"
    largest = max(rows, key=lambda row: abs(row["charged_change"]))
    if not largest["charged_change"]:
        return f"{head}{moved}."
    return f"{head}{moved}; most of it: {largest['rule']} ({money(largest['charged_change'], decimals, signed=True)})."
