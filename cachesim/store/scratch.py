"""Room for runs beside a database that must not be written: tables that hide the file's and end with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

COPIED: Final = ("runs", "variants", "unit_prices")
"""What new runs are made from and numbered after; a few rows per run."""


def scratch(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A second connection to the database of `con`, in which its runs can be replayed and swept again.

    All tables of runs are temporary there: what is stored is seen in this connection only, and gone with it. Traces are
    read where they are. The file's runs, variants and prices are known, what was classified or swept in it is not.
    """
    own = con.cursor()
    own.execute("SET TimeZone = 'UTC'")
    own.execute(
        "SELECT t.database_name, t.table_name, t.sql FROM duckdb_tables() t JOIN duckdb_columns() c"
        " USING (database_name, table_name) WHERE c.column_name = 'run_no' AND NOT t.temporary ORDER BY 2"
    )
    for file, table, made_by in own.fetchall():
        own.execute(made_by.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))
        if table in COPIED:
            source = file.replace('"', '""')
            own.execute(f'INSERT INTO "{table}" SELECT * FROM "{source}".main."{table}"')
    return own
