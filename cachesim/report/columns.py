"""Every report column declared once: name, title, unit, definition with numerator and denominator, and its SQL.

A figure is added in one place: a COLUMNS entry, plus a CELLS entry if it needs a sum that is not there yet. CELLS are
summed per group and price (so money is a few exact products, not one per request); COLUMNS combine the sums of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cachesim.report.column import Column, Kind
from cachesim.report.lists import GROUP_TITLES, LISTED, OF_A_REQUEST, REQUEST_COLUMNS
from cachesim.report.other_columns import COMPARED, DRIFT, LIVES, TARIFFS

CELLS: Final[dict[str, str]] = {
    "requests": "count(*) FILTER (billed)",
    "requests_failed": "count(*) FILTER (NOT succeeded AND outcome <> 'rejected')",
    "requests_rejected": "count(*) FILTER (outcome = 'rejected')",
    "requests_read": "count(*) FILTER (billed AND billed_read_tokens > 0)",
    "prompt": "sum(prompt_tokens) FILTER (billed)",
    "read": "sum(billed_read_tokens) FILTER (billed)",
    "c5": "sum(billed_creation_5m_tokens) FILTER (billed)",
    "c1": "sum(billed_creation_1h_tokens) FILTER (billed)",
    "c24": "sum(billed_creation_24h_tokens) FILTER (billed)",
    "cx": "sum(0)",
    "uncached": "sum(uncached_tokens) FILTER (billed)",
    "completion": "sum(completion_tokens) FILTER (billed)",
    "rejected_prompt": "sum(prompt_tokens) FILTER (outcome = 'rejected')",
    "rejected_completion": "sum(completion_tokens) FILTER (outcome = 'rejected')",
    "recorded_cost": "sum(recorded_cost) FILTER (billed)",
    "recorded_cost_requests": "count(recorded_cost) FILTER (billed)",
    "recorded_read": "sum(recorded_read_tokens) FILTER (billed)",
    "recorded_read_requests": "count(recorded_read_tokens) FILTER (billed)",
    "recorded_c5": "sum(recorded_creation_5m_tokens) FILTER (billed)",
    "recorded_c1": "sum(recorded_creation_1h_tokens) FILTER (billed)",
    "recorded_c24": "sum(recorded_creation_24h_tokens) FILTER (billed)",
    "estimated": "count(*) FILTER (billed AND prompt_estimated AND prompt_tokens IS NOT NULL)",
    "unknown": "count(*) FILTER (billed AND prompt_tokens IS NULL)",
    "local": "sum(local_tokens) FILTER (billed AND NOT prompt_estimated)",
    "reported": "sum(prompt_tokens) FILTER (billed AND NOT prompt_estimated AND local_tokens IS NOT NULL)",
    "capped": "count(*) FILTER (billed AND bill_state = 'capped')",
    "capped_tokens": "sum(read_tokens - billed_read_tokens) FILTER (billed AND bill_state = 'capped')",
    "corrupt": "count(*) FILTER (billed AND bill_state = 'corrupt')",
    "voided": "count(*) FILTER (billed AND bill_state = 'voided')",
}
"""Sums over the requests of one group and one price; `billed` = succeeded and not rejected.

