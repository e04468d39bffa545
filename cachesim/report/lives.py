"""The index over time: its entries as lives, those live at an instant, dead ones, and how many lived at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.policy import TIERS
from cachesim.errors import UsageError
from cachesim.report.columns import kind_of
from cachesim.report.query import Variant, literal
from cachesim.report.tables import money, money_decimals, percent
from cachesim.report.times import instant_text

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
SHORT_PREFIX: Final = 12
"""Hex digits of a prefix hash in tables."""
DIMENSIONS: Final = ("model", "principal", "ttl_tier")
_LEAD: Final = ("run", "policy", "tariff")
FIGURES: Final = (
    "entries", "index_writes", "refreshes", "reads", "read_tokens", "creation_tokens", "live_entries", "peak_entries",
    "peak_at", "live_tokens", "peak_tokens", "live_at_end", "dead_writes", "dead_share", "dead_tokens", "dead_premium",
    "write_premium", "read_saving", "delta",
)  # fmt: skip
TABLE: Final = (
    "entries", "reads", "refreshes", "live_entries", "peak_entries", "peak_at", "peak_tokens", "live_at_end",
    "dead_writes", "dead_share", "dead_premium", "delta",
)  # fmt: skip
"""The figures a table of the summary shows."""
_ENTRY: Final = (
    "principal", "model", "prefix", "ttl_tier", "entry_tokens", "entry_created", "live_from", "written_at",
    "live_until", "live", "inherited", "index_writes", "refreshes", "reads", "last_read_at", "read_tokens",
    "dead_writes", "dead_tokens", "dead_premium", "write_premium", "read_saving", "delta",
)  # fmt: skip
ENTRY_COLUMNS: Final = (*_LEAD, *_ENTRY)
_NAMES: Final = ("principal", "model", "prefix", "ttl_tier", "entry_tokens")
KEPT: Final = ("principal", "model", "prefix", "reads", "dead_premium")
"""Columns of a list that never leave its table."""
DEAD: Final = "(dead_writes > 0 OR (reads = 0 AND index_writes > 0 AND NOT live))"
"""SQL: a write of the life was never read, or the life is over without a read."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Which lives a list shows (SQL), in which order (SQL), and the columns of its table."""

    where: str
    order: str
    table: Sequence[str]


LISTINGS: Final = {
    "at": Listing(
        "live", "principal, model, live_until DESC, entry_tokens DESC",
        (*_NAMES, "written_at", "live_until", "refreshes", "reads", "last_read_at"),
    ),
    "episodes": Listing(
        "true", "live_from",
        (*_NAMES, "live_from", "live_until", "live", "refreshes", "reads", "read_tokens", "last_read_at", "delta"),
    ),
    "dead": Listing(
        DEAD, "dead_premium DESC NULLS LAST, dead_tokens DESC",
        (*_NAMES, "written_at", "dead_writes", "dead_tokens", "dead_premium", "reads"),
    ),
}  # fmt: skip
_TIER_PRICE: Final = " ".join(f"WHEN {i} THEN p.creation_{tier}" for i, tier in enumerate(TIERS))


