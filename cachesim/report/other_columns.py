"""Columns that no SQL over the sums of a group gives: of `index`, `compare`, `tariffs` and the drift report."""

from __future__ import annotations

from typing import Final

from cachesim.report.column import Column, Kind

DRIFT: Final = (
    Column("with_tools", "tools", "", "flag", "whether the request brings tools", "", 96),
    Column("messages", "messages", "messages", "count", "messages in the bodies of these requests", "", 40),
    Column("uncounted_tokens", "uncounted", "tokens", "tokens",
           "reported prompt tokens − local tokens: chat template, tools; negative: counted too many", "", 70),
    Column("uncounted_per_request", "per request", "tokens", "mean", "uncounted tokens / requests", "", 80),
    Column("uncounted_per_message", "per message", "tokens", "mean", "uncounted tokens / messages", "", 85),
    Column("off_median", "median off", "share", "rate", "median of |local − reported| / reported", "", 60),
    Column("off_p95", "p95 off", "share", "rate", "95th percentile of |local − reported| / reported", "", 61),
)  # fmt: skip
"""How local counts differ from reported ones; see `cachesim.report.drift`."""

_COUNT: Final[Kind] = "count"
_TOKENS: Final[Kind] = "tokens"

LIVES: Final = tuple(
    Column(name, title, unit, kind, definition, "", weight)
    for name, title, unit, kind, definition, weight in (
        ("entries", "entries", "lives", _COUNT,
         "lives of index entries: each from the commit that makes an entry live to its expiry", 90),
        ("refreshes", "refreshed", "commits", _COUNT, "commits that set the expiry of the live entry anew", 44),
        ("reads", "reads", "requests", _COUNT,
         "requests that read the entry, the deepest live one they find; a request reads one at most, failed ones too",
         82),
        ("peak_entries", "peak", "entries", _COUNT, "entries live at one instant within the log, at most", 70),
        ("peak_at", "peak at", "UTC", "time", "the first instant with as many live entries as the peak", 20),
        ("live_tokens", "live tokens", "tokens", "mean",
         "tokens created by the entries live at a time, averaged over the span of the log; inherited ones unknown", 26),
        ("peak_tokens", "peak tokens", "tokens", _TOKENS,
         "tokens created by the entries live at one instant, at most; inherited ones unknown", 62),
        ("live_at_end", "at the end", "entries", _COUNT,
         "entries live when the log ends, what is in flight then committed", 60),
        ("dead_share", "dead share", "share", "rate", "dead writes / billed writes", 72),
        ("live", "live", "yes or no", "flag", "whether the entry is live when the log ends", 30),
        ("inherited", "inherited", "yes or no", "flag",
         "written by an earlier log, which this run continued: its writes and reads are not counted", 28),
        ("entry_tokens", "tokens", "tokens", _TOKENS, "tokens of the whole prefix, as the index has them", 80),
        ("entry_created", "created", "tokens", _TOKENS,
         "tokens that the latest write of the entry created, beyond what was cached or written before it", 40),
        ("live_from", "live from", "UTC", "time", "the commit that made the entry live", 64),
        ("written_at", "written at", "UTC", "time", "the commit of its latest write", 66),
        ("live_until", "live until", "UTC", "time", "its expiry; it is not found at that instant any more", 68),
        ("last_read_at", "last read", "UTC", "time", "arrival of the latest request that read it", 50),
    )
)  # fmt: skip
"""Entries of the index over time; see `cachesim.report.lives`."""

_ON_A_SIDE: Final[tuple[tuple[str, str, str, Kind, str, int], ...]] = (
    ("requests", "requests", "requests", "count", "requests that count", 88),
    ("requests_rejected", "rejected", "requests", "count", "requests answered with HTTP 400", 20),
    ("prompt_tokens", "prompt tokens", "tokens", "tokens", "billed prompt tokens", 40),
    ("read_tokens", "read", "tokens", "tokens", "billed read tokens", 60),
    ("creation_tokens", "creation", "tokens", "tokens", "billed creation tokens of all tiers", 50),
    ("token_hit_rate", "token hit rate", "share", "rate", "read tokens / prompt tokens", 70),
    ("charged", "charged", "money", "money", "charged; null: not billed there, or a price is unknown", 85),
    ("charged_per_mtok", "per M tokens", "money", "money", "charged per million prompt tokens", 87),
)
"""Each stands twice: `…_a` on side A, `…_b` on side B."""

