"""The index in DuckDB, the plain way: one look-up and one upsert per request.

Slow on purpose and easy to believe: the replay in memory is tested against it, and benchmarks measure by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from cachesim.core.classify import MAX_STORED_TOKENS, Entry, Refresh, Write

if TYPE_CHECKING:
    import duckdb

_TABLE: Final = """
CREATE OR REPLACE TABLE prefix_index (
  scope INTEGER, prefix INTEGER, tokens BIGINT, tier INTEGER, created_us BIGINT, expires_us BIGINT,
  PRIMARY KEY (scope, prefix))
"""
_LOOK_UP: Final = """
SELECT prefix, expires_us, tokens, tier, created_us FROM prefix_index
WHERE scope = ? AND prefix IN (SELECT unnest(?::INTEGER[]))
"""
_UPSERT: Final = """
INSERT INTO prefix_index VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET tokens = excluded.tokens, tier = excluded.tier, expires_us = excluded.expires_us,
  created_us = CASE WHEN expires_us <= excluded.created_us THEN excluded.created_us ELSE created_us END
"""
_REFRESH: Final = "UPDATE prefix_index SET expires_us = ? WHERE scope = ? AND prefix = ?"


class DuckDbIndex:
    """See `cachesim.index.Index`; entries are rows of the table prefix_index of `con`."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        con.execute(_TABLE)

    def finder(self, scope: int, candidates: Callable[[], Sequence[int]]) -> Callable[[int], Entry | None]:
        """One statement fetches every candidate; expired rows come along, as they do in memory."""
        rows = self._con.execute(_LOOK_UP, [scope, list(candidates())]).fetchall()
        return {prefix: Entry(*entry) for prefix, *entry in rows}.get

    def commit(self, scope: int, writes: Sequence[Write], refreshes: Sequence[Refresh], now_us: int) -> None:
        """Upserts of live rows keep created_us; a refresh of a row that does not exist does nothing."""
        for write in writes:
            tokens = min(write.tokens, MAX_STORED_TOKENS)
            self._con.execute(_UPSERT, [scope, write.prefix, tokens, write.tier, now_us, write.expires_us])
        for refresh in refreshes:
            self._con.execute(_REFRESH, [refresh.expires_us, scope, refresh.prefix])

    def entries(self) -> list[tuple[int, int, Entry]]:
        """All (scope, prefix, entry), ordered."""
        rows = self._con.execute(
            "SELECT scope, prefix, expires_us, tokens, tier, created_us FROM prefix_index ORDER BY scope, prefix"
        ).fetchall()
        return [(scope, prefix, Entry(*entry)) for scope, prefix, *entry in rows]
