"""Checks the rules of a policy that people set, in [policy] or with --set, and applies them over a preset."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, get_args, get_type_hints

from cachesim.config.toml import did_you_mean, exact_float, kind_of
from cachesim.core.policy import RULE_HELP, TIERS, Policy
from cachesim.errors import ConfigError, UsageError

_BARE_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_MOST_POSITIONS: Final = 1_000_000
_MOST_TOKENS: Final = 2**31 - 1
_MOST_SECONDS: Final = 10 * 366 * 86_400


def check_rule(name: str, value: object, where: str) -> Any:
    """The value of the rule `name` in the form `apply_rules` takes. Raises ConfigError at `where` if it does not fit.

    tier_seconds becomes a dict of the tiers named; min_prefix_tokens takes "null" for the tariff's own floor.
    """
    check = _CHECKS.get(name)
    if check is None:
        raise ConfigError(f"{where}: unknown rule {name}, {did_you_mean(name, _CHECKS)}")
    try:
        return check(value)
    except _Misfit as misfit:
        raise ConfigError(f"{where}: {name} is {misfit.found}, {misfit.expected} was expected") from misfit


def apply_rules(policy: Policy, rules: Mapping[str, Any]) -> Policy:
    """`policy` with `rules` set; its name stays. Raises ConfigError for a rule that does not exist or does not fit."""
    checked = {name: check_rule(name, value, "policy") for name, value in rules.items()}
    if "tier_seconds" in checked:
        seconds = dict(zip(TIERS, policy.tier_seconds, strict=True)) | checked["tier_seconds"]
        checked["tier_seconds"] = tuple(seconds[tier] for tier in TIERS)
    changed = replace(policy, **checked)
    if changed.default_ttl not in changed.enabled_ttls:
        enabled = ", ".join(changed.enabled_ttls)
        raise ConfigError(f"policy: default_ttl is {changed.default_ttl}, one of enabled_ttls ({enabled}) was expected")
    return changed


def parse_set(text: str) -> tuple[str, Any]:
    """The rule and value of `--set rule=value`, checked. Raises UsageError naming what is wrong.

    The value is TOML; a bare word that is not TOML is a string: `window=fixed` is `window="fixed"`.
    """
    name, equals, written = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise UsageError("--set: rule=value was expected, for example --set walk_back=30")
    try:
        return name, check_rule(name, _toml_value(name, written.strip()), "--set")
    except ConfigError as error:
        raise UsageError(str(error)) from error


def _toml_value(name: str, written: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {written}", parse_float=exact_float)
    except (ValueError, RecursionError) as error:
        if _BARE_WORD.fullmatch(written):
            return written
        message = (
            f'--set {name}: not a TOML value; numbers, true, false, "text", ["lists"] or a bare word were expected'
        )
        raise UsageError(message) from error
    if len(parsed) != 1:
        raise UsageError(f"--set {name}: several lines, one TOML value was expected")
    return parsed["value"]


class _Misfit(Exception):
    """A value that a rule cannot take: what was found and what was expected."""

    def __init__(self, found: object, expected: str) -> None:
        super().__init__(expected)
        self.found = found
        self.expected = expected


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Misfit(kind_of(value), "true or false")
    return value


def _whole(least: int, most: int, unit: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        expected = f"a whole number of {unit} from {least} to {most}"
        if isinstance(value, bool) or not isinstance(value, int):
            raise _Misfit(kind_of(value), expected)
        if not least <= value <= most:
            raise _Misfit(value if abs(value) < 10**18 else "out of range", expected)
        return value

    return check


def _one_of(*words: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise _Misfit(kind_of(value), " or ".join(words))
        if value not in words:
            raise _Misfit(f"{value[:40]!r}", " or ".join(words))
        return value

    return check


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _Misfit(kind_of(value), "an array of strings")
    for element in value:
        if not isinstance(element, str):
            raise _Misfit(f"an array holding {kind_of(element)}", "an array of strings")
    return tuple(value)


def _tiers(value: object) -> tuple[str, ...]:
    expected = f"an array of different tiers out of {', '.join(TIERS)}"
    named = _strings(value)
    unknown = [tier for tier in named if tier not in TIERS]
    if unknown:
        raise _Misfit(f"an array with {unknown[0][:40]!r}", expected)
    if not named or len(set(named)) < len(named):
        raise _Misfit("an array that repeats a tier" if named else "an empty array", expected)
    return tuple(tier for tier in TIERS if tier in named)


def _tier_seconds(value: object) -> dict[str, int]:
    seconds = _whole(1, _MOST_SECONDS, "seconds")
    if isinstance(value, list | tuple) and len(value) == len(TIERS):
        return dict(zip(TIERS, map(seconds, value), strict=True))
    if isinstance(value, dict) and value and value.keys() <= set(TIERS):
        return {tier: seconds(value[tier]) for tier in TIERS if tier in value}
    found = f"{kind_of(value)} of another form" if isinstance(value, dict | list | tuple) else kind_of(value)
    raise _Misfit(found, "an array of three numbers of seconds (5m, 1h, 24h) or a table such as {5m = 300}")


def _floor(value: object) -> int | None:
    if value is None or value == "null":
        return None
    return _whole(0, _MOST_TOKENS, "tokens")(value)


_SPECIAL: Final[dict[str, Callable[[object], Any]]] = {
    "telemetry_prefixes": _strings,
    "enabled_ttls": _tiers,
    "default_ttl": _one_of(*TIERS),
    "max_breakpoints": _whole(1, _MOST_POSITIONS, "markers"),
    "walk_back": _whole(1, _MOST_POSITIONS, "block boundaries"),
    "min_prefix_tokens": _floor,
    "tier_seconds": _tier_seconds,
}


def _check_of(name: str, hint: Any) -> Callable[[object], Any]:
    """Booleans and literal words are checked by their declared type; every other rule names its check."""
    if hint is bool:
        return _boolean
    return _SPECIAL[name] if name in _SPECIAL else _one_of(*get_args(hint))


_HINTS: Final = get_type_hints(Policy)
_CHECKS: Final = {name: _check_of(name, _HINTS[name]) for name in RULE_HELP}
