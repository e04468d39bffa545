"""Opening the run database, transactions, and bulk inserts: everything that touches the file itself."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachesim import __version__
from cachesim.errors import ConfigError, DatabaseBusy, InputError
from cachesim.store.schema import (
    FROM_VERSION_1,
    FROM_VERSION_2,
    SCHEMA_VERSION,
    SENSITIVITY_TABLE,
    SWEEP_TABLES,
    TABLES,
    VIEWS,
)

if TYPE_CHECKING:
    import duckdb
    import polars as pl

DEFAULT_DATABASE: Final = "cachesim.duckdb"
MEMORY_LIMIT: Final = "512MB"
"""DuckDB spills to the temporary directory beyond this; the replay needs the rest of the machine."""
IN_MEMORY: Final = ":memory:"

_NO_DATABASE: Final = "{path}: not a DuckDB file, expected a run database; move it away or choose another --db"

Step = Callable[["duckdb.DuckDBPyConnection"], None]


def _to_version_2(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(FROM_VERSION_1)
    con.execute(SWEEP_TABLES)


def _to_version_3(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(FROM_VERSION_2)
    con.execute(SENSITIVITY_TABLE)


UPGRADES: Final[dict[int, Step]] = {1: _to_version_2, 2: _to_version_3}
"""Schema version → the step that brings a database of that version to the next one."""


def open_database(path: str, *, read_only: bool = False, must_exist: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection to the run database at `path` with the current schema; created where it does not exist yet.

    `read_only` implies `must_exist` and lets several processes read at once. `:memory:` gives a database that is never
    written. The session's time zone is UTC and no extension is ever downloaded.

    Raises InputError (missing, not a run database, directory not writable), DatabaseBusy (locked by another process)
    and ConfigError (written by a newer cachesim).
    """
    exists = path != IN_MEMORY and _check_path(path, must_exist=must_exist or read_only)
    con = _connect(path, read_only=read_only)
    try:
        version = _schema_version(con, path) if exists else None
        if version == SCHEMA_VERSION:
            return con
        if read_only:
            con.close()
            open_database(path).close()
            return open_database(path, read_only=True)
        _bring_up_to_date(con, path, version)
    except BaseException:
        con.close()
        raise
    return con


@contextmanager
def written_database(path: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """`open_database` for the block; a file made for it goes again where the block fails before a trace was stored."""
    new = path != IN_MEMORY and not Path(path).exists()
    with open_database(path) as con:
        try:
            yield con
        except BaseException:
            if new:
                _remove_empty(con, path)
            raise


def _remove_empty(con: duckdb.DuckDBPyConnection, path: str) -> None:
    """Remove a database without a trace while it is locked: whoever waits for it makes a file of their own."""
    import duckdb

    with suppress(duckdb.Error, OSError):  # they must not hide why there is none
        if con.execute("SELECT 1 FROM traces LIMIT 1").fetchone() is None:
            Path(path).unlink()


def _check_path(path: str, *, must_exist: bool) -> bool:
    """True if a file is there; raises InputError for the mistakes that DuckDB's own messages explain badly."""
    file = Path(path)
    if file.is_dir():
        raise InputError(f"{path}: a directory, expected a run database file; name a file inside it")
    if file.exists():
        # DuckDB 2 takes other files for data to look at, beside a database in memory that nothing would remain of.
        if os.access(file, os.R_OK) and not is_database(file):
            raise InputError(_NO_DATABASE.format(path=path))
        return True
    if must_exist:
        raise InputError(f"{path}: no such run database; make one with `cachesim replay LOG… --db {path}`")
    if not file.parent.is_dir():
        raise InputError(f"{path}: the directory {file.parent} does not exist; create it or choose another --db")
    return False


def is_database(path: Path) -> bool:
    """Whether a file is a DuckDB database, by its mark, which stands behind a checksum of eight bytes."""
    try:
        with path.open("rb") as file:
            return file.read(12)[8:] == b"DUCK"
    except OSError:
        return False


def _connect(path: str, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    import duckdb

    temp = f"{tempfile.gettempdir()}/cachesim.duckdb.tmp" if path == IN_MEMORY else f"{path}.tmp"
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": temp,
        "autoinstall_known_extensions": "false",
        # DuckDB 2.0 takes a LEFT JOIN with a table it knows to be empty for empty itself, and narrows the sums above it
        # before sorting them: they come out wrong or fail (a run without any price).
        "disabled_optimizers": "compressed_materialization",
    }
    try:
        con = duckdb.connect(path, read_only=read_only, config=config)
    except duckdb.Error as error:
        raise _explain(path, str(error)) from error
    con.execute("SET TimeZone = 'UTC'")
    return con


def _explain(path: str, message: str) -> Exception:
    """The error a user can act on for what DuckDB says when a file cannot be opened."""
    if "lock on file" in message:
        holder = re.search(r"PID (\d+)", message)
        who = f"process {holder[1]}" if holder else "another process"
        return DatabaseBusy(f"{path}: locked by {who}; wait until it ends, or write to another file with --db")
    if "not a valid DuckDB database" in message:
        return InputError(_NO_DATABASE.format(path=path))
    if "version number" in message:
        return ConfigError(f"{path}: written in a storage format this DuckDB cannot read; upgrade the duckdb package")
    if re.search(r"[Pp]ermission denied|[Rr]ead-only file system|Operation not permitted", message):
        return InputError(f"{path}: no permission to open or create it; choose another --db")
    first = message.splitlines()[0] if message else "unknown reason"
    return InputError(f"{path}: cannot be opened as a run database ({first}); choose another --db")


def _schema_version(con: duckdb.DuckDBPyConnection, path: str) -> int | None:
    """The schema version of an existing file, None for an empty database; raises for other programs' databases."""
    tables = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return None
    row = None
    if {"meta", "runs", "classified"} <= tables:
        row = con.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if row is None:
        raise InputError(f"{path}: a DuckDB database, but not one of cachesim; choose another --db")
    version = int(row[0])
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema version {version}, but cachesim {__version__} knows versions up to {SCHEMA_VERSION}; "
            "upgrade cachesim or choose another --db"
        )
    return version


