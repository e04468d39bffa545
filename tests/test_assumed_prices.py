"""Prices assumed from the installed price data: resolution of aliases, dated and daily changes, no network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseContains,
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from cachesim import assumed_prices
from cachesim.assumed_prices import assumed_base_row, price_data_version
from cachesim.core.ledger import ASSUMED_PRICE_DECIMALS, TariffSet


def us(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    since_epoch = datetime(year, month, day, hour, minute, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since_epoch // timedelta(microseconds=1)


def mtok(text: str) -> Decimal:
    return Decimal(text) / 1_000_000


AT = us(2026, 6, 1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("prices must come from the installed package")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def own_data() -> Iterator[None]:
    """Price data of our own in place of the bundled, so that expectations do not age."""
    evening = TimeOfDateConstraint(start_time=time(22, tzinfo=UTC), end_time=time(2, tzinfo=UTC))
    old, new = ModelPrice(input_mtok=Decimal(4), output_mtok=Decimal(8)), ModelPrice(input_mtok=Decimal(3))
    night = ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2))
    tiered = ModelPrice(input_mtok=TieredPrices(base=Decimal(2), tiers=[Tier(start=200_000, price=Decimal(4))]))
    noisy = ModelPrice(input_mtok=Decimal("0.18000000000000002"), output_mtok=Decimal("0.2"))
    conditions = [
        ConditionalPrice(prices=old),
        ConditionalPrice(StartDateConstraint(start_date=date(2026, 3, 1)), prices=new),
    ]
    models = [
        ModelInfo("dated", ClauseEquals("dated"), prices=conditions),
        ModelInfo(
            "daily",
            ClauseEquals("daily"),
            prices=[ConditionalPrice(prices=old), ConditionalPrice(evening, prices=night)],
        ),
        ModelInfo("tiered", ClauseEquals("tiered"), prices=tiered),
        ModelInfo("noisy", ClauseEquals("noisy"), prices=noisy),
        ModelInfo("images", ClauseEquals("images"), prices=ModelPrice()),
    ]
    listed = [ModelInfo("v/listed", ClauseEquals("v/listed"), prices=noisy)]
    acme = Provider(
        "acme", "Acme", "acme", model_match=ClauseContains("ai"), provider_match=ClauseEquals("acme"), models=models
    )
    router = Provider("openrouter", "Router", "router", models=listed)
    data_snapshot.set_custom_snapshot(data_snapshot.DataSnapshot([acme, router], from_auto_update=False))
    assumed_prices._resolve.cache_clear()
    yield
    data_snapshot.set_custom_snapshot(None)
    assumed_prices._resolve.cache_clear()


def test_a_known_model_of_the_bundled_data() -> None:
    row = assumed_base_row("gpt-4o-mini", AT)
    assert row is not None
    assert (row.input_price, row.output_price) == (mtok("0.15"), mtok("0.6"))
    assert row.assumed
    assert row.source == f"{price_data_version()}: openai gpt-4o-mini"
    assert price_data_version().startswith("genai-prices 0.")


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        ("anthropic/claude-sonnet-4.5", "anthropic claude-sonnet-4-5"),
        ("openrouter/anthropic/claude-sonnet-4.5", "openrouter anthropic/claude-sonnet-4.5"),
        ("google/gemini-3-pro-preview-20251117", "google gemini-3-pro-preview"),
        ("qwen/qwen3-32b", "openrouter qwen/qwen3-32b"),
    ],
)
def test_vendor_prefixes_of_the_bundled_data(alias: str, model: str) -> None:
    row = assumed_base_row(alias, AT)
    assert row is not None
    assert row.source.endswith(f": {model}")
    assert row.model == alias


@pytest.mark.parametrize("alias", ["acme-chat", "test", "", "/", "a//b", "acme/unknown", "images", "acme/images"])
def test_unknown_models_have_no_price(own_data: None, alias: str) -> None:
    assert assumed_base_row(alias, AT) is None


def test_a_start_date_bounds_the_row(own_data: None) -> None:
    change = us(2026, 3, 1)
    before, after = assumed_base_row("acme/dated", change - 1), assumed_base_row("acme/dated", change)
    assert before is not None
    assert after is not None
    assert (before.input_price, before.valid_from_us, before.valid_until_us) == (mtok("4"), None, change)
    # the later price names no output price: that one counts as 0
    assert (after.input_price, after.output_price, after.valid_from_us) == (mtok("3"), Decimal(0), change)


def test_a_daily_price_bounds_the_row_over_midnight(own_data: None) -> None:
    night, day = (
        assumed_base_row("acme/daily", us(2026, 6, 2, 0, 30)),
        assumed_base_row("acme/daily", us(2026, 6, 2, 2)),
    )
    assert night is not None
    assert day is not None
    assert (night.input_price, night.valid_from_us, night.valid_until_us) == (
        mtok("1"),
        us(2026, 6, 1, 22),
        us(2026, 6, 2, 2),
    )
    assert (day.input_price, day.valid_from_us, day.valid_until_us) == (
        mtok("4"),
        us(2026, 6, 2, 2),
        us(2026, 6, 2, 22),
    )


def test_base_tier_rounding_and_catalogue(own_data: None) -> None:
    tiered, noisy, listed = (assumed_base_row(name, AT) for name in ("acme/tiered", "acme/noisy", "v/listed"))
    assert tiered is not None
    assert noisy is not None
    assert listed is not None
    assert tiered.input_price == mtok("2")
    assert noisy.input_price == mtok("0.18"), "float noise of the data, beyond 12 decimals a token"
    assert listed.source.endswith("openrouter v/listed")


def test_a_tariff_set_sees_every_daily_change_once(own_data: None) -> None:
    tariffs = TariffSet("t", [], [], fallback_base=assumed_base_row)
    hours = [us(2026, 6, 1 + hour // 24, hour % 24) for hour in range(48)]
    numbers = [tariffs.base_row("acme/daily", None, None, at) for at in hours]
    # night until 2, day until 22, night until 2, day until 22, night
    assert numbers == [0] * 2 + [1] * 20 + [2] * 4 + [3] * 20 + [4] * 2
    prices = {
        at: tariffs.all_base_rows[number].input_price
        for at, number in zip(hours, numbers, strict=True)
        if number is not None
    }
    assert all(
        price == mtok("1" if at // 3_600_000_000 % 24 in (22, 23, 0, 1) else "4") for at, price in prices.items()
    )


def test_every_price_of_the_bundled_data_fits_the_documented_decimals() -> None:
    for provider in data_snapshot.get_snapshot().providers[:12]:
        for model in provider.models[:40]:
            row = assumed_base_row(f"{provider.id}/{model.id}", AT)
            for price in (row.input_price, row.output_price) if row else ():
                exponent = price.as_tuple().exponent
                assert isinstance(exponent, int)
                assert -exponent <= ASSUMED_PRICE_DECIMALS
                assert price >= 0
