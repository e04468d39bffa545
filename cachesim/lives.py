"""The index over time: every entry's life from the write that made it to its expiry, and what it cost and saved.

The variant is replayed once more, exactly as its run was; when an entry lives is read off the index of that replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachesim.core.gates import Gates, MarkerStrategy
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import TIERS, Policy
from cachesim.episodes import FollowedLane, Place, Unread
from cachesim.replay import InFlight, PreparedRequest
from cachesim.store.db import insert_frame
from cachesim.store.index_state import Places, load_index
from cachesim.store.trace_reader import Scopes, single_rows
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int], None]
_BATCH: Final = 50_000


@dataclass(slots=True)
class Life:
    """One uninterrupted life of an entry: from the commit that made it live until its expiry. Times µs UTC.

    created: tokens that its latest write created, None where an earlier log wrote it; written_us: of that write;
    inherited: an earlier log wrote it, and what happened there is not counted.
    """

    place: Place
    from_us: int
    until_us: int
    tokens: int
    tier: int
    written_us: int
    created: int | None = None
    inherited: bool = False
    writes: int = 0
    refreshes: int = 0
    reads: int = 0
    last_read_us: int | None = None


class Written(NamedTuple):
    """A write of this log: whose it is, in which life, and the tokens it created."""

    seq: int
    life: int
    tier: int
    tokens: int
    billed: bool


@dataclass(slots=True)
class Lives:
    """Every life in order of its beginning, and the span that was replayed.

    begin_us, end_us: first and last arrival, 0 without any; lives of what was in flight at the end begin after it.
    dead: the billed writes that were replaced unread, or had expired unread by the end; reads: (seq, life).
    """

    places: Places
    begin_us: int
    end_us: int
    all: list[Life] = field(default_factory=list)
    writes: list[Written] = field(default_factory=list)
    dead: list[Written] = field(default_factory=list)
    reads: list[tuple[int, int]] = field(default_factory=list)


class LivesLane(FollowedLane):
    """A lane that keeps the life of every entry."""

    def __init__(self, gates: Gates, trace: PreparedTrace, places: Places) -> None:
        super().__init__(gates, trace, trace.cumulative)
        self.lives = Lives(places, 0, 0)
        self._latest: dict[Place, int] = {}

    def inherit(self) -> None:
        """Begin with the entries that were put into the index."""
        for scope, prefix, entry in self._seen.entries():
            life = Life((scope, prefix), entry.created_us, entry.expires_us, entry.tokens, entry.tier, entry.created_us)
            life.inherited = True
            self._latest[scope, prefix] = len(self.lives.all)
            self.lives.all.append(life)

    def read(self, place: Place, request: PreparedRequest) -> None:
        """See `FollowedLane.read`."""
        super().read(place, request)
        number = self._latest[place]
        life = self.lives.all[number]
        life.reads += 1
        life.last_read_us = request.at_us
        self.lives.reads.append((request.seq, number))

    def die(self, place: Place, unread: Unread) -> None:
        """See `FollowedLane.die`."""
        super().die(place, unread)
        self.lives.dead.append(Written(unread.seq, self._latest[place], unread.tier, unread.tokens, True))

    def written(self, place: Place, write: Unread, done_us: int, *, billed: bool) -> None:
        """See `FollowedLane.written`."""
        number = self._renewed(place, done_us)
        life = self.lives.all[number]
        life.written_us = done_us
        if write.seq < 0:  # it was in flight when the earlier log ended
            life.inherited = life.inherited or not life.writes
        else:
            life.writes += 1
            life.created = write.tokens
            self.lives.writes.append(Written(write.seq, number, write.tier, write.tokens, billed))

    def commit(self, done: InFlight) -> None:
        """A response completes: what it writes lives, what it has read lives longer, or by a late one shorter."""
        super().commit(done)
        for refresh in done.result.refreshes:
            place = (done.scope, refresh.prefix)
            entry = self._seen.get(*place)
            if entry is not None and (entry.expires_us > done.done_us or self._is_live(place, done.done_us)):
                self.lives.all[self._renewed(place, done.done_us)].refreshes += 1

    def _is_live(self, place: Place, now_us: int) -> bool:
        number = self._latest.get(place)
        return number is not None and self.lives.all[number].until_us > now_us

    def _renewed(self, place: Place, now_us: int) -> int:
        """The life of the entry at `place` after a commit: the one it has, or a new one where that was over."""
        entry = self._seen.get(*place)
        assert entry is not None
        number = self._latest.get(place)
        if number is None or not self._is_live(place, now_us):
            written_us = now_us if number is None else self.lives.all[number].written_us
            number = self._latest[place] = len(self.lives.all)
            self.lives.all.append(Life(place, now_us, now_us, entry.tokens, entry.tier, written_us))
        life = self.lives.all[number]
        life.until_us = max(now_us, entry.expires_us)
        life.tokens, life.tier = entry.tokens, entry.tier
        return number


def follow_lives(
    con: duckdb.DuckDBPyConnection,
    trace: PreparedTrace,
    policy: Policy,
    strategy: MarkerStrategy,
    tariff: TariffSet,
    continues: tuple[int, int] | None = None,
    until_us: int | None = None,
    progress: Progress = lambda done: None,
) -> Lives:
    """Every life in the index of a variant. continues: the (run_no, variant_no) it started from, None: empty.

    until_us: stop when everything up to and including this instant has happened; None: at the end of the log, when
    every response has completed. progress: told requests done.
    """
    scopes = Scopes()
    places = Places(trace, scopes)
    lane = LivesLane(Gates(policy, strategy, trace.markers), trace, places)
    if continues is not None:
        load_index(con, *continues, lane, places)
        lane.inherit()
    lives = lane.lives
    for row, floor in single_rows(con, trace, policy, tariff, progress, scopes):
        at_us = row.request.at_us
        if until_us is not None and at_us > until_us:
            break
        lives.begin_us = lives.begin_us or at_us
        lives.end_us = at_us
        lane.follow(row, floor)
    if until_us is None:
        lane.finish(lives.end_us)
    else:
        lane.commit_until(until_us)
    return lives


_TABLES: Final = """
CREATE OR REPLACE TEMP TABLE lives (
  life BIGINT, principal VARCHAR, model VARCHAR, prefix VARCHAR, ttl_tier VARCHAR, tokens BIGINT, created BIGINT,
  from_us BIGINT, until_us BIGINT, written_us BIGINT, last_read_us BIGINT, writes BIGINT, refreshes BIGINT,
  reads BIGINT, inherited BOOLEAN);
