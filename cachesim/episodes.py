"""What became of every billed write: read while it lived, replaced or expired unread, or undecided when the log ends.

The variant is replayed once more, exactly as its run was, and each write is followed from its commit to its end.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from cachesim.core.classify import Classification, Entry, Tree
from cachesim.core.gates import Gates, MarkerStrategy, Prompt
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import TIERS, Policy
from cachesim.core.pricing import billed_split
from cachesim.index.memory import MemoryIndex
from cachesim.replay import Classified, InFlight, Lane, PreparedRequest
from cachesim.store.db import insert_frame
from cachesim.store.index_state import Places, load_index
from cachesim.store.trace_reader import Scopes, TraceRow, single_rows
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int], None]
SYSTEM_DIGITS: Final = 12
"""Hex digits of a prefix hash that name a system prompt."""
_SPLIT_BILLED: Final = ("ok", "capped")
_DEAD_CELLS: Final = ("dead_c5", "dead_c1", "dead_c24")
_BATCH: Final = 50_000

Place = tuple[int, int]
"""(scope, prefix): where an entry of the index stands."""


class Unread(NamedTuple):
    """A billed write that nobody has read yet: whose it is, and its creation tokens."""

    seq: int
    tier: int
    tokens: int


@dataclass(slots=True)
class Fate:
    """What became of one request's writes. dead_tokens: creation tokens of its dead writes by tier."""

    dead_writes: int = 0
    dead_tokens: list[int] = field(default_factory=lambda: [0] * len(TIERS))
    open_writes: int = 0


@dataclass(slots=True)
class Episodes:
    """fates: of the requests that have dead or open writes, by seq; systems: of every request, in order of seq.

    A system prompt is named by the first SYSTEM_DIGITS hex digits of its prefix hash, None where there is none.
    """

    fates: dict[int, Fate]
    systems: list[str | None]


def follow(
    con: duckdb.DuckDBPyConnection,
    trace: PreparedTrace,
    policy: Policy,
    strategy: MarkerStrategy,
    tariff: TariffSet,
    continues: tuple[int, int] | None = None,
    progress: Progress = lambda done: None,
) -> Episodes:
    """The fate of every billed write of a variant. continues: the (run_no, variant_no) whose index it started from.

    progress: told requests done.

    A write is billed if its request is (it succeeded and its split is not void); it is read by the first request that
    finds its entry as the deepest live one and is not turned to zero by the floor, billed or not.
    """
    lane = FollowedLane(Gates(policy, strategy, trace.markers), trace, trace.cumulative)
    scopes = Scopes()
    if continues is not None:
        load_index(con, *continues, lane, Places(trace, scopes))
    systems: list[str | None] = []
    end_us = 0
    for row, floor in single_rows(con, trace, policy, tariff, progress, scopes):
        lane.follow(row, floor)
        systems.append(_system(trace, row.prompts[0]))
        end_us = row.request.at_us
    return Episodes(lane.finish(end_us), systems)


def _system(trace: PreparedTrace, prompt: Prompt) -> str | None:
    """The name of the prompt's prefix up to its last system block."""
    if prompt.last_system < 0:
        return None
    node = prompt.end_node
    for _ in range(prompt.block_count - 1 - prompt.last_system):
        node = trace.parents[node]
    return trace.digests[node].hex()[:SYSTEM_DIGITS]


