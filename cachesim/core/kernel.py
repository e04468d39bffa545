"""The classifier once more, on flat sequences of integers: one function a sweep runs per variant, plain or compiled.

It says what `cachesim.core.classify` and `cachesim.replay.Lane` say (tests hold them together), but knows nothing of
policies and markers: breakpoints and look-ups are laid out in advance, and what varies is a handful of numbers. The
functions use only what both CPython and Numba run, so that there is one text for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from cachesim.core.classify import MAX_STORED_TOKENS


class Ints(Protocol):
    """A list of ints, or an array of 64-bit ones."""

    def __getitem__(self, place: int, /) -> int: ...
    def __iter__(self) -> Iterator[int]: ...
    def __len__(self) -> int: ...


class Mutable(Ints, Protocol):
    """… that can be written to."""

    def __setitem__(self, place: int, value: int, /) -> None: ...


CELLS: Final = (
    "read", "slot_0", "slot_1", "slot_2", "requests_read", "capped", "capped_tokens", "corrupt", "voided",
    "below_floor", "writes", "live_us", "dead_writes", "dead_slot_0", "dead_slot_1", "dead_slot_2", "open_writes",
    "gap_1_requests", "gap_2_requests", "gap_3_requests", "gap_4_requests",
    "gap_1_tokens", "gap_2_tokens", "gap_3_tokens", "gap_4_tokens",
    "reach_1_requests", "reach_2_requests", "reach_3_requests", "reach_4_requests",
    "reach_1_tokens", "reach_2_tokens", "reach_3_tokens", "reach_4_tokens",
)  # fmt: skip
"""What is summed per group, in the order of `out`; slot_n: creation in the variant's n-th lifetime."""

WIDTH: Final = len(CELLS)
_READ, _SLOT, _REQUESTS_READ, _CAPPED, _CAPPED_TOKENS, _CORRUPT, _VOIDED = 0, 1, 4, 5, 6, 7, 8
_BELOW, _WRITES, _LIVE, _DEAD, _DEAD_SLOT, _OPEN, _GAP, _REACH = 9, 10, 11, 12, 13, 16, 17, 25

GAP_BANDS_US: Final = (300_000_000, 3_600_000_000, 28_800_000_000)
"""Reads are told apart by the time since their entry was last written or refreshed: below each of these, and longer."""
REACH_BANDS: Final = (20, 40, 80)
"""Reads are told apart by the walk-back they need: up to each of these, and longer."""
_GAP_1, _GAP_2, _GAP_3 = GAP_BANDS_US
_REACH_1, _REACH_2, _REACH_3 = REACH_BANDS
_NO_MATCH: Final = -1
_NOTHING: Final = -2
"""Instead of a look-up row: no live entry was found; the floor turned the request to zero, nothing is committed."""


class Shard(NamedTuple):
    """Requests of some scopes that reach the cache, in order of scope and arrival, numbered from 0; times in µs.

    events: n for the arrival of request n, ~n for its completion, in the order they happen.
    at, done: arrival and commit; prompt: billing prompt tokens; calibrated, billed, commits: flags; group: where it is
    summed;
    floor: the tariff's floor. Of request n, breakpoints are the rows mark_from[n] to mark_from[n + 1], in block order:
    mark_entry (index entry), mark_tokens (cumulative), mark_slot (which lifetime). Look-ups, deepest first, are the
    rows look_from[n] to …: look_entry, look_tokens (cumulative), look_need (least walk-back that gets there),
    look_beyond (breakpoints that lie deeper).
    """

    events: Ints
    at: Ints
    done: Ints
    prompt: Ints
    calibrated: Ints
    billed: Ints
    commits: Ints
    group: Ints
    floor: Ints
    mark_from: Ints
    mark_entry: Ints
    mark_tokens: Ints
    mark_slot: Ints
    look_from: Ints
    look_entry: Ints
    look_tokens: Ints
    look_need: Ints
    look_beyond: Ints


class Knobs(NamedTuple):
    """What varies between two variants of one layout. Lifetimes in µs by slot; floor -1: the request's own.

    sliding, every_match, per_breakpoint, cap: flags for window, refresh = all_matched, floor_scope = breakpoint and
    billing_rule = cap; end_us: the last arrival of the log.
    """

    floor: int
    walk_back: int
    life_0: int
    life_1: int
    life_2: int
    sliding: int
    every_match: int
    per_breakpoint: int
    cap: int
    end_us: int


class State(NamedTuple):
    """What changes while a shard is replayed, all zero at the start.

    Per entry: expires, tokens, slot; unread (1 + creation tokens of a billed write nobody has read yet, else 0) and
    unread_group. Per request: matched (look-up row, or a sentinel), base (tokens read), paid (its creation was billed).
    Per look-up row: revived (the new expiry a commit gives to its entry, 0 none).
    """

    expires: Mutable
    tokens: Mutable
    slot: Mutable
    unread: Mutable
    unread_group: Mutable
    matched: Mutable
    base: Mutable
    paid: Mutable
    revived: Mutable


