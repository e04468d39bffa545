"""Deleting runs, and the traces no other run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachesim.store.db import transaction

if TYPE_CHECKING:
    import duckdb


def delete_run(con: duckdb.DuckDBPyConnection, run_no: int) -> bool:
    """Remove a run, and its trace if no other run uses it (then True); remembered token counts stay."""
    with transaction(con):
        row = con.execute("SELECT trace_no FROM runs WHERE run_no = ?", [run_no]).fetchone()
        of_runs = clear_run(con, run_no)
        if row is None or con.execute("SELECT 1 FROM runs WHERE trace_no = ? LIMIT 1", [row[0]]).fetchone():
            return False
        for table in _tables_with(con, "trace_no"):
            if table not in of_runs:
                con.execute(f'DELETE FROM "{table}" WHERE trace_no = ?', [row[0]])
    con.execute("CHECKPOINT")
    return True


def clear_run(con: duckdb.DuckDBPyConnection, run_no: int) -> list[str]:
    """Remove a run's rows inside the caller's transaction; returns the tables of runs."""
    tables = _tables_with(con, "run_no")
    for table in tables:
        con.execute(f'DELETE FROM "{table}" WHERE run_no = ?', [run_no])
    return tables


def _tables_with(con: duckdb.DuckDBPyConnection, column: str) -> list[str]:
    """Found in the schema itself, so that a table added later is not forgotten here."""
    con.execute(
        "SELECT table_name FROM duckdb_columns() JOIN duckdb_tables() USING (table_name)"
        " WHERE column_name = ? ORDER BY table_name",
        [column],
    )
    return [name for (name,) in con.fetchall()]