def _bring_up_to_date(con: duckdb.DuckDBPyConnection, path: str, version: int | None) -> None:
    with transaction(con):
        if version is None:
            con.execute(TABLES + SWEEP_TABLES + SENSITIVITY_TABLE)
        else:
            for step in range(version, SCHEMA_VERSION):
                if step not in UPGRADES:
                    raise ConfigError(
                        f"{path}: schema version {step} cannot be upgraded to {SCHEMA_VERSION}; replay again"
                    )
                UPGRADES[step](con)
        con.execute(VIEWS)
        con.execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", [str(SCHEMA_VERSION)])


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Everything inside happens or nothing does: committed at the end, rolled back on any exception (Ctrl-C too)."""
    import duckdb

    con.execute("BEGIN TRANSACTION")
    try:
        yield
        con.execute("COMMIT")
    except BaseException as failure:
        try:
            con.execute("ROLLBACK")
        except duckdb.Error as error:  # a failed COMMIT has already rolled back, or the connection is gone
            failure.add_note(f"rollback: {type(error).__name__}")
        raise


class ArrowFrame:
    """A polars frame as a bare Arrow stream: the one form DuckDB reads without pyarrow."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def insert_frame(con: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, Sequence[Any]]) -> int:
    """Append equally long `columns` to `table` in one statement; returns the number of rows.

    Values by column type: ints, str, bool, bytes, tuples of ints (`INTEGER[]`), Decimal for DECIMAL, int µs UTC for
    TIMESTAMP and TIMESTAMPTZ; None for null. Columns of the table that are not named take their default. Arrays and
    polars series are taken as they are. Raises KeyError for an unknown column, TypeError for a value of another type.
    """
    import duckdb
    import polars as pl

    types = {name: str(kind) for name, kind, *_ in con.execute(f'SELECT * FROM "{table}" LIMIT 0').description}
    series = [_series(name, types[name], values) for name, values in columns.items()]
    frame = pl.DataFrame(series)
    if frame.height == 0:
        return 0
    names = ", ".join(f'"{name}"' for name in columns)
    casts = ", ".join(_cast(name, types[name]) for name in columns)
    con.register("frame_to_insert", ArrowFrame(frame))
    try:
        con.execute(f'INSERT INTO "{table}" ({names}) SELECT {casts} FROM frame_to_insert')
    except BaseException:
        with suppress(duckdb.Error):  # an aborted transaction refuses it, and must not hide what aborted it
            con.unregister("frame_to_insert")
        raise
    con.unregister("frame_to_insert")
    return frame.height


def _series(name: str, duck_type: str, values: Sequence[Any]) -> pl.Series:
    import polars as pl

    dtypes: dict[str, Any] = {
        "BIGINT": pl.Int64,
        "INTEGER": pl.Int32,
        "UTINYINT": pl.UInt8,
        "BOOLEAN": pl.Boolean,
        "VARCHAR": pl.String,
        "BLOB": pl.Binary,
        "TIMESTAMP": pl.Int64,
        "TIMESTAMP WITH TIME ZONE": pl.Int64,
    }
    if duck_type == "INTEGER[]":  # as text that DuckDB casts: polars builds nested columns element by element
        texts = {item: f"[{','.join(map(str, item))}]" for item in set(values)}
        return pl.Series(name, [texts[item] for item in values], dtype=pl.String)
    if duck_type.startswith("DECIMAL"):
        return pl.Series(name, [None if v is None else _plain(v) for v in values], dtype=pl.String)
    return pl.Series(name, values, dtype=dtypes[duck_type], strict=True)


def _plain(value: Decimal) -> str:
    return format(value, "f")


def _cast(name: str, duck_type: str) -> str:
    makers = {"TIMESTAMP": "make_timestamp", "TIMESTAMP WITH TIME ZONE": "make_timestamptz"}
    maker = makers.get(duck_type)
    return f'{maker}("{name}")' if maker else f'CAST("{name}" AS {duck_type})'
