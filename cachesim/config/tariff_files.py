"""Tariff sets from files of every accepted kind, TOML, CSV and Parquet, alone or mixed; and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, TypeVar

from cachesim.assumed_prices import assumed_base_row
from cachesim.config.ledgers import Finding, check_ledgers, ledger_findings
from cachesim.config.rows import RawRow, base_row, cache_row
from cachesim.config.tables import is_table, read_table
from cachesim.config.toml import TARIFF_SECTIONS, TomlFile, check_sections, kind_of, read_toml
from cachesim.core.ledger import TariffSet
from cachesim.errors import ConfigError, InputError, UsageError

DEFAULT_TARIFF_NAME: Final = "default"

Row = TypeVar("Row")


def load_tariff_set(spec: str, name: str | None = None) -> TariffSet:
    """The tariff set of the comma-joined files `spec`, named `name` or after the files: "a+b" for x/a.toml,b.csv.

    Of a whole configuration only the tariffs are taken, with a warning. Models without a base tariff in the set get
    assumed prices. Raises like `load_config`, UsageError for an empty file name.
    """
    files = _files(spec)
    return _rows_of(spec, files).build(name or _set_name(files))


def examine_tariff_set(spec: str) -> tuple[TariffSet, list[Finding]]:
    """The tariff set of `spec`, named by it, as far as it is usable, and everything wrong with its rows.

    Raises like `load_tariff_set` for anything but a wrong row.
    """
    return _rows_of(spec, _files(spec)).examine(spec)


def _files(spec: str) -> list[str]:
    files = [part.strip() for part in spec.split(",")]
    if not all(files):
        raise UsageError("--tariff: an empty file name, files joined with commas were expected")
    return files


def _rows_of(spec: str, files: Iterable[str]) -> TariffRows:
    rows = TariffRows()
    for file in files:
        rows.add_file(file)
    if not rows.cache_rows and not rows.base_rows:
        raise ConfigError(f"{spec}: no tariff, [[cache_tariff]] or [[base_tariff]] rows were expected")
    return rows


def load_tariff_sets(specs: Iterable[str], taken: Collection[str] = ()) -> list[TariffSet]:
    """One set per `--tariff`, named after its files; sets that would share a name are named by their whole spec.

    taken: names that other sets have already.
    """
    sets = [(spec, load_tariff_set(spec)) for spec in specs]
    names = [tariff.name for _, tariff in sets]
    for spec, tariff in sets:
        if names.count(tariff.name) > 1 or tariff.name in (DEFAULT_TARIFF_NAME, *taken):
            tariff.name = spec
    return [tariff for _, tariff in sets]


def _set_name(files: Iterable[str]) -> str:
    return "+".join(PurePath(file).stem for file in files)


@dataclass(slots=True)
class TariffRows:
    """Raw tariff rows of one set while its files are read."""

    cache_rows: list[RawRow] = field(default_factory=list)
    base_rows: list[RawRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_file(self, name: str) -> None:
        """Takes the tariffs of one file of any accepted kind."""
        if name.lower().endswith(".toml"):
            file = read_toml(name)
            check_sections(file)
            self.add_toml(file)
            others = [section for section in file.data if section not in TARIFF_SECTIONS]
            if others:
                self.warnings.append(f"{name}: only the tariffs of this file are used, not {', '.join(others)}")
        elif is_table(name):
            self.add_table(name)
        else:
            raise InputError(f"{name}: not a kind of tariff file, .toml, .csv or .parquet was expected")

    def add_toml(self, file: TomlFile) -> None:
        """Takes the [[cache_tariff]] and [[base_tariff]] rows of a TOML file."""
        self.cache_rows += _toml_rows(file, "cache_tariff")
        self.base_rows += _toml_rows(file, "base_tariff")

    def add_table(self, name: str) -> None:
        """Takes the rows of a CSV or Parquet file."""
        table = read_table(name)
        self.cache_rows += table.cache_rows
        self.base_rows += table.base_rows
        self.warnings += table.warnings

    def build(self, name: str) -> TariffSet:
        """The checked set; models without any base row get assumed prices."""
        caches, bases = [cache_row(raw) for raw in self.cache_rows], [base_row(raw) for raw in self.base_rows]
        warnings = [*self.warnings, *check_ledgers(caches, bases)]
        return TariffSet(name, caches, bases, fallback_base=assumed_base_row, warnings=warnings)

    def examine(self, name: str) -> tuple[TariffSet, list[Finding]]:
        """The set of the rows that can be read, and what is wrong with each row and between them."""
        findings: list[Finding] = []
        caches = list(_readable(self.cache_rows, cache_row, findings))
        bases = list(_readable(self.base_rows, base_row, findings))
        tariff = TariffSet(name, caches, bases, fallback_base=assumed_base_row, warnings=self.warnings)
        return tariff, [*findings, *ledger_findings(caches, bases)]


def _readable(raws: Iterable[RawRow], make: Callable[[RawRow], Row], findings: list[Finding]) -> Iterator[Row]:
    for raw in raws:
        try:
            yield make(raw)
        except ConfigError as error:
            findings.append(_bad_row(raw, str(error)))


def _bad_row(raw: RawRow, message: str) -> Finding:
    """`message` begins with the place, whose file name may hold the ": " that ends it."""
    file = raw.source.rpartition(":")[0]
    line, _, text = message[len(file) :].partition(": ")
    model = raw.values.get("model")
    return Finding("invalid_row", model if isinstance(model, str) else "", file + line, text, fatal=True)


def _toml_rows(file: TomlFile, section: str) -> list[RawRow]:
    rows = file.data.get(section, [])
    if not isinstance(rows, list):
        expected = f"rows under [[{section}]] (two brackets) were expected"
        raise ConfigError(f"{file.where(section)}: {section} is {kind_of(rows)}, {expected}")
    return [_toml_row(file, section, position, row) for position, row in enumerate(rows)]


def _toml_row(file: TomlFile, section: str, position: int, row: object) -> RawRow:
    source = file.where(section, position)
    if not isinstance(row, dict):
        raise ConfigError(f"{source}: a row of {section} is {kind_of(row)}, a table was expected")
    return RawRow(row, source, lambda key: file.where(section, position, key), {})
