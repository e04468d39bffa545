"""cachesim.toml and tariff files: what loads, how files merge, and every refusal with its file and line."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from config_files import load, refusal, write

from cachesim.config import (
    ModelConfig,
    load_config,
    load_tariff_set,
    model_config,
)
from cachesim.core.ledger import DEFAULT_CACHE_ROW
from cachesim.errors import ConfigError, InputError

DIGEST = "sha256:" + "ab" * 32
JAN_US = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z"""

FULL = f"""\
strict_principals = true
[policy]
preset = "dwctl-8.63"
walk_back = 30
tier_seconds = {{5m = 600}}
[models."alias"]
tokenizer = "tok/tokenizer.json"
[models."qwen*"]
tokenizer = "hub:org/name"
tokenizer_version = "v7"
[[cache_tariff]]
model = "alias"
name = "standard"
write_5m = "1.25"
write_1h = 2.0
write_24h = "2.5"
read = 0.1
min_prefix_tokens = 1024
valid_from = 2026-01-01T00:00:00Z
[[base_tariff]]
model = "alias"
input_per_mtok = "3"
output_per_token = 0.000015
[principals]
"{DIGEST}" = "acme"
"""

CACHE = 'write_5m = "1.25"\nwrite_1h = "2"\nwrite_24h = "2.5"\nread = "0.1"\nmin_prefix_tokens = 1024\n'
CACHE_ROW = f'[[cache_tariff]]\nmodel = "m"\n{CACHE}'
BASE_ROW = '[[base_tariff]]\nmodel = "m"\ninput_per_mtok = "3"\noutput_per_mtok = "15"\n'


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_full_file() -> None:
    config = load(FULL)
    assert config.policy_preset == "dwctl-8.63"
    assert config.policy_rules == {"walk_back": 30, "tier_seconds": {"5m": 600}}
    assert config.models == {
        "alias": ModelConfig("tok/tokenizer.json"),
        "qwen*": ModelConfig("hub:org/name", "v7"),
    }
    assert config.principals == {DIGEST: "acme"}
    assert config.strict_principals
    assert config.warnings == []
    [cache] = config.tariff.all_cache_rows
    assert (cache.name, cache.source, cache.valid_from_us, cache.valid_until_us) == (
        "standard",
        "c.toml:11",
        JAN_US,
        None,
    )
    assert tuple(cache.multipliers) == (Decimal("0.1"), Decimal("1.25"), Decimal("2.0"), Decimal("2.5"))
    [base] = config.tariff.all_base_rows
    assert (base.input_price, base.output_price) == (Decimal("0.000003"), Decimal("0.000015"))
    assert (base.purpose, base.completion_window, base.source) == ("realtime", None, "c.toml:20")


def test_no_file_gives_the_defaults_for_every_model() -> None:
    config = load_config()
    assert (config.policy_preset, config.policy_rules, config.models, config.principals) == (None, {}, {}, {})
    assert config.files == ()
    assert config.tariff.all_cache_rows == [DEFAULT_CACHE_ROW]
    assert config.tariff.gate("anything", 0) == 1024


def test_the_file_of_the_current_directory_is_found() -> None:
    write(CACHE_ROW, "cachesim.toml")
    config = load_config()
    assert config.files == ("cachesim.toml",)
    assert (config.tariff.gate("m", 0), config.tariff.gate("other", 0)) == (1024, None)


def test_models_without_base_rows_get_assumed_prices() -> None:
    tariff = load(CACHE_ROW + BASE_ROW).tariff
    assert tariff.base_row("m", None, None, JAN_US) == 0
    assert tariff.base_row("no-such-model", None, None, JAN_US) is None
    number = tariff.base_row("gpt-4o", None, None, JAN_US)
    assert number is not None
    assert tariff.all_base_rows[number].assumed


def test_split_files_merge() -> None:
    first, second = (
        write("[policy]\nwalk_back = 3\n" + CACHE_ROW, "a.toml"),
        write("[policy]\nwalk_back = 3\n" + BASE_ROW, "b.toml"),
    )
    config = load_config([first, second])
    assert (len(config.tariff.all_cache_rows), len(config.tariff.all_base_rows)) == (1, 1)
    assert config.files == ("a.toml", "b.toml")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[policy]\nwalk_back = 3\n", "[policy]\n\nwalk_back = 4\n"),
        ('[policy]\npreset = "dwctl-8.63"\n', '[policy]\n\npreset = "dwctl-10.13"\n'),
        (f'[principals]\n"{DIGEST}" = "a"\n', f'[principals]\n\n"{DIGEST.upper().replace("SHA", "sha")}" = "b"\n'),
        ('[models]\nm = {tokenizer = "default"}\n', '[models]\n\nm = {tokenizer = "unmapped"}\n'),
        ("\nstrict_principals = true\n", "\n\nstrict_principals = false\n"),
    ],
)
def test_files_that_contradict_each_other_are_refused_naming_both(first: str, second: str) -> None:
    with pytest.raises(ConfigError, match=r"^b\.toml:3: set differently at a\.toml:2"):
        load_config([write(first, "a.toml"), write(second, "b.toml")])


def test_tokenizer_paths_are_relative_to_their_file() -> None:
    text = "\n".join(
        f'[models.{n}]\ntokenizer = "{t}"' for n, t in zip("abcd", ["x", "/y", "default", "package:p/z"], strict=True)
    )
    models = load_config([write(text, "conf/c.toml")]).models
    assert [entry.tokenizer for entry in models.values()] == ["conf/x", "/y", "default", "package:p/z"]


