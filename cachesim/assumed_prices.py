"""Base prices for models the user gave none for, from the price data inside the installed genai-prices package.

Never any network: the package's bundled data is read, its updater is not started.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cachesim.core.ledger import ASSUMED_PRICE_DECIMALS, BaseRow

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_PACKAGE: Final = "genai-prices"
_CATALOGUES: Final = ("doubleword", "openrouter")
"""Providers that list models of many vendors as vendor/model."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_TOKENS_PER_MTOK: Final = 1_000_000
_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_SMALLEST: Final = Decimal(1).scaleb(-ASSUMED_PRICE_DECIMALS)


@lru_cache(maxsize=1)
def price_data_version() -> str:
    """Which price data `assumed_base_row` reads, for a provenance line: "genai-prices 0.2.3"."""
    from importlib.metadata import version

    return f"{_PACKAGE} {version(_PACKAGE)}"


def assumed_base_row(model: str, at_us: int) -> BaseRow | None:
    """The assumed base tariff of `model` at `at_us`; None if its price is not known, and then at no time.

    The lowest tier of tiered prices, whatever the prompt's length, and no batch or service-class discounts. Prices are
    dollars per token rounded to 12 decimals (a dollar amount per million tokens with up to 6). The row holds from its
    valid_from_us to its valid_until_us, a stretch without a change of price.

    Tried in order for "openrouter/google/gemini-x-20251117": the whole name as any provider's; the first part as a
    provider and the rest as its model; the rest as any provider's; each shorter rest likewise; the whole name, then
    "google/gemini-x-…", as entries of the catalogues of doubleword and openrouter. The first with token prices holds.
    """
    found = _resolve(model)
    if found is None:
        return None
    provider, info = found
    from_us, until_us = _stable_span(info, at_us)
    prices = info.get_prices(_EPOCH + timedelta(microseconds=at_us))
    return BaseRow(
        model=model,
        input_price=_per_token(prices.input_mtok),
        output_price=_per_token(prices.output_mtok),
        valid_from_us=from_us,
        valid_until_us=until_us,
        source=f"{price_data_version()}: {provider.id} {info.id}",
        assumed=True,
    )


@lru_cache(maxsize=4096)
def _resolve(model: str) -> tuple[Provider, ModelInfo] | None:
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for provider_id, reference in _references(model):
        try:
            provider, info = snapshot.find_provider_model(reference, None, provider_id, None)
        except LookupError:
            continue
        if all(prices.input_mtok is not None or prices.output_mtok is not None for prices in _all_prices(info)):
            return provider, info
    return None


def _references(model: str) -> Iterator[tuple[str | None, str]]:
    """(provider or None for any, model reference) in the order they are tried."""
    yield None, model
    parts = model.split("/")
    for index in range(1, len(parts)):
        rest = "/".join(parts[index:])
        yield parts[index - 1], rest
        yield None, rest
    for index in range(len(parts) - 1):
        for catalogue in _CATALOGUES:
            yield catalogue, "/".join(parts[index:])


def _all_prices(info: ModelInfo) -> list[ModelPrice]:
    return [each.prices for each in info.prices] if isinstance(info.prices, list) else [info.prices]


def _per_token(price_per_mtok: object) -> Decimal:
    """Dollars per token of a price per million; an unknown one of two prices counts as 0, as upstream has it."""
    base = getattr(price_per_mtok, "base", price_per_mtok)
    if not isinstance(base, Decimal):
        return Decimal(0)
    return _WIDE.divide(base, _TOKENS_PER_MTOK).quantize(_SMALLEST, context=_WIDE).normalize(_WIDE)


def _stable_span(info: ModelInfo, at_us: int) -> tuple[int | None, int | None]:
    """The stretch around `at_us` in which no condition of a price begins or ends; None: open."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    if not isinstance(info.prices, list):
        return None, None
    edges: set[int] = set()
    today = (_EPOCH + timedelta(microseconds=at_us)).date()
    for conditional in info.prices:
        constraint = conditional.constraint
        if isinstance(constraint, StartDateConstraint):
            edges.add(_microseconds(constraint.start_date, time(tzinfo=UTC)))
        elif isinstance(constraint, TimeOfDateConstraint):
            for day in (today - _DAY, today, today + _DAY):
                edges |= {_microseconds(day, at) for at in (constraint.start_time, constraint.end_time)}
    return (
        max((edge for edge in edges if edge <= at_us), default=None),
        min((edge for edge in edges if edge > at_us), default=None),
    )


def _microseconds(day: date, at: time) -> int:
    moment = datetime.combine(day, at if at.tzinfo else at.replace(tzinfo=UTC))
    return (moment - _EPOCH) // timedelta(microseconds=1)
