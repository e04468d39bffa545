"""What requests are summed by, and everything about them that no variant of a layout changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from cachesim.core.ledger import TariffSet
from cachesim.store.runs import Prices
from cachesim.sweep.columns import UNKNOWN, Requests

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cachesim.sweep.layout import Layout
    from cachesim.sweep.placement import Placement

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

PARTS: Final = ("first", "rest")
NO_PRICE: Final = -1


@dataclass(slots=True)
class Groups:
    """Groups of requests: of one model, principal, part of the log, and price under every tariff.

    of: group by request; numbered in order of scope, so that the groups of a few scopes are neighbours. Per group:
    model, principal, part; price_nos[t]: price number under tariff t, NO_PRICE where there is none.
    """

    of: Ints
    scope: Ints
    model: list[str | None]
    principal: list[str | None]
    part: list[str]
    price_nos: list[Ints]

    def __len__(self) -> int:
        return len(self.part)

    def total(self, requests: Flags | Ints, values: Ints | None = None) -> Ints:
        """The number of the chosen requests per group, or the sum of their `values`; exact."""
        import numpy as np

        group = self.of[requests]
        if values is None:
            return np.bincount(group, minlength=len(self)).astype(np.int64)
        found = np.zeros(len(self), np.int64)
        np.add.at(found, group, values[requests])
        return found


def split_us(requests: Requests, hold_out: Fraction) -> int:
    """The instant from which on the last `hold_out` of the log's time is held out, in µs UTC."""
    return int(requests.at[-1] - int(requests.span_us * hold_out)) if len(requests) else 0


def make_groups(requests: Requests, from_us: int, prices: Sequence[Prices]) -> Groups:
    """Groups by model, principal, part (`rest` from `from_us` on) and price."""
    import numpy as np

    models = {key.model: None for key in requests.keys}
    principals = {key.principal: None for key in requests.keys}
    number = {name: dict(zip(names, range(len(names)), strict=True)) for name, names in
              (("model", models), ("principal", principals))}  # fmt: skip
    of_key = {
        "model": np.array([number["model"][key.model] for key in requests.keys], np.int64),
        "principal": np.array([number["principal"][key.principal] for key in requests.keys], np.int64),
    }
    price_nos = [price_numbers(requests, p) for p in prices]
    columns = [requests.scope, of_key["model"][requests.key], of_key["principal"][requests.key]]
    columns += [(requests.at >= from_us).astype(np.int64), *(np.unique(n, return_inverse=True)[1] for n in price_nos)]
    code = np.zeros(len(requests), np.int64)
    for column in columns:
        code = code * (int(column.max(initial=0)) + 2) + column + 1
        code = np.unique(code, return_inverse=True)[1]  # keeps order, and numbers small
    _, example = np.unique(code, return_index=True)
    named = list(models), list(principals)
    return Groups(
        of=code,
        scope=requests.scope[example],
        model=[named[0][n] for n in columns[1][example]],
        principal=[named[1][n] for n in columns[2][example]],
        part=[PARTS[n] for n in columns[3][example]],
        price_nos=[n[example] for n in price_nos],
    )


def price_numbers(requests: Requests, prices: Prices) -> Ints:
    """The price number of every request; NO_PRICE also where its prompt tokens are unknown: unknown is not free."""
    import numpy as np

    found = np.full(len(requests), NO_PRICE, np.int64)
    for key, rows in _by_key(requests):
        k = requests.keys[key]
        if k.model is None:
            continue
        rows = rows[np.argsort(requests.priced_at[rows], kind="stable")]
        times = requests.priced_at[rows]
        start = 0
        while start < len(rows):
            at_us = int(times[start])
            number = prices.number(k.model, k.purpose, k.completion_window, at_us)
            until = prices.tariff.holds_until(k.model, k.purpose, k.completion_window, at_us)
            end = len(rows) if until is None else int(np.searchsorted(times, until))
            found[rows[start:end]] = NO_PRICE if number is None else number
            start = end
    found[requests.prompt == UNKNOWN] = NO_PRICE
    return found


def floors(requests: Requests, tariff: TariffSet) -> Ints:
    """The floor in tokens at each arrival, -1 where no cache tariff is valid for the model."""
    import numpy as np

    found = np.full(len(requests), -1, np.int64)
    for key, rows in _by_key(requests):
        k = requests.keys[key]
        start = 0
        while k.model is not None and start < len(rows):
            at_us = int(requests.at[rows[start]])
            floor = tariff.gate(k.model, at_us)
            until = tariff.holds_until(k.model, k.purpose, k.completion_window, at_us)
            end = len(rows) if until is None else int(np.searchsorted(requests.at[rows], until))
            found[rows[start:end]] = -1 if floor is None else floor
            start = end
    return found


def present_floors(requests: Requests, tariff: TariffSet, instead: int | None) -> dict[str, int | None]:
    """The floor in force by model, None where it changes within the log; models that are never enabled are left out.

    instead: the floor that the policy has in place of every tariff's.
    """
    import numpy as np

    floor = floors(requests, tariff)
    found: dict[str, set[int]] = {}
    for key, rows in _by_key(requests):
        model, values = requests.keys[key].model, set(np.unique(floor[rows]).tolist()) - {-1}
        if model is not None and values:
            found.setdefault(model, set()).update(values if instead is None else {instead})
    return {model: values.pop() if len(values) == 1 else None for model, values in sorted(found.items())}


def _by_key(requests: Requests) -> list[tuple[int, Ints]]:
    """The positions of each key's requests, in replay order."""
    import numpy as np

    order = np.argsort(requests.key, kind="stable")
    ends = np.searchsorted(requests.key[order], np.arange(len(requests.keys) + 1))
    return [(key, order[ends[key] : ends[key + 1]]) for key in range(len(requests.keys))]


def static_cells(requests: Requests, groups: Groups, placed: Placement) -> dict[str, Ints]:
    """The cells of table `swept` that are the same for every variant with these breakpoints, per group."""
    import numpy as np

    billed = requests.succeeded & ~placed.rejected
    known = np.maximum(requests.prompt, 0)
    both = billed & ~requests.estimated & (requests.local != UNKNOWN)
    asked = np.zeros(len(requests), bool)
    asked[placed.row] = True
    return {
        "requests": groups.total(billed),
        "requests_failed": groups.total(~requests.succeeded & ~placed.rejected),
        "requests_rejected": groups.total(placed.rejected),
        "prompt": groups.total(billed, known),
        "completion": groups.total(billed, requests.completion),
        "rejected_prompt": groups.total(placed.rejected, known),
        "rejected_completion": groups.total(placed.rejected, requests.completion),
        "estimated": groups.total(billed & requests.estimated & (requests.prompt != UNKNOWN)),
        "unknown": groups.total(billed & (requests.prompt == UNKNOWN)),
        "local": groups.total(both, requests.local),
        "reported": groups.total(both, known),
        "asked": groups.total(billed & asked),
    }


def near_floor(requests: Requests, groups: Groups, layout: Layout, floor: Ints | int, span: slice) -> tuple[Ints, Ints]:
    """Per group of `span`, billed requests whose tokens up to the deepest breakpoint are within ±5 %, and ±10 %, of
    the floor.

    floor: in tokens, of each request of the layout.
    """
    import numpy as np

    off = np.abs(layout.deepest_tokens - floor)
    billed = requests.succeeded[layout.asked]
    group = groups.of[layout.asked] - span.start
    near_5, near_10 = (
        np.bincount(group[billed & (off * parts <= floor)], minlength=span.stop - span.start) for parts in (20, 10)
    )
    return near_5, near_10
