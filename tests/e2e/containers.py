"""What rows of a log come in beside a row a line: arrays, pages of an API, CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]


def as_csv(rows: Sequence[Json]) -> bytes:
    """Every cell is text; what is nested is JSON in it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, names)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: cell(value) for name, value in row.items()})
    return out.getvalue().encode()


def cell(value: object) -> object:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def as_parquet(rows: Sequence[Json]) -> bytes:
    """Columns of text, numbers and booleans; what is nested is JSON in text."""
    import polars

    names = dict.fromkeys(name for row in rows for name in row)
    flat = [
        {n: json.dumps(row.get(n)) if isinstance(row.get(n), dict | list) else row.get(n) for n in names}
        for row in rows
    ]
    out = io.BytesIO()
    polars.DataFrame(flat, infer_schema_length=None).write_parquet(out)
    return out.getvalue()


CONTAINERS: dict[str, Callable[[Sequence[Json]], bytes]] = {
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "wrapped.json": lambda rows: json.dumps({"data": rows, "meta": {"page": 1}}).encode(),
    "rows.csv": as_csv,
    "rows.csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    "rows.parquet": as_parquet,
}
"""By file name; the content tells the container."""