def sum_lives(con: duckdb.DuckDBPyConnection, run_no: int, variant: Variant, begin_us: int, end_us: int) -> None:
    """Put every life with its tokens and money into the temporary table `life_sums`; needs `lives` and its company.

    begin_us, end_us: the span of the log. Money is null where a billed request of the life has no known price.
    """
    premium = f"w.tokens * ((CASE w.tier {_TIER_PRICE} END) - p.uncached)"
    con.execute(f"""
CREATE OR REPLACE TEMP TABLE life_sums AS
WITH bills AS (
  SELECT c.seq, c.billed_read_tokens, c.price_no, r.succeeded AND c.outcome <> 'rejected' AS billed
  FROM runs JOIN classified c USING (run_no) JOIN requests r ON r.trace_no = runs.trace_no AND r.seq = c.seq
  WHERE c.run_no = {run_no} AND c.variant_no = {variant.variant_no}),
prices AS (SELECT * FROM unit_prices WHERE run_no = {run_no}),
written AS (
  SELECT w.life, w.dead, count(*) AS writes, sum(w.tokens) AS tokens,
    CASE WHEN count(p.price_no) = count(*) THEN sum({premium}) END AS premium
  FROM life_writes w JOIN bills b USING (seq) LEFT JOIN prices p USING (price_no) WHERE w.billed GROUP BY ALL),
read AS (
  SELECT l.life, sum(b.billed_read_tokens) AS tokens,
    CASE WHEN count(p.price_no) = count(*) THEN sum(b.billed_read_tokens * (p.uncached - p.read)) END AS saving
  FROM life_reads l JOIN bills b USING (seq) LEFT JOIN prices p USING (price_no) WHERE b.billed GROUP BY ALL)
SELECT l.life, l.principal, l.model, l.prefix, l.ttl_tier, l.tokens AS entry_tokens, l.created AS entry_created,
  l.from_us AS live_from, l.written_us AS written_at, l.until_us AS live_until,
  l.until_us > greatest({end_us}, l.from_us) AS live,
  l.inherited, l.writes AS index_writes, l.refreshes, l.reads, l.last_read_us AS last_read_at,
  CASE WHEN r.life IS NULL THEN 0 ELSE r.tokens END::BIGINT AS read_tokens,
  coalesce(w.tokens, 0)::BIGINT AS creation_tokens, coalesce(w.writes, 0) AS billed_writes,
  coalesce(d.writes, 0) AS dead_writes, coalesce(d.tokens, 0)::BIGINT AS dead_tokens,
  CASE WHEN d.life IS NULL THEN 0 ELSE d.premium END AS dead_premium,
  CASE WHEN w.life IS NULL THEN 0 ELSE w.premium END AS write_premium,
  CASE WHEN r.life IS NULL THEN 0 ELSE r.saving END AS read_saving, write_premium - read_saving AS delta
FROM lives l LEFT JOIN written w ON w.life = l.life AND NOT w.dead LEFT JOIN written d ON d.life = l.life AND d.dead
LEFT JOIN read r ON r.life = l.life
WHERE NOT (l.inherited AND l.until_us <= {begin_us})
""")


_MONEY: Final = ("dead_premium", "write_premium", "read_saving", "delta")


def entry_rows(con: duckdb.DuckDBPyConnection, lead: Row, listing: Listing, where: str) -> list[Row]:
    """The lives of a listing that the SQL condition `where` leaves, each with the columns of ENTRY_COLUMNS."""
    con.execute(
        f"SELECT {', '.join(_ENTRY)} FROM life_sums WHERE {where} AND {listing.where} ORDER BY {listing.order}, life"
    )
    return [{**lead, **dict(zip(_ENTRY, values, strict=True))} for values in con.fetchall()]


def summary_rows(
    con: duckdb.DuckDBPyConnection, lead: Row, by: Sequence[str], where: str, begin_us: int, end_us: int
) -> list[Row]:
    """One row per group with FIGURES, or one of everything without `by`; averages and peaks within the log's span."""
    keys = ", ".join(by)
    group = f"GROUP BY {keys}" if by else ""
    live_us = f"greatest(0, least(live_until, {end_us}) - greatest(live_from, {begin_us}))"
    on = f"USING ({keys})" if by else "ON true"
    con.execute(f"""
WITH chosen AS (SELECT * FROM life_sums WHERE {where}),
steps AS (
  SELECT {_list(by)}greatest(live_from, {begin_us}) AS at_us, 1 AS entry, coalesce(entry_created, 0) AS tokens
  FROM chosen WHERE live_until > live_from AND live_from <= {end_us}
  UNION ALL SELECT {_list(by)}live_until, -1, -coalesce(entry_created, 0)
  FROM chosen WHERE live_until > live_from AND live_until <= {end_us}),
levels AS (
  SELECT {_list(by)}at_us, sum(sum(entry)) OVER upto AS entries, sum(sum(tokens)) OVER upto AS tokens
  FROM steps GROUP BY {_list(by)}at_us WINDOW upto AS ({f"PARTITION BY {keys} " if by else ""}ORDER BY at_us)),
highest AS (
  SELECT {_list(by)}max(entries) AS peak_entries, arg_min(at_us, (-entries, at_us)) AS peak_at,
    max(tokens) AS peak_tokens
  FROM levels {group}),
sums AS (
  SELECT {_list(by)}count(*) AS entries, sum(index_writes) AS index_writes, sum(refreshes) AS refreshes,
    sum(reads) AS reads, sum(read_tokens) AS read_tokens, sum(creation_tokens) AS creation_tokens,
    sum({live_us})::DOUBLE / nullif({end_us - begin_us}, 0) AS live_entries,
    sum({live_us} * coalesce(entry_created, 0))::DOUBLE / nullif({end_us - begin_us}, 0) AS live_tokens,
    count(*) FILTER (live) AS live_at_end, sum(dead_writes) AS dead_writes,
    sum(dead_writes)::DOUBLE / nullif(sum(billed_writes), 0) AS dead_share, sum(dead_tokens) AS dead_tokens,
    {", ".join(f"CASE WHEN count({m}) = count(*) THEN coalesce(sum({m}), 0) END AS {m}" for m in _MONEY)}
  FROM chosen {group})
SELECT {_list(by)}{", ".join(FIGURES)} FROM sums LEFT JOIN highest {on} ORDER BY {keys or "1"}
""")
    return [{**lead, **_figures([*by, *FIGURES], values)} for values in con.fetchall()]


