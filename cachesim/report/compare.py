"""Two sides of a comparison as figures: each side's, and B − A, for any group of requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from cachesim.core.pricing import EXACT
from cachesim.report.columns import COLUMNS, kind_of
from cachesim.report.query import Filters, figures_sql, where
from cachesim.report.times import check_timezone

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
_RATIO: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_RATIO_STEP: Final = Decimal(1).scaleb(-12)
_RATIOS: Final = ("charged_per_mtok", "charged_per_request", "charged_to_list")
FIGURES: Final = (*(column.name for column in COLUMNS), *_RATIOS)
"""The figures of a row of a side, in output order."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side: a variant of a run, seen through filters.

    run: the run's digest; period: how the user named the arrivals, None for all; repriced: its prices stand in the
    temporary tables of `cachesim.repricing`, under the side's number, and not in the run.
    """

    run_no: int
    run: str
    trace_no: int
    variant_no: int
    policy: str
    tariff: str
    markers: str
    filters: Filters
    period: str | None = None
    repriced: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """Side A (before) and side B (after). same_requests: both classify the same requests, under the same numbers."""

    a: Side
    b: Side
    same_requests: bool

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b

    @property
    def same_classes(self) -> bool:
        """Both sides are one replay, priced twice."""
        return self.same_requests and (self.a.run_no, self.a.variant_no) == (self.b.run_no, self.b.variant_no)


@dataclass(frozen=True, slots=True)
class Compared:
    """One group of requests: its key and the figures of FIGURES for a, b and the change (b − a; None: unknown)."""

    key: tuple[Any, ...]
    a: Row
    b: Row
    change: Row

    @property
    def charged_change(self) -> Decimal | None:
        found: Decimal | None = self.change["charged"]
        return found


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a dimension by the size of their change in charged, up or down, largest first, unknown ones last.

    shown: as many of them as were asked for; count: of all; less, more: how many are charged less and more on side B;
    rest: the change of those not shown together, None where a price is unknown.
    """

    shown: list[Compared]
    count: int
    less: int
    more: int
    rest: Decimal | None


def compared(con: duckdb.DuckDBPyConnection, pair: Pair, by: Sequence[str] = (), top: int | None = None) -> Groups:
    """The groups of both sides; ungrouped: one. Raises UsageError for unknown dimensions.

    A group that one side does not have is empty there: nothing counted, nothing charged, no rate. top: how many to
    show; the others are only counted, so that there may be any number of them.
    """
    zone = check_timezone(con, pair.a.filters.timezone)
    rows = " UNION ALL BY NAME ".join(side_rows(side, i) for i, side in enumerate(pair.sides))
    prices = " UNION ALL ".join(side_prices(side, i) for i, side in enumerate(pair.sides))
    kinds = "SELECT unnest([0, 1]) AS variant_no, 'policy' AS kind"
    con.execute(f"CREATE OR REPLACE TEMP TABLE sides AS {figures_sql(kinds, rows, f'({prices})', by, zone)}")
    labels = [f"label_k{i}" for i in range(len(by))]
    con.execute(_ranked_sql(labels))
    count, less, more, rest = _counts(con, top)
    same = " AND ".join([*(f"sides.{label} IS NOT DISTINCT FROM r.{label}" for label in labels), "TRUE"])
    limit = "" if top is None else f"WHERE r.rank <= {top}"
    con.execute(f"SELECT r.rank, sides.* FROM sides JOIN ranked r ON {same} {limit} ORDER BY r.rank, variant_no")
    names = [column.name for column in COLUMNS]
    found: dict[int, tuple[tuple[Any, ...], dict[int, Row]]] = {}
    for rank, number, *values in con.fetchall():
        row = with_ratios(dict(zip(names, values[len(by) :], strict=True)))
        found.setdefault(rank, (tuple(values[: len(by)]), {}))[1][number] = row
    shown = [_group(key, sides) for key, sides in found.values()]
    return Groups(shown, count, less, more, rest)


