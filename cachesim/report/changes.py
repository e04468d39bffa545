"""What changed between two sides request by request: from class to class, on one side only, and which requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from cachesim.report.compare import Pair, Side, difference, price_sql, side_prices
from cachesim.report.query import CHUNK, where

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]

TRANSITION_COLUMNS: Final = (
    "outcome_a", "reason_a", "outcome_b", "reason_b", "requests", "requests_split", "prompt_tokens_a",
    "prompt_tokens_b", "read_tokens_a", "read_tokens_b", "creation_tokens_a", "creation_tokens_b", "charged_a",
    "charged_b", "charged_change",
)  # fmt: skip
CHANGED_COLUMNS: Final = (
    "request", "at", "principal", "model", "session", "changed", "outcome_a", "reason_a", "outcome_b", "reason_b",
    "prompt_tokens_a", "prompt_tokens_b", "read_tokens_a", "read_tokens_b", "creation_tokens_a", "creation_tokens_b",
    "charged_a", "charged_b", "charged_change",
)  # fmt: skip

_CREATED: Final = "c.billed_creation_5m_tokens + c.billed_creation_1h_tokens + c.billed_creation_24h_tokens"
_CELLS: Final = {
    "prompt": "prompt_tokens", "read": "billed_read_tokens", "created": "created", "c5": "billed_creation_5m_tokens",
    "c1": "billed_creation_1h_tokens", "c24": "billed_creation_24h_tokens", "uncached": "uncached_tokens",
    "completion": "completion_tokens",
}  # fmt: skip
_CLASS_CHANGED: Final = "(a.outcome, a.reason) IS DISTINCT FROM (b.outcome, b.reason)"
_SPLIT: Final = ("billed_read_tokens", "billed_creation_5m_tokens", "billed_creation_1h_tokens",
                 "billed_creation_24h_tokens", "uncached_tokens")  # fmt: skip
_SPLIT_CHANGED: Final = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in _SPLIT)


def _side(side: Side, number: int, seqs: str = "") -> str:
    """SQL for the successful requests of a side."""
    price, join = price_sql(side, number)
    return f"""SELECT c.seq, r.request, r.at_us, r.principal, r.model, r.session, c.outcome, c.reason,
    c.outcome <> 'rejected' AS billed, {price} AS price_no, {", ".join(f"c.{n}" for n in _SPLIT)},
    {_CREATED} AS created, r.prompt_tokens, r.completion_tokens
  FROM classified c JOIN requests r ON r.seq = c.seq AND r.trace_no = {side.trace_no} {join}
  WHERE c.run_no = {side.run_no} AND c.variant_no = {side.variant_no} AND r.succeeded{seqs}{where(side.filters)}"""


_PRICED: Final = {"uncached": "uncached", "read": "read", "c5": "creation_5m", "c1": "creation_1h",
                  "c24": "creation_24h", "completion": "completion"}  # fmt: skip
"""Cell → unit price."""


def _money(tokens: Callable[[str], str], prices: str) -> str:
    """SQL for what is charged. tokens: the SQL of a cell."""
    return " + ".join(f"{tokens(cell)} * {prices}.{unit}" for cell, unit in _PRICED.items())


def _transitions_sql(pair: Pair) -> str:
    cells = ", ".join(
        f"coalesce(sum({side}.{column}) FILTER ({side}.billed), 0) AS {side}_{cell}"
        for side in "ab"
        for cell, column in _CELLS.items()
    )
    figures = []
    for name, cell in (("prompt_tokens", "prompt"), ("read_tokens", "read"), ("creation_tokens", "created")):
        figures += [f"sum({side}_{cell}) FILTER (billed_{side})::BIGINT AS {name}_{side}" for side in "ab"]
    for side in "ab":
        unpriced = f"bool_or(billed_{side} AND p{side}.price_no IS NULL)"
        money = _money(lambda cell, side=side: f"{side}_{cell}", f"p{side}")  # type: ignore[misc]
        figures.append(f"CASE WHEN NOT {unpriced} THEN sum({money}) FILTER (billed_{side}) END AS charged_{side}")
        figures.append(f"{unpriced} AS unpriced_{side}")
    return f"""
