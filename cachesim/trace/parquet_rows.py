"""The rows of a Parquet file as lines of JSON: an object a row, nulls left out, decimals as text."""

from __future__ import annotations

import glob
import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from cachesim.core.model import BadLine
from cachesim.trace.formats.base import bad_line
from cachesim.trace.open import Line, Source
from cachesim.trace.stored import LogBytes

if TYPE_CHECKING:
    import duckdb

MAGIC: Final = b"PAR1"
_BATCH_ROWS: Final = 256
_FIRST_ROWS: Final = 256
_WINDOW_BYTES: Final = 32 << 20
_GROWTH: Final = 8
"""How many times more rows than before are asked for at most: the rows to come may be larger."""
_EXACT: Final = re.compile(r'(?<!")DECIMAL\(\d+,\s*\d+\)|^U?HUGEINT$')
"""Types that would become floats; decimals also inside of lists, structs and maps."""
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parquet_rows(source: Source, data: LogBytes) -> Iterator[Line | BadLine]:
    """The rows with their numbers, a batch at a time; damage ends the file with one BadLine."""
    import duckdb

    number = 0
    with _regular_file(source, data) as path, duckdb.connect(config={"autoinstall_known_extensions": "false"}) as con:
        try:
            for text in _texts(con, path):
                number += 1
                yield number, 0, _without_nulls(text.encode()) + b"\n"
        except duckdb.Error as error:
            damage = data.damage
            message = f"the Parquet file is damaged from here on ({type(error).__name__})"
            reason, message = (damage.reason, damage.message) if damage else ("corrupt_parquet", message)
            yield bad_line(source.file_no, number + 1, 0, b"", reason, message)


@contextmanager
def _regular_file(source: Source, data: LogBytes) -> Iterator[str]:
    """The path of the file, which cannot be read from front to back: of a copy where it is compressed or a pipe."""
    if source.path is not None and source.rereadable:
        with source.path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                yield str(source.path)
                return
    with tempfile.NamedTemporaryFile(prefix="cachesim-", suffix=".parquet") as copy:
        shutil.copyfileobj(io.BufferedReader(data), copy, 1 << 20)
        copy.flush()
        yield copy.name


def _texts(con: duckdb.DuckDBPyConnection, path: str) -> Iterator[str]:
    """Every row as JSON. DuckDB holds all of an answer, so it is asked for about _WINDOW_BYTES of rows at a time."""
    con.execute("SET TimeZone = 'UTC'; SET threads = 1; SET enable_progress_bar = false")
    name = glob.escape(path)
    row_count = con.execute("SELECT count(*) FROM read_parquet(?)", [name]).fetchall()[0][0]
    query = _as_json(con, name)
    start, rows = 0, _FIRST_ROWS
    while start < row_count:
        size = 0
        answer = con.execute(query, [name, rows, start])
        while batch := answer.fetchmany(_BATCH_ROWS):
            for (text,) in batch:
                size += len(text)
                yield text
        start += rows
        rows = max(1, min(rows * _WINDOW_BYTES // max(size, 1), rows * _GROWTH))


def _as_json(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """SQL of so many rows behind so many, each as the text of a JSON object; DuckDB keeps the order of the file.

    Numbers that a float would round are texts in it.
    """
    table = "read_parquet(?, binary_as_string = true)"
    described = con.execute(f"DESCRIBE SELECT * FROM {table}", [name]).fetchall()
    exact = [(_quoted(column), _EXACT.sub("VARCHAR", kind)) for column, kind, *_ in described if _EXACT.search(kind)]
    texts = ", ".join(f"{column}::{kind} AS {column}" for column, kind in exact)
    columns = f"* REPLACE ({texts})" if texts else "*"
    row = _quoted("row of " + ", ".join(column for column, *_ in described))  # unlike any of the columns
    return f"SELECT to_json({row})::VARCHAR FROM (SELECT {columns} FROM {table} LIMIT ? OFFSET ?) {row}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _without_nulls(row: bytes) -> bytes:
    try:
        members = _members.decode(row)
    except msgspec.DecodeError:  # NaN is a number there and not in JSON: a bad line for whoever decodes it
        return row
    return msgspec.json.encode({name: value for name, value in members.items() if bytes(value) != b"null"})
