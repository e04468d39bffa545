"""Rules set by people: [policy] values, --set, and applying them over a preset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cachesim.config import apply_rules, parse_set
from cachesim.config.rules import check_rule
from cachesim.core.policy import PRESETS, RULE_HELP, rules
from cachesim.errors import ConfigError, UsageError

NEW = PRESETS["dwctl-10.13"]


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_rule_of_every_preset_can_be_set_to_its_own_value(preset: str) -> None:
    policy = PRESETS[preset]
    assert apply_rules(policy, rules(policy)) == policy
    assert rules(policy).keys() == RULE_HELP.keys()


def test_rules_are_applied_over_the_preset() -> None:
    changed = apply_rules(
        NEW, {"walk_back": 5, "window": "fixed", "tier_seconds": {"1h": 7200}, "enabled_ttls": ["24h", "5m"]}
    )
    assert changed == replace(
        NEW, walk_back=5, window="fixed", tier_seconds=(300, 7200, 86400), enabled_ttls=("5m", "24h")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("window=fixed", ("window", "fixed")),
        (' window = "fixed" ', ("window", "fixed")),
        ("walk_back=0x10", ("walk_back", 16)),
        ("hash_tools=false", ("hash_tools", False)),
        ("default_ttl=24h", ("default_ttl", "24h")),
        ("tier_seconds={5m=900}", ("tier_seconds", {"5m": 900})),
        ("tier_seconds=[1, 2, 3]", ("tier_seconds", {"5m": 1, "1h": 2, "24h": 3})),
        ("min_prefix_tokens=null", ("min_prefix_tokens", None)),
        ("min_prefix_tokens=0", ("min_prefix_tokens", 0)),
        ('telemetry_prefixes=["a=b"]', ("telemetry_prefixes", ("a=b",))),
        ("telemetry_prefixes=[]", ("telemetry_prefixes", ())),
    ],
)
def test_parse_set(text: str, expected: tuple[str, Any]) -> None:
    name, value = parse_set(text)
    assert (name, value) == expected
    base = apply_rules(NEW, {"enabled_ttls": ["5m", "1h", "24h"]})
    assert check_rule(name, value, "x") == value, "a checked value passes the check again"
    assert apply_rules(base, {name: value}) != base or name in ("min_prefix_tokens",)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("walk_back", "--set: rule=value was expected"),
        ("=3", "--set: rule=value was expected"),
        ("walk_bak=3", "--set: unknown rule walk_bak, did you mean walk_back?"),
        ("name=x", "--set: unknown rule name"),
        ("walk_back=-1", "--set: walk_back is -1, a whole number"),
        ("walk_back=", "--set walk_back: not a TOML value"),
        ("walk_back=[1", "--set walk_back: not a TOML value"),
        ("walk_back=1\nx=2", "--set walk_back: several lines"),
        ("hash_tools=True", "--set: hash_tools is a string, true or false"),
        ("default_ttl=30m", "--set: default_ttl is '30m', 5m or 1h or 24h"),
        ("enabled_ttls=5m", "--set: enabled_ttls is a string, an array of strings"),
        ('enabled_ttls=["5m", "5m"]', "--set: enabled_ttls is an array that repeats a tier"),
        ("tier_seconds=300", "--set: tier_seconds is an integer, an array of three"),
        ("tier_seconds={30m=1}", "--set: tier_seconds is a table of another form"),
        ('tier_seconds={5m="300"}', "--set: tier_seconds is a string, a whole number of seconds"),
        ("min_prefix_tokens=-1", "--set: min_prefix_tokens is -1"),
        ("max_breakpoints=" + "9" * 30, "--set: max_breakpoints is out of range"),
        ("visible_at=later", "--set: visible_at is 'later', completion or response_start or arrival"),
    ],
)
def test_parse_set_refusals(text: str, start: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_set(text)
    assert str(caught.value).startswith(start)


def test_the_default_tier_must_be_enabled() -> None:
    with pytest.raises(ConfigError, match="default_ttl is 5m, one of enabled_ttls \\(1h\\) was expected"):
        apply_rules(NEW, {"enabled_ttls": ["1h"]})
    assert apply_rules(NEW, {"enabled_ttls": ["1h"], "default_ttl": "1h"}).default_ttl == "1h"