def _ranked_sql(labels: Sequence[str]) -> str:
    """SQL that ranks the groups in the table `sides` by their change."""
    keys = "".join(f", {label}" for label in labels)
    order = "".join(f", {label} NULLS LAST" for label in labels)
    return f"""
CREATE OR REPLACE TEMP TABLE ranked AS
SELECT row_number() OVER (ORDER BY change IS NULL, abs(change) DESC, abs(reads) DESC{order}) AS rank, change{keys}
FROM (SELECT CASE WHEN bool_and(charged IS NOT NULL) THEN sum(CASE variant_no WHEN 0 THEN -charged ELSE charged END) END
    AS change, sum(CASE variant_no WHEN 0 THEN -read_tokens ELSE read_tokens END) AS reads{keys}
  FROM sides GROUP BY ALL)"""


def _counts(con: duckdb.DuckDBPyConnection, top: int | None) -> tuple[int, int, int, Decimal | None]:
    """How many groups there are, pay less and pay more, and the change of those beyond the first `top`."""
    beyond = "FALSE" if top is None else f"rank > {top}"
    unknown = f"coalesce(bool_or(change IS NULL) FILTER ({beyond}), FALSE)"
    row = con.execute(
        "SELECT count(*), count(*) FILTER (change < 0), count(*) FILTER (change > 0),"
        f" CASE WHEN NOT {unknown} THEN coalesce(sum(change) FILTER ({beyond}), 0) END FROM ranked"
    ).fetchone()
    assert row is not None
    count, less, more, rest = row
    return count, less, more, None if rest is None else Decimal(rest)


def _group(key: tuple[Any, ...], sides: dict[int, Row]) -> Compared:
    a, b = (sides.get(number) or _empty() for number in (0, 1))
    return Compared(key, a, b, change_of(a, b))


def side_rows(side: Side, number: int) -> str:
    """SQL for the side's requests as classified, their price_no unique among both sides."""
    price, join = price_sql(side, number)
    return f"""(SELECT {number} AS variant_no, {price} AS price_no, c.* EXCLUDE (run_no, variant_no, price_no, seq),
      r.* EXCLUDE (trace_no)
    FROM classified c JOIN requests r ON r.seq = c.seq AND r.trace_no = {side.trace_no} {join}
    WHERE c.run_no = {side.run_no} AND c.variant_no = {side.variant_no}{where(side.filters)})"""


def price_sql(side: Side, number: int) -> tuple[str, str]:
    """SQL for the price number of a request `r` classified as `c`, and for the join it needs."""
    if not side.repriced:
        return f"c.price_no * 2 + {number}", ""
    price = f"CASE WHEN r.prompt_tokens IS NOT NULL THEN g.price_no * 2 + {number} END"
    same = " AND ".join(
        f"g.of_{name} IS NOT DISTINCT FROM r.{name}" for name in ("model", "purpose", "completion_window")
    )
    priced_at = "coalesce(r.batch_created_us, r.at_us)"
    when = f"{priced_at} >= g.from_us AND {priced_at} < g.until_us"
    return price, f"LEFT JOIN side_segments g ON g.side = {number} AND {same} AND {when}"


def side_prices(side: Side, number: int) -> str:
    """SQL for the side's unit prices, under the numbers of `side_rows`."""
    source = f"side_prices WHERE side = {number}" if side.repriced else f"unit_prices WHERE run_no = {side.run_no}"
    return (
        f"SELECT price_no * 2 + {number} AS price_no, uncached, read, creation_5m, creation_1h, creation_24h,"
        f" creation_custom, completion FROM {source}"
    )


def with_ratios(row: Row) -> Row:
    """`row` with charged per million prompt tokens, per request, and as a share of list; None without a denominator."""
    charged, listed = row["charged"], row["list"]
    return {
        **row,
        "charged_per_mtok": ratio(charged, row["prompt_tokens"], 1_000_000),
        "charged_per_request": ratio(charged, row["requests"]),
        "charged_to_list": float(charged / listed) if charged is not None and listed else None,
    }


