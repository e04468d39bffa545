"""Loads a mapping file: which members of the rows of some JSON log are which fields of a request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final

from cachesim.config.toml import TomlFile, did_you_mean, kind_of, read_toml
from cachesim.errors import ConfigError
from cachesim.trace.formats import FORMATS
from cachesim.trace.mapping import CONSTANTS, FAMILIES, TARGETS, TIMED, UNITS_US

_TABLES: Final = ("fields", "detect", "constants", "units")
_Entry = tuple[tuple[str, ...], str, Any]
"""Where a value stands in the file, its name with dots, and the value."""


def load_mapping(name: str) -> dict[str, Any]:
    """The mapping of a file, as plain values for `ReadOptions.mapping`.

    Raises InputError for a file that cannot be read and ConfigError, with file and line, for what is wrong in one.
    """
    file = read_toml(name)
    for key in file.data:
        if key not in (*_TABLES, "name"):
            raise ConfigError(f"{file.where(key)}: unknown key {key}, {did_you_mean(key, (*_TABLES, 'name'))}")
    mapping = {"name": _name(file)} | {table: _table(file, table) for table in _TABLES}
    fields = mapping["fields"]
    if not fields:
        raise ConfigError(f'{name}: no [fields], at least body = "path of the request\'s body" was expected')
    if "body" not in fields and not any(target.startswith("body.") for target in fields):
        raise ConfigError(
            f"{file.where('fields')}: no body, which every request has: give body, or its parts as body.messages …"
        )
    for whole in ("body", "usage"):
        if whole in fields and any(target.startswith(f"{whole}.") for target in fields):
            raise ConfigError(f"{file.where('fields', whole)}: {whole} and parts of it; give the one or the other")
    return mapping


def _name(file: TomlFile) -> str:
    name = file.data.get("name", PurePath(file.name).name.split(".")[0] or "mapping")
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{file.where('name')}: name is {kind_of(name)}, a name for the format was expected")
    if name in FORMATS:
        raise ConfigError(f"{file.where('name')}: {name} is the name of a format that is known; choose another name")
    return name


def _table(file: TomlFile, table: str) -> dict[str, Any]:
    """A table with checked names and values, tables in it written as names with dots."""
    values = file.data.get(table, {})
    if not isinstance(values, dict):
        raise ConfigError(f"{file.where(table)}: {table} is {kind_of(values)}, a table was expected")
    checked: dict[str, Any] = {}
    for path, name, value in _flat((table,), "", values):
        where = file.where(*path)
        _check(where, table, name, value)
        if name in checked:
            raise ConfigError(f"{where}: {name} stands twice in [{table}]; keep one")
        checked[name] = value
    return checked


def _flat(path: tuple[str, ...], start: str, values: dict[str, Any]) -> Iterator[_Entry]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat((*path, key), f"{start}{key}.", value)
        else:
            yield (*path, key), f"{start}{key}", value


def _check(where: str, table: str, name: str, value: object) -> None:
    known = {"fields": TARGETS, "constants": CONSTANTS, "units": TIMED}.get(table)
    families = {"fields": FAMILIES, "constants": ("tags.",)}.get(table, ())
    if known is not None and name not in known and not any(name.startswith(f) and name != f for f in families):
        targets = (*known, *(f"{family}NAME" for family in families))
        raise ConfigError(f"{where}: unknown target {name} in [{table}], {did_you_mean(name, targets)}")
    if table == "units" and value not in UNITS_US:
        raise ConfigError(f"{where}: the unit of {name} is not one of {', '.join(UNITS_US)}")
    if table == "fields" and (not isinstance(value, str) or not value):
        raise ConfigError(f'{where}: {name} is {kind_of(value)}, a path such as "request.body" was expected')
    if table == "constants" and (isinstance(value, bool) or not isinstance(value, int if name == "status" else str)):
        raise ConfigError(
            f"{where}: {name} is {kind_of(value)}, {'an integer' if name == 'status' else 'a string'} was expected"
        )
    if table == "detect" and not isinstance(value, bool | int | str):
        raise ConfigError(f"{where}: {name} is {kind_of(value)}, true (is there), false or a value was expected")