A sweep has them summed already, in `swept` under the same names, all but what the log recorded."""

SWEEP_CELLS: Final[tuple[str, ...]] = (
    "asked", "below_floor", "near_5", "near_10", "writes", "live_us", "dead_writes", "dead_c5", "dead_c1", "dead_c24",
    "dead_cx", "open_writes", "gap_1_requests", "gap_2_requests", "gap_3_requests", "gap_4_requests",
    "gap_1_tokens", "gap_2_tokens", "gap_3_tokens", "gap_4_tokens",
    "reach_1_requests", "reach_2_requests", "reach_3_requests", "reach_4_requests",
    "reach_1_tokens", "reach_2_tokens", "reach_3_tokens", "reach_4_tokens",
)  # fmt: skip
"""The sums that only a sweep keeps."""

_CREATED: Final = "(sum(s.c5) + sum(s.c1) + sum(s.c24) + sum(s.cx))"
_LIST: Final = "coalesce(sum(s.prompt * p.uncached + s.completion * p.completion), 0)"
_CHARGED: Final = (
    "coalesce(sum(s.uncached * p.uncached + s.read * p.read + s.c5 * p.creation_5m + s.c1 * p.creation_1h"
    " + s.c24 * p.creation_24h + s.cx * coalesce(p.creation_custom, 0) + s.completion * p.completion), 0)"
)
_DEAD_PREMIUM: Final = (
    "coalesce(sum(s.dead_c5 * (p.creation_5m - p.uncached) + s.dead_c1 * (p.creation_1h - p.uncached)"
    " + s.dead_c24 * (p.creation_24h - p.uncached) + s.dead_cx * coalesce(p.creation_custom - p.uncached, 0)), 0)"
)
_WRITE_PREMIUM: Final = _DEAD_PREMIUM.replace("s.dead_", "s.")
_REJECTED_LIST: Final = "coalesce(sum(s.rejected_prompt * p.uncached + s.rejected_completion * p.completion), 0)"


def _total(cell: str) -> str:
    return f"coalesce(sum(s.{cell}), 0)"


def _rate(numerator: str, denominator: str) -> str:
    return f"{numerator}::DOUBLE / nullif({denominator}, 0)"


def _priced(money: str, requests: str = "requests") -> str:
    """Null as soon as one of the counted requests has no price, and for bounds, which have none by nature."""
    return f"CASE WHEN kind <> 'bound' AND {_total(requests)} = {_priced_count(requests)} THEN {money} END"


def _priced_count(requests: str) -> str:
    return f"coalesce(sum(s.{requests}) FILTER (p.price_no IS NOT NULL), 0)"


def _fully_priced(money: str, custom: str = "cx") -> str:
    """Null also where tokens were created in a lifetime without a multiplier."""
    return _priced(f"CASE WHEN coalesce(sum(s.{custom}) FILTER (p.creation_custom IS NULL), 0) = 0 THEN {money} END")


_COUNT: Final[Kind] = "count"
_TOKENS: Final[Kind] = "tokens"
_GAPS: Final = (
    ("under_5m", "< 5m", "under 5 minutes"), ("5m_to_1h", "5m–1h", "5 minutes to under 1 hour"),
    ("1h_to_8h", "1h–8h", "1 hour to under 8 hours"), ("over_8h", "≥ 8h", "8 hours or more"),
)  # fmt: skip
_REACHES: Final = (
    ("reach_20", "≤ 20", "up to 20"), ("reach_40", "21–40", "21 to 40"), ("reach_80", "41–80", "41 to 80"),
    ("reach_more", "> 80", "more than 80"),
)  # fmt: skip


def _band_columns(cell: str, bands: Sequence[tuple[str, str, str]], definition: str) -> list[Column]:
    """Reads in bands: requests, then their tokens. definition: with `{what}` and `{band}`."""
    return [
        Column(f"{what}_{name}", f"{title} {band}", unit, kind, definition.format(what=unit, band=words),
               _total(f"{cell}_{number}_{unit}"), weight, "machine", "sweep")
        for what, title, unit, kind, weight in (
            ("reads", "reads", "requests", _COUNT, 19), ("read_tokens", "read", "tokens", _TOKENS, 18))
        for number, (name, band, words) in enumerate(bands, 1)
    ]  # fmt: skip


_ALL: Final[tuple[Column, ...]] = (
    Column("requests", "requests", "requests", "count",
           "successful requests that the policy serves; only these are in totals and rates", _total("requests"), 90),
    Column("requests_failed", "failed", "requests", "count",
           "requests that did not succeed: classified, never billed, in no total and no rate",
           _total("requests_failed"), 46, "if_any"),
    Column("requests_rejected", "rejected", "requests", "count",
           "requests the policy answers with HTTP 400: in no total and no rate",
           _total("requests_rejected"), 47, "if_any"),
    Column("requests_read", "requests with read", "requests", "count",
           "requests with at least one billed read token", _total("requests_read"), 20, "machine"),
    Column("prompt_tokens", "prompt tokens", "tokens", "tokens",
           "all input tokens, cached part included: as reported, else the local count", _total("prompt"), 85),
    Column("read_tokens", "read tokens", "tokens", "tokens",
           "billed tokens served from cache", _total("read"), 80),
    Column("creation_5m_tokens", "creation 5m", "tokens", "tokens",
           "billed tokens written to the cache for 5 minutes", _total("c5"), 60, "if_any"),
    Column("creation_1h_tokens", "creation 1h", "tokens", "tokens",
           "billed tokens written to the cache for 1 hour", _total("c1"), 59, "if_any"),
    Column("creation_24h_tokens", "creation 24h", "tokens", "tokens",
           "billed tokens written to the cache for 24 hours", _total("c24"), 58, "if_any"),
    Column("creation_custom_tokens", "creation other", "tokens", "tokens",
           "billed tokens written to the cache for a lifetime that no tariff prices; --multiplier gives its price",
           _total("cx"), 57, "if_any", "sweep"),
    Column("uncached_tokens", "uncached", "tokens", "tokens",
           "prompt tokens neither read nor written: prompt − read − creation, after the billing rule",
           _total("uncached"), 35),
    Column("completion_tokens", "completion", "tokens", "tokens",
           "output tokens as reported", _total("completion"), 30),
    Column("token_hit_rate", "token hit rate", "share", "rate",
           "read tokens / prompt tokens of every successful request, cached or not, enabled or not",
           _rate("sum(s.read)", "sum(s.prompt)"), 100),
    Column("cacheable_hit_rate", "cacheable hit rate", "share", "rate",
           "read tokens / (read + creation tokens); a bound creates nothing and has none",
           f"CASE WHEN kind <> 'bound' THEN {_rate('sum(s.read)', f'sum(s.read) + {_CREATED}')} END", 70),
    Column("request_hit_rate", "request hit rate", "share", "rate",
           "requests with read tokens > 0 / successful requests", _rate("sum(s.requests_read)", "sum(s.requests)"), 50),
    Column("list", "list", "money", "money",
           "prompt tokens × input price + completion tokens × output price", _priced(_LIST), 88),
    Column("charged", "charged", "money", "money",
           "the cost with the split: every token class at its own price", _fully_priced(_CHARGED), 95),
    Column("delta", "delta", "money", "money",
           "charged − list; negative: the customer saves", _fully_priced(f"{_CHARGED} - {_LIST}"), 92),
    Column("unpriced", "unpriced", "requests", "count",
           "requests without a known price; one of them makes every sum of money unknown",
           f"CASE WHEN kind <> 'bound' THEN {_total('requests')} - {_priced_count('requests')} END", 75, "if_any"),
    Column("rejected_list", "rejected list", "money", "money",
           "list price of the rejected requests", _priced(_REJECTED_LIST, "requests_rejected"), 25, "if_any"),
    Column("recorded_cost", "recorded cost", "money", "money",
           "sum of the charges recorded in the log, over the requests that record one",
           "sum(s.recorded_cost)", 32, "if_any", "requests"),
    Column("recorded_cost_requests", "with recorded cost", "requests", "count",
           "requests that record a charge", _total("recorded_cost_requests"), 11, "machine", "requests"),
    Column("recorded_read_tokens", "recorded read", "tokens", "tokens",
           "read tokens recorded in the log, over the requests that record them", "sum(s.recorded_read)",
           31, "if_any", "requests"),
    Column("recorded_read_requests", "with recorded read", "requests", "count",
           "requests that record read tokens", _total("recorded_read_requests"), 10, "machine", "requests"),
    Column("recorded_creation_5m_tokens", "recorded creation 5m", "tokens", "tokens",
           "5m creation tokens recorded in the log, and those recorded without a lifetime", "sum(s.recorded_c5)",
           8, "machine", "requests"),
    Column("recorded_creation_1h_tokens", "recorded creation 1h", "tokens", "tokens",
           "1h creation tokens recorded in the log", "sum(s.recorded_c1)", 7, "machine", "requests"),
    Column("recorded_creation_24h_tokens", "recorded creation 24h", "tokens", "tokens",
           "24h creation tokens recorded in the log", "sum(s.recorded_c24)", 6, "machine", "requests"),
    Column("prompt_estimated_requests", "estimated prompts", "requests", "count",
           "requests whose prompt tokens are the local count because the log reports none",
           _total("estimated"), 15, "if_any"),
    Column("prompt_unknown_requests", "unknown prompts", "requests", "count",
           "requests whose prompt tokens nobody reports and nobody could count: in no token sum, and unpriced",
           _total("unknown"), 16, "if_any"),
    Column("local_tokens", "local tokens", "tokens", "tokens",
           "local count of the prompts whose reported count is known", "sum(s.local)", 9, "machine"),
    Column("reported_prompt_tokens", "reported prompt tokens", "tokens", "tokens",
           "reported prompt tokens of the requests that were also counted locally", "sum(s.reported)", 9, "machine"),
    Column("drift", "drift", "share", "rate",
           "local tokens / reported prompt tokens − 1, over the requests where both are known",
           f"{_rate('sum(s.local)', 'sum(s.reported)')} - 1", 12, "machine"),
    Column("capped", "capped", "requests", "count",
           "requests whose read was cut to prompt − creation (rule cap)", _total("capped"), 16, "if_any"),
    Column("capped_tokens", "tokens cut", "tokens", "tokens",
           "read tokens cut by the capping rule", _total("capped_tokens"), 13, "machine"),
    Column("corrupt", "corrupt", "requests", "count",
           "requests with more creation than prompt tokens: billed at list (rule cap)",
           _total("corrupt"), 17, "if_any"),
    Column("voided", "voided", "requests", "count",
           "requests whose split exceeds the prompt: billed at list (rule void)", _total("voided"), 14, "if_any"),
    Column("asked", "asked", "requests", "count",
           "successful requests that reached the cache: they declare a breakpoint and pass every gate before the floor",
           _total("asked"), 33, "machine", "sweep"),
    Column("eligible", "eligible", "requests", "count",
           "requests that reached the cache and were not turned to zero by the floor: asked − below floor",
           f"{_total('asked')} - {_total('below_floor')}", 66, "always", "sweep"),
    Column("below_floor", "below floor", "requests", "count",
           "requests that reached the cache and were turned to zero by the floor", _total("below_floor"),
           34, "machine", "sweep"),
    Column("near_5", "near ±5 %", "requests", "count",
           "of the asked requests, those whose tokens up to the deepest breakpoint lie within ±5 % of the floor in"
           " force: another tokenizer may flip them", _total("near_5"), 53, "machine", "sweep"),
    Column("near_10", "near ±10 %", "requests", "count",
           "of the asked requests, those whose tokens up to the deepest breakpoint lie within ±10 % of the floor in"
           " force", _total("near_10"), 51, "machine", "sweep"),
    Column("index_writes", "index writes", "rows", "count",
           "rows of the index written or replaced by completed responses, of failed requests too where they commit",
           _total("writes"), 45, "always", "sweep"),
    Column("live_entries", "live entries", "rows", "mean",
           "rows of the index that are live at a time, averaged over the span of the log",
           "coalesce(sum(s.live_us), 0)::DOUBLE / nullif(max(span_us), 0)", 44, "always", "sweep"),
    Column("dead_writes", "dead writes", "writes", "count",
           "billed writes that expired or were replaced without ever being read", _total("dead_writes"),
           43, "machine", "sweep"),
    Column("dead_tokens", "dead tokens", "tokens", "tokens",
           "creation tokens of the dead writes",
           f"{_total('dead_c5')} + {_total('dead_c1')} + {_total('dead_c24')} + {_total('dead_cx')}",
           42, "machine", "sweep"),
    Column("dead_premium", "dead premium", "money", "money",
           "what the dead writes cost above the list price: their tokens × (creation price − input price)",
           _fully_priced(_DEAD_PREMIUM, "dead_cx"), 41, "machine", "sweep"),
    Column("open_writes", "open writes", "writes", "count",
           "billed writes not read yet and still live when the log ends: neither dead nor useful so far",
           _total("open_writes"), 24, "machine", "sweep"),
    *_band_columns("gap", _GAPS, "{what} read from an entry that was last written or refreshed {band} before"),
    *_band_columns("reach", _REACHES, "{what} read from an entry that a walk-back of {band} boundaries finds"),
)  # fmt: skip
"""Every figure, in output order."""

COLUMNS: Final[tuple[Column, ...]] = tuple(c for c in _ALL if c.kept != "sweep")
"""The figures of an aggregate report on a replay, in output order; the group columns stand before them."""

SWEEP_COLUMNS: Final[tuple[Column, ...]] = tuple(replace(c, sql="NULL") if c.kept == "requests" else c for c in _ALL)
"""The figures of a report on a sweep."""

IDEAL: Final = Column(
    name="ideal_rate",
    title="ideal hit rate",
    unit="share",
    kind="rate",
    definition="token hit rate of the bound `ideal`: every prefix seen before is read, whatever its age",
    sql="",
    weight=65,
)
"""Stands beside the token hit rate on the first screen; its value comes from another variant's row."""

