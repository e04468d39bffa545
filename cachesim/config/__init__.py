"""The user's configuration: `cachesim.toml`, split files, tariff files and `--set`, checked with file and line."""

from __future__ import annotations

from cachesim.config.load import (
    DEFAULT_FILE,
    Config,
    ModelConfig,
    load_config,
    load_tariff_set,
    load_tariff_sets,
    model_config,
)
from cachesim.config.rules import apply_rules, parse_set

__all__ = [
    "DEFAULT_FILE",
    "Config",
    "ModelConfig",
    "apply_rules",
    "load_config",
    "load_tariff_set",
    "load_tariff_sets",
    "model_config",
    "parse_set",
]
