"""The user's configuration: `cachesim.toml`, split files, tariff files and `--set`, checked with file and line."""

from __future__ import annotations

from cachesim.config.ledgers import Finding
from cachesim.config.load import DEFAULT_FILE, Config, ModelConfig, examine_config, load_config, model_config, no_config
from cachesim.config.rules import apply_rules, parse_set
from cachesim.config.tariff_files import examine_tariff_set, load_tariff_set, load_tariff_sets

__all__ = [
    "DEFAULT_FILE",
    "Config",
    "Finding",
    "ModelConfig",
    "apply_rules",
    "examine_config",
    "examine_tariff_set",
    "load_config",
    "load_tariff_set",
    "load_tariff_sets",
    "model_config",
    "no_config",
    "parse_set",
]
