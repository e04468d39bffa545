"""Who pays more with caching than without: cohorts of a replay with their premiums, savings and dead writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.pricing import EXACT
from cachesim.report.columns import BY_NAME, CELLS
from cachesim.report.query import Dimension, Variant, aggregate_sql, dimension, grouping
from cachesim.report.sweeps import share
from cachesim.report.tables import money, money_decimals, number, percent

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
SYSTEM: Final = "system"
"""The dimension of system prompts, named by a digest; from the table `followed`, see `cachesim.episodes`."""
NOUNS: Final = {
    "principal": "principal",
    "tag:app": "app",
    SYSTEM: "system prompt",
    "model": "model",
    "session": "session",
}
FIGURES: Final = (
    "requests", "prompt_tokens", "read_tokens", "creation_tokens", "token_hit_rate", "cacheable_hit_rate",
    "list", "charged", "delta", "unpriced", "write_premium", "read_saving",
    "dead_writes", "dead_tokens", "dead_premium", "open_writes",
)  # fmt: skip
TABLE: Final = (
    "requests", "read_tokens", "creation_tokens", "cacheable_hit_rate", "list", "charged", "delta", "delta_share",
    "unpriced", "write_premium", "read_saving", "dead_writes", "dead_premium",
)  # fmt: skip
"""The figures a table shows."""
COLUMNS: Final = ("run", "policy", "tariff", "dimension", "cohort", *FIGURES, "delta_share")
_FATES: Final = ("dead_writes", "dead_c5", "dead_c1", "dead_c24", "open_writes")
_OF_FATES: Final = ("dead_writes", "dead_tokens", "dead_premium", "open_writes")


def cohort_rows(
    con: duckdb.DuckDBPyConnection, run_no: int, variant: Variant, name: str | None, *, fates: bool = True
) -> list[Row]:
    """One row per cohort of the dimension `name`, the dearest against list first; without a name one row of all.

    name: a dimension of `report`, days and hours in UTC, `tag:NAME`, or `system`. Needs the table `followed`.
    delta = write_premium − read_saving; money is None where a price is unknown; fates: False leaves the figures of dead
    and open writes None. Raises UsageError for an unknown dimension.
    """
    labels, keys = grouping([] if name is None else [name], "UTC", cohort_dimension)
    figures = [BY_NAME[figure].sql for figure in FIGURES]
    con.execute(aggregate_sql(run_no, [variant], _sums(run_no, variant, keys), labels, figures))
    found = [row if keys else (row[0], None, *row[1:]) for row in con.fetchall()]
    digest = con.execute("SELECT digest FROM runs WHERE run_no = ?", [run_no]).fetchone()
    assert digest is not None
    lead = {"run": digest[0], "policy": variant.policy, "tariff": variant.tariff, "dimension": name}
    rows = []
    for _, cohort, *values in found:
        row = {**lead, "cohort": cohort, **dict(zip(FIGURES, values, strict=True))}
        row |= {} if fates else dict.fromkeys(_OF_FATES)
        rows.append({**row, "delta_share": share(row["delta"], row["list"])})
    return sorted(rows, key=_dearest)


def _dearest(row: Row) -> tuple[Any, ...]:
    """Largest delta first, unknown ones last; equals by name."""
    return row["delta"] is None, -(row["delta"] or 0), row["cohort"] is None, row["cohort"] or ""


def losers(rows: Sequence[Row]) -> list[Row]:
    """The cohorts that are charged more than list."""
    return [row for row in rows if row["delta"] is not None and row["delta"] > 0]


def is_evidence(rows: Sequence[Row]) -> bool:
    """Whether a list can answer who pays more: some cohort with tokens has a known bill, or no bill is unknown."""
    known = [row for row in rows if row["delta"] is not None]
    return len(known) == len(rows) or any(row["prompt_tokens"] for row in known)


# -- in words


def headline(total: Row, lists: Mapping[str, Sequence[Row]]) -> str:
    """How many of each list pay more; where nobody is known to, how many bills are unknown."""
    if not total["requests"]:
        return "Nobody pays: no request of this run counts."
    parts = _shares(lists, {name: len(losers(rows)) for name, rows in lists.items()})
    unknown = _shares(lists, {name: _unknown(rows) for name, rows in lists.items()})
    if not parts and unknown:
        return f"Nobody whose bill is known pays more with caching than without; unknown: {_and(unknown)}."
    if not parts:
        return (
            f"Nobody pays more with caching than without: none of {_and([many(n, len(r)) for n, r in lists.items()])}."
        )
    several = len(parts) > 1 or not parts[0].startswith("1 of")
    return f"{_and(parts)} {'pay' if several else 'pays'} more with caching than without."


def _shares(lists: Mapping[str, Sequence[Row]], counts: Mapping[str, int]) -> list[str]:
    """`2 of 4 principals` for every list with a count."""
    return [f"{counts[name]:,} of {many(name, len(rows))}" for name, rows in lists.items() if counts[name]]


def _unknown(rows: Sequence[Row]) -> int:
    return sum(row["delta"] is None for row in rows)


def dead_text(total: Row) -> str:
    """What became of the writes of all together."""
    if total["dead_writes"] is None:
        return "dead writes: not counted, this run continued the index of another that is gone"
    created, dead = total["creation_tokens"], total["dead_tokens"]
    part = f", {percent(dead / created)} of the tokens written" if created else ""
    open_writes = f"; {number(total['open_writes'])} still live when the log ends" if total["open_writes"] else ""
    cost = total["dead_premium"]
    paid = "" if cost is None else f", {money(cost, money_decimals([cost]))} above list"
    return f"dead writes: {number(total['dead_writes'])} were never read{part}{paid}{open_writes}"


def list_text(name: str, rows: Sequence[Row]) -> str:
    """The title of one list."""
    worse = losers(rows)
    unknown = _unknown(rows)
    remark = f"; {unknown:,} in unknown money" if unknown else ""
    if not worse:
        return f"{name}: none of {len(rows):,} pays more{remark}"
    extra = reduce(EXACT.add, (row["delta"] for row in worse), Decimal(0))
    pay = "pays" if len(worse) == 1 else "pay"
    return f"{name}: {len(worse):,} of {len(rows):,} {pay} {money(extra, money_decimals([extra]))} more{remark}"


def many(name: str, count: int) -> str:
    """`1 principal`, `4 principals`; other dimensions go by their own name."""
    one = NOUNS.get(name, name)
    return f"{count:,} {one}" if count == 1 or name not in NOUNS else f"{count:,} {one}s"


def _and(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


# -- SQL


def cohort_dimension(name: str) -> Dimension:
    """The dimension of a list of cohorts: one of `report`, `tag:NAME`, or `system`. Raises UsageError."""
    return Dimension(SYSTEM) if name == SYSTEM else dimension(name)


def _sums(run_no: int, variant: Variant, keys: Sequence[str]) -> str:
    """SQL of the sums over the requests of a variant and the fates of their writes, per cohort and price."""
    cells = [f"{sql} AS {name}" for name, sql in CELLS.items()]
    cells += [f"sum({name}) AS {name}" for name in _FATES]
    group = "".join(f"{key.rpartition(' AS ')[2]}, " for key in keys)
    return f"""SELECT variant_no, {group}price_no, {", ".join(cells)}, sum(0) AS dead_cx FROM (
  SELECT *, succeeded AND outcome <> 'rejected' AS billed{"".join(f", {key}" for key in keys)} FROM (
    SELECT c.* EXCLUDE (seq), r.* EXCLUDE (trace_no), f.* EXCLUDE (seq) FROM classified c
    JOIN requests r ON r.seq = c.seq AND r.trace_no = (SELECT trace_no FROM runs WHERE run_no = {run_no})
    LEFT JOIN followed f ON f.seq = c.seq
    WHERE c.run_no = {run_no} AND c.variant_no = {variant.variant_no})) GROUP BY ALL"""
