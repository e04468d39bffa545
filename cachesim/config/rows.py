"""Turns the raw rows of tariff files into ledger rows, and says where and how a row is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from cachesim.config.toml import did_you_mean, kind_of
from cachesim.core.ledger import DEFAULT_PURPOSE, PURPOSES, BaseRow, CacheRow
from cachesim.errors import ConfigError

CACHE_KEYS: Final = (
    *("model", "name", "write_5m", "write_1h", "write_24h", "read", "min_prefix_tokens"),
    *("valid_from", "valid_until"),
)
BASE_KEYS: Final = (
    *("model", "name", "input_per_mtok", "input_per_token", "output_per_mtok", "output_per_token", "purpose"),
    *("completion_window", "valid_from", "valid_until"),
)
RESERVED_KEYS: Final = ("principal", "class")
MONEY_DECIMALS: Final = 20
"""Money is stored as DECIMAL(38,20)."""

_LARGEST_FACTOR: Final = Decimal(1000)
_LARGEST_PRICE: Final = Decimal(1000)
_MOST_TOKENS: Final = 2**31 - 1
_MTOK_EXPONENT: Final = -6
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as a file holds it, under the keys of cachesim.toml; None and absent are the same.

    source: "file:line" of the row; where: the place of one of its keys; shown: keys that the file names differently;
    naive_is_utc: times without an offset are UTC (a column type that says so), otherwise they are refused;
    dumped: nobody wrote it by hand, so that what never holds is no slip of the pen but history, and is kept.
    """

    values: Mapping[str, Any]
    source: str
    where: Callable[[str], str]
    shown: Mapping[str, str]
    naive_is_utc: bool = False
    dumped: bool = False

    def fail(self, key: str, found: str, expected: str) -> ConfigError:
        """The error that names the place, what was found there and what was expected."""
        return ConfigError(f"{self.where(key)}: {self.shown.get(key, key)} is {found}, {expected} was expected")

    def required(self, key: str) -> Any:
        """The value of `key`. Raises ConfigError at the row if there is none."""
        value = self.values.get(key)
        if value is None:
            raise ConfigError(f"{self.source}: {self.shown.get(key, key)} is missing, every row of this kind needs it")
        return value


def cache_row(raw: RawRow) -> CacheRow:
    """The cache tariff that `raw` describes. Raises ConfigError naming the first wrong key and its line."""
    _check_keys(raw, CACHE_KEYS)
    valid_from_us, valid_until_us = _window(raw)
    return CacheRow(
        model=_text(raw, "model", required=True),
        write_5m=_factor(raw, "write_5m"),
        write_1h=_factor(raw, "write_1h"),
        write_24h=_factor(raw, "write_24h"),
        read=_factor(raw, "read"),
        min_prefix_tokens=_floor_tokens(raw),
        valid_from_us=valid_from_us,
        valid_until_us=valid_until_us,
        name=_optional_text(raw, "name"),
        source=raw.source,
    )


def base_row(raw: RawRow) -> BaseRow:
    """The base tariff that `raw` describes. Raises ConfigError naming the first wrong key and its line.

    A row that does not mention a purpose is realtime; one whose purpose is an empty cell has none and never matches,
    like one of a dump whose purpose is not known.
    """
    _check_keys(raw, BASE_KEYS)
    valid_from_us, valid_until_us = _window(raw)
    purpose = _optional_text(raw, "purpose") if "purpose" in raw.values else DEFAULT_PURPOSE
    if purpose is not None and purpose not in PURPOSES and not raw.dumped:
        raise raw.fail("purpose", f"{purpose[:40]!r}", f"a known purpose ({did_you_mean(purpose, PURPOSES)})")
    return BaseRow(
        model=_text(raw, "model", required=True),
        input_price=_price(raw, "input"),
        output_price=_price(raw, "output"),
        purpose=purpose,
        completion_window=_optional_text(raw, "completion_window"),
        valid_from_us=valid_from_us,
        valid_until_us=valid_until_us,
        name=_optional_text(raw, "name"),
        source=raw.source,
    )


def _check_keys(raw: RawRow, known: Sequence[str]) -> None:
    for key in raw.values:
        if key in RESERVED_KEYS and raw.values[key] is not None:
            name, what = raw.shown.get(key, key), "leave such rows out" if raw.dumped else "remove it"
            message = f"{raw.where(key)}: {name} is reserved for scoped tariffs, which are not supported yet: {what}"
            raise ConfigError(message)
        if key not in known and key not in RESERVED_KEYS:
            raise ConfigError(f"{raw.where(key)}: unknown key {key[:60]}, {did_you_mean(key, known)}")


