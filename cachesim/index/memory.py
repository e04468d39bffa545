"""The index in memory: one dictionary per scope, small because what is expired and unreachable is dropped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from cachesim.core.classify import MAX_STORED_TOKENS, Entry, Refresh, Write

_FIRST_SWEEP: Final = 4096


class MemoryIndex:
    """Entries by scope and prefix. `size` counts them, expired ones included until they are swept."""

    def __init__(self) -> None:
        self._scopes: dict[int, dict[int, Entry]] = {}
        self._sweep_at = _FIRST_SWEEP
        self.size = 0

    def finder(self, scope: int, candidates: Callable[[], Sequence[int]]) -> Callable[[int], Entry | None]:
        """See `Index.finder`; nothing needs to be fetched in advance."""
        return self._scopes.setdefault(scope, {}).get

    def commit(self, scope: int, writes: Sequence[Write], refreshes: Sequence[Refresh], now_us: int) -> None:
        """See `Index.commit`; a write over an expired row makes a new one, as if the old one had been swept."""
        entries = self._scopes.setdefault(scope, {})
        for write in writes:
            old = entries.get(write.prefix)
            if old is None:
                self.size += 1
            created_us = now_us if old is None or old.expires_us <= now_us else old.created_us
            tokens = min(write.tokens, MAX_STORED_TOKENS)
            entries[write.prefix] = Entry(write.expires_us, tokens, write.tier, created_us)
        for refresh in refreshes:
            old = entries.get(refresh.prefix)
            if old is not None:
                entries[refresh.prefix] = Entry(refresh.expires_us, old.tokens, old.tier, old.created_us)

    @property
    def wants_sweep(self) -> bool:
        """The index has doubled since the last sweep."""
        return self.size >= self._sweep_at

    def sweep(self, now_us: int, in_flight: Collection[tuple[int, int]]) -> None:
        """Drop what is expired and cannot be revived: no response `in_flight` refreshes it, as (scope, prefix)."""
        for scope, entries in self._scopes.items():
            dead = [p for p, entry in entries.items() if entry.expires_us <= now_us and (scope, p) not in in_flight]
            for prefix in dead:
                del entries[prefix]
            self.size -= len(dead)
        self._sweep_at = max(_FIRST_SWEEP, 2 * self.size)

    def get(self, scope: int, prefix: int) -> Entry | None:
        """The entry of a prefix, expired or not."""
        return self._scopes.get(scope, {}).get(prefix)

    def put(self, scope: int, prefix: int, entry: Entry) -> None:
        """Load an entry as it was stored."""
        entries = self._scopes.setdefault(scope, {})
        self.size += prefix not in entries
        entries[prefix] = entry

    def entries(self) -> Iterator[tuple[int, int, Entry]]:
        """All (scope, prefix, entry), in order of scope and first write."""
        for scope, entries in self._scopes.items():
            for prefix, entry in entries.items():
                yield scope, prefix, entry