def _figures(names: Sequence[str], values: Sequence[Any]) -> Row:
    """The values by name; of no lives at all there are 0 of everything, not an unknown number."""
    counted = ("count", "tokens")
    return {n: 0 if v is None and kind_of(n) in counted else v for n, v in zip(names, values, strict=True)}


def _list(by: Sequence[str]) -> str:
    return "".join(f"{key}, " for key in by)


def condition(principals: Sequence[str], models: Sequence[str]) -> str:
    """SQL that leaves the lives of these principals and models, of all where none is named."""
    parts = ["true"]
    for name, wanted in (("principal", principals), ("model", models)):
        if wanted:
            parts.append(f"{name} IN ({', '.join(map(literal, wanted))})")
    return " AND ".join(parts)


def check_by(names: Sequence[str]) -> list[str]:
    """What lives are grouped by, each once. Raises UsageError for anything else than DIMENSIONS."""
    for name in names:
        if name not in DIMENSIONS:
            raise UsageError(f"--by {name!r}: choose from {', '.join(DIMENSIONS)}")
    return list(dict.fromkeys(names))


# -- in words


def summary_text(total: Row, begin_us: int, end_us: int) -> str:
    """How many entries lived, at a time and at most."""
    span = f"{instant_text(begin_us)} to {instant_text(end_us)}"
    if not total["entries"]:
        return f"Nothing was cached from {span}."
    mean = "" if total["live_entries"] is None else f"{total['live_entries']:,.1f} at a time, "
    return (
        f"{_many(total['entries'], 'entry', 'entries')} lived in the index from {span}: {mean}{total['peak_entries']:,}"
        f" at most, {total['live_at_end']:,} when the log ends."
    )


def dead_text(total: Row) -> str:
    """What was written and never read."""
    if not total["dead_writes"]:
        return "dead writes: none"
    cost = total["dead_premium"]
    paid = "" if cost is None else f", {money(cost, money_decimals([cost]))} above list"
    share = percent(total["dead_share"])
    return f"dead writes: {total['dead_writes']:,} were never read, {share} of the billed writes{paid}"


def list_text(name: str, rows: Sequence[Row]) -> str:
    """How many lives a list of episodes or dead writes has, and how many of them were never read."""
    unread = sum(not row["reads"] for row in rows)
    if name == "dead":
        return f"{_many(len(rows), 'entry has', 'entries have')} dead writes; {_were(unread)} never read at all."
    return f"{_many(len(rows), 'entry', 'entries')} lived in the index; {_were(unread)} never read."


def inherited_text(count: int) -> str:
    """What is not known of the entries that a continued run began with."""
    what = _many(count, "entry was", "entries were")
    return f"{what} written by the log before; what happened to {'it' if count == 1 else 'them'} there is not counted"


def at_text(rows: Sequence[Row], at_us: int, log: tuple[int, int]) -> str:
    """How many entries are live, and whose they are; log: its first and last arrival."""
    if not rows:
        first, last = map(instant_text, log)
        return f"{instant_text(at_us)}: no entry is live; the log runs from {first} to {last}."
    of = [_many(len({row[name] for row in rows}), name, f"{name}s") for name in ("principal", "model")]
    return f"{instant_text(at_us)}: {_many(len(rows), 'entry is', 'entries are')} live, of {of[0]} and {of[1]}."


def _many(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _were(count: int) -> str:
    return f"{count:,} {'was' if count == 1 else 'were'}"
