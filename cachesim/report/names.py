"""Whether what a filter names is in a run at all: an answer about nothing would look like one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cachesim.errors import UsageError, nearest
from cachesim.report.query import Filters

if TYPE_CHECKING:
    import duckdb

LISTED: Final = 5


def check_names(con: duckdb.DuckDBPyConnection, run_nos: Sequence[int], filters: Filters) -> None:
    """Raises UsageError for a model or principal that is in the log of none of the runs, with the nearest names."""
    for column, wanted in (("model", filters.models), ("principal", filters.principals)):
        for name in dict.fromkeys(wanted):
            known = f"FROM requests JOIN runs USING (trace_no) WHERE run_no IN ({', '.join(map(str, run_nos))})"
            if not con.execute(f"SELECT 1 {known} AND {column} = ? LIMIT 1", [name]).fetchone():
                rows = con.execute(f"SELECT {column} {known} AND {column} IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
                raise UsageError(
                    f"--{column} {name!r}: not in this run's log, {_suggestion(name, [n for (n,) in rows])}"
                )


def _suggestion(name: str, known: Sequence[str]) -> str:
    if near := nearest(name, known):
        return near
    if not known:
        return "which names none"
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    return f"which has {', '.join(known[:LISTED])}{more}"