class FollowedIndex(MemoryIndex):
    """An index that remembers which prefix the latest look-up found alive first, the deepest."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 0
        self.matched: int | None = None

    def finder(self, scope: int, candidates: Callable[[], Sequence[int]]) -> Callable[[int], Entry | None]:
        get = super().finder(scope, candidates)

        def find(prefix: int) -> Entry | None:
            entry = get(prefix)
            if self.matched is None and entry is not None and entry.expires_us > self.now_us:
                self.matched = prefix
            return entry

        return find


class FollowedLane(Lane):
    """A lane that follows every billed write."""

    def __init__(self, gates: Gates, tree: Tree, cumulative: Sequence[Sequence[int]]) -> None:
        self._seen = FollowedIndex()
        super().__init__(gates, tree, cumulative, self._seen)
        self._unread: dict[Place, Unread] = {}
        self._billed: set[int] = set()
        self._fates: dict[int, Fate] = {}

    def follow(self, row: TraceRow, floor_tokens: int | None) -> Classified:
        """One request arrives: what it reads is no longer unread."""
        request = row.request
        self._seen.now_us, self._seen.matched = request.at_us, None
        result = self.arrive(request, row.prompts[0], floor_tokens)
        split = result.classification
        if split is None or split.below_floor:
            return result
        if self._seen.matched is not None:
            self.read((request.scope, self._seen.matched), request)
        if result.committed and self._is_billed(row, split):
            self._billed.add(request.seq)
        return result

    def read(self, place: Place, request: PreparedRequest) -> None:
        """A request reads the entry of a place."""
        self._unread.pop(place, None)

    def _is_billed(self, row: TraceRow, split: Classification) -> bool:
        if not row.request.succeeded or row.calibrated:
            return row.request.succeeded
        billed = billed_split(row.prompt_tokens or 0, split.read, *split.creation, self.policy.billing_rule)
        return billed.state in _SPLIT_BILLED

    def commit(self, done: InFlight) -> None:
        """A response completes: what it replaces unread is dead, what it writes is unread."""
        billed = done.seq in self._billed
        self._billed.discard(done.seq)
        super().commit(done)
        previous = done.result.read
        for write in done.result.writes:
            place = (done.scope, write.prefix)
            replaced = self._unread.pop(place, None)
            if replaced is not None:
                self.die(place, replaced)
            written = Unread(done.seq, write.tier, max(0, write.tokens - previous))
            if billed:
                self._unread[place] = written
            previous = write.tokens
            self.written(place, written, done.done_us, billed=billed)

    def written(self, place: Place, write: Unread, done_us: int, *, billed: bool) -> None:
        """A write has been committed, billed or not."""

    def finish(self, end_us: int) -> dict[int, Fate]:
        """The fates at the end of the log, `end_us`: unread writes that have expired by then are dead, others open."""
        while self.in_flight:
            self.commit(heapq.heappop(self.in_flight))
        for place, unread in self._unread.items():
            entry = self._seen.get(*place)
            if entry is None or entry.expires_us <= end_us:
                self.die(place, unread)
            else:
                self._fates.setdefault(unread.seq, Fate()).open_writes += 1
        self._unread.clear()
        return self._fates

    def die(self, place: Place, unread: Unread) -> None:
        """A billed write is gone without having been read."""
        fate = self._fates.setdefault(unread.seq, Fate())
        fate.dead_writes += 1
        fate.dead_tokens[unread.tier] += unread.tokens


def keep(con: duckdb.DuckDBPyConnection, episodes: Episodes, *, fates: bool = True) -> None:
    """Put the episodes into the temporary table `followed`, one row per request, for reports to join.

    Its columns are named like the sums of a sweep. fates: False leaves them null, where they would mean nothing.
    """
    con.execute(
        "CREATE OR REPLACE TEMP TABLE followed (seq BIGINT, system VARCHAR, dead_writes BIGINT, dead_c5 BIGINT,"
        " dead_c1 BIGINT, dead_c24 BIGINT, open_writes BIGINT)"
    )
    nothing = Fate()
    for start in range(0, len(episodes.systems), _BATCH):
        seqs = range(start, min(start + _BATCH, len(episodes.systems)))
        found = [episodes.fates.get(seq, nothing) for seq in seqs]
        columns: dict[str, Sequence[int | str | None]] = {
            "seq": seqs,
            "system": episodes.systems[start : start + _BATCH],
        }
        if fates:
            columns |= {
                "dead_writes": [fate.dead_writes for fate in found],
                **{name: [fate.dead_tokens[i] for fate in found] for i, name in enumerate(_DEAD_CELLS)},
                "open_writes": [fate.open_writes for fate in found],
            }
        insert_frame(con, "followed", columns)
