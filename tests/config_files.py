"""Configuration files for tests, written into the current directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachesim.config import Config, load_config
from cachesim.errors import ConfigError


def write(text: str | bytes, name: str = "c.toml") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def load(text: str | bytes) -> Config:
    return load_config([write(text)])


def refusal(text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return str(caught.value)
