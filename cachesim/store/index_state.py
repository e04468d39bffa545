"""The index between runs: stored with upstream's columns, loaded by a run that continues where another ended."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cachesim.core.classify import Classification, Entry, Refresh, Write
from cachesim.core.policy import TIERS
from cachesim.index.memory import MemoryIndex
from cachesim.replay import InFlight, Lane
from cachesim.store.db import insert_frame
from cachesim.store.trace_reader import Scopes
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb


class Key(NamedTuple):
    """An index row's identity, as upstream stores it."""

    principal: str
    model: str
    version: str
    prefix_hash: bytes


class Places:
    """Numbers for what an index holds: the scopes and prefixes of a trace, and beyond them those of an earlier log.

    Nothing in this log can find an entry beyond them, but it is committed, expires and is stored like any other, so
    that the next log finds it as if there were no cut between the two.
    """

    def __init__(self, trace: PreparedTrace, scopes: Scopes) -> None:
        self._scopes = scopes
        self._trace = trace
        self._versions = [tokenizer.version for tokenizer in trace.tokenizers]
        self._digests = trace.digests
        self._prefixes = trace.prefixes
        self._numbers: dict[bytes, int] = {}
        self._beyond: list[bytes] = []

    def expect(self, digests: set[bytes]) -> None:
        """Give prefixes of an earlier log the numbers they have in this one, the others numbers of their own."""
        for node, digest in enumerate(self._digests):
            if digest in digests:
                self._numbers[digest] = self._prefixes[node]
        self._beyond = sorted(digests - self._numbers.keys())
        self._numbers |= {digest: number for number, digest in enumerate(self._beyond, len(self._digests))}

    def place(self, key: Key) -> tuple[int, int]:
        """(scope, prefix) of a key whose prefix is expected."""
        tokenizer = self._trace.tokenizer_no(key.version, key.model)
        if tokenizer is None:
            own = len(self._trace.tokenizers)
            if key.version not in self._versions[own:]:
                self._versions.append(key.version)
            tokenizer = self._versions.index(key.version, own)
        return self._scopes.number(key.principal, key.model, tokenizer), self._numbers[key.prefix_hash]

    def key(self, scope: int, prefix: int) -> Key:
        """The identity of (scope, prefix)."""
        principal, model, tokenizer = self._scopes.all[scope]
        own = len(self._digests)
        digest = self._digests[prefix] if prefix < own else self._beyond[prefix - own]
        return Key(principal, model, self._versions[tokenizer], digest)


def save_index(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    variant_nos: Sequence[int],
    lane: Lane,
    places: Places,
    now_us: int,
) -> None:
    """Store the index after the last event, and what was still in flight at `now_us`, the last arrival.

    variant_nos: the variants that share the lane. The lane is spent afterwards: everything in flight is committed.
    """
    index = lane.index
    assert isinstance(index, MemoryIndex)
    for variant_no in variant_nos:
        _save_in_flight(con, run_no, variant_no, lane, index, places, now_us)
    end_us = max([now_us, *(f.done_us for f in lane.in_flight)])
    lane.commit_until(end_us)
    found = [(scope, prefix, entry) for scope, prefix, entry in index.entries() if entry.expires_us > now_us]
    live = [(places.key(scope, prefix), entry) for scope, prefix, entry in found]
    for variant_no in variant_nos:
        columns = _columns(run_no, variant_no, [key for key, _ in live])
        columns["cumulative_token_count"] = [entry.tokens for _, entry in live]
        columns["ttl_tier"] = [TIERS[entry.tier] for _, entry in live]
        columns["created_at"] = [entry.created_us for _, entry in live]
        columns["expires_at"] = [entry.expires_us for _, entry in live]
        insert_frame(con, "index_entries", columns)


def _columns(run_no: int, variant_no: int, keys: Sequence[Key]) -> dict[str, Sequence[Any]]:
    return {
        "run_no": [run_no] * len(keys),
        "variant_no": [variant_no] * len(keys),
        "principal_id": [key.principal for key in keys],
        "virtual_model": [key.model for key in keys],
        "tokenizer_version": [key.version for key in keys],
        "prefix_hash": [key.prefix_hash for key in keys],
    }


