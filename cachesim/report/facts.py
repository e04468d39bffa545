"""What the first screen says about a run in words and small numbers: coverage, drift, break-even."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

TIERS: Final = ("5m", "1h", "24h")
_MULTIPLIER: Final = Decimal("0.000001")


@dataclass(slots=True)
class Coverage:
    """How many requests and prompt tokens of one variant were classified, why the rest was not; failed ones count."""

    requests: int = 0
    prompt_tokens: int = 0
    classified: int = 0
    classified_tokens: int = 0
    failed: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)


def coverage(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int) -> Coverage:
    """Counts over every request of the variant; a request is classified unless its outcome is `inactive`."""
    con.execute(
        "SELECT outcome, reason, count(*), sum(prompt_tokens), count(*) FILTER (NOT succeeded) FROM v_requests"
        " WHERE run_no = ? AND variant_no = ? GROUP BY ALL ORDER BY 3 DESC, 1, 2",
        [run_no, variant_no],
    )
    found = Coverage()
    for outcome, reason, requests, tokens, failed in con.fetchall():
        found.requests += requests
        found.prompt_tokens += int(tokens or 0)
        found.failed += failed
        found.outcomes[outcome] += requests
        if outcome != "inactive":
            found.classified += requests
            found.classified_tokens += int(tokens or 0)
        if reason is not None:
            found.reasons.setdefault(outcome, Counter())[reason] += requests
    return found


@dataclass(frozen=True, slots=True)
class BreakEven:
    """One cache tariff of a variant: its multipliers, the tokens it priced, and what they mean.

    write and created are in the order 5m, 1h, 24h. rate() is the token hit rate read/(read+creation) above which a tier
    pays: (w − 1)/(w − r), with w = 1.25 and r = 0.1: 0.25/1.15 = 21.7 %.
    """

    name: str
    read: Decimal
    write: tuple[Decimal, Decimal, Decimal]
    read_tokens: int
    created: tuple[int, int, int]

    def rate(self, tier: int) -> Decimal | None:
        """None where a read costs as much as a write, so that no hit rate decides anything."""
        w = self.write[tier]
        return max((w - 1) / (w - self.read), Decimal(0)) if w > self.read else None

    @property
    def measured(self) -> float | None:
        """read / (read + creation) of the requests this tariff priced."""
        total = self.read_tokens + sum(self.created)
        return self.read_tokens / total if total else None

    @property
    def pays(self) -> bool:
        """True if the reads saved more than the writes cost extra, over all tiers together."""
        extra = sum((t * (w - 1) for t, w in zip(self.created, self.write, strict=True)), Decimal(0))
        return self.read_tokens * (1 - self.read) > extra


def break_even(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int) -> list[BreakEven]:
    """One entry per cache tariff and multipliers, most tokens first; multipliers come from the exact unit prices."""
    con.execute(
        "SELECT p.cache_source, p.read, p.creation_5m, p.creation_1h, p.creation_24h, p.uncached,"
        " sum(c.billed_read_tokens), sum(c.billed_creation_5m_tokens), sum(c.billed_creation_1h_tokens),"
        " sum(c.billed_creation_24h_tokens) FROM classified c JOIN unit_prices p USING (run_no, price_no)"
        " JOIN runs USING (run_no) JOIN requests r ON r.trace_no = runs.trace_no AND r.seq = c.seq"
        " WHERE c.run_no = ? AND c.variant_no = ? AND p.cache_source IS NOT NULL AND p.uncached > 0"
        " AND r.succeeded AND c.outcome <> 'rejected' GROUP BY ALL ORDER BY 1, 2, 3, 4, 5, 6",
        [run_no, variant_no],
    )
    sums: dict[tuple[str, tuple[Decimal, ...]], list[int]] = {}
    for name, *prices, unit, read, c5, c1, c24 in con.fetchall():
        multipliers = tuple((price / unit).quantize(_MULTIPLIER).normalize() for price in prices)
        tokens = sums.setdefault((name, multipliers), [0, 0, 0, 0])
        for i, count in enumerate((read, c5, c1, c24)):
            tokens[i] += int(count)
    found = [
        BreakEven(name, m[0], (m[1], m[2], m[3]), tokens[0], (tokens[1], tokens[2], tokens[3]))
        for (name, m), tokens in sums.items()
    ]
    return sorted(found, key=lambda b: -(b.read_tokens + sum(b.created)))
