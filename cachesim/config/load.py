"""Loads `cachesim.toml`, its split files and tariff files into checked values; every message names file and line."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Final, TypeVar

from cachesim.assumed_prices import assumed_base_row
from cachesim.config.ledgers import check_ledgers
from cachesim.config.rows import RawRow, base_row, cache_row
from cachesim.config.rules import check_rule
from cachesim.config.tables import read_table
from cachesim.config.toml import TomlFile, did_you_mean, kind_of, read_toml
from cachesim.core.calibration import LEAST_FACTOR, MOST_FACTOR, OFF, factor_text, parse_factor
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import PRESETS
from cachesim.errors import ConfigError, InputError, UsageError

DEFAULT_FILE: Final = "cachesim.toml"
DEFAULT_TARIFF_NAME: Final = "default"

_TARIFF_SECTIONS: Final = ("cache_tariff", "base_tariff")
_SECTIONS: Final = ("policy", "models", *_TARIFF_SECTIONS, "principals", "strict_principals")
_MODEL_KEYS: Final = ("tokenizer", "tokenizer_version", "calibration")
_NAMED_TOKENIZERS: Final = ("default", "unmapped")
_TOKENIZER_SCHEMES: Final = ("hub:", "package:")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_WILDCARD: Final = re.compile(r"\[!?\]?[^\]]*\]|[*?]")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How a model's tokens are counted; None: not configured. A path is relative to the working directory.

    calibration: factor of its estimates with four decimals ("1.0874"), or "off".
    """

    tokenizer: str | None = None
    tokenizer_version: str | None = None
    calibration: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A checked configuration.

    policy_rules: rules over the preset, in the form `apply_rules` takes; models: by exact name or pattern, in file
    order; tariff: the default tariff set; principals: digest of a key ("sha256:…") → principal; strict_principals: a
    key not listed there is unscoped; warnings: legal but remarkable things about the tariffs; files: what was read.
    """

    policy_preset: str | None
    policy_rules: dict[str, Any]
    models: dict[str, ModelConfig]
    tariff: TariffSet
    principals: dict[str, str]
    strict_principals: bool
    warnings: list[str]
    files: tuple[str, ...]


def load_config(paths: Sequence[str] = ()) -> Config:
    """The configuration of all files together; without paths of `cachesim.toml` here, or the defaults without one.

    Raises InputError for a file that cannot be read and ConfigError, with file and line, for what is wrong in one; two
    files may not set the same thing differently.
    """
    if not paths and os.path.isfile(DEFAULT_FILE):
        paths = [DEFAULT_FILE]
    draft = _Draft()
    for path in paths:
        draft.add(read_toml(path))
    tariff = draft.rows.build(DEFAULT_TARIFF_NAME)
    return Config(
        policy_preset=draft.settings.get("policy.preset"),
        policy_rules=draft.rules,
        models=draft.models,
        tariff=tariff,
        principals=draft.principals,
        strict_principals=draft.settings.get("strict_principals", False),
        warnings=list(tariff.warnings),
        files=tuple(paths),
    )


def load_tariff_set(spec: str, name: str | None = None) -> TariffSet:
    """The tariff set of the comma-joined files `spec`, named `name` or after the files: "a+b" for x/a.toml,b.csv.

    Of a whole configuration only the tariffs are taken, with a warning. Models without a base tariff in the set get
    assumed prices. Raises like `load_config`, UsageError for an empty file name.
    """
    files = [part.strip() for part in spec.split(",")]
    if not all(files):
        raise UsageError("--tariff: an empty file name, files joined with commas were expected")
    rows = _TariffRows()
    for file in files:
        rows.add_file(file)
    if not rows.cache_rows and not rows.base_rows:
        raise ConfigError(f"{spec}: no tariff, [[cache_tariff]] or [[base_tariff]] rows were expected")
    return rows.build(name or _set_name(files))


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


def model_config(config: Config, alias: str) -> ModelConfig:
    """What `config` says of the model `alias`: its exact name before any pattern, then the most specific pattern.

    More literal characters are more specific, then fewer wildcards, then the earlier entry; matching is case sensitive.
    """
    exact = config.models.get(alias)
    if exact is not None:
        return exact
    matching = [pattern for pattern in config.models if fnmatchcase(alias, pattern)]
    best = max(matching, key=_specificity, default=None)
    return ModelConfig() if best is None else config.models[best]


def _specificity(pattern: str) -> tuple[int, int]:
    wildcards = _WILDCARD.findall(pattern)
    return len(pattern) - sum(map(len, wildcards)), -len(wildcards)


def _set_name(files: Iterable[str]) -> str:
    return "+".join(PurePath(file).stem for file in files)


@dataclass(slots=True)
class _TariffRows:
    """Raw tariff rows of one set while its files are read."""

    cache_rows: list[RawRow] = field(default_factory=list)
    base_rows: list[RawRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add_file(self, name: str) -> None:
        """Takes the tariffs of one file of any accepted kind."""
        suffix = PurePath(name).suffix.lower()
        if suffix == ".toml":
            file = read_toml(name)
            _check_sections(file)
            self.add_toml(file)
            others = [section for section in file.data if section not in _TARIFF_SECTIONS]
            if others:
                self.warnings.append(f"{name}: only the tariffs of this file are used, not {', '.join(others)}")
        elif suffix in (".csv", ".parquet"):
            table = read_table(name)
            self.cache_rows += table.cache_rows
            self.base_rows += table.base_rows
            self.warnings += table.warnings
        else:
            raise InputError(f"{name}: not a kind of tariff file, .toml, .csv or .parquet was expected")

    def add_toml(self, file: TomlFile) -> None:
        """Takes the [[cache_tariff]] and [[base_tariff]] rows of a TOML file."""
        self.cache_rows += _toml_rows(file, "cache_tariff")
        self.base_rows += _toml_rows(file, "base_tariff")

    def build(self, name: str) -> TariffSet:
        """The checked set; models without any base row get assumed prices."""
        caches, bases = [cache_row(raw) for raw in self.cache_rows], [base_row(raw) for raw in self.base_rows]
        warnings = [*self.warnings, *check_ledgers(caches, bases)]
        return TariffSet(name, caches, bases, fallback_base=assumed_base_row, warnings=warnings)


@dataclass(slots=True)
class _Draft:
    """What the files read so far say; `places` remembers where each thing was said, to name clashes."""

    settings: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    models: dict[str, ModelConfig] = field(default_factory=dict)
    principals: dict[str, str] = field(default_factory=dict)
    rows: _TariffRows = field(default_factory=_TariffRows)
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, file: TomlFile) -> None:
        """Takes everything one file says. Raises ConfigError at the first thing that is wrong."""
        _check_sections(file)
        self._add_policy(file)
        for pattern, entry in _table(file, "models").items():
            self._put(self.models, "models", pattern, _model(file, pattern, entry), file.where("models", pattern))
        self._add_principals(file)
        self.rows.add_toml(file)

    def _add_policy(self, file: TomlFile) -> None:
        for name, value in _table(file, "policy").items():
            where = file.where("policy", name)
            if name != "preset":
                self._put(self.rules, "policy", name, check_rule(name, value, where), where)
            elif isinstance(value, str) and value in PRESETS:
                self._put(self.settings, "policy", "policy.preset", value, where)
            else:
                found = did_you_mean(value, PRESETS) if isinstance(value, str) else "a string was expected"
                raise ConfigError(f"{where}: preset is not a known policy, {found}")

    def _add_principals(self, file: TomlFile) -> None:
        for key, principal in _table(file, "principals").items():
            where = file.where("principals", key)
            digest = key.lower()
            if not _DIGEST.fullmatch(digest):
                expected = "sha256: and the 64 hex digits of a key's SHA-256 were expected, never the key itself"
                raise ConfigError(f"{where}: a name in [principals] is not a digest, {expected}")
            if not isinstance(principal, str) or not principal:
                raise ConfigError(f"{where}: a principal is {kind_of(principal)}, a name was expected")
            self._put(self.principals, "principals", digest, principal, where)
        if "strict_principals" in file.data:
            strict, where = file.data["strict_principals"], file.where("strict_principals")
            if not isinstance(strict, bool):
                raise ConfigError(f"{where}: strict_principals is {kind_of(strict)}, true or false was expected")
            self._put(self.settings, "top", "strict_principals", strict, where)

    def _put(self, target: dict[str, Value], section: str, key: str, value: Value, where: str) -> None:
        if key in target and target[key] != value:
            earlier = self.places[section, key]
            raise ConfigError(f"{where}: set differently at {earlier}, one value was expected: remove one of the two")
        target[key] = value
        self.places.setdefault((section, key), where)


def _check_sections(file: TomlFile) -> None:
    for section in file.data:
        if section not in _SECTIONS:
            raise ConfigError(f"{file.where(section)}: unknown key {section[:60]}, {did_you_mean(section, _SECTIONS)}")


def _table(file: TomlFile, section: str) -> Mapping[str, Any]:
    value = file.data.get(section, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{file.where(section)}: {section} is {kind_of(value)}, a table [{section}] was expected")
    return value


def _model(file: TomlFile, pattern: str, entry: object) -> ModelConfig:
    where = file.where("models", pattern)
    if not isinstance(entry, dict):
        raise ConfigError(f'{where}: the model is {kind_of(entry)}, a table [models."{pattern[:60]}"] was expected')
    for key, value in entry.items():
        place = file.where("models", pattern, key)
        if key not in _MODEL_KEYS:
            raise ConfigError(f"{place}: unknown key {key[:60]}, {did_you_mean(key, _MODEL_KEYS)}")
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{place}: {key} is {kind_of(value)}, a string that is not empty was expected")
    tokenizer = _from_here(file.name, entry.get("tokenizer"))
    return ModelConfig(tokenizer, entry.get("tokenizer_version"), _calibration(file, pattern, entry))


def _calibration(file: TomlFile, pattern: str, entry: Mapping[str, Any]) -> str | None:
    text = entry.get("calibration")
    if text is None or text == OFF:
        return text
    where = file.where("models", pattern, "calibration")
    if entry.get("tokenizer", "default") != "default":
        raise ConfigError(
            f"{where}: calibration beside a tokenizer, whose counts are never scaled: remove one of the two"
        )
    factor_e4 = parse_factor(text)
    if factor_e4 is None:
        bounds = f"from {factor_text(LEAST_FACTOR)} to {factor_text(MOST_FACTOR)}"
        raise ConfigError(
            f'{where}: calibration is no factor {bounds} of at most four decimals, like "1.0874", nor "off"'
        )
    return factor_text(factor_e4)


def _from_here(file: str, tokenizer: str | None) -> str | None:
    """A tokenizer's path as seen from the working directory; in the file it is relative to the file."""
    if tokenizer is None or tokenizer in _NAMED_TOKENIZERS or tokenizer.startswith(_TOKENIZER_SCHEMES):
        return tokenizer
    return os.path.join(os.path.dirname(file), os.path.expanduser(tokenizer))


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
