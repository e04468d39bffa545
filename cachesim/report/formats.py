"""Report rows for programs: JSON, CSV, Markdown and Parquet with the same columns and exact values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from cachesim.report.column import Kind
from cachesim.report.columns import kind_of
from cachesim.report.times import instant_text

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]
SCHEMA: Final = "cachesim.report/1"
RATE_DECIMALS: Final = 6
BATCH: Final = 50_000
GUARD: Final = "'"
_GUARDED: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", GUARD)
_MARKDOWN: Final = re.compile(r"([\\|`*_~<&\[$])")
_UNSEEN: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0001-\U000e007f]"
)
"""Characters that JSON may hold as they are and that a terminal or a reader obeys instead of showing them."""


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"
    PARQUET = "parquet"


@dataclass(slots=True)
class Report:
    """One report: the envelope of the JSON form, its columns in order, and the rows (read once).

    more: further keys of the envelope, of one command.
    """

    command: str
    columns: Sequence[str]
    rows: Iterable[Row]
    by: Sequence[str] = ()
    runs: Sequence[Row] = ()
    assumptions: Sequence[Any] = ()
    problems: Row = field(default_factory=dict)
    more: Row = field(default_factory=dict)


def money_text(value: Decimal) -> str:
    """The exact value without exponent or trailing zeros: Decimal('1.50000') → '1.5', Decimal('-0.0') → '0'."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def rate_number(value: float) -> float:
    """A rate of six decimals, never a negative zero."""
    return round(value, RATE_DECIMALS) + 0.0


_CONVERTERS: Final[dict[Kind, Callable[[Any], Any]]] = {
    "money": money_text,
    "exact": money_text,
    "rate": rate_number,
    "mean": rate_number,
    "points": rate_number,
    "time": instant_text,
}
"""How a value is given to programs; kinds that are not here stay as they are."""


def write(report: Report, form: Format, out: IO[bytes]) -> None:
    """Write the report to a binary stream; the same report gives the same bytes. TABLE is not a form for programs."""
    writers = {Format.JSON: _json, Format.CSV: _csv, Format.MD: _markdown, Format.PARQUET: _parquet}
    writers[form](report, out)


def plain(row: Row, columns: Sequence[str]) -> Row:
    """These columns of a row as programs get them: exact money as text, rates of six decimals."""
    plan = [(name, _CONVERTERS.get(kind_of(name))) for name in columns]
    return {name: v if (v := row[name]) is None or convert is None else convert(v) for name, convert in plan}


def json_bytes(value: Any) -> bytes:
    """`value` as JSON in UTF-8, with characters that nobody sees escaped (`\\u202e`): it reads the same."""
    text = orjson.dumps(value)
    if text.isascii() and b"\x7f" not in text:
        return text
    return _UNSEEN.sub(_escaped, text.decode()).encode()


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _values(report: Report) -> Iterator[list[Any]]:
    plan = [(name, _CONVERTERS.get(kind_of(name))) for name in report.columns]
    for row in report.rows:
        yield [v if (v := row[name]) is None or convert is None else convert(v) for name, convert in plan]


def _json(report: Report, out: IO[bytes]) -> None:
    """The envelope on the first line, then one row a line: reads as one document, compares line by line."""
    head = {
        "schema": SCHEMA,
        "command": report.command,
        "runs": report.runs,
        "by": list(report.by),
        "assumptions": report.assumptions,
        "problems": report.problems,
        **report.more,
    }
    out.write(json_bytes(head)[:-1] + b',"rows":[')
    separator = b"\n"
    for values in _values(report):
        out.write(separator + json_bytes(dict(zip(report.columns, values, strict=True))))
        separator = b",\n"
    out.write(b"\n]}\n" if separator == b",\n" else b"]}\n")


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe, as does text that begins with one.

    So whoever takes one apostrophe off the start of a text has the name again, whatever it is; numbers and money are
    never altered.

    >>> csv_cell("=1+1"), csv_cell("'=1+1"), csv_cell("qwen3"), csv_cell(-1.5)
    ("'=1+1", "''=1+1", 'qwen3', -1.5)
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{GUARD}{value}" if isinstance(value, str) and value.startswith(_GUARDED) else value


class _Lines:
    """Takes the rows of a csv.writer that ends them with `\\r\\n`, so that it quotes both, and ends them with `\\n`."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, row: str) -> int:
        return self._out.write(row[:-2].encode() + b"\n")


def _csv(report: Report, out: IO[bytes]) -> None:
    writer = csv.writer(_Lines(out), lineterminator="\r\n")
    numeric = [kind_of(name) in ("money", "exact") for name in report.columns]
    writer.writerow([csv_cell(name) for name in report.columns])
    for values in _values(report):
        writer.writerow([v if n else csv_cell(v) for v, n in zip(values, numeric, strict=True)])


def _markdown(report: Report, out: IO[bytes]) -> None:
    right = [kind_of(name) not in ("text", "time", "flag") for name in report.columns]
    lines = [report.columns, ["---:" if r else "---" for r in right]]
    for cells in (*lines, *_values(report)):
        out.write(("| " + " | ".join(map(_markdown_cell, cells)) + " |\n").encode())


def _markdown_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = clean(str(value))
    return text if text.isidentifier() else _MARKDOWN.sub(r"\\\1", text)


def clean(text: str) -> str:
    """`text` with control characters, terminal escapes and direction overrides made visible as `\\x1b` or `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _parquet(report: Report, out: IO[bytes]) -> None:
    import polars as pl

    rows = iter(report.rows)
    frames = [polars_frame(report.columns, [])]
    while batch := list(islice(rows, BATCH)):
        frames.append(polars_frame(report.columns, batch))
    buffer = io.BytesIO()
    pl.concat(frames).write_parquet(buffer)
    out.write(buffer.getbuffer())


def polars_frame(columns: Sequence[str], rows: Sequence[Row], *, rounded: bool = True) -> pl.DataFrame:
    """The rows with the types of their columns, even without a row; money is exact, as Decimal(38, 20).

    rounded: rates have six decimals, as in the other forms; without it they are as they are.
    """
    import polars as pl

    types: dict[Kind, Any] = {
        "text": pl.String,
        "count": pl.Int64,
        "tokens": pl.Int64,
        "rate": pl.Float64,
        "mean": pl.Float64,
        "money": pl.Decimal(38, 20),
        "exact": pl.Decimal(38, 20),
        "points": pl.Float64,
        "time": pl.Datetime("us", "UTC"),
        "flag": pl.Boolean,
    }
    series = []
    for name in columns:
        kind = kind_of(name)
        values = [row[name] for row in rows]
        if rounded and kind in ("rate", "mean", "points"):
            values = [None if value is None else rate_number(value) for value in values]
        series.append(pl.Series(name, values, dtype=types[kind]))
    return pl.DataFrame(series)
