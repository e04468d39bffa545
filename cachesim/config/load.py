"""Loads `cachesim.toml`, its split files and tariff files into checked values; every message names file and line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from cachesim.config.ledgers import Finding
from cachesim.config.rules import check_rule
from cachesim.config.tables import is_table
from cachesim.config.tariff_files import DEFAULT_TARIFF_NAME, TariffRows
from cachesim.config.toml import TomlFile, check_sections, did_you_mean, kind_of, read_toml
from cachesim.core.calibration import LEAST_FACTOR, MOST_FACTOR, OFF, factor_text, parse_factor
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import PRESETS
from cachesim.errors import ConfigError

DEFAULT_FILE: Final = "cachesim.toml"

_MODEL_KEYS: Final = ("tokenizer", "tokenizer_version", "calibration")
_NAMED_TOKENIZERS: Final = ("default", "unmapped")
_TOKENIZER_SCHEMES: Final = ("hub:", "package:")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_WILDCARD: Final = re.compile(r"\[!?\]?[^\]]*\]|[*?]")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How a model's tokens are counted; None: not configured. A path is relative to the working directory.

    calibration: factor of its estimates with four decimals ("1.0874"), or "off"; where: file and line of the tokenizer
    in a configuration, "" from elsewhere.
    """

    tokenizer: str | None = None
    tokenizer_version: str | None = None
    calibration: str | None = None
    where: str = field(default="", compare=False)


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

    A .csv or .parquet file adds its tariffs. Raises InputError for a file that cannot be read and ConfigError, with
    file and line, for what is wrong in one; two files may not set the same thing differently.
    """
    return _build(_paths(paths))


def no_config() -> Config:
    """The defaults, whatever files there are."""
    return _build(())


def _build(paths: Sequence[str]) -> Config:
    draft = _read(paths)
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


def examine_config(paths: Sequence[str] = ()) -> tuple[TariffSet, list[Finding]]:
    """The default tariff set of the configuration, as far as it is usable, and everything wrong with its rows.

    Raises like `load_config` for anything but a wrong row.
    """
    return _read(_paths(paths)).rows.examine(DEFAULT_TARIFF_NAME)


def _paths(paths: Sequence[str]) -> Sequence[str]:
    return [DEFAULT_FILE] if not paths and os.path.isfile(DEFAULT_FILE) else paths


def _read(paths: Sequence[str]) -> _Draft:
    draft = _Draft()
    for path in paths:
        if is_table(path):
            draft.rows.add_table(path)
        else:
            draft.add(read_toml(path))
    return draft


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


@dataclass(slots=True)
class _Draft:
    """What the files read so far say; `places` remembers where each thing was said, to name clashes."""

    settings: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    models: dict[str, ModelConfig] = field(default_factory=dict)
    principals: dict[str, str] = field(default_factory=dict)
    rows: TariffRows = field(default_factory=TariffRows)
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, file: TomlFile) -> None:
        """Takes everything one file says. Raises ConfigError at the first thing that is wrong."""
        check_sections(file)
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
    tokenizer, where = _from_here(file.name, entry.get("tokenizer")), file.where("models", pattern, "tokenizer")
    return ModelConfig(tokenizer, entry.get("tokenizer_version"), _calibration(file, pattern, entry), where)


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