WITH a AS ({_side(pair.a, 0)}), b AS ({_side(pair.b, 1)}),
s AS (SELECT a.outcome AS outcome_a, a.reason AS reason_a, b.outcome AS outcome_b, b.reason AS reason_b,
    a.billed AS billed_a, b.billed AS billed_b, a.price_no AS price_a, b.price_no AS price_b, count(*) AS n,
    count(*) FILTER ({_SPLIT_CHANGED}) AS resplit, {cells}
  FROM a JOIN b USING (seq) GROUP BY ALL)
SELECT outcome_a, reason_a, outcome_b, reason_b, sum(n)::BIGINT AS requests,
  sum(resplit)::BIGINT AS requests_split, {", ".join(figures)}
FROM s LEFT JOIN ({side_prices(pair.a, 0)}) pa ON pa.price_no = price_a
  LEFT JOIN ({side_prices(pair.b, 1)}) pb ON pb.price_no = price_b
GROUP BY ALL ORDER BY requests DESC, outcome_a, reason_a, outcome_b, reason_b"""


def transitions(con: duckdb.DuckDBPyConnection, pair: Pair) -> list[Row]:
    """From class to class, unchanged ones too: one row per (outcome, reason) on A and on B, the most requests first.

    Only successful requests; the changes in charged add up to the change of the total. The sides must hold the same
    requests.
    """
    con.execute(_transitions_sql(pair))
    names = [column[0] for column in con.description or []]
    return [_with_change(dict(zip(names, values, strict=True))) for values in con.fetchall()]


def is_changed(row: Row) -> bool:
    """Whether a transition leads to another class."""
    return (row["outcome_a"], row["reason_a"]) != (row["outcome_b"], row["reason_b"])


def _with_change(row: Row) -> Row:
    """A side that does not bill the requests adds nothing to the change; an unknown price makes it unknown."""
    unknown = row.pop("unpriced_a") or row.pop("unpriced_b")
    row.pop("unpriced_b", None)
    before, after = (row[f"charged_{side}"] or Decimal(0) for side in "ab")
    return {**row, "charged_change": None if unknown else difference(before, after)}


def changed_requests(con: duckdb.DuckDBPyConnection, pair: Pair) -> Iterator[Row]:
    """The successful requests that changed class or billed split, in log order; fetched in chunks."""
    row = con.execute("SELECT max(seq) FROM requests WHERE trace_no = ?", [pair.a.trace_no]).fetchone()
    last = -1 if row is None or row[0] is None else int(row[0])
    for start in range(0, last + 1, CHUNK):
        con.execute(_changed_sql(pair, f" AND c.seq >= {start} AND c.seq < {start + CHUNK}"))
        names = [column[0] for column in con.description or []]
        for values in con.fetchall():
            yield _with_change(dict(zip(names, values, strict=True)))


def _changed_sql(pair: Pair, seqs: str) -> str:
    both = []
    for side in "ab":
        both += [f"{side}.outcome AS outcome_{side}", f"{side}.reason AS reason_{side}"]
    for name, column in (("prompt", "prompt_tokens"), ("read", "billed_read_tokens"), ("creation", "created")):
        both += [f"CASE WHEN {side}.billed THEN {side}.{column} END AS {name}_tokens_{side}" for side in "ab"]
    for side in "ab":
        money = _money(lambda cell, side=side: f"{side}.{_CELLS[cell]}", f"p{side}")  # type: ignore[misc]
        both.append(f"CASE WHEN {side}.billed THEN {money} END AS charged_{side}")
        both.append(f"{side}.billed AND p{side}.price_no IS NULL AS unpriced_{side}")
    return f"""
WITH a AS ({_side(pair.a, 0, seqs)}), b AS ({_side(pair.b, 1, seqs)})
SELECT a.request, a.at_us AS at, a.principal, a.model, a.session,
  CASE WHEN {_CLASS_CHANGED} THEN 'class' ELSE 'split' END AS changed, {", ".join(both)}
FROM a JOIN b USING (seq)
  LEFT JOIN ({side_prices(pair.a, 0)}) pa ON pa.price_no = a.price_no
  LEFT JOIN ({side_prices(pair.b, 1)}) pb ON pb.price_no = b.price_no
WHERE {_CLASS_CHANGED} OR {_SPLIT_CHANGED} ORDER BY seq"""
