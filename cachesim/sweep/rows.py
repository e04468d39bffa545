"""Rows of table `swept`: collected from the answers of a sweep and stored in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cachesim.store.db import insert_frame
from cachesim.sweep.accounts import NO_PRICE

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

BATCH_ROWS: Final = 50_000


class SweptRows:
    """Writes rows of one run inside the caller's transaction."""

    def __init__(self, con: duckdb.DuckDBPyConnection, run_no: int) -> None:
        self._con = con
        self._run_no = run_no
        self._parts: list[dict[str, Any]] = []
        self._count = 0
        names = con.execute(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = 'swept' AND database_name = current_database()"
            " ORDER BY column_index"
        ).fetchall()
        self._cells = [name for (name,) in names][4:]

    def add(self, variant_no: int, first_group: int, cells: Mapping[str, Ints], price_nos: Ints | None) -> None:
        """The rows of a variant for the groups from `first_group` on, at least one cell given; others are zero.

        price_nos: of every group there is, NO_PRICE where it has none; None: no price at all.
        """
        import numpy as np

        count = len(next(iter(cells.values())))
        zero = np.zeros(count, np.int64)
        part: dict[str, Any] = {
            "run_no": zero + self._run_no,
            "variant_no": zero + variant_no,
            "group_no": np.arange(first_group, first_group + count),
            "price_no": zero + NO_PRICE if price_nos is None else price_nos[first_group : first_group + count],
        }
        self._parts.append({**part, **{name: cells.get(name, zero) for name in self._cells}})
        self._count += count
        if self._count >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Store what is collected."""
        import numpy as np
        import polars as pl

        if self._count:
            columns = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
            frame = pl.DataFrame(columns).with_columns(
                pl.col("price_no").replace(NO_PRICE, None), pl.col("run_no", "variant_no", "group_no").cast(pl.Int32)
            )
            series: dict[str, Any] = {name: frame[name] for name in frame.columns}
            insert_frame(self._con, "swept", series)
        self._parts, self._count = [], 0