def ratio(money: Decimal | None, count: int, scale: int = 1) -> Decimal | None:
    """money × scale / count, rounded half to even to 12 decimals."""
    if money is None or not count:
        return None
    return _RATIO.divide(_RATIO.multiply(money, scale), count).quantize(_RATIO_STEP, context=_RATIO)


def change_of(a: Row, b: Row) -> Row:
    """B − A for every figure; None where either is unknown."""
    return {name: difference(a[name], b[name]) for name in FIGURES}


def difference(a: Any, b: Any) -> Any:
    """b − a, money to its last digit; None where either is unknown."""
    if a is None or b is None:
        return None
    return EXACT.subtract(b, a) if isinstance(b, Decimal) else b - a


def total_of(values: Sequence[Any]) -> Any:
    """The sum, money to its last digit; None of nothing, and where a value is unknown."""
    return reduce(EXACT.add, values) if values and None not in values else None


def _empty() -> Row:
    """The figures of no request at all."""
    none = ("rate", "points")
    row = {name: None if kind_of(name) in none else Decimal(0) if kind_of(name) == "money" else 0 for name in FIGURES}
    return with_ratios({**row, "recorded_cost": None, "recorded_read_tokens": None})


def long_rows(pair: Pair, by: Sequence[str], groups: Iterable[Compared]) -> Iterator[Row]:
    """Three rows a group, for programs: side a, b and change."""
    for group in groups:
        keys = dict(zip(by, group.key, strict=True))
        for name, side, figures in (("a", pair.a, group.a), ("b", pair.b, group.b), ("change", None, group.change)):
            yield {"side": name, **_lead(side), **keys, **figures}


LEAD: Final = ("side", "run", "policy", "tariff", "markers", "period")


def _lead(side: Side | None) -> Row:
    return {name: None if side is None else getattr(side, name) for name in LEAD[1:]}


def wide_row(by: Sequence[str], group: Compared) -> Row:
    """Both sides beside each other, for tables."""
    a, b = group.a, group.b
    change = group.charged_change
    row = {**dict(zip(by, group.key, strict=True)), "requests": b["requests"], "prompt_tokens": b["prompt_tokens"]}
    for name in ("requests", "prompt_tokens", "read_tokens", "token_hit_rate", "charged", "charged_per_mtok"):
        row |= {f"{name}_a": a[name], f"{name}_b": b[name]}
    return row | {
        "token_hit_rate_change": group.change["token_hit_rate"],
        "charged_change": change,
        "charged_share": share(change, a["charged"]),
        "per_mtok_share": share(group.change["charged_per_mtok"], a["charged_per_mtok"]),
    }


def share(change: Decimal | None, base: Decimal | None) -> float | None:
    """change / base as a rate; None without a base."""
    return float(change / base) if change is not None and base else None


def same_requests(con: duckdb.DuckDBPyConnection, trace_a: int, trace_b: int) -> bool:
    """Whether two traces hold the same requests of the same files under the same numbers, however prepared."""
    if trace_a == trace_b:
        return True
    files = "SELECT file_no, sha256 FROM trace_inputs WHERE trace_no = ? ORDER BY file_no"
    if con.execute(files, [trace_a]).fetchall() != con.execute(files, [trace_b]).fetchall():
        return False
    place = "SELECT seq, file_no, line, byte_offset, at_us FROM requests WHERE trace_no = ?"
    differing = con.execute(
        f"SELECT 1 FROM ({place}) a FULL JOIN ({place}) b USING (seq) WHERE (a.file_no, a.line, a.byte_offset, a.at_us)"
        " IS DISTINCT FROM (b.file_no, b.line, b.byte_offset, b.at_us) LIMIT 1",
        [trace_a, trace_b],
    ).fetchone()
    return differing is None
