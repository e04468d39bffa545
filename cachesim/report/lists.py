"""Columns of the commands that list something else than figures of requests: check, runs, policies and gate."""

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
    ("measured", "text", "the run's figure, exact; empty: unknown"),
    ("limit", "text", "the figure that just passes, exact"), ("baseline", "text", "the baseline's figure, exact"),
    ("unit", "text", "what the figures are in: money, a rate from 0 to 1, tokens or requests"),
    ("detail", "text", "of what, and why a check cannot be evaluated"),
)  # fmt: skip
"""Name, kind, definition."""