_OF_BOTH: Final[tuple[tuple[str, str, str, Kind, str, int], ...]] = (
    ("charged_per_mtok", "charged per M prompt tokens", "money", "money",
     "charged (completion included) / prompt tokens × 1,000,000, rounded to 12 decimals", 40),
    ("charged_per_request", "charged per request", "money", "money",
     "charged / successful requests, rounded to 12 decimals", 38),
    ("charged_to_list", "charged / list", "share", "rate", "charged / list: what caching leaves of the list price", 39),
    ("read_tokens_change", "read change", "tokens", "tokens", "billed read tokens: B − A", 62),
    ("creation_tokens_change", "creation change", "tokens", "tokens", "billed creation tokens of all tiers: B − A", 61),
    ("token_hit_rate_change", "hit rate change", "percentage points", "points",
     "token hit rate of B − token hit rate of A", 72),
    ("charged_change", "change", "money", "money",
     "charged B − charged A, where a side that does not bill the requests adds nothing; null: a price is unknown", 95),
    ("charged_share", "of A", "share of A", "rate", "change / charged A", 75),
    ("per_mtok_share", "per token", "share of A", "rate", "charged per prompt token: (B − A) / A", 76),
    ("requests_split", "split changed", "requests", "count", "requests with other billed tokens than on side A", 30),
    ("requests_changed", "changed class", "requests", "count",
     "successful requests whose outcome or reason is another than on side A", 80),
)  # fmt: skip
COMPARED: Final = (
    *(Column(name, title, unit, kind, text, "", weight) for name, title, unit, kind, text, weight in _OF_BOTH),
    *(
        Column(f"{name}_{side}", f"{title} {side.upper()}", unit, kind, f"on side {side.upper()}: {text}", "", weight)
        for side in "ab"
        for name, title, unit, kind, text, weight in _ON_A_SIDE
    ),
)
"""Columns of `compare`, whose values come from two variants."""

_PRICE: Final = "dollars, or whatever the ledger is in, per million tokens"
_BREAK_EVEN: Final = "full reads after which one write has paid for itself: ⌈(write − 1)/(1 − read)⌉; empty: never"

TARIFFS: Final[tuple[Column, ...]] = (
    Column("input_per_mtok", "input", "money", "exact", f"price of prompt tokens, {_PRICE}", "", 95),
    Column("output_per_mtok", "output", "money", "exact", f"price of completion tokens, {_PRICE}", "", 94),
    *(
        Column(f"write_{tier}", f"write {tier}", "factor", "exact",
               f"a token written for {tier} costs this × the input price", "", 90 - n)
        for n, tier in enumerate(("5m", "1h", "24h"))
    ),
    Column("read", "read", "factor", "exact", "a token read costs this × the input price", "", 91),
    Column("min_prefix_tokens", "floor", "tokens", "tokens",
           "shorter prefixes are not cached; of several tariffs that hold the smallest counts", "", 92),
    Column("valid_from", "from", "time", "time", "the first instant at which the tariff holds; empty: always", "", 80),
    Column("valid_until", "until", "time", "time", "the first instant at which it holds no more; empty: open", "", 79),
    Column("age_days", "age, days", "days", "count",
           "whole days from the tariff's beginning to the instant that ages are told as of", "", 60, "if_any"),
    *(
        Column(f"break_even_reads_{tier}", f"reads to pay for {tier}", "reads", "count", _BREAK_EVEN, "", 53 - n)
        for n, tier in enumerate(("5m", "1h", "24h"))
    ),
    Column("break_even_reads", "reads to pay", "reads", "text", f"for a write of 5m / 1h / 24h: {_BREAK_EVEN}", "", 81),
    Column("holds", "holds", "times", "text", "from its first instant to the first at which it holds no more", "", 93),
    Column("sets_price", "sets price", "", "flag",
           "whether it sets the price at that instant; no: a newer one does, and only its floor can count", "", 70),
    Column("assumed", "assumed", "", "flag", "not in the ledger: assumed for want of a tariff", "", 69),
)  # fmt: skip
"""A row of a tariff ledger; see `cachesim.tariffs`."""
