"""What a lifetime must earn by the tariff beside what a sweep measured, and how long after a write it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.policy import TIERS
from cachesim.core.pricing import break_even_hit_rate, reads_to_pay_back, tier_choice_ratio

if TYPE_CHECKING:
    import duckdb

Row = Mapping[str, Any]
_MULTIPLIER: Final = Decimal("0.000001")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
GAPS: Final = ("under_5m", "5m_to_1h", "1h_to_8h", "over_8h")
REACHES: Final = ("reach_20", "reach_40", "reach_80", "reach_more")


@dataclass(frozen=True, slots=True)
class Factors:
    """Multiples of the input price that a model's tokens cost under one variant.

    write: by tier, and `other` for a lifetime that the tariff does not price (None: no multiplier is known for it).
    several: the prices change within the log, these priced most prompt tokens.
    """

    source: str
    read: Decimal
    write: Mapping[str, Decimal | None]
    several: bool

    def of(self, lifetime: str) -> Decimal | None:
        """The write multiplier of a lifetime by name."""
        return self.write[lifetime if lifetime in TIERS else "other"]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One lifetime for every entry of a model: what it must earn and what it did. Token counts are billed ones.

    reads_to_pay_back: None if a write never pays back; break_even: the cacheable hit rate above which it saves.
    """

    model: str | None
    ttl: str
    write: Decimal
    read: Decimal
    reads_to_pay_back: int | None
    break_even: Fraction | None
    measured: float | None
    creation_tokens: int
    several: bool


@dataclass(frozen=True, slots=True)
class TierChoice:
    """Whether the longer of two lifetimes pays: where tokens written(long) / written(short) lie below the limit."""

    model: str | None
    short: str
    long: str
    limit: Fraction | None
    measured: Fraction | None

    @property
    def pays(self) -> bool | None:
        """None where nothing is written, or nothing decides."""
        return None if self.limit is None or self.measured is None else self.measured < self.limit


@dataclass(frozen=True, slots=True)
class Bands:
    """Reads of one model in bands, in the order of GAPS or REACHES."""

    model: str | None
    requests: tuple[int, ...]
    tokens: tuple[int, ...]


def price_factors(con: duckdb.DuckDBPyConnection, run_no: int) -> dict[tuple[int, str | None], Factors]:
    """The multipliers of every policy variant and model with a cache tariff, from the exact unit prices."""
    con.execute(
        "SELECT w.variant_no, g.model, p.cache_source, p.uncached, p.read, p.creation_5m, p.creation_1h,"
        " p.creation_24h, p.creation_custom, sum(w.prompt) AS prompt"
        " FROM swept w JOIN sweep_groups g USING (run_no, group_no) JOIN unit_prices p USING (run_no, price_no)"
        " WHERE w.run_no = ? AND p.cache_source IS NOT NULL AND p.uncached > 0 GROUP BY ALL"
        " ORDER BY prompt DESC, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        [run_no],
    )
    found: dict[tuple[int, str | None], Factors] = {}
    for variant, model, source, unit, *prices, _ in con.fetchall():
        read, *writes = (None if p is None else (p / unit).quantize(_MULTIPLIER).normalize() for p in prices)
        known = found.get((variant, model))
        write = dict(zip((*TIERS, "other"), writes, strict=True))
        assert read is not None
        if known is None:
            found[variant, model] = Factors(source, read, write, False)
        elif (known.read, known.write) != (read, write):
            found[variant, model] = Factors(known.source, known.read, known.write, True)
    return found


def lifetimes(rows: Sequence[Row], factors: Mapping[tuple[int, str | None], Factors]) -> list[Lifetime]:
    """One per model and uniform lifetime among `rows` (variants that differ in the lifetime alone), shortest first.

    Lifetimes without a price are left out: they have tokens only.
    """
    found = []
    for row in sorted((r for r in rows if _uniform(r["ttl"])), key=lambda r: seconds_of(r["ttl"])):
        factor = factors.get((row["variant"], row["model"]))
        write = factor.of(row["ttl"]) if factor else None
        if factor is None or write is None:
            continue
        found.append(
            Lifetime(
                model=row["model"],
                ttl=row["ttl"],
                write=write,
                read=factor.read,
                reads_to_pay_back=reads_to_pay_back(write, factor.read),
                break_even=break_even_hit_rate(write, factor.read),
                measured=row["cacheable_hit_rate"],
                creation_tokens=row["creation_tokens"],
                several=factor.several,
            )
        )
    return sorted(found, key=lambda made: (made.model is None, made.model or ""))


def tier_choices(found: Sequence[Lifetime]) -> list[TierChoice]:
    """Every lifetime of a model against the next longer one."""
    return [
        TierChoice(
            model=short.model,
            short=short.ttl,
            long=long.ttl,
            limit=tier_choice_ratio(short.write, long.write, short.read),
            measured=Fraction(long.creation_tokens, short.creation_tokens) if short.creation_tokens else None,
        )
        for short, long in pairwise(found)
        if short.model == long.model
    ]


def bands(rows: Sequence[Row], names: Sequence[str]) -> list[Bands]:
    """The reads of each row by `names`: GAPS (time since the last touch) or REACHES (walk-back needed)."""
    return [
        Bands(
            row["model"],
            tuple(row[f"reads_{name}"] for name in names),
            tuple(row[f"read_tokens_{name}"] for name in names),
        )
        for row in rows
    ]


def seconds_of(ttl: str) -> int:
    """The length of a lifetime by its name, of the longer one of two: '15m' → 900, '1h+5m' → 3600."""
    return max(int(part[:-1]) * _UNIT_S[part[-1]] for part in ttl.split("+"))


def _uniform(ttl: str | None) -> bool:
    return ttl is not None and "+" not in ttl
