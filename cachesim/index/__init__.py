"""Who answers look-ups, writes and refreshes: the index in memory (hot path) and the plain one in DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cachesim.core.classify import Entry, Refresh, Write


class Index(Protocol):
    """An index of prefixes per scope. Scopes and prefixes are the trace's numbers."""

    def finder(self, scope: int, candidates: Callable[[], Sequence[int]]) -> Callable[[int], Entry | None]:
        """A look-up by prefix within `scope`, expired entries included; `candidates` lists what may be asked."""

    def commit(self, scope: int, writes: Sequence[Write], refreshes: Sequence[Refresh], now_us: int) -> None:
        """Apply what a successful response commits: upserts first, then refreshes of rows that exist."""
