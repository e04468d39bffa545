"""One prepared request against the live entries of its scope: what is read and created, what a success will commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from cachesim.core.blocks import TOOL_CALL, TOOL_RESULT
from cachesim.core.policy import Policy

MICROSECONDS: Final = 1_000_000
_MAX_CLASSIFIED_TOKENS: Final = 2**32 - 1
MAX_STORED_TOKENS: Final = 2**31 - 1
"""What the index can hold of a count; more is stored as this."""


class Tree(Protocol):
    """Block boundaries of all prompts as a forest in parallel sequences, indexed by node number.

    parents[n]: the boundary one block earlier, -1 before the first; prefixes[n]: identity of the prefix hash
    (nodes with equal digests share one); kinds[n]: the closing block, see `cachesim.core.blocks.KINDS`.
    """

    @property
    def parents(self) -> Sequence[int]: ...
    @property
    def prefixes(self) -> Sequence[int]: ...
    @property
    def kinds(self) -> Sequence[int]: ...


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row of the index within its scope. tier: number in `cachesim.core.policy.TIERS`."""

    expires_us: int
    tokens: int
    tier: int
    created_us: int


class Write(msgspec.Struct, frozen=True, gc=False):
    """An upsert to commit when the response has completed successfully."""

    prefix: int
    tokens: int
    tier: int
    expires_us: int


class Refresh(msgspec.Struct, frozen=True, gc=False):
    """A new expiry for a matched entry, committed like a write."""

    prefix: int
    expires_us: int


class Classification(msgspec.Struct, frozen=True, gc=False):
    """The split in tokens and what is to be committed. below_floor: all is zero because of the floor."""

    read: int
    creation: tuple[int, int, int]
    writes: tuple[Write, ...]
    refreshes: tuple[Refresh, ...]
    below_floor: bool = False


BELOW_FLOOR: Final = Classification(0, (0, 0, 0), (), (), True)
_NOTHING_CREATED: Final = (0, 0, 0)


def classify(
    tree: Tree,
    cumulative: Sequence[int],
    end: int,
    block_count: int,
    breakpoints: Sequence[tuple[int, int]],
    find: Callable[[int], Entry | None],
    now_us: int,
    policy: Policy,
    floor_tokens: int,
) -> Classification:
    """Classify the prompt that ends at node `end` and has `block_count` blocks.

    cumulative[n]: tokens of all blocks up to boundary n; breakpoints: (block, tier), at least one, in block order;
    find: the scope's entry of a prefix, expired or not; floor_tokens: min_prefix_tokens in force.
    """
    passed, matches = _walk_back(tree, end, block_count, breakpoints, find, now_us, policy)
    refreshes = _refreshes(matches, tree, now_us, policy)
    if not matches:
        return _create(tree, cumulative, passed, 0, 0, refreshes, now_us, policy, floor_tokens)
    node, entry = matches[0]
    if node == passed[0][0]:
        return Classification(entry.tokens, _NOTHING_CREATED, (), refreshes)
    if passed[-1][0] == node:
        passed.pop()
    return _create(tree, cumulative, passed, entry.tokens, cumulative[node], refreshes, now_us, policy, floor_tokens)


def _walk_back(
    tree: Tree,
    end: int,
    block_count: int,
    breakpoints: Sequence[tuple[int, int]],
    find: Callable[[int], Entry | None],
    now_us: int,
    policy: Policy,
) -> tuple[list[tuple[int, int]], list[tuple[int, Entry]]]:
    """From the deepest breakpoint back: the (node, tier) of breakpoints passed, and live matches, deepest first.

    The windows of all breakpoints are one union, so the first match met is the deepest; a policy that refreshes only
    that one needs to look no further.
    """
    parents, prefixes, kinds = tree.parents, tree.prefixes, tree.kinds
    first_only = policy.refresh == "deepest"
    passed: list[tuple[int, int]] = []
    matches: list[tuple[int, Entry]] = []
    node, block = end, block_count - 1
    coming = len(breakpoints) - 1
    left = 0
    while node >= 0:
        if coming >= 0 and breakpoints[coming][0] == block:
            if not matches:
                passed.append((node, breakpoints[coming][1]))
            coming -= 1
            left = policy.walk_back
        if left > 0:
            entry = find(prefixes[node])
            if entry is not None and entry.expires_us > now_us:
                matches.append((node, entry))
                if first_only:
                    break
            if not (policy.collapse_tool_runs and same_run(kinds, node, parents[node])):
                left -= 1
        elif coming < 0:
            break
        node = parents[node]
        block -= 1
    return passed, matches


def same_run(kinds: Sequence[int], node: int, parent: int) -> bool:
    """Whether a block and the one before it belong to one run of tool calls, or of tool results."""
    return parent >= 0 and kinds[node] == kinds[parent] and kinds[node] in (TOOL_CALL, TOOL_RESULT)


def _refreshes(matches: Sequence[tuple[int, Entry]], tree: Tree, now_us: int, policy: Policy) -> tuple[Refresh, ...]:
    """The new expiries: by the tier *stored* on each matched entry."""
    if not matches or policy.window == "fixed":
        return ()
    prefixes, seconds = tree.prefixes, policy.tier_seconds
    return tuple([Refresh(prefixes[node], now_us + seconds[entry.tier] * MICROSECONDS) for node, entry in matches])


def _create(
    tree: Tree,
    cumulative: Sequence[int],
    passed: Sequence[tuple[int, int]],
    read: int,
    matched_tokens: int,
    refreshes: tuple[Refresh, ...],
    now_us: int,
    policy: Policy,
    floor_tokens: int,
) -> Classification:
    """The write side. passed: breakpoints beyond the match, deepest first; matched_tokens: local count at the match.

    The stored count `read` is the base, however the local count of the same prefix may differ.
    """
    offset = read - matched_tokens
    per_breakpoint = policy.floor_scope == "breakpoint"
    if not per_breakpoint and cumulative[passed[0][0]] + offset < floor_tokens:
        return BELOW_FLOOR
    creation = [0, 0, 0]
    writes: list[Write] = []
    previous = read
    for node, tier in reversed(passed):
        total = cumulative[node] + offset
        if per_breakpoint and total < floor_tokens:
            continue
        creation[tier] += max(0, total - previous)
        expires_us = now_us + policy.tier_seconds[tier] * MICROSECONDS
        writes.append(Write(tree.prefixes[node], min(total, _MAX_CLASSIFIED_TOKENS), tier, expires_us))
        previous = total
    if not writes and not read:
        return BELOW_FLOOR
    return Classification(read, (creation[0], creation[1], creation[2]), tuple(writes), refreshes)
