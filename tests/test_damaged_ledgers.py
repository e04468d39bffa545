"""Any text as a configuration or a price table: a ledger, or one error that names file and line."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesim.config import load_config, load_tariff_set
from cachesim.errors import ConfigError, InputError, UsageError

TOML = """\
[policy]
preset = "dwctl-10.13"
walk_back = 20

[models."gpt*"]
tokenizer = "none.json"

[principals]
"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" = "acme"

[[cache_tariff]]
model = "m"
write_5m = "1.25"
write_1h = "2"
write_24h = "3"
read = "0.1"
min_prefix_tokens = 1024
valid_from = 2026-01-01T00:00:00Z
valid_until = 2026-06-01T00:00:00Z

[[base_tariff]]
model = "m"
input_per_mtok = "3"
output_per_mtok = "15"
purpose = "batch"
completion_window = "24h"
"""
CSV = """\
model,write_multiplier_5m,write_multiplier_1h,write_multiplier_24h,read_multiplier,min_prefix_tokens,valid_from,valid_until
m,1.25,2,3,0.1,1024,2026-01-01T00:00:00Z,2026-06-01T00:00:00Z
"n, o",1.25,2,3,0.1,2048,,
"""
PIECES = [
    "", "\n", '"', "'", "=", "[", "]]", "-1", "1e99", "9" * 400, "NaN", "inf", "\x00", "\x1b[2J", "\ud7ff", ",", ",,",
    "2026-13-01", "0001-01-01T00:00:00Z", "{", "true", "[[cache_tariff]]\n", "\ufeff", "\r", "é", "model", "# ", "0.1",
]  # fmt: skip


def damaged(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(PIECES) + text[place + chance.choice((0, 1, 4, 40)) :]
    return text


def assert_loads_or_says_why(load: Callable[[str], object], name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            assert load(str(path)) is not None
        except (ConfigError, InputError, UsageError) as error:
            message = str(error)
            assert message.startswith(f"{path}:") or name in message
            assert len(message) < 2000


@given(st.randoms(use_true_random=False))
def test_a_damaged_configuration_loads_or_says_why(chance: random.Random) -> None:
    text = damaged(TOML, chance).encode("utf-8", "surrogatepass")
    assert_loads_or_says_why(lambda name: load_config([name]), "c.toml", text)
    assert_loads_or_says_why(load_tariff_set, "t.toml", text)


@given(st.randoms(use_true_random=False))
def test_a_damaged_price_table_loads_or_says_why(chance: random.Random) -> None:
    assert_loads_or_says_why(load_tariff_set, "t.csv", damaged(CSV, chance).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200), st.sampled_from(["t.toml", "t.csv", "t.parquet"]))
def test_any_bytes_load_or_say_why(content: bytes, name: str) -> None:
    assert_loads_or_says_why(load_tariff_set, name, content)


def test_the_undamaged_ones_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("none.json").write_text("{}")
    for name, text in (("t.toml", TOML), ("t.csv", CSV)):
        Path(name).write_text(text)
        assert load_tariff_set(name).all_cache_rows
    assert load_config(["t.toml"]).models
