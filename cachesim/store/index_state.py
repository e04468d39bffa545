"""The index between runs: stored with upstream's columns, loaded by a run that continues where another ended."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachesim.core.classify import Classification, Entry, Refresh, Write
from cachesim.core.policy import TIERS
from cachesim.index.memory import MemoryIndex
from cachesim.replay import InFlight, Lane
from cachesim.store.db import insert_frame

if TYPE_CHECKING:
    import duckdb

_SCOPE: Final = ("principal_id", "virtual_model", "tokenizer_version")


class Key(NamedTuple):
    """An index row's identity, as upstream stores it."""

    principal: str
    model: str
    version: str
    prefix_hash: bytes


class Dormant(NamedTuple):
    """An inherited entry whose prefix does not occur in this log: nobody can find it, but the next log may."""

    key: Key
    entry: Entry


def save_index(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    variant_nos: Sequence[int],
    lane: Lane,
    key_of: Callable[[int, int], Key],
    dormant: Sequence[Dormant],
    now_us: int,
) -> None:
    """Store the index after the last event, and what was still in flight at `now_us`, the last arrival.

    variant_nos: the variants that share the lane; key_of: the identity of (scope, prefix). The lane is spent
    afterwards: everything in flight is committed.
    """
    index = lane.index
    assert isinstance(index, MemoryIndex)
    for variant_no in variant_nos:
        _save_in_flight(con, run_no, variant_no, lane, index, key_of)
    end_us = max([now_us, *(f.done_us for f in lane.in_flight)])
    lane.commit_until(end_us)
    rows = [(key_of(scope, prefix), entry) for scope, prefix, entry in index.entries()]
    rows += [(d.key, d.entry) for d in dormant]
    live = [(key, entry) for key, entry in rows if entry.expires_us > now_us]
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
    key_of: Callable[[int, int], Key],
) -> None:
    rows: list[tuple[str, int, int, Key, int | None, int | None, int, int | None]] = []
    touched: dict[tuple[int, int], None] = {}
    for done_us, seq, scope, result in sorted(lane.in_flight):
        for write in result.writes:
            touched[scope, write.prefix] = None
            key = key_of(scope, write.prefix)
            rows.append(("write", done_us, seq, key, write.tokens, write.tier, write.expires_us, None))
        for refresh in result.refreshes:
            touched[scope, refresh.prefix] = None
            key = key_of(scope, refresh.prefix)
            rows.append(("refresh", done_us, seq, key, None, None, refresh.expires_us, None))
    for scope, prefix in touched:
        entry = index.get(scope, prefix)
        if entry is not None:
            key = key_of(scope, prefix)
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


def load_index(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    variant_no: int,
    lane: Lane,
    place_of: Callable[[Key], tuple[int, int] | None],
) -> list[Dormant]:
    """Put the state another run ended with into a fresh lane; returns the entries that cannot occur in this log.

    place_of: (scope, prefix) of a key in this trace, None where the trace has no such scope or prefix. What is in
    flight for keys this trace does not know is applied at once: nobody can observe when.
    """
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
        "expires_us, created_us FROM index_in_flight WHERE run_no = ? AND variant_no = ? ORDER BY kind, done_us, seq",
        where,
    ).fetchall()
    touched = {Key(*row[:4]) for row in flights}
    for touched_key in touched:
        if place_of(touched_key) is not None:
            entries.pop(touched_key, None)
    for *key_parts, kind, _, _, tokens, tier, expires_us, created_us in flights:
        if kind == "before" and place_of(Key(*key_parts)) is not None:
            entries[Key(*key_parts)] = Entry(expires_us, tokens, tier, created_us)
    _push_flights(lane, flights, place_of)
    return _put_entries(lane, entries, place_of)


def _push_flights(
    lane: Lane, flights: Sequence[tuple[Any, ...]], place_of: Callable[[Key], tuple[int, int] | None]
) -> None:
    """Responses still on their way; negative sequence numbers keep them before this log's own at equal times."""
    grouped: dict[tuple[int, int, int], tuple[list[Write], list[Refresh]]] = {}
    for *key_parts, kind, done_us, seq, tokens, tier, expires_us, _ in flights:
        place = place_of(Key(*key_parts))
        if place is None or kind == "before":
            continue
        writes, refreshes = grouped.setdefault((done_us, seq, place[0]), ([], []))
        if kind == "write":
            writes.append(Write(place[1], tokens, tier, expires_us))
        else:
            refreshes.append(Refresh(place[1], expires_us))
    for number, ((done_us, _, scope), (writes, refreshes)) in enumerate(sorted(grouped.items())):
        result = Classification(0, (0, 0, 0), tuple(writes), tuple(refreshes))
        heapq.heappush(lane.in_flight, InFlight(done_us, number - len(grouped), scope, result))


def _put_entries(
    lane: Lane, entries: dict[Key, Entry], place_of: Callable[[Key], tuple[int, int] | None]
) -> list[Dormant]:
    index = lane.index
    assert isinstance(index, MemoryIndex)
    dormant: list[Dormant] = []
    for key, entry in entries.items():
        place = place_of(key)
        if place is None:
            dormant.append(Dormant(key, entry))
        else:
            index.put(*place, entry)
    return dormant
