"""Columns that are no figures of a group: of the commands that list something else, and of single requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cachesim.report.columns import Kind

LISTED: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("parsed", "count", "requests whose body is JSON that the policies read"),
    ("not_cacheable", "count", "requests to paths that are never classified"),
    ("unparseable", "count", "requests whose body is no JSON"),
    ("marked", "count", "requests with a cache marker, whatever a policy makes of it"),
    ("with_usage", "count", "requests with reported prompt tokens"),
    ("principals", "count", "distinct principals"), ("sessions", "count", "distinct sessions"),
    ("cachesim_version", "text", "the program that made the run"),
    ("trace", "text", "digest of the prepared log"),
    ("made_by", "text", "the command that made the run"),
    ("inputs", "text", "the log files"), ("policies", "text", "the policies, without bounds"),
    ("tariffs", "text", "the sets of prices"),
    ("value", "text", "the rule's value as --set takes it"), ("meaning", "text", "what the rule says"),
    ("check", "text", "the limit's option, with underscores"), ("result", "text", "pass, fail or not_evaluated"),
    ("given", "text", "the limit as it was given"),
    ("measured", "text", "the run's figure, exact; null: unknown"),
    ("limit", "text", "the figure that just passes, exact"), ("baseline", "text", "the baseline's figure, exact"),
    ("unit", "text", "what the figures are in: money, a rate from 0 to 1, tokens or requests"),
    ("detail", "text", "of what, and why a check cannot be evaluated"),
    ("code", "text", "the kind of finding, as --ignore takes it"),
    ("text", "text", "what was found, in a sentence"),
    ("status", "text", "added: only in B; removed: only in A; changed: in both with another value"),
    ("field", "text", "the column whose value differs"),
    ("before", "text", "its value in A, exact; null: no such row, or open"),
    ("after", "text", "its value in B, exact; null: no such row, or open"),
    ("source_a", "text", "file and line in A; null: no such row"),
    ("source_b", "text", "file and line in B; null: no such row"),
)  # fmt: skip
"""Name, kind, definition."""

REQUEST_COLUMNS: Final[tuple[tuple[str, Kind, str], ...]] = (
    ("request", "text", "request"), ("at", "time", "at_us"), ("principal", "text", "principal"),
    ("model", "text", "model"),
    ("session", "text", "session"), ("log_format", "text", "log_format"), ("tier", "text", "tiers"),
    ("outcome", "text", "outcome"), ("reason", "text", "reason"), ("succeeded", "flag", "succeeded"),
    ("prompt_tokens", "tokens", "prompt_tokens"), ("prompt_estimated", "flag", "prompt_estimated"),
    ("local_tokens", "tokens", "local_tokens"), ("read_tokens", "tokens", "read_tokens"),
    ("creation_5m_tokens", "tokens", "creation_5m_tokens"), ("creation_1h_tokens", "tokens", "creation_1h_tokens"),
    ("creation_24h_tokens", "tokens", "creation_24h_tokens"), ("uncached_tokens", "tokens", "uncached_tokens"),
    ("completion_tokens", "tokens", "completion_tokens"), ("billed_read_tokens", "tokens", "billed_read_tokens"),
    ("billed_creation_5m_tokens", "tokens", "billed_creation_5m_tokens"),
    ("billed_creation_1h_tokens", "tokens", "billed_creation_1h_tokens"),
    ("billed_creation_24h_tokens", "tokens", "billed_creation_24h_tokens"),
    ("billed_uncached_tokens", "tokens", "billed_uncached_tokens"), ("bill_state", "text", "bill_state"),
    ("committed", "flag", "committed"), ("list", "money", "list"), ("charged", "money", "charged"),
    ("delta", "money", "delta"), ("rejected_list", "money", "rejected_list"),
    ("recorded_cost", "money", "recorded_cost"), ("recorded_read_tokens", "tokens", "recorded_read_tokens"),
    ("recorded_creation_5m_tokens", "tokens", "recorded_creation_5m_tokens"),
    ("recorded_creation_1h_tokens", "tokens", "recorded_creation_1h_tokens"),
    ("recorded_creation_24h_tokens", "tokens", "recorded_creation_24h_tokens"),
)  # fmt: skip
"""Columns of `--by request`: name, kind, SQL over v_requests."""

OF_A_REQUEST: Final[dict[str, str]] = {
    "at": "arrival",
    "tier": "TTL tiers of the request's breakpoints",
    "succeeded": "whether the answer was a success: only these are billed",
    "prompt_tokens": "prompt tokens for billing: as reported, else the local count",
    "prompt_estimated": "whether prompt_tokens is the local count",
    "local_tokens": "local count of the whole prompt",
    "read_tokens": "read from the cache, by the classifier's split",
    "creation_5m_tokens": "written for 5 minutes, by the classifier's split",
    "creation_1h_tokens": "written for 1 hour, by the classifier's split",
    "creation_24h_tokens": "written for 24 hours, by the classifier's split",
    "uncached_tokens": "prompt tokens that are neither read nor written, by the classifier's split",
    "completion_tokens": "completion tokens, as reported",
    "billed_read_tokens": "read tokens that are billed, after the capping rule",
    "billed_creation_5m_tokens": "5m creation tokens that are billed, after the capping rule",
    "billed_creation_1h_tokens": "1h creation tokens that are billed, after the capping rule",
    "billed_creation_24h_tokens": "24h creation tokens that are billed, after the capping rule",
    "billed_uncached_tokens": "uncached tokens that are billed, after the capping rule",
    "bill_state": "what the billing rule did: ok, capped, corrupt or voided",
    "committed": "whether the answer wrote to the index",
    "list": "the request's price without a cache",
    "charged": "the request's price",
    "delta": "charged − list",
    "rejected_list": "list price of a request answered with HTTP 400, which is not billed",
    "recorded_cost": "charge that the log records",
    "recorded_read_tokens": "read tokens that the log records",
    "recorded_creation_5m_tokens": "5m creation tokens that the log records",
    "recorded_creation_1h_tokens": "1h creation tokens that the log records",
    "recorded_creation_24h_tokens": "24h creation tokens that the log records",
}
"""What columns mean in a row of one request, where that is not what they mean in a group."""
