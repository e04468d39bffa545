"""Two dated ledgers, cache tariffs and base tariffs, and which of their rows applies to a model at a time.

Rows are valid where valid_from ≤ t < valid_until; times are whole microseconds UTC, None is open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, TypeVar

from cachesim.core.pricing import Multipliers

PURPOSES: Final = ("realtime", "batch", "playground", "platform")
"""The purposes upstream knows; any other purpose of a request counts as realtime."""
DEFAULT_PURPOSE: Final = "realtime"
ASSUMED_PRICE_DECIMALS: Final = 12
"""Decimals of a price per token that a fallback may give."""
EVERY_MODEL: Final = "*"
"""The `model` of the row that stands in for a ledger without any cache tariff."""

_ALWAYS_US: Final = -(2**63)
_UNASKED: Final = -1

Fallback = Callable[[str, int], "BaseRow | None"]


@dataclass(frozen=True, slots=True)
class CacheRow:
    """One cache tariff of one model; that a row is valid is what enables caching for the model.

    source: where it was read, "file:line"; principal and service_class are reserved and always None for now.
    """

    model: str
    write_5m: Decimal
    write_1h: Decimal
    write_24h: Decimal
    read: Decimal
    min_prefix_tokens: int
    valid_from_us: int | None = None
    valid_until_us: int | None = None
    name: str | None = None
    source: str = ""
    principal: str | None = None
    service_class: str | None = None

    @property
    def multipliers(self) -> Multipliers:
        """The row's factors on the input price."""
        return Multipliers(self.read, self.write_5m, self.write_1h, self.write_24h)


@dataclass(frozen=True, slots=True)
class BaseRow:
    """One base tariff of one model: prices per token for a purpose and, optionally, a completion window.

    A row without a purpose never matches, and "" is a window like any other, not the absence of one.
    assumed: the price is not from the user's ledger.
    """

    model: str
    input_price: Decimal
    output_price: Decimal
    purpose: str | None = DEFAULT_PURPOSE
    completion_window: str | None = None
    valid_from_us: int | None = None
    valid_until_us: int | None = None
    name: str | None = None
    source: str = ""
    assumed: bool = False
    principal: str | None = None
    service_class: str | None = None


Row = TypeVar("Row", CacheRow, BaseRow)

DEFAULT_CACHE_ROW: Final = CacheRow(
    EVERY_MODEL,
    write_5m=Decimal("1.25"),
    write_1h=Decimal("2.0"),
    write_24h=Decimal("2.5"),
    read=Decimal("0.1"),
    min_prefix_tokens=1024,
    name="default",
    source="default",
)
"""The usual multipliers and floor, for every model, where a ledger names no cache tariff at all."""


def is_valid(row: CacheRow | BaseRow, at_us: int) -> bool:
    """Whether `row` applies at `at_us`: its start is included, its end is not."""
    started = row.valid_from_us is None or row.valid_from_us <= at_us
    return started and (row.valid_until_us is None or at_us < row.valid_until_us)


def find_cache_row(rows: Iterable[CacheRow], at_us: int) -> CacheRow | None:
    """The row that prices at `at_us`: of the valid rows the one that began last; of equals the last in order."""
    valid = [row for row in rows if is_valid(row, at_us)]
    return max(reversed(valid), key=_begins_us, default=None)


def find_base_row(rows: Iterable[BaseRow], purpose: str | None, window: str | None, at_us: int) -> BaseRow | None:
    """The base tariff of a request: of the valid rows those of its purpose and exact completion window, else of its
    purpose without a window, else realtime without a window; within such a step the first in order.

    An unknown purpose counts as realtime. Upstream reads its rows newest first, see `newest_first`.
    """
    wanted = purpose if purpose in PURPOSES else DEFAULT_PURPOSE
    valid = [row for row in rows if is_valid(row, at_us)]
    for step in ((wanted, window), (wanted, None), (DEFAULT_PURPOSE, None)):
        for row in valid:
            if (row.purpose, row.completion_window) == step:
                return row
    return None


