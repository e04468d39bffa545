"""Checks the rows of a tariff set against each other: ambiguous, overlapping, with gaps, or too exact to be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

from cachesim.config.rows import EPOCH, MONEY_DECIMALS, decimals
from cachesim.core.ledger import ASSUMED_PRICE_DECIMALS, PURPOSES, BaseRow, CacheRow
from cachesim.errors import ConfigError

Row = TypeVar("Row", CacheRow, BaseRow)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something people should know about a tariff set.

    code: stable name of its kind; source: where it is, "file:line"; text: the sentence; fatal: the set cannot be used.
    """

    code: str
    model: str
    source: str
    text: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.source}: {self.text}"


def check_ledgers(cache_rows: Sequence[CacheRow], base_rows: Sequence[BaseRow]) -> list[str]:
    """Warnings about rows that overlap, leave gaps or can never match.

    Raises ConfigError, naming both places, for two rows that begin together and compete for the same requests, and for
    a price and a multiplier whose product has more decimals than money is stored with.
    """
    findings = ledger_findings(cache_rows, base_rows)
    for finding in findings:
        if finding.fatal:
            raise ConfigError(str(finding))
    return [str(finding) for finding in findings]


def ledger_findings(cache_rows: Sequence[CacheRow], base_rows: Sequence[BaseRow]) -> list[Finding]:
    """Everything that is wrong or remarkable between the rows of one set."""
    findings = list(_inexact(cache_rows, base_rows))
    for model, caches in _grouped(filter(_lasts, cache_rows), lambda row: row.model).items():
        findings += _windows(f"cache tariffs of {model}", caches, "the later one prices, the smaller floor holds")
    matching = [row for row in base_rows if row.purpose in PURPOSES and _lasts(row)]
    for key, bases in _grouped(matching, lambda row: (row.model, row.purpose, row.completion_window)).items():
        label = " ".join(part for part in key[1:] if part is not None)
        findings += _windows(f"base tariffs of {key[0]} ({label})", bases, "the later one prices")
    return [*findings, *_oddities(cache_rows, base_rows)]


def _oddities(cache_rows: Iterable[CacheRow], base_rows: Iterable[BaseRow]) -> Iterable[Finding]:
    every: list[CacheRow | BaseRow] = [*cache_rows, *base_rows]
    for row in every:
        if any(sign in row.model for sign in "*?"):
            text = f"tariffs take exact model names, {row.model} is not used as a pattern"
            yield Finding("pattern_as_model", row.model, row.source, text)
        if not _lasts(row):
            yield Finding("empty_interval", row.model, row.source, "a tariff that ends as it begins never holds")
    for cache in cache_rows:
        if cache.min_prefix_tokens < 0:
            text = "min_prefix_tokens is negative and counts as 0"
            yield Finding("negative_floor", cache.model, cache.source, text)
    for base in base_rows:
        if base.purpose is None:
            text = "a base tariff without a purpose never matches"
            yield Finding("no_purpose", base.model, base.source, text)
        elif base.purpose not in PURPOSES:
            text = f"a base tariff of the purpose {base.purpose[:40]!r} never matches, known are {', '.join(PURPOSES)}"
            yield Finding("unknown_purpose", base.model, base.source, text)


def _windows(label: str, rows: Iterable[Row], overlap_rule: str) -> Iterable[Finding]:
    ordered = sorted(rows, key=_begin)
    reach = ordered[0]
    for before, row in pairwise(ordered):
        if before.valid_from_us == row.valid_from_us:
            rest = "begin at the same time: which one holds is not defined, remove one or change its valid_from"
            text = f"{label} here and at {before.source} {rest}"
            yield Finding("same_start", row.model, row.source, text, fatal=True)
        elif _end(reach) > _begin(row):
            text = f"{label} overlap with {reach.source} from {_shown(row)}: {overlap_rule}"
            yield Finding("overlap", row.model, row.source, text)
        elif _end(reach) < _begin(row):
            text = f"{label} leave a gap after {reach.source}, before {_shown(row)}"
            yield Finding("gap", row.model, row.source, text)
        reach = max(reach, row, key=_end)


def _inexact(cache_rows: Iterable[CacheRow], base_rows: Iterable[BaseRow]) -> Iterable[Finding]:
    by_model = _grouped(base_rows, lambda row: row.model)
    for cache in cache_rows:
        most = max(decimals(factor) for factor in cache.multipliers)
        if cache.model not in by_model and most + ASSUMED_PRICE_DECIMALS > MONEY_DECIMALS:
            text = f"a multiplier of {most} decimals, at most {MONEY_DECIMALS - ASSUMED_PRICE_DECIMALS} were expected"
            yield Finding("too_many_decimals", cache.model, cache.source, text, fatal=True)
        for base in by_model.get(cache.model, []):
            needed = most + decimals(base.input_price)
            if needed > MONEY_DECIMALS:
                rest = f"{needed} decimals, money is exact up to {MONEY_DECIMALS}: use shorter numbers"
                text = f"multiplied with the price at {base.source} this needs {rest}"
                yield Finding("too_many_decimals", cache.model, cache.source, text, fatal=True)


def _lasts(row: CacheRow | BaseRow) -> bool:
    return _begin(row) < _end(row)


def _grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _begin(row: CacheRow | BaseRow) -> float:
    return float("-inf") if row.valid_from_us is None else row.valid_from_us


def _end(row: CacheRow | BaseRow) -> float:
    return float("inf") if row.valid_until_us is None else row.valid_until_us


def instant(at_us: int) -> str:
    """A time for a message; what a date of four digits cannot say is its last or first day."""
    try:
        return (EPOCH + timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return "9999-12-31" if at_us > 0 else "0001-01-01"


def _shown(row: CacheRow | BaseRow) -> str:
    """The time `row` begins, for a message."""
    return instant(row.valid_from_us or 0)
