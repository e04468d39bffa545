"""Deleting runs, and the traces no other run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachesim.store.db import transaction

if TYPE_CHECKING:
    import duckdb

RUN_TABLES: Final = ("classified", "unit_prices", "index_entries", "variants", "runs")
TRACE_TABLES: Final = (
    "node_tokens",
    "nodes",
    "prompts",
    "requests",
    "bad_lines",
    "trace_tokenizers",
    "trace_inputs",
    "traces",
)


def delete_run(con: duckdb.DuckDBPyConnection, run_no: int) -> bool:
    """Remove a run, and its trace if no other run uses it (then True); remembered token counts stay."""
    with transaction(con):
        row = con.execute("SELECT trace_no FROM runs WHERE run_no = ?", [run_no]).fetchone()
        for table in RUN_TABLES:
            con.execute(f"DELETE FROM {table} WHERE run_no = ?", [run_no])
        if row is None or con.execute("SELECT 1 FROM runs WHERE trace_no = ? LIMIT 1", [row[0]]).fetchone():
            return False
        for table in TRACE_TABLES:
            con.execute(f"DELETE FROM {table} WHERE trace_no = ?", [row[0]])
    con.execute("CHECKPOINT")
    return True
