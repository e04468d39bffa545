"""A classifier version as data: one field a rule, presets for the versions proven by the golden cases."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

TIERS: Final = ("5m", "1h", "24h")
"""The tiers upstream prices, shortest first; a tier's position here is its number everywhere in cachesim."""


@dataclass(frozen=True, slots=True)
class BodyRules:
    """The rules that shape blocks and bytes: a trace is prepared once per distinct value of this type."""

    hash_tools: bool
    hash_tool_calls: bool
    telemetry_prefixes: tuple[str, ...]
    query_marker: bool
    ingress_text_markers: bool
    ingress_tool_use_markers: bool
    ingress_top_level_marker: bool
    ingress_system_in_place: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """One complete set of classifier rules. Field comments are the help text of `cachesim policies`."""

    name: str
    hash_tools: bool
    hash_tool_calls: bool
    telemetry_prefixes: tuple[str, ...]
    query_marker: bool
    ingress_text_markers: bool
    ingress_tool_use_markers: bool
    ingress_top_level_marker: bool
    ingress_system_in_place: bool
    automatic_marker: bool
    null_marker_counts: bool
    type_required: bool
    lenient_ttl: bool
    reject_bad_markers: bool
    enabled_ttls: tuple[str, ...]
    default_ttl: str
    max_breakpoints: int
    walk_back: int
    collapse_tool_runs: bool
    floor_scope: Literal["request", "breakpoint"]
    min_prefix_tokens: int | None
    tier_seconds: tuple[int, int, int]
    window: Literal["sliding", "fixed"]
    refresh: Literal["deepest", "all_matched"]
    visible_at: Literal["completion", "response_start", "arrival"]
    billing_rule: Literal["void", "cap"]

    @property
    def body_rules(self) -> BodyRules:
        """The part of the policy that needs the bodies."""
        return BodyRules(**{f.name: getattr(self, f.name) for f in fields(BodyRules)})


RULE_HELP: Final[dict[str, str]] = {
    "hash_tools": "tools[] are blocks, hashed and counted before all messages (upstream 8.70.0)",
    "hash_tool_calls": "an assistant's tool_calls[] are blocks after its content (8.81.1)",
    "telemetry_prefixes": "an unmarked system text element starting with one of these is left out (8.70.2)",
    "query_marker": "?cacheBreakpoint=lastUserMessage acts as a top-level 1h marker (10.12.0)",
    "ingress_text_markers": "Messages ingress keeps markers on assistant text and tool_result blocks (8.75.1)",
    "ingress_tool_use_markers": "Messages ingress keeps markers on tool_use blocks (8.81.1)",
    "ingress_top_level_marker": "Messages ingress passes a top-level cache_control on (8.73.0)",
    "ingress_system_in_place": "system messages inside messages stay in place; before: 400 (10.10.1)",
    "automatic_marker": "a top-level cache_control puts a breakpoint on the last block (8.73.0)",
    "null_marker_counts": "cache_control: null is a marker (only 8.63)",
    "type_required": "a marker must be an object whose type is a string; otherwise malformed (8.68.0)",
    "lenient_ttl": "a ttl that is not a string falls back to 5m instead of being malformed (only 8.63)",
    "reject_bad_markers": "a bad marker is HTTP 400; before: served, split all zero (8.68.0)",
    "enabled_ttls": "the TTL tiers a marker may name",
    "default_ttl": "the tier of a marker without ttl",
    "max_breakpoints": "more markers than this are an error",
    "walk_back": "block boundaries looked up per breakpoint, the breakpoint itself included",
    "collapse_tool_runs": "a run of tool calls, or of tool results, is one walk-back position (Anthropic)",
    "floor_scope": "min_prefix_tokens is tested on the deepest total (request) or per breakpoint",
    "min_prefix_tokens": "the floor in tokens, overriding every tariff's (null: the tariff's)",
    "tier_seconds": "lifetime in seconds of the tiers 5m, 1h, 24h",
    "window": "sliding: a read extends the entry's life; fixed: it does not",
    "refresh": "which matched entries a read refreshes: deepest or all_matched",
    "visible_at": "when a write becomes readable: completion, response_start or arrival",
    "billing_rule": "void: a split above the prompt is billed at list; cap: the read is cut (8.104.0)",
}

_DWCTL_8_63: Final = Policy(
    name="dwctl-8.63",
    hash_tools=False,
    hash_tool_calls=False,
    telemetry_prefixes=(),
    query_marker=False,
    ingress_text_markers=False,
    ingress_tool_use_markers=False,
    ingress_top_level_marker=False,
    ingress_system_in_place=False,
    automatic_marker=False,
    null_marker_counts=True,
    type_required=False,
    lenient_ttl=True,
    reject_bad_markers=False,
    enabled_ttls=("5m", "1h", "24h"),
    default_ttl="5m",
    max_breakpoints=4,
    walk_back=20,
    collapse_tool_runs=False,
    floor_scope="request",
    min_prefix_tokens=None,
    tier_seconds=(300, 3600, 86400),
    window="sliding",
    refresh="deepest",
    visible_at="completion",
    billing_rule="void",
)

PRESETS: Final[dict[str, Policy]] = {
    "dwctl-8.63": _DWCTL_8_63,
    "dwctl-10.13": replace(
        _DWCTL_8_63,
        name="dwctl-10.13",
        hash_tools=True,
        hash_tool_calls=True,
        telemetry_prefixes=("x-anthropic-billing-header:",),
        query_marker=True,
        ingress_text_markers=True,
        ingress_tool_use_markers=True,
        ingress_top_level_marker=True,
        ingress_system_in_place=True,
        automatic_marker=True,
        null_marker_counts=False,
        type_required=True,
        lenient_ttl=False,
        reject_bad_markers=True,
        enabled_ttls=("5m", "1h"),
        billing_rule="cap",
    ),
}
DEFAULT_PRESET: Final = "dwctl-10.13"


def rules(policy: Policy) -> dict[str, Any]:
    """Every rule of `policy` by name, in declaration order (without the policy's own name)."""
    return {f.name: getattr(policy, f.name) for f in fields(Policy) if f.name != "name"}
