"""Reads a tariff ledger exported as CSV or Parquet, with upstream's column names, into raw rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from cachesim.config.rows import RESERVED_KEYS, RawRow
from cachesim.config.toml import did_you_mean, read_bytes, read_text
from cachesim.errors import ConfigError

_COMMON: Final = {
    "model": "model",
    "alias": "model",
    "name": "name",
    "valid_from": "valid_from",
    "valid_until": "valid_until",
    **{reserved: reserved for reserved in RESERVED_KEYS},
    "user_id": "principal",
    "serving_class": "class",
}
_CACHE: Final = {
    "write_multiplier_5m": "write_5m",
    "write_multiplier_1h": "write_1h",
    "write_multiplier_24h": "write_24h",
    "read_multiplier": "read",
    "min_prefix_tokens": "min_prefix_tokens",
}
_BASE: Final = {
    "input_price_per_token": "input_per_token",
    "output_price_per_token": "output_per_token",
    "api_key_purpose": "purpose",
    "completion_window": "completion_window",
}
_KNOWN: Final = _COMMON | _CACHE | _BASE
_COLUMNS: Final = {key: column for column, key in _KNOWN.items() if column not in ("alias", "user_id", "serving_class")}
_BOOKKEEPING: Final = ("id", "tariff_id", "deployed_model_id", "created_at", "updated_at")
"""Columns of an export that say nothing about prices."""

_TYPO_RATIO: Final = 0.8


class Table(NamedTuple):
    """The raw rows of one file, of one of the two kinds, and warnings about its columns."""

    cache_rows: list[RawRow]
    base_rows: list[RawRow]
    warnings: list[str]


def is_table(name: str) -> bool:
    """Whether the file is read as a table, by the end of its name."""
    return name.lower().endswith((".csv", ".parquet"))


def read_table(name: str) -> Table:
    """The rows of a .csv or .parquet file, under the keys of cachesim.toml.

    An empty CSV cell is null. Raises InputError for a file that cannot be read, ConfigError for one that is no ledger.
    """
    return _read_parquet(name) if name.lower().endswith(".parquet") else _read_csv(name)


def _read_csv(name: str) -> Table:
    reader = csv.reader(io.StringIO(read_text(name), newline=""), strict=True)
    try:
        header = next(reader, None)
        if not header:
            raise ConfigError(f"{name}:1: no header, a line with upstream's column names was expected")
        keys = _keys(f"{name}:1", header)
        return _ledger(name, keys, header, [_csv_row(name, header, keys, *row) for row in _numbered(reader)])
    except csv.Error as error:
        raise ConfigError(f"{name}:{reader.line_num}: not valid CSV ({error})") from error


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the line each begins at."""
    begins = reader.line_num + 1
    for cells in reader:
        if cells:
            yield begins, cells
        begins = reader.line_num + 1


def _csv_row(name: str, header: list[str], keys: Mapping[str, str], line: int, cells: list[str]) -> RawRow:
    if len(cells) != len(header):
        raise ConfigError(f"{name}:{line}: {len(cells)} cells, {len(header)} were expected as in the header")
    return _raw(
        {column: cell.strip() or None for column, cell in zip(header, cells, strict=True)}, keys, f"{name}:{line}"
    )


def _read_parquet(name: str) -> Table:
    import polars as pl

    data = read_bytes(name)
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigError(f"{name}: not readable as Parquet, a tariff ledger was expected") from error
    keys = _keys(name, frame.columns)
    rows = enumerate(frame.iter_rows(named=True), start=1)
    return _ledger(
        name, keys, frame.columns, [_raw(row, keys, f"{name}:{number}", naive_is_utc=True) for number, row in rows]
    )


def _raw(row: Mapping[str, Any], keys: Mapping[str, str], source: str, *, naive_is_utc: bool = False) -> RawRow:
    values = {key: row[column] for column, key in keys.items()}
    shown = _COLUMNS | {key: column for column, key in keys.items()}
    return RawRow(values, source, lambda _key: source, shown, naive_is_utc, dumped=True)


def _keys(where: str, columns: Sequence[str]) -> dict[str, str]:
    """The key of cachesim.toml that each known column holds. Raises ConfigError for a header that is no ledger's."""
    keys: dict[str, str] = {}
    for column in columns:
        key = _KNOWN.get(column)
        if key is None and get_close_matches(column, _KNOWN, n=1, cutoff=_TYPO_RATIO):
            raise ConfigError(f"{where}: unknown column {column[:60]}, {did_you_mean(column, _KNOWN)}")
        if column in keys or key in keys.values():
            raise ConfigError(f"{where}: {key} has two columns, one was expected")
        if key is not None:
            keys[column] = key
    if "model" not in keys.values():
        hint = ": join deployed_models and take its alias" if "deployed_model_id" in columns else ""
        raise ConfigError(f"{where}: no column model or alias, every tariff belongs to a model{hint}")
    if bool(_CACHE.keys() & keys) == bool(_BASE.keys() & keys):
        expected = "read_multiplier, write_multiplier_… for cache tariffs or input_price_per_token, … for base tariffs"
        raise ConfigError(f"{where}: the columns are not those of one ledger, {expected} were expected")
    return keys


def _ledger(where: str, keys: Mapping[str, str], columns: Sequence[str], rows: list[RawRow]) -> Table:
    ignored = [column[:60] for column in columns if column not in keys and column not in _BOOKKEEPING]
    warnings = [f"{where}: columns ignored: {', '.join(ignored)}"] if ignored else []
    return Table(rows, [], warnings) if _CACHE.keys() & keys else Table([], rows, warnings)