def newest_first(rows: Iterable[BaseRow]) -> list[BaseRow]:
    """The rows by the time they begin, latest first; rows that begin together keep their order."""
    return sorted(rows, key=_begins_us, reverse=True)


def find_floor(rows: Iterable[CacheRow], at_us: int) -> int | None:
    """The smallest min_prefix_tokens of all rows valid at `at_us`, at least 0; None: caching is not enabled."""
    floors = [max(row.min_prefix_tokens, 0) for row in rows if is_valid(row, at_us)]
    return min(floors, default=None)


class TariffSet:
    """One complete alternative of tariffs: when a model is enabled, with which floor, and at what prices.

    name: what reports call it; cache_rows, base_rows: the ledgers in file order; default_cache_row: stands in for
    every model if there is no cache row at all (None: nothing is enabled then); fallback_base: asked for a price of
    the models without any base row; warnings: what people should know about the rows.

    Rows are named by their position in `all_cache_rows` and `all_base_rows`. A fallback's row must hold from its
    valid_from_us to its valid_until_us, a fallback's None must hold for every time; such rows are appended to
    `all_base_rows` with `assumed=True` when they are first needed.
    """

    def __init__(
        self,
        name: str,
        cache_rows: Sequence[CacheRow],
        base_rows: Sequence[BaseRow],
        default_cache_row: CacheRow | None = DEFAULT_CACHE_ROW,
        fallback_base: Fallback | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.warnings = tuple(warnings)
        self.by_default = not cache_rows
        self.all_cache_rows = list(cache_rows) or ([default_cache_row] if default_cache_row else [])
        self.all_base_rows = list(base_rows)
        self._fallback = fallback_base
        self._cache_by_model = _by_model(cache_rows)
        self._base_by_model = _by_model(self.all_base_rows)
        self._floors: dict[str, _Timeline] = {}
        self._cache_numbers: dict[str, _Timeline] = {}
        self._base_numbers: dict[tuple[str, str | None, str | None], _Timeline] = {}
        self._assumed: dict[str, _Timeline] = {}

    def gate(self, model: str, at_us: int) -> int | None:
        """The floor in tokens at the arrival time `at_us`; None: caching is not enabled for `model` then."""
        timeline = self._floors.get(model)
        if timeline is None:
            timeline = self._floors[model] = _floors(self._cache_rows_of(model))
        return timeline.values[bisect_right(timeline.starts, at_us) - 1]

    def cache_row(self, model: str, at_us: int) -> int | None:
        """The position in `all_cache_rows` of the row that prices `model` at `at_us`; None: list price."""
        timeline = self._cache_numbers.get(model)
        if timeline is None:
            rows, numbers = self._cache_rows_of(model), _numbers(self.all_cache_rows)
            timeline = _timeline(rows, lambda at: numbers.get(id(find_cache_row(rows, at))))
            self._cache_numbers[model] = timeline
        return timeline.values[bisect_right(timeline.starts, at_us) - 1]

    def base_row(self, model: str, purpose: str | None, window: str | None, at_us: int) -> int | None:
        """The position in `all_base_rows` of the base tariff of such a request; None: its price is unknown."""
        key = (model, purpose, window)
        timeline = self._base_numbers.get(key)
        if timeline is None:
            if model not in self._base_by_model:
                return self._assumed_row(model, at_us)
            rows = newest_first(self._base_by_model[model])
            numbers = _numbers(self.all_base_rows)
            timeline = _timeline(rows, lambda at: numbers.get(id(find_base_row(rows, purpose, window, at))))
            self._base_numbers[key] = timeline
        return timeline.values[bisect_right(timeline.starts, at_us) - 1]

    def holds_until(self, model: str, purpose: str | None, window: str | None, at_us: int) -> int | None:
        """The first instant after `at_us` at which the floor or a row of such requests may change; None: never.

        Up to there one answer of `gate`, `cache_row` and `base_row` serves any number of requests.
        """
        self.gate(model, at_us)
        self.cache_row(model, at_us)
        base = self.base_row(model, purpose, window, at_us)
        timelines = [self._floors[model], self._cache_numbers[model]]
        if (own := self._base_numbers.get((model, purpose, window))) is not None:
            timelines.append(own)
        changes = [t.starts[place] for t in timelines if (place := bisect_right(t.starts, at_us)) < len(t.starts)]
        if own is None and base is not None and (end := self.all_base_rows[base].valid_until_us) is not None:
            changes.append(end)
        return min(changes, default=None)

    def gates_key(self) -> Hashable:
        """Equal for two sets exactly if every model is enabled at the same times with the same floors.

        Such sets differ in prices only: one replay serves both.
        """
        ledgers = {EVERY_MODEL: self.all_cache_rows} if self.by_default else self._cache_by_model
        windows = ((model, _floors(rows).windows()) for model, rows in ledgers.items())
        enabled = frozenset((model, spans) for model, spans in windows if spans)
        return (self.by_default and bool(enabled), enabled)

    def _cache_rows_of(self, model: str) -> list[CacheRow]:
        return self.all_cache_rows if self.by_default else self._cache_by_model.get(model, [])

    def _assumed_row(self, model: str, at_us: int) -> int | None:
        """The remembered answer of the fallback, asked once per stretch of time over which it holds."""
        timeline = self._assumed.get(model)
        if timeline is None:
            timeline = self._assumed[model] = _Timeline([_ALWAYS_US], [_UNASKED])
        number = timeline.values[bisect_right(timeline.starts, at_us) - 1]
        if number != _UNASKED:
            return number
        row = self._fallback(model, at_us) if self._fallback else None
        if row is None:
            timeline.put(None, None, None)
            return None
        number = len(self.all_base_rows)
        self.all_base_rows.append(replace(row, assumed=True))
        timeline.put(row.valid_from_us, row.valid_until_us, number)
        return number


@dataclass(slots=True)
class _Timeline:
    """A number for every time: values[i] holds from starts[i] up to, not including, starts[i + 1]."""

    starts: list[int]
    values: list[int | None]

    def put(self, from_us: int | None, until_us: int | None, value: int | None) -> None:
        """Let `value` hold from `from_us` to `until_us`, whatever held there before."""
        start = _ALWAYS_US if from_us is None else from_us
        held = [(at, old) for at, old in zip(self.starts, self.values, strict=True) if at < start]
        held.append((start, value))
        if until_us is not None:
            held.append((until_us, self.values[bisect_right(self.starts, until_us) - 1]))
            held += [(at, old) for at, old in zip(self.starts, self.values, strict=True) if at > until_us]
        self.starts = [at for at, _ in held]
        self.values = [old for _, old in held]

    def windows(self) -> tuple[tuple[int, int | None], ...]:
        """The changes of value over time, in one form for equal functions of time; () if it is None throughout."""
        changes: list[tuple[int, int | None]] = []
        current: int | None = None
        for at, value in zip(self.starts, self.values, strict=True):
            if value != current:
                changes.append((at, value))
                current = value
        return tuple(changes)


def _timeline(rows: Iterable[CacheRow | BaseRow], value_at: Callable[[int], int | None]) -> _Timeline:
    """`value_at` evaluated once between any two instants at which a row starts or ends."""
    instants = {at for row in rows for at in (row.valid_from_us, row.valid_until_us) if at is not None}
    starts = [_ALWAYS_US, *sorted(instants)]
    return _Timeline(starts, [value_at(at) for at in starts])


def _floors(rows: Sequence[CacheRow]) -> _Timeline:
    return _timeline(rows, lambda at: find_floor(rows, at))


def _numbers(rows: Iterable[CacheRow | BaseRow]) -> dict[int, int]:
    """Positions by object identity: rows may be equal and still be two."""
    return {id(row): number for number, row in enumerate(rows)}


def _begins_us(row: CacheRow | BaseRow) -> int:
    return _ALWAYS_US if row.valid_from_us is None else row.valid_from_us


def _by_model(rows: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.model, []).append(row)
    return grouped