def simulate(shard: Shard, knobs: Knobs, state: State, out: Mutable) -> None:
    """Replay a shard under one variant and add what happens to `out`, WIDTH cells a group."""
    for event in shard.events:
        if event >= 0:
            arrive(shard, knobs, state, out, event)
        else:
            commit(shard, knobs, state, out, ~event)
    finish(knobs, state, out)


def arrive(shard: Shard, knobs: Knobs, state: State, out: Mutable, n: int) -> None:
    """Classify request n: find the deepest live entry, apply the floor, sum up the bill, remember what to commit."""
    now = shard.at[n]
    expires = state.expires
    match, entry = _NO_MATCH, 0
    for row in range(shard.look_from[n], shard.look_from[n + 1]):
        found = shard.look_entry[row]
        if expires[found] > now and shard.look_need[row] <= knobs.walk_back:
            if match == _NO_MATCH:
                match, entry = row, found
            if knobs.sliding:
                state.revived[row] = now + life(knobs, state.slot[found])
            if not knobs.every_match:
                break
    last = shard.mark_from[n + 1] - 1
    if match == _NO_MATCH:
        first, read, offset = shard.mark_from[n], 0, 0
    else:
        first = last + 1 - shard.look_beyond[match]
        read = state.tokens[entry]
        offset = read - shard.look_tokens[match]
    cell = shard.group[n] * WIDTH
    billed = shard.billed[n]
    state.base[n] = read
    state.matched[n] = match
    if first <= last and below(shard, knobs, n, first, last, read, offset):
        state.matched[n] = _NOTHING
        out[cell + _BELOW] += billed
        return
    if match != _NO_MATCH:
        state.unread[entry] = 0
    billed_read = bill(shard, knobs, out, n, first, last, read, offset, cell)
    state.paid[n] = billed_read >= 0
    if billed_read > 0:
        gap(out, cell, now - (expires[entry] - life(knobs, state.slot[entry])), billed_read)
        reach(out, cell, shard.look_need[match], billed_read)


def life(knobs: Knobs, slot: int) -> int:
    """The lifetime of a slot in µs."""
    if slot == 0:
        return knobs.life_0
    return knobs.life_1 if slot == 1 else knobs.life_2


def floor_of(shard: Shard, knobs: Knobs, n: int) -> int:
    """The floor in force for request n, in tokens."""
    return shard.floor[n] if knobs.floor < 0 else knobs.floor


def below(shard: Shard, knobs: Knobs, n: int, first: int, last: int, read: int, offset: int) -> bool:
    """Whether the floor turns request n to zero; per breakpoint only if nothing at all is written or read."""
    floor = floor_of(shard, knobs, n)
    if not knobs.per_breakpoint:
        return shard.mark_tokens[last] + offset < floor
    if read:
        return False
    for row in range(first, last + 1):  # noqa: SIM110 - all() with a generator is beyond Numba
        if shard.mark_tokens[row] + offset >= floor:
            return False
    return True


def bill(
    shard: Shard, knobs: Knobs, out: Mutable, n: int, first: int, last: int, read: int, offset: int, cell: int
) -> int:
    """Sum up what request n creates and, under the billing rule, reads.

    See `cachesim.core.pricing.billed_split`, and `fit_split` for calibrated requests. Returns the tokens billed as
    read, -1 where no split is billed at all.
    """
    floor = floor_of(shard, knobs, n) if knobs.per_breakpoint else -1
    created_0, created_1, created_2, writes = 0, 0, 0, 0
    previous = read
    for row in range(first, last + 1):
        total = shard.mark_tokens[row] + offset
        if total < floor:
            continue
        more = total - previous if total > previous else 0
        slot = shard.mark_slot[row]
        if slot == 0:
            created_0 += more
        elif slot == 1:
            created_1 += more
        else:
            created_2 += more
        previous = total
        writes += 1
    if shard.commits[n]:
        out[cell + _WRITES] += writes
    if not shard.billed[n]:
        return -1
    prompt = shard.prompt[n]
    left = prompt - created_0 - created_1 - created_2
    if read > left and shard.calibrated[n]:
        created = created_0 + created_1 + created_2
        read = read * prompt // (read + created)
        if created:
            left = prompt - read
            both = (created_0 + created_1) * left // created
            created_0 = created_0 * left // created
            created_1 = both - created_0
            created_2 = left - both
    elif read > left:
        if not knobs.cap:
            out[cell + _VOIDED] += 1
            return -1
        if left < 0:
            out[cell + _CORRUPT] += 1
            return -1
        out[cell + _CAPPED] += 1
        out[cell + _CAPPED_TOKENS] += read - left
        read = left
    out[cell + _READ] += read
    out[cell + _SLOT] += created_0
    out[cell + _SLOT + 1] += created_1
    out[cell + _SLOT + 2] += created_2
    if read:
        out[cell + _REQUESTS_READ] += 1
    return read