def _save_in_flight(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    variant_no: int,
    lane: Lane,
    index: MemoryIndex,
    places: Places,
    now_us: int,
) -> None:
    rows: list[tuple[str, int, int, Key, int | None, int | None, int, int | None]] = []
    touched: dict[tuple[int, int], bool] = {}  # and whether a refresh may revive it
    for flight in sorted(lane.in_flight):
        for write in flight.result.writes:
            touched.setdefault((flight.scope, write.prefix), False)
            key = places.key(flight.scope, write.prefix)
            rows.append(("write", flight.done_us, flight.seq, key, write.tokens, write.tier, write.expires_us, None))
        for refresh in flight.result.refreshes:
            touched[flight.scope, refresh.prefix] = True
            key = places.key(flight.scope, refresh.prefix)
            rows.append(("refresh", flight.done_us, flight.seq, key, None, None, refresh.expires_us, None))
    for (scope, prefix), revivable in touched.items():
        entry = index.get(scope, prefix)
        if entry is not None and (revivable or entry.expires_us > now_us):
            key = places.key(scope, prefix)
            rows.append(("before", 0, 0, key, entry.tokens, entry.tier, entry.expires_us, entry.created_us))
    columns = _columns(run_no, variant_no, [row[3] for row in rows])
    for place, name in {
        0: "kind",
        1: "done_us",
        2: "seq",
        4: "tokens",
        5: "tier",
        6: "expires_us",
        7: "created_us",
    }.items():
        columns[name] = [row[place] for row in rows]
    insert_frame(con, "index_in_flight", columns)


def load_index(con: duckdb.DuckDBPyConnection, run_no: int, variant_no: int, lane: Lane, places: Places) -> None:
    """Put the state another run ended with into a fresh lane: what is in flight is not committed yet."""
    where = [run_no, variant_no]
    entries: dict[Key, Entry] = {}
    for *key, tokens, tier, created_us, expires_us in con.execute(
        "SELECT principal_id, virtual_model, tokenizer_version, prefix_hash, cumulative_token_count, ttl_tier, "
        "epoch_us(created_at), epoch_us(expires_at) FROM index_entries WHERE run_no = ? AND variant_no = ?",
        where,
    ).fetchall():
        entries[Key(*key)] = Entry(expires_us, tokens, TIERS.index(tier), created_us)
    flights = con.execute(
        "SELECT principal_id, virtual_model, tokenizer_version, prefix_hash, kind, done_us, seq, tokens, tier, "
        "expires_us, created_us FROM index_in_flight WHERE run_no = ? AND variant_no = ? "
        "ORDER BY kind, done_us, seq, rowid",
        where,
    ).fetchall()
    for row in flights:  # stored as it will be; now it is as it was before
        entries.pop(Key(*row[:4]), None)
    for *key_parts, kind, _, _, tokens, tier, expires_us, created_us in flights:
        if kind == "before":
            entries[Key(*key_parts)] = Entry(expires_us, tokens, tier, created_us)
    places.expect({key.prefix_hash for key in entries} | {row[3] for row in flights})
    _push_flights(lane, flights, places)
    index = lane.index
    assert isinstance(index, MemoryIndex)
    for found, entry in entries.items():
        index.put(*places.place(found), entry)


def _push_flights(lane: Lane, flights: Sequence[tuple[Any, ...]], places: Places) -> None:
    """Responses still on their way; negative sequence numbers keep them before this log's own at equal times."""
    grouped: dict[tuple[int, int, int], tuple[list[Write], list[Refresh]]] = {}
    for *key_parts, kind, done_us, seq, tokens, tier, expires_us, _ in flights:
        if kind == "before":
            continue
        scope, prefix = places.place(Key(*key_parts))
        writes, refreshes = grouped.setdefault((done_us, seq, scope), ([], []))
        if kind == "write":
            writes.append(Write(prefix, tokens, tier, expires_us))
        else:
            refreshes.append(Refresh(prefix, expires_us))
    for number, ((done_us, _, scope), (writes, refreshes)) in enumerate(sorted(grouped.items())):
        result = Classification(0, (0, 0, 0), tuple(writes), tuple(refreshes))
        heapq.heappush(lane.in_flight, InFlight(done_us, number - len(grouped), scope, result))
