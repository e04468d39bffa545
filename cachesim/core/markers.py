"""Cache markers: from `cache_control` values to facts (kept in the trace) to breakpoints (decided by a policy).

A fact is what the client sent, stripped to what any rule can ask: ``shape`` of the value, its ``type`` and its ``ttl``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from cachesim.core.canonical import Json
from cachesim.core.policy import TIERS, Policy

MISSING: Final = "<missing>"
NOT_A_STRING: Final = "<not a string>"
OTHER: Final = "<other>"
_KNOWN_TYPE: Final = "ephemeral"
_TTL: Final = re.compile(r"[0-9]{1,4}[smhd]")
TIER_NUMBER: Final = {name: number for number, name in enumerate(TIERS)}


class MarkerFact(NamedTuple):
    """One marker as sent. shape: null, scalar (or array) or object; kind/ttl: the string, MISSING or NOT_A_STRING.

    Strings that can be neither the type nor a time to live are OTHER: facts are stored, what clients write is not.
    """

    shape: str
    kind: str
    ttl: str


class MarkerError(ValueError):
    """A marker that upstream refuses; `str(error)` is the golden cases' error kind."""


NULL_FACT: Final = MarkerFact("null", MISSING, MISSING)
_ABSENT: Final = object()


def marker_fact(value: Json) -> MarkerFact:
    """The facts of a `cache_control` value.

    >>> marker_fact({"type": "ephemeral", "ttl": "1h"})
    MarkerFact(shape='object', kind='ephemeral', ttl='1h')
    """
    if type(value) is dict:
        return MarkerFact("object", _string_fact(value, "type"), _string_fact(value, "ttl"))
    return NULL_FACT if value is None else MarkerFact("scalar", MISSING, MISSING)


def _string_fact(value: dict[str, Json], key: str) -> str:
    found = value.get(key, _ABSENT)
    if found is _ABSENT:
        return MISSING
    if type(found) is not str:
        return NOT_A_STRING
    return found if found == _KNOWN_TYPE or _TTL.fullmatch(found) else OTHER


def tier_of(fact: MarkerFact, policy: Policy) -> int:
    """The tier number a marker asks for under `policy`. Raises MarkerError."""
    if policy.type_required and (fact.shape != "object" or fact.kind in (MISSING, NOT_A_STRING)):
        raise MarkerError("malformed_cache_control")
    if fact.kind not in ("ephemeral", MISSING, NOT_A_STRING):
        raise MarkerError("unsupported_type")
    if fact.ttl == MISSING or (fact.ttl == NOT_A_STRING and policy.lenient_ttl):
        return TIER_NUMBER[policy.default_ttl]
    if fact.ttl == NOT_A_STRING:
        raise MarkerError("malformed_cache_control")
    if fact.ttl not in TIER_NUMBER:
        raise MarkerError("invalid_ttl")
    if fact.ttl not in policy.enabled_ttls:
        raise MarkerError("tier_disabled")
    return TIER_NUMBER[fact.ttl]


def counts(fact: MarkerFact, policy: Policy) -> bool:
    """Whether this marker exists at all for the policy (a null one does only in 8.63)."""
    return fact.shape != "null" or policy.null_marker_counts


def breakpoints(
    blocks: Sequence[int],
    facts: Sequence[MarkerFact],
    automatic: MarkerFact | None,
    block_count: int,
    policy: Policy,
    *,
    read_on: bool | None = None,
) -> tuple[tuple[int, int], ...]:
    """The (block, tier number) pairs the request path works with, in block order.

    blocks/facts: position and fact of every captured marker, in block order; automatic: the top-level marker, if any.
    Raises MarkerError. Where bad markers are rejected, the check stops at the first marker above `max_breakpoints`;
    upstream's full parse (`read_on`, and all there was in 8.63) looks at every marker before it counts them.
    """
    if read_on is None:
        read_on = not policy.reject_bad_markers
    found: list[tuple[int, int]] = []
    for block, fact in zip(blocks, facts, strict=True):
        if counts(fact, policy):
            found.append((block, tier_of(fact, policy)))
            if len(found) > policy.max_breakpoints and not read_on:
                break
    if len(found) > policy.max_breakpoints:
        raise MarkerError("too_many_breakpoints")
    if automatic is not None and automatic.shape != "null" and policy.automatic_marker:
        _add_automatic(found, tier_of(automatic, policy), block_count, policy)
    return tuple(found)


def _add_automatic(found: list[tuple[int, int]], tier: int, block_count: int, policy: Policy) -> None:
    last = block_count - 1
    if last < 0:
        return
    if found and found[-1][0] == last:
        if found[-1][1] != tier:
            raise MarkerError("automatic_ttl_conflict")
        return
    if len(found) == policy.max_breakpoints:
        raise MarkerError("automatic_no_slot")
    found.append((last, tier))