def test_the_most_specific_model_entry_wins() -> None:
    patterns = ["*", "qwen*", "qwen3*", "qwen?*", "qwen3-[0-9]b", "Qwen3", "a[*]b"]
    text = "".join(f'[models."{pattern}"]\ntokenizer_version = "{pattern}"\n' for pattern in patterns)
    config = load(text)
    wanted = {
        "Qwen3": "Qwen3",
        "qwen3-8b": "qwen3-[0-9]b",
        "qwen3-88b": "qwen3*",
        "qwen2": "qwen*",
        "QWEN2": "*",
        "a[*]b": "a[*]b",
        "a*b": "a[*]b",
    }
    assert {alias: model_config(config, alias).tokenizer_version for alias in wanted} == wanted
    assert model_config(load(""), "m") == ModelConfig()


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("[polcy]\n", "c.toml:1: unknown key polcy, did you mean policy?"),
        ("policy = 3\n", "c.toml:1: policy is an integer, a table [policy] was expected"),
        ("\n[policy]\nwalk_bak = 3\n", "c.toml:3: unknown rule walk_bak, did you mean walk_back?"),
        ("[policy]\nwalk_back = 0\n", "c.toml:2: walk_back is 0, a whole number of block boundaries from 1"),
        ("policy.walk_back = true\n", "c.toml:1: walk_back is a boolean, a whole number"),
        ("[policy]\nwalk_back = 1.5\n", "c.toml:2: walk_back is a float, a whole number"),
        ('[policy]\nhash_tools = "yes"\n', "c.toml:2: hash_tools is a string, true or false was expected"),
        ('[policy]\nwindow = "fix"\n', "c.toml:2: window is 'fix', sliding or fixed was expected"),
        ('[policy]\npreset = "dwctl-10.31"\n', "c.toml:2: preset is not a known policy, did you mean dwctl-10.13?"),
        ("[policy]\npreset = 10\n", "c.toml:2: preset is not a known policy, a string was expected"),
        ("[policy]\ntier_seconds = [1, 2]\n", "c.toml:2: tier_seconds is an array of another form"),
        ("[policy]\ntier_seconds = {5m = 0}\n", "c.toml:2: tier_seconds is 0, a whole number of seconds"),
        ('[policy]\nenabled_ttls = ["5m", "30m"]\n', "c.toml:2: enabled_ttls is an array with '30m'"),
        ("[policy]\nenabled_ttls = []\n", "c.toml:2: enabled_ttls is an empty array"),
        ("[policy]\ntelemetry_prefixes = [1]\n", "c.toml:2: telemetry_prefixes is an array holding an integer"),
        ('[models."m"]\ntokeniser = "x"\n', "c.toml:2: unknown key tokeniser, did you mean tokenizer?"),
        ('[models."m"]\n\ntokenizer = 3\n', "c.toml:3: tokenizer is an integer, a string"),
        ('[models]\nm = "x"\n', 'c.toml:2: the model is a string, a table [models."m"] was expected'),
        ("[models.m]\ntokenizer = ''\n", "c.toml:2: tokenizer is a string, a string that is not empty"),
        ('strict_principals = "true"\n', "c.toml:1: strict_principals is a string, true or false"),
        (f'[principals]\n"{DIGEST}" = ""\n', "c.toml:2: a principal is a string, a name was expected"),
        ('[cache_tariff]\nmodel = "m"\n', "c.toml:1: cache_tariff is a table, rows under [[cache_tariff]]"),
        ("cache_tariff = [3]\n", "c.toml:1: a row of cache_tariff is an integer"),
        ("x = = 3\n", "c.toml:1: not valid TOML: Invalid value at column 5"),
        ('\n\nx = "open\n', "c.toml:3: not valid TOML"),
        ("a = [1,\n2,\n", "c.toml:2: not valid TOML"),
        ("a = 1\na = 2\n", "c.toml:2: not valid TOML"),
        ("a = " + "[" * 20_000, "c.toml: TOML nested too deeply"),
        ("a = 1e99999999999999999999\n", "c.toml:1: not valid TOML: a number out of range"),
        (b"\n\xff\xfe", "c.toml:2: not UTF-8 (byte 1)"),
        (b"PAR1\x00\x00", "c.toml:1: not valid TOML"),
    ],
)
def test_refusals_outside_tariffs(text: str | bytes, start: str) -> None:
    assert refusal(text).startswith(start)


def test_a_raw_key_in_principals_is_refused_without_repeating_it() -> None:
    message = refusal('[principals]\n"sk-secret-key" = "acme"\n')
    assert message.startswith("c.toml:2: a name in [principals] is not a digest")
    assert "secret" not in message


@pytest.mark.parametrize("name", ["absent.toml", ".", "a\0b"])
def test_unreadable_files_are_input_errors(name: str) -> None:
    with pytest.raises(InputError):
        load_config([name])


def test_a_whole_configuration_as_tariff_set() -> None:
    tariff = load_tariff_set(write(FULL))
    assert tariff.gate("alias", JAN_US) == 1024
    [warning] = tariff.warnings
    assert (
        warning == "c.toml: only the tariffs of this file are used, not strict_principals, policy, models, principals"
    )
