"""What is wrong with a tariff set beyond its single rows: models, times and requests of a log without a price."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from cachesim.assumed_prices import price_data_version
from cachesim.config import Finding
from cachesim.config.ledgers import instant
from cachesim.core.ledger import DEFAULT_PURPOSE, EVERY_MODEL, PURPOSES, BaseRow, CacheRow, TariffSet
from cachesim.tariffs.rows import per_mtok

if TYPE_CHECKING:
    import duckdb

CODES: Final = {
    "invalid_row": "a row that cannot be read: a missing, unknown or impossible value",
    "same_start": "two rows that compete and begin together",
    "too_many_decimals": "a price and a multiplier whose product is finer than money is stored",
    "overlap": "two competing rows hold at once",
    "gap": "a time between two competing rows at which none holds",
    "empty_interval": "a row that ends as it begins",
    "pattern_as_model": "a wildcard in the name of a model",
    "negative_floor": "a negative floor",
    "no_purpose": "a base tariff without a purpose, which never matches",
    "unknown_purpose": "a purpose that upstream does not know: the row never matches, the request is realtime",
    "no_cache_tariff": "no cache tariff at all: the usual multipliers are assumed for every model",
    "no_base_tariff": "a model of the cache tariffs without a base tariff: its price is assumed, or unknown",
    "no_realtime_price": "base tariffs of a model, none of them for realtime without a window",
    "no_price_while_enabled": "a time at which a model is enabled and has no realtime price",
    "implausible_price": "a price above 1,000 per million tokens, as from a price per million entered per token",
    "not_enabled": "requests of a log that no cache tariff enables",
    "price_assumed": "requests of a log whose model has no base tariff, but an assumed price",
    "price_unknown": "requests of a log without a price",
    "other_window": "requests of a log that name a completion window no row has, priced by another row",
    "other_purpose": "requests of a log priced as realtime for want of a row of their purpose",
}
"""Every kind of finding."""

_DEAREST_PER_MTOK: Final = Decimal(1000)
_ALWAYS_US: Final = -(2**63)
_BATCH: Final = 10_000
_REQUESTS: Final = """
SELECT model, purpose, completion_window, at_us, coalesce(batch_created_us, at_us)
FROM requests WHERE trace_no = ? AND model IS NOT NULL ORDER BY seq
"""


class Request(NamedTuple):
    """What a tariff is chosen by; priced_us: when the request's batch was made, else its arrival."""

    model: str
    purpose: str | None
    window: str | None
    at_us: int
    priced_us: int


def requests_of(con: duckdb.DuckDBPyConnection, trace_no: int) -> Iterator[Request]:
    """The requests of a prepared trace that name a model, in log order."""
    cursor = con.execute(_REQUESTS, [trace_no])
    while batch := cursor.fetchmany(_BATCH):
        yield from map(Request._make, batch)


def set_findings(tariff: TariffSet) -> list[Finding]:
    """Models and times without a tariff, as far as the set itself shows them."""
    findings = []
    if tariff.by_default:
        text = "no cache tariff: the usual multipliers are assumed for every model"
        findings.append(Finding("no_cache_tariff", EVERY_MODEL, tariff.name, text))
    caches: dict[str, list[CacheRow]] = {}
    for row in [] if tariff.by_default else tariff.all_cache_rows:
        caches.setdefault(row.model, []).append(row)
    own = [row for row in tariff.all_base_rows if not row.assumed]
    priced = {row.model for row in own}
    for model, rows in caches.items():
        if model not in priced:
            text = f"no base tariff of {model}: its price is assumed from {price_data_version()}, or unknown"
            findings.append(Finding("no_base_tariff", model, rows[0].source, text))
        else:
            findings += _unpriced_while_enabled(tariff, model, rows)
    for model in dict.fromkeys(row.model for row in own):
        of_model = [row for row in own if row.model == model]
        if not any((row.purpose, row.completion_window) == (DEFAULT_PURPOSE, None) for row in of_model):
            text = f"no realtime base tariff of {model} without a completion window: other requests have no price"
            findings.append(Finding("no_realtime_price", model, of_model[0].source, text))
    for base in own:
        dearest = max(per_mtok(base.input_price), per_mtok(base.output_price))
        if dearest > _DEAREST_PER_MTOK:
            text = f"{dearest:,f} per million tokens of {base.model}: is it a price per million, given per token?"
            findings.append(Finding("implausible_price", base.model, base.source, text))
    return findings


def _unpriced_while_enabled(tariff: TariffSet, model: str, caches: list[CacheRow]) -> Iterator[Finding]:
    """The first such time; a model without any realtime price at all is told elsewhere."""
    bases = [row for row in tariff.all_base_rows if row.model == model]
    if not any((row.purpose, row.completion_window) == (DEFAULT_PURPOSE, None) for row in bases):
        return
    every: list[CacheRow | BaseRow] = [*caches, *bases]
    edges = {at for row in every for at in (row.valid_from_us, row.valid_until_us) if at is not None}
    for at_us in (_ALWAYS_US, *sorted(edges)):
        number = tariff.cache_row(model, at_us)
        if number is not None and tariff.base_row(model, DEFAULT_PURPOSE, None, at_us) is None:
            when = "before its first base tariff" if at_us == _ALWAYS_US else f"from {instant(at_us)} on"
            source = tariff.all_cache_rows[number].source
            yield Finding("no_price_while_enabled", model, source, f"{model} is enabled without a price {when}")
            return


def log_findings(tariff: TariffSet, requests: Iterable[Request]) -> list[tuple[Finding, int]]:
    """What the tariffs miss of a log, each with the number of requests; in the order of first occurrence."""
    counts: Counter[Finding] = Counter()
    for request in requests:
        counts.update(_misses(tariff, request))
    return list(counts.items())


def _misses(tariff: TariffSet, request: Request) -> Iterator[Finding]:
    model, purpose, window = request.model, request.purpose, request.window
    if tariff.gate(model, request.at_us) is None:
        yield Finding("not_enabled", model, "", f"no cache tariff of {model} at their arrival: not cached")
    if purpose is not None and purpose not in PURPOSES:
        text = f"purpose {purpose[:40]!r} of {model}: counts as {DEFAULT_PURPOSE}"
        yield Finding("unknown_purpose", model, "", text)
    number = tariff.base_row(model, purpose, window, request.priced_us)
    if number is None:
        yield Finding("price_unknown", model, "", f"no price of {model} for {_scope(purpose, window)} at their time")
        return
    row = tariff.all_base_rows[number]
    if row.assumed:
        text = f"no base tariff of {model}: priced by {row.source}"
        yield Finding("price_assumed", model, "", text)
    elif purpose in PURPOSES and row.purpose != purpose:
        text = f"no base tariff of {model} for {_scope(purpose, window)}: priced as {DEFAULT_PURPOSE}"
        yield Finding("other_purpose", model, row.source, text)
    elif row.completion_window != window:
        text = f"no base tariff of {model} for {_scope(purpose, window)}: priced by the one without a window"
        yield Finding("other_window", model, row.source, text)


def _scope(purpose: str | None, window: str | None) -> str:
    return " ".join([purpose or DEFAULT_PURPOSE] + ([f"within {window}"] if window else []))
