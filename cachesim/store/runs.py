"""Writing a run: its variants, every request's classification per variant, exact unit prices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from cachesim import __version__
from cachesim.core.gates import REJECTED, ZERO
from cachesim.core.ledger import TariffSet
from cachesim.core.pricing import EXACT, BilledSplit, unit_prices
from cachesim.replay import Classified
from cachesim.store.db import insert_frame
from cachesim.store.deletion import clear_run

if TYPE_CHECKING:
    import duckdb

_NO_SPLIT: Final = (0, 0, 0)


class Prices:
    """Numbers the (base row, cache row) pairs of one tariff set as they are first used."""

    def __init__(self, tariff: TariffSet, first_no: int) -> None:
        self.tariff = tariff
        self._first_no = first_no
        self._numbers: dict[tuple[int, int | None], int] = {}

    def number(self, model: str | None, purpose: str | None, window: str | None, at_us: int) -> int | None:
        """The price number of a request, None where its base price is unknown."""
        if model is None:
            return None
        base = self.tariff.base_row(model, purpose, window, at_us)
        if base is None:
            return None
        key = (base, self.tariff.cache_row(model, at_us))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._first_no + len(self._numbers)
        return number

    def assumed_sources(self) -> set[str]:
        """Where the base prices that are not the user's came from."""
        rows = (self.tariff.all_base_rows[base] for base, _ in self._numbers)
        return {row.source for row in rows if row.assumed}

    def rows(self, custom: Decimal | None = None, offset: int = 0) -> list[tuple[Any, ...]]:
        """(price_no, tariff, base source, cache source, assumed, seven unit prices) of every pair used.

        custom: the write multiplier of a lifetime that upstream does not price; offset: added to every number.
        """
        found = []
        for (base_no, cache_no), number in self._numbers.items():
            base = self.tariff.all_base_rows[base_no]
            cache = None if cache_no is None else self.tariff.all_cache_rows[cache_no]
            prices = unit_prices(base.input_price, base.output_price, cache.multipliers if cache else None)
            source = cache.source if cache else None
            own = None if custom is None else EXACT.multiply(base.input_price, custom)
            found.append((number + offset, self.tariff.name, base.source, source, base.assumed, *prices, own))
        return found


class RunWriter:
    """Writes one run inside the caller's transaction."""

    def __init__(self, con: duckdb.DuckDBPyConnection, digest: str, trace_no: int) -> None:
        self._con = con
        for (old,) in con.execute("SELECT run_no FROM runs WHERE digest = ?", [digest]).fetchall():
            clear_run(con, old)
        row = con.execute("SELECT coalesce(max(run_no), 0) + 1 FROM runs").fetchone()
        assert row is not None
        self.run_no: int = row[0]
        self._digest = digest
        self._trace_no = trace_no

    def head(self, options: dict[str, Any], assumptions: Sequence[dict[str, str]], problems: dict[str, Any]) -> None:
        """Store what the run was asked for, what it assumes and what was wrong with its input."""
        self._con.execute(
            "INSERT INTO runs (run_no, digest, trace_no, cachesim_version, options, assumptions, problems) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                self.run_no,
                self._digest,
                self._trace_no,
                __version__,
                json.dumps(options, sort_keys=True),
                json.dumps(list(assumptions)),
                json.dumps(problems, sort_keys=True),
            ],
        )

    def variant(
        self,
        number: int,
        kind: str,
        policy: str,
        tariff: str | None,
        markers: str,
        rules: dict[str, Any],
        rules_no: int,
        ttl: str | None = None,
    ) -> None:
        """Declare a variant; kind: policy or bound; ttl: the lifetime given to every breakpoint, None as marked."""
        values = [self.run_no, number, kind, policy, tariff, markers, json.dumps(rules), rules_no, ttl]
        self._con.execute("INSERT INTO variants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def classified(
        self,
        variant_no: int,
        first_seq: int,
        results: Sequence[Classified],
        billed: Sequence[BilledSplit],
        prices: Sequence[int | None],
    ) -> None:
        """Store a batch of consecutive requests under one variant."""
        count = len(results)
        created = [r.classification.creation if r.classification else _NO_SPLIT for r in results]
        read, c5m, c1h, c24h, uncached, state = zip(*billed, strict=True)
        columns: dict[str, Sequence[Any]] = {
            "run_no": [self.run_no] * count,
            "variant_no": [variant_no] * count,
            "seq": range(first_seq, first_seq + count),
            "outcome": [r.outcome for r in results],
            "reason": [r.reason for r in results],
            "tiers": [r.tiers for r in results],
            "read_tokens": [r.classification.read if r.classification else 0 for r in results],
            "creation_5m_tokens": [c[0] for c in created],
            "creation_1h_tokens": [c[1] for c in created],
            "creation_24h_tokens": [c[2] for c in created],
            "billed_read_tokens": read,
            "billed_creation_5m_tokens": c5m,
            "billed_creation_1h_tokens": c1h,
            "billed_creation_24h_tokens": c24h,
            "uncached_tokens": uncached,
            "bill_state": state,
            "committed": [r.committed for r in results],
            "price_no": prices,
        }
        insert_frame(self._con, "classified", columns)

    def bound(
        self,
        variant_no: int,
        first_seq: int,
        read: Sequence[int],
        uncached: Sequence[int],
        beside: Sequence[Classified],
    ) -> None:
        """Store a batch under a bound: tokens only, nothing created or priced; what `beside` rejects does not count."""
        zeros, count = [0] * len(read), len(read)
        columns: dict[str, Sequence[Any]] = {
            "run_no": [self.run_no] * count,
            "variant_no": [variant_no] * count,
            "seq": range(first_seq, first_seq + count),
            "outcome": [
                REJECTED if policy.outcome == REJECTED else "read" if tokens else ZERO
                for tokens, policy in zip(read, beside, strict=True)
            ],
            "reason": [None] * count,
            "tiers": ["none"] * count,
            "read_tokens": read,
            "billed_read_tokens": read,
            "uncached_tokens": uncached,
            "bill_state": ["ok"] * count,
            "committed": [False] * count,
            "price_no": [None] * count,
        }
        for tier in ("5m", "1h", "24h"):
            columns[f"creation_{tier}_tokens"] = columns[f"billed_creation_{tier}_tokens"] = zeros
        insert_frame(self._con, "classified", columns)

    def prices(self, prices: Sequence[Prices], customs: Sequence[tuple[int, Decimal]] = ()) -> None:
        """Store the unit prices that were used, and once more for every custom lifetime: (offset, multiplier)."""
        copies: list[tuple[int, Decimal | None]] = [(0, None), *customs]
        rows = [(self.run_no, *row) for p in prices for offset, custom in copies for row in p.rows(custom, offset)]
        names = (
            "run_no", "price_no", "tariff", "base_source", "cache_source", "assumed",
            "uncached", "read", "creation_5m", "creation_1h", "creation_24h", "completion",
            "creation_custom",
        )  # fmt: skip
        if rows:
            insert_frame(self._con, "unit_prices", dict(zip(names, zip(*rows, strict=True), strict=True)))
