"""Ledger rows for tests, as the TOML and CSV that people write and dump."""

from __future__ import annotations

import json
from pathlib import Path

CACHE_HEAD = (
    "alias,write_multiplier_5m,write_multiplier_1h,write_multiplier_24h,read_multiplier,min_prefix_tokens,"
    "valid_from,valid_until"
)
BASE_HEAD = (
    "alias,input_price_per_token,output_price_per_token,api_key_purpose,completion_window,valid_from,valid_until"
)


def cache(model: str = "m", **more: str) -> str:
    """A [[cache_tariff]] with the usual multipliers; more: keys as TOML values."""
    values = {"write_5m": "1.25", "write_1h": "2", "write_24h": "2.5", "read": "0.1", "min_prefix_tokens": "1024"}
    return _table("cache_tariff", model, values | more)


def base(model: str = "m", **more: str) -> str:
    """A [[base_tariff]] of 3 and 15 per million tokens; more: keys as TOML values."""
    return _table("base_tariff", model, {"input_per_mtok": "3", "output_per_mtok": "15"} | more)


def _table(section: str, model: str, values: dict[str, str]) -> str:
    lines = [f"[[{section}]]", f"model = {json.dumps(model)}", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def write(name: str, *parts: str) -> str:
    Path(name).write_text("".join(parts))
    return name
