"""The axes of a sweep, and how people write them: floors, lifetimes, windows, walk-backs, multipliers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, NamedTuple, TypeVar

from cachesim.core.gates import MarkerStrategy
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import TIERS, Policy
from cachesim.errors import UsageError, nearest

Window = Literal["sliding", "fixed"]
Value = TypeVar("Value")

MOST_FLOOR_TOKENS: Final = 2**31 - 1
MOST_FLOORS: Final = 10_000
MOST_WALK_BACK: Final = 1_000_000
MOST_SECONDS: Final = 10 * 366 * 86_400
MULTIPLIER_DECIMALS: Final = 6
"""Prices keep 20 decimals: an input price of up to 14 times a multiplier of up to 6 stays exact."""

_WHOLE: Final = re.compile(r"\d{1,18}", re.ASCII)
_LIFETIME: Final = re.compile(r"(\d{1,12})\s*([smhd])", re.ASCII)
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Lifetimes(NamedTuple):
    """How long entries live, in seconds, whatever their markers say.

    stable_s: entries of breakpoints that close a tool definition or a system block; other_s: all others.
    name: "15m", or "1h+5m" where the two differ.
    """

    name: str
    stable_s: int
    other_s: int


@dataclass(frozen=True, slots=True)
class Axes:
    """What a sweep varies: every combination is a variant. An empty axis stays as the run has it.

    floors: tokens, None the tariff's own; ttls: None as marked; multipliers: write multiplier of a lifetime that
    upstream does not price, by the lifetime's name.
    """

    floors: tuple[int | None, ...] = ()
    ttls: tuple[Lifetimes | None, ...] = ()
    windows: tuple[Window, ...] = ()
    walk_backs: tuple[int, ...] = ()
    strategies: tuple[MarkerStrategy, ...] = ()
    tariffs: tuple[TariffSet, ...] = ()
    policies: tuple[Policy, ...] = ()
    multipliers: Mapping[str, Decimal] = field(default_factory=dict)


def parse_floors(text: str) -> list[int]:
    """Floors in tokens, ascending, each once: numbers and ranges START:STOP:STEP (STOP included where it is met).

    >>> parse_floors("256:1024:256,2048")
    [256, 512, 768, 1024, 2048]
    """
    floors: set[int] = set()
    for part in _parts("--floor", text):
        bounds = part.split(":")
        if len(bounds) not in (1, 3):
            raise UsageError(f"--floor {part!r}: a number of tokens or START:STOP:STEP was expected, like 256:8192:256")
        numbers = [_whole("--floor", bound.strip(), 0, MOST_FLOOR_TOKENS, "tokens") for bound in bounds]
        floors.update(numbers if len(numbers) == 1 else _range(part, *numbers))
    return sorted(floors)


def _range(part: str, start: int, stop: int, step: int) -> range:
    if step == 0 or stop < start:
        raise UsageError(f"--floor {part!r}: START:STOP:STEP goes upwards by at least 1")
    found = range(start, stop + 1, step)
    if len(found) > MOST_FLOORS:
        raise UsageError(f"--floor {part!r}: {len(found):,} floors, at most {MOST_FLOORS:,}; take a larger STEP")
    return found


def parse_ttl(text: str) -> Lifetimes:
    """One lifetime for every entry, or two: of tools and system blocks, and of all others.

    >>> parse_ttl("900s"), parse_ttl("1h+5m")
    (Lifetimes(name='15m', stable_s=900, other_s=900), Lifetimes(name='1h+5m', stable_s=3600, other_s=300))
    """
    parts = [_seconds("--ttl", part) for part in text.split("+")]
    if len(parts) > 2:
        raise UsageError(f"--ttl {text!r}: at most two lifetimes, of tools and system blocks, and of all others")
    stable_s, other_s = parts[0], parts[-1]
    names = [lifetime_name(seconds) for seconds in (stable_s, other_s)]
    if stable_s == other_s:
        return Lifetimes(names[0], stable_s, other_s)
    if not set(names) & set(TIERS):
        raise UsageError(f"--ttl {text!r}: one of two different lifetimes has to be {', '.join(TIERS)}")
    return Lifetimes("+".join(names), stable_s, other_s)


def parse_ttls(texts: Iterable[str]) -> tuple[Lifetimes, ...]:
    """The lifetimes of comma-joined lists, each once, in the order given."""
    return _each("--ttl", texts, parse_ttl)


def parse_windows(texts: Iterable[str]) -> tuple[Window, ...]:
    """`sliding`, `fixed` or both; each once, in the order given."""
    return _each("--window", texts, _window)


def parse_walk_backs(texts: Iterable[str]) -> tuple[int, ...]:
    """Numbers of block boundaries looked up per breakpoint; each once, in the order given."""
    return _each("--walk-back", texts, lambda part: _whole("--walk-back", part, 1, MOST_WALK_BACK, "block boundaries"))


def parse_multipliers(texts: Iterable[str]) -> dict[str, Decimal]:
    """Write multipliers by lifetime, for lifetimes that no tariff prices.

    >>> parse_multipliers(["15m=1.4", "1800s=1.6"])
    {'15m': Decimal('1.4'), '30m': Decimal('1.6')}
    """
    found: dict[str, Decimal] = {}
    for part in (part for text in texts for part in _parts("--multiplier", text)):
        left, equals, right = part.partition("=")
        if not equals:
            raise UsageError(f"--multiplier {part!r}: LIFETIME=FACTOR was expected, like 15m=1.4")
        name = lifetime_name(_seconds("--multiplier", left))
        if name in TIERS:
            raise UsageError(f"--multiplier {part!r}: the tariff prices {name}; compare tariffs with --tariff")
        factor = _factor(part, right.strip())
        if found.setdefault(name, factor) != factor:
            raise UsageError(f"--multiplier {name}: two factors, {found[name]} and {factor}; give one")
    return found


def unpriced_lifetimes(ttls: Iterable[Lifetimes | None], multipliers: Mapping[str, Decimal]) -> list[str]:
    """Names of the lifetimes that neither a tariff nor `multipliers` prices, in order; they have tokens only."""
    names = [lifetime_name(s) for ttl in ttls if ttl is not None for s in (ttl.stable_s, ttl.other_s)]
    return [name for name in dict.fromkeys(names) if name not in TIERS and name not in multipliers]


def lifetime_name(seconds: int) -> str:
    """The shortest way to write a lifetime; upstream's tiers keep their names.

    >>> [lifetime_name(s) for s in (300, 900, 3600, 5400, 86_400, 172_800, 61)]
    ['5m', '15m', '1h', '90m', '24h', '2d', '61s']
    """
    if seconds % 86_400 == 0 and seconds > 86_400:
        return f"{seconds // 86_400}d"
    unit = next(unit for unit in "hms" if seconds % _UNIT_S[unit] == 0)
    return f"{seconds // _UNIT_S[unit]}{unit}"


def _parts(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{option} {text!r}: an empty value in the list")
    return parts


def _each(option: str, texts: Iterable[str], parse: Callable[[str], Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(parse(part) for text in texts for part in _parts(option, text)))


def _whole(option: str, text: str, least: int, most: int, unit: str) -> int:
    value = int(text) if _WHOLE.fullmatch(text) else -1
    if not least <= value <= most:
        raise UsageError(f"{option} {text!r}: a whole number of {unit} from {least:,} to {most:,} was expected")
    return value


def _seconds(option: str, text: str) -> int:
    match = _LIFETIME.fullmatch(text.strip())
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    if not 1 <= seconds <= MOST_SECONDS:
        raise UsageError(
            f"{option} {text!r}: a lifetime in s, m, h or d up to 10 years was expected, like 15m or 1h+5m"
        )
    return seconds


def _window(text: str) -> Window:
    words: Sequence[Window] = ("sliding", "fixed")
    for word in words:
        if text == word:
            return word
    raise UsageError(f"--window {text!r}: sliding or fixed was expected; {nearest(text, words)}".removesuffix("; "))


def _factor(part: str, text: str) -> Decimal:
    try:
        factor = Decimal(text)
    except InvalidOperation:
        factor = Decimal(-1)
    exponent = factor.as_tuple().exponent
    if not factor.is_finite() or not 0 <= factor <= 1000 or not isinstance(exponent, int):
        raise UsageError(
            f"--multiplier {part!r}: a factor on the input price from 0 to 1000 was expected, like 15m=1.4"
        )
    if exponent < -MULTIPLIER_DECIMALS:
        raise UsageError(f"--multiplier {part!r}: at most {MULTIPLIER_DECIMALS} decimals")
    return factor
