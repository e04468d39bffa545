"""Checks the rows of a tariff set against each other: ambiguous, overlapping, with gaps, or too exact to be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

from cachesim.config.rows import EPOCH, MONEY_DECIMALS, decimals
from cachesim.core.ledger import ASSUMED_PRICE_DECIMALS, BaseRow, CacheRow
from cachesim.errors import ConfigError

Row = TypeVar("Row", CacheRow, BaseRow)


def check_ledgers(cache_rows: Sequence[CacheRow], base_rows: Sequence[BaseRow]) -> list[str]:
    """Warnings about rows that overlap, leave gaps or can never match.

    Raises ConfigError, naming both places, for two rows that begin together and compete for the same requests, and for
    a price and a multiplier whose product has more decimals than money is stored with.
    """
    _check_decimals(cache_rows, base_rows)
    warnings: list[str] = []
    for model, caches in _grouped(cache_rows, lambda row: row.model).items():
        warnings += _check_windows(f"cache tariffs of {model}", caches, "the later one prices, the smaller floor holds")
    matching = [row for row in base_rows if row.purpose is not None]
    for key, bases in _grouped(matching, lambda row: (row.model, row.purpose, row.completion_window)).items():
        label = " ".join(part for part in key[1:] if part is not None)
        warnings += _check_windows(f"base tariffs of {key[0]} ({label})", bases, "the later one prices")
    return [*warnings, *_oddities(cache_rows, base_rows)]


def _oddities(cache_rows: Iterable[CacheRow], base_rows: Iterable[BaseRow]) -> Iterable[str]:
    every: list[CacheRow | BaseRow] = [*cache_rows, *base_rows]
    for row in every:
        if any(sign in row.model for sign in "*?"):
            yield f"{row.source}: tariffs take exact model names, {row.model} is not used as a pattern"
    for cache in cache_rows:
        if cache.min_prefix_tokens < 0:
            yield f"{cache.source}: min_prefix_tokens is negative and counts as 0"
    for base in base_rows:
        if base.purpose is None:
            yield f"{base.source}: a base tariff without a purpose never matches"


def _check_windows(label: str, rows: Iterable[Row], overlap_rule: str) -> Iterable[str]:
    ordered = sorted(rows, key=_begin)
    warnings = []
    reach = ordered[0]
    for before, row in pairwise(ordered):
        if before.valid_from_us == row.valid_from_us:
            message = "begin at the same time: which one holds is not defined, remove one or change its valid_from"
            raise ConfigError(f"{row.source}: {label} here and at {before.source} {message}")
        if _end(reach) > _begin(row):
            warnings.append(f"{row.source}: {label} overlap with {reach.source} from {_shown(row)}: {overlap_rule}")
        elif _end(reach) < _begin(row):
            warnings.append(f"{row.source}: {label} leave a gap after {reach.source}, before {_shown(row)}")
        reach = max(reach, row, key=_end)
    return warnings


def _check_decimals(cache_rows: Iterable[CacheRow], base_rows: Iterable[BaseRow]) -> None:
    by_model = _grouped(base_rows, lambda row: row.model)
    for cache in cache_rows:
        most = max(decimals(factor) for factor in cache.multipliers)
        if cache.model not in by_model and most + ASSUMED_PRICE_DECIMALS > MONEY_DECIMALS:
            limit = MONEY_DECIMALS - ASSUMED_PRICE_DECIMALS
            raise ConfigError(f"{cache.source}: a multiplier of {most} decimals, at most {limit} were expected")
        for base in by_model.get(cache.model, []):
            needed = most + decimals(base.input_price)
            if needed > MONEY_DECIMALS:
                message = f"{needed} decimals, money is exact up to {MONEY_DECIMALS}: use shorter numbers"
                raise ConfigError(f"{cache.source}: multiplied with the price at {base.source} this needs {message}")


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _begin(row: CacheRow | BaseRow) -> float:
    return float("-inf") if row.valid_from_us is None else row.valid_from_us


def _end(row: CacheRow | BaseRow) -> float:
    return float("inf") if row.valid_until_us is None else row.valid_until_us


def _shown(row: CacheRow | BaseRow) -> str:
    """The time `row` begins, for a message."""
    return (EPOCH + timedelta(microseconds=row.valid_from_us or 0)).isoformat().replace("+00:00", "Z")