def gap(out: Mutable, cell: int, age_us: int, tokens: int) -> None:
    """Sum up a read by the time since its entry was last written or refreshed."""
    band = 3
    if age_us < _GAP_1:
        band = 0
    elif age_us < _GAP_2:
        band = 1
    elif age_us < _GAP_3:
        band = 2
    out[cell + _GAP + band] += 1
    out[cell + _GAP + 4 + band] += tokens


def reach(out: Mutable, cell: int, need: int, tokens: int) -> None:
    """Sum up a read by the least walk-back that finds its entry."""
    band = 3
    if need <= _REACH_1:
        band = 0
    elif need <= _REACH_2:
        band = 1
    elif need <= _REACH_3:
        band = 2
    out[cell + _REACH + band] += 1
    out[cell + _REACH + 4 + band] += tokens


def commit(shard: Shard, knobs: Knobs, state: State, out: Mutable, n: int) -> None:
    """The response to request n has completed: write beyond the match, then refresh what was matched."""
    match = state.matched[n]
    if match == _NOTHING:
        return
    first, offset = shard.mark_from[n], 0
    if match != _NO_MATCH:
        first = shard.mark_from[n + 1] - shard.look_beyond[match]
        offset = state.base[n] - shard.look_tokens[match]
    floor = floor_of(shard, knobs, n) if knobs.per_breakpoint else -1
    group, now, arrived = shard.group[n], shard.done[n], shard.at[n]
    previous = state.base[n]
    for row in range(first, shard.mark_from[n + 1]):
        total = shard.mark_tokens[row] + offset
        if total < floor:
            continue
        entry, slot = shard.mark_entry[row], shard.mark_slot[row]
        if state.unread[entry]:
            dead(state, out, entry)
        state.unread[entry] = 1 + (total - previous if total > previous else 0) if state.paid[n] else 0
        state.unread_group[entry] = group
        previous = total
        out[group * WIDTH + _LIVE] += extend(knobs, state, entry, now, arrived + life(knobs, slot))
        state.tokens[entry] = total if total < MAX_STORED_TOKENS else MAX_STORED_TOKENS
        state.slot[entry] = slot
    if match != _NO_MATCH and knobs.sliding:
        for row in range(match, shard.look_from[n + 1] if knobs.every_match else match + 1):
            if state.revived[row]:
                out[group * WIDTH + _LIVE] += extend(knobs, state, shard.look_entry[row], now, state.revived[row])


def extend(knobs: Knobs, state: State, entry: int, now: int, expires: int) -> int:
    """Set an entry's expiry at `now`; returns how much longer it lives within the log, in µs (negative: shorter)."""
    end = knobs.end_us
    before = state.expires[entry]
    state.expires[entry] = expires
    if now >= end:
        return 0
    before = before if before < end else end
    after = expires if expires < end else end
    return (after - now if after > now else 0) - (before - now if before > now else 0)


def dead(state: State, out: Mutable, entry: int) -> None:
    """Sum up a write that is gone without having been read."""
    cell = state.unread_group[entry] * WIDTH
    out[cell + _DEAD] += 1
    out[cell + _DEAD_SLOT + state.slot[entry]] += state.unread[entry] - 1


def finish(knobs: Knobs, state: State, out: Mutable) -> None:
    """At the end of the log: what was never read is dead if it has expired, undecided if not."""
    for entry in range(len(state.unread)):
        if state.unread[entry]:
            if state.expires[entry] <= knobs.end_us:
                dead(state, out, entry)
            else:
                out[state.unread_group[entry] * WIDTH + _OPEN] += 1


def ideal(
    events: Ints, scope: Ints, end_node: Ints, tokens: Ints, parents: Ints, prefixes: Ints, seen: Mutable,
    walked: Mutable, best: Mutable,
) -> None:  # fmt: skip
    """For each request the tokens of its longest prefix that an earlier completed one of its scope contained.

    events as in Shard, completions of successful requests only; scope: numbers from 1, requests in order of scope;
    tokens: cumulative by node; seen, walked: a zero per node; best: the answer, per request.
    """
    for event in events:
        if event >= 0:
            node, own = end_node[event], scope[event]
            while node >= 0 and seen[prefixes[node]] != own:
                node = parents[node]
            best[event] = tokens[node] if node >= 0 else 0
        else:
            node, own = end_node[~event], scope[~event]
            # What lies before a boundary walked is known already. That its number is known would not do: a forged twin
            # with other boundaries before it shares it.
            while node >= 0 and walked[node] != own:
                walked[node] = own
                seen[prefixes[node]] = own
                node = parents[node]