VERSUS: Final[tuple[Column, ...]] = (
    Column("creation_tokens", "creation tokens", "tokens", "tokens",
           "billed tokens written to the cache, whatever their lifetime", _CREATED, 64),
    Column("read_change", "read change", "tokens", "tokens", "read tokens − read tokens of `now`", "", 52),
    Column("delta_share", "to list", "share", "rate", "delta / list: what the cache does to the bill", "", 61),
    Column("change", "change", "money", "money",
           "charged − charged of `now`, the run's own first policy, markers and tariff; negative: customers pay less",
           "", 93),
    Column("change_share", "to now", "share", "rate", "change / charged of `now`", "", 91),
    Column("revenue", "revenue", "money", "money", "what the operator takes in: charged", "", 5, "machine"),
    Column("revenue_change", "revenue change", "money", "money", "revenue − revenue of `now`", "", 5, "machine"),
    Column("revenue_change_share", "revenue change", "share", "rate", "revenue change / revenue of `now`",
           "", 5, "machine"),
    Column("principals_better", "better off", "principals", "count", "principals charged less than under `now`",
           "", 55),
    Column("principals_worse", "worse off", "principals", "count", "principals charged more than under `now`", "", 56),
    Column("principals_above_list", "above list", "principals", "count", "principals charged more than list", "", 54),
)  # fmt: skip
"""How a variant of a sweep compares with its first, `now`; made from rows, see `cachesim.report.sweeps`."""