CREATE OR REPLACE TEMP TABLE life_writes (
  seq BIGINT, life BIGINT, tier INTEGER, tokens BIGINT, billed BOOLEAN, dead BOOLEAN);
CREATE OR REPLACE TEMP TABLE life_reads (seq BIGINT, life BIGINT);
"""


def keep_lives(con: duckdb.DuckDBPyConnection, lives: Lives) -> None:
    """Put the lives into temporary tables for reports: `lives`, `life_reads`, and `life_writes`.

    A dead write stands in `life_writes` twice: once as a write, once as a dead one.
    """
    con.execute(_TABLES)
    _insert(con, "lives", (_life_row(number, life, lives.places) for number, life in enumerate(lives.all)))
    _insert(con, "life_writes", ((*write, False) for write in lives.writes))
    _insert(con, "life_writes", ((*write, True) for write in lives.dead))
    _insert(con, "life_reads", lives.reads)


def _life_row(number: int, life: Life, places: Places) -> tuple[Any, ...]:
    key = places.key(*life.place)
    return (
        number, key.principal, key.model, key.prefix_hash.hex(), TIERS[life.tier], life.tokens, life.created,
        life.from_us, life.until_us, life.written_us, life.last_read_us, life.writes, life.refreshes, life.reads,
        life.inherited,
    )  # fmt: skip


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    names = [name for (name, *_) in con.execute(f'DESCRIBE "{table}"').fetchall()]
    left = iter(rows)
    while batch := list(islice(left, _BATCH)):
        insert_frame(con, table, dict(zip(names, zip(*batch, strict=True), strict=True)))