def _optional_text(raw: RawRow, key: str) -> str | None:
    value = raw.values.get(key)
    if value is not None and not isinstance(value, str):
        raise raw.fail(key, kind_of(value), "a string")
    return value


def _text(raw: RawRow, key: str, *, required: bool) -> str:
    if required:
        raw.required(key)
    value = _optional_text(raw, key)
    if not value:
        raise raw.fail(key, "empty", "a name")
    return value


def _number(raw: RawRow, key: str) -> Decimal:
    """The exact value of a number or of a string that is one; never through binary floating point of our own."""
    value = raw.required(key)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        number = Decimal(value)
    elif isinstance(value, float):
        number = Decimal(repr(value))
    else:
        found = "not a number" if isinstance(value, str) else kind_of(value)
        raise raw.fail(key, found, 'a decimal number such as "1.25"')
    if not number.is_finite():
        raise raw.fail(key, "not finite", "a decimal number")
    return number


def _bounded(raw: RawRow, key: str, largest: Decimal) -> Decimal:
    number = _number(raw, key)
    if number < 0 or number > largest:
        found = "negative" if number < 0 else "too large"
        raise raw.fail(key, found, f"a number from 0 to {largest:f}")
    return number


def _factor(raw: RawRow, key: str) -> Decimal:
    factor = _bounded(raw, key, _LARGEST_FACTOR)
    if decimals(factor) > MONEY_DECIMALS:
        raise raw.fail(key, f"a number of {decimals(factor)} decimals", f"one of at most {MONEY_DECIMALS}")
    return factor


def _price(raw: RawRow, side: str) -> Decimal:
    """The price per token from exactly one of `<side>_per_mtok` and `<side>_per_token`; 3 per mtok is 0.000003."""
    per_mtok, per_token = f"{side}_per_mtok", f"{side}_per_token"
    given = [key for key in (per_mtok, per_token) if raw.values.get(key) is not None]
    if not given and per_token in raw.shown:
        raw.required(per_token)
    if len(given) != 1:
        found = "both" if given else "neither"
        place = raw.where(given[-1]) if given else raw.source
        raise ConfigError(f"{place}: {found} of {per_mtok} and {per_token} given, exactly one was expected")
    exponent = _MTOK_EXPONENT if given[0] == per_mtok else 0
    price = _shift(_bounded(raw, given[0], _shift(_LARGEST_PRICE, -exponent)), exponent)
    if decimals(price) > MONEY_DECIMALS:
        found = f"a number of {decimals(price)} decimals per token"
        raise raw.fail(given[0], found, f"one of at most {MONEY_DECIMALS}")
    return price


def _shift(number: Decimal, exponent: int) -> Decimal:
    """`number` times ten to `exponent`, every digit kept."""
    sign, digits, old = number.as_tuple()
    assert isinstance(old, int), "only finite numbers come here"
    return Decimal((sign, digits, old + exponent))


def _floor_tokens(raw: RawRow) -> int:
    """A negative floor is kept: upstream takes it as 0."""
    number = _number(raw, "min_prefix_tokens")
    if number.copy_abs() > _MOST_TOKENS or number != number.to_integral_value():
        raise raw.fail("min_prefix_tokens", "not a token count", f"a whole number up to {_MOST_TOKENS}")
    return int(number)


def _window(raw: RawRow) -> tuple[int | None, int | None]:
    valid_from_us, valid_until_us = _time_us(raw, "valid_from"), _time_us(raw, "valid_until")
    if valid_from_us is None or valid_until_us is None or (raw.dumped and valid_until_us == valid_from_us):
        return valid_from_us, valid_until_us
    if valid_until_us <= valid_from_us:
        raise raw.fail("valid_until", "not after valid_from", "a later time")
    return valid_from_us, valid_until_us


def _time_us(raw: RawRow, key: str) -> int | None:
    value = raw.values.get(key)
    if value is None:
        return None
    expected = "a time with an offset such as 2026-01-01T00:00:00Z"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise raw.fail(key, "not a time", expected) from error
    if not isinstance(value, datetime):
        raise raw.fail(key, kind_of(value), expected)
    if value.tzinfo is None:
        if not raw.naive_is_utc:
            raise raw.fail(key, "a time without an offset", expected)
        value = value.replace(tzinfo=UTC)
    return (value - EPOCH) // timedelta(microseconds=1)


def decimals(number: Decimal) -> int:
    """Digits after the point that `number` needs: 2 for 1.2500, 0 for 1E+3."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int), "only finite numbers are counted"
    text = "".join(map(str, digits)).rstrip("0")
    return max(0, -exponent - (len(digits) - len(text))) if text else 0