LOSSES: Final[tuple[Column, ...]] = (
    Column("write_premium", "write premium", "money", "money",
           "what writing cost above list: creation tokens × (creation price − input price)",
           _fully_priced(_WRITE_PREMIUM), 84),
    Column("read_saving", "read saving", "money", "money",
           "what reading saved: read tokens × (input price − read price); delta = write premium − read saving",
           _priced("coalesce(sum(s.read * (p.uncached - p.read)), 0)"), 83),
)  # fmt: skip
"""The two sides of delta; see `cachesim.report.losers`."""

MOVED: Final[tuple[Column, ...]] = (
    Column("count_change", "counts", "share", "rate",
           "by how much every local token count is moved; 0: the run itself", "", 1001),
    Column("decisions_changed", "decision changes", "requests", "count",
           "requests with another outcome or reason than with the counts as they are", _total("changed"), 80),
    Column("fell_below_floor", "fall below floor", "requests", "count",
           "requests that only the moved counts turn to zero by the floor", _total("floor_down"), 78),
    Column("rose_above_floor", "rise above floor", "requests", "count",
           "requests that the floor turns to zero with the counts as they are, and no longer with these",
           _total("floor_up"), 77),
    Column("eligible_rate", "eligible", "share", "rate",
           "of the requests that reached the cache, those not turned to zero by the floor: eligible / asked",
           _rate("(sum(s.asked) - sum(s.below_floor))", "sum(s.asked)"), 66),
    Column("bill_change", "bill change", "money", "money", "charged − charged with the counts as they are", "", 93),
    Column("bill_change_share", "of bill", "share", "rate", "bill change / charged with the counts as they are",
           "", 91),
)  # fmt: skip
"""What moved counts change; see `cachesim.report.sensitivity`."""
BY_NAME: Final[dict[str, Column]] = {
    column.name: column for column in (*_ALL, IDEAL, *VERSUS, *LOSSES, *MOVED, *DRIFT, *LIVES, *COMPARED, *TARIFFS)
}

_OTHER_KINDS: Final[dict[str, Kind]] = {
    **{name: kind for name, kind, _ in (*REQUEST_COLUMNS, *LISTED)},
    "variant": "count", "floor": "tokens", "walk_back": "count",
}  # fmt: skip


def kind_of(name: str) -> Kind:
    """The kind of a column of any report; group columns are text."""
    return BY_NAME[name].kind if name in BY_NAME else _OTHER_KINDS.get(name, "text")


_DEFINITIONS: Final[dict[str, str]] = {
    **OF_A_REQUEST,
    **{name: text for name, _, text in LISTED},
    **GROUP_TITLES,
    **{name: column.definition for name, column in BY_NAME.items()},
}


def definition(name: str, *, of_a_request: bool = False) -> str:
    """What a column says; "" for one that nobody defined. of_a_request: in a row of one request."""
    if name.startswith("tag:"):
        return "the tag's value"
    return (OF_A_REQUEST.get(name) if of_a_request else None) or _DEFINITIONS.get(name, "")
