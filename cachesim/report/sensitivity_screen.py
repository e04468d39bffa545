"""`report --sensitivity` for people: per policy and tariff what moved counts change, by model and in total."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

from cachesim.report.query import Filters
from cachesim.report.render import lead_key, say
from cachesim.report.runs import show_run
from cachesim.report.sensitivity import line, moved_rows
from cachesim.report.tables import change_decimals, table, table_columns

if TYPE_CHECKING:
    import duckdb
    from rich.console import Console

SHOWN: Final = (
    "model", "count_change", "decisions_changed", "fell_below_floor", "rose_above_floor", "eligible_rate",
    "read_tokens", "creation_tokens", "token_hit_rate", "cacheable_hit_rate", "charged", "bill_change",
    "bill_change_share", "unpriced",
)  # fmt: skip
_MEANING: Final = (
    "The log replayed with every local count moved by −5 % and +5 %; 0.0 % is the run itself. Reported prompt tokens"
    " and completions stay as the log has them."
)
_INHERITED: Final = (
    "What this run inherited from the one it continues is moved, too; what the floor decided there stays decided."
)


def print_sensitivity(console: Console, con: duckdb.DuckDBPyConnection, run_no: int, filters: Filters) -> list[str]:
    """One table per policy and tariff, three rows a model and three of all; returns the columns that did not fit."""
    run = show_run(con, run_no)
    exact = all(tokenizer["exact"] for tokenizer in run.tokenizers)
    totals = moved_rows(con, run_no, by_model=False, filters=filters)
    dropped: list[str] = []
    for lead, block in groupby(moved_rows(con, run_no, by_model=True, filters=filters), lead_key):
        rows = list(block)
        all_models = [row for row in totals if lead_key(row) == lead]
        say(console, f"{lead[0]} · tariff {lead[1]}{'' if exact else ' · tokens estimated'}", "bold")
        say(console, line(all_models, exact=exact))
        if len(rows) > len(all_models):
            rows += [{**row, "model": "all"} for row in all_models]
        decimals = change_decimals([row["charged"] for row in rows], [row["bill_change"] for row in rows])
        shown = table_columns(SHOWN, rows)
        out, left = table(shown, rows, console.width, keep=("model", "count_change"), decimals=decimals)
        console.print()
        console.print(out)
        console.print()
        dropped += left
    if totals:
        say(console, _MEANING, "dim")
    if totals and any(assumption["code"] == "continued" for assumption in run.assumptions):
        say(console, _INHERITED, "dim")
    return dropped
