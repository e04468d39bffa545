"""Report rows from the run database: aggregates by any combination of dimensions, and one row per request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachesim.errors import UsageError, unknown
from cachesim.report.columns import CELLS, COLUMNS, SWEEP_CELLS, SWEEP_COLUMNS
from cachesim.report.lists import REQUEST_COLUMNS
from cachesim.report.times import check_timezone

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000
CHUNK: Final = 20_000
"""Requests fetched at a time: a report by request needs memory for one chunk, whatever the size of the run."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a report shows. Times are µs UTC, since ≤ arrival < until; empty tuples mean everything.

    Bounds (`off`, `ideal`) are shown where `bounds` is set or `policies` names them; parts: `first`, `rest` of a sweep.
    """

    since_us: int | None = None
    until_us: int | None = None
    timezone: str = "UTC"
    policies: tuple[str, ...] = ()
    tariffs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    bounds: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """One policy × tariff set of a run, as a report names it; a sweep varies floor, ttl, walk_back and window besides.

    floor: min_prefix_tokens of the policy, None the tariff's own; ttl: lifetime given to every entry, None as marked.
    """

    variant_no: int
    kind: str
    policy: str
    tariff: str | None
    markers: str
    rules_no: int
    floor: int | None = None
    ttl: str | None = None
    walk_back: int | None = None
    window: str | None = None


@dataclass(frozen=True, slots=True)
class Dimension:
    """key: what requests are grouped by; label: the text of a key (`{k}`); `{tz}`: the time zone as an SQL literal."""

    key: str
    label: str = "{k}"


_LOCAL_US: Final = "epoch_us(timezone({tz}, make_timestamptz(at_us)))"
_OFFSET_S: Final = "((epoch_us(timezone({tz}, make_timestamptz({k}))) - {k}) // 1000000)"
_OFFSET: Final = (
    f"CASE WHEN {_OFFSET_S} < 0 THEN '-' ELSE '+' END || strftime(make_timestamp(abs({_OFFSET_S}) * 1000000), '%H:%M')"
)

DIMENSIONS: Final[dict[str, Dimension]] = {
    "model": Dimension("model"),
    "principal": Dimension("principal"),
    "day": Dimension(f"{_LOCAL_US} // {DAY_US}", f"strftime(make_timestamp({{k}} * {DAY_US}), '%Y-%m-%d')"),
    # the key is the instant at which the local hour starts, so the repeated hour in autumn stays two hours
    "hour": Dimension(
        f"at_us - {_LOCAL_US} % {HOUR_US}",
        "strftime(timezone({tz}, make_timestamptz({k})), '%Y-%m-%dT%H:%M:%S') ||"
        f" CASE WHEN {{tz}} = 'UTC' THEN 'Z' ELSE {_OFFSET} END",
    ),
    "session": Dimension("session"),
    "tier": Dimension("tiers"),
    "outcome": Dimension("outcome"),
    "reason": Dimension("reason"),
    "log_format": Dimension("log_format"),
}
"""What `--by` accepts, besides `request` and `tag:NAME`."""
SWEEP_DIMENSIONS: Final = ("model", "principal", "part")
"""What `--by` accepts for a sweep."""
VARYING: Final = ("markers", "floor", "ttl", "walk_back", "window")
"""Leading columns that a report has only where they tell variants apart."""


def report_rows(
    con: duckdb.DuckDBPyConnection, run_no: int, by: Sequence[str] = (), filters: Filters | None = None
) -> list[Row]:
    """One row per variant and group with every column of COLUMNS: ints, floats 0…1, Decimal money, text, None.

    Ordered by variant (the order of the replay), then by the group values, nulls last. An ungrouped report has one row
    per variant even where the filters leave no request. A sweep has the figures of SWEEP_COLUMNS, by model, principal
    and part. Raises UsageError for unknown dimensions, variants, time zones, and for what a sweep does not keep.
    """
    return [row for _, row in variant_rows(con, run_no, by, filters)]


def variant_rows(
    con: duckdb.DuckDBPyConnection, run_no: int, by: Sequence[str] = (), filters: Filters | None = None
) -> list[tuple[int, Row]]:
    """The rows of `report_rows`, each with the number of its variant."""
    filters = filters or Filters()
    by = list(dict.fromkeys(by))
    sweep = is_sweep(con, run_no)
    if sweep:
        _check_kept(con, run_no, by, filters)
    variants = shown_variants(con, run_no, filters)
    head = _head(con, run_no, variants)
    timezone = check_timezone(con, filters.timezone)
    labels, keys = grouping(by, timezone, Dimension if sweep else dimension)
    sums = (swept_sums if sweep else _request_sums)(run_no, variants, keys, filters)
    columns = SWEEP_COLUMNS if sweep else COLUMNS
    con.execute(aggregate_sql(run_no, variants, sums, labels, [column.sql for column in columns]))
    names = [*by, *(column.name for column in columns)]
    return [(no, {**head[no], **dict(zip(names, values, strict=True))}) for no, *values in con.fetchall()]


def grouping(
    by: Sequence[str], timezone: str, dimension_of: Callable[[str], Dimension] | None = None
) -> tuple[list[str], list[str]]:
    """SQL of the labels (over k0 …) and of the keys (`… AS k0`) of the dimensions called `by`."""
    zone = literal(timezone)
    dimensions = [(dimension_of or dimension)(name) for name in by]
    labels = [d.label.format(tz=zone, k=f"k{i}") for i, d in enumerate(dimensions)]
    return labels, [f"{d.key.format(tz=zone)} AS k{i}" for i, d in enumerate(dimensions)]


def _request_sums(run_no: int, variants: Sequence[Variant], keys: Sequence[str], filters: Filters) -> str:
    """The sums `s` over the requests of a replay, per variant, group and price."""
    return _sums_over(
        f"""SELECT c.* EXCLUDE (seq), r.* EXCLUDE (trace_no) FROM classified c
    JOIN requests r ON r.seq = c.seq AND r.trace_no = (SELECT trace_no FROM runs WHERE run_no = {run_no})
    WHERE c.run_no = {run_no} AND c.variant_no IN ({_numbers(variants)}){where(filters)}""",
        keys,
    )


def _sums_over(rows: str, keys: Sequence[str]) -> str:
    """The sums `s` over rows of requests and classified, per variant, group and price."""
    cells = ", ".join(f"{sql} AS {name}" for name, sql in CELLS.items())
    return f"""SELECT variant_no{_more(f"k{i}" for i in range(len(keys)))}, price_no, {cells} FROM (
  SELECT *, succeeded AND outcome <> 'rejected' AS billed{_more(keys)} FROM ({rows})) GROUP BY ALL"""


def swept_sums(run_no: int, variants: Sequence[Variant], keys: Sequence[str], filters: Filters) -> str:
    """SQL of the sums `s` that a sweep has kept, per variant, group and price; keys: `model AS k0` and so on."""
    names = [name for name in (*CELLS, *SWEEP_CELLS) if not name.startswith("recorded_")]
    return f"""SELECT variant_no{_more(keys)}, price_no, {", ".join(f"sum({name}) AS {name}" for name in names)}
  FROM swept JOIN sweep_groups USING (run_no, group_no)
  WHERE run_no = {run_no} AND variant_no IN ({_numbers(variants)}){where(filters)} GROUP BY ALL"""


def aggregate_sql(
    run_no: int, variants: Sequence[Variant], sums: str, labels: Sequence[str], figures: Sequence[str]
) -> str:
    """SQL of one row per variant and group: its number, the labels (over k0 …), the figures (over `s` and `p`)."""
    return _grouped_sql(
        f"""SELECT variant_no, kind, json_extract(options, '$.span_us')::BIGINT AS span_us
  FROM variants JOIN runs USING (run_no) WHERE run_no = {run_no} AND variant_no IN ({_numbers(variants)})""",
        sums,
        f"(SELECT * FROM unit_prices WHERE run_no = {run_no})",
        labels,
        figures,
    )


def figures_sql(variants: str, rows: str, prices: str, by: Sequence[str], timezone: str) -> str:
    """SQL for variant_no, the labels of `by` (label_k0 …) and every column of COLUMNS: one row per variant and group.

    variants: SQL for (variant_no, kind); rows: SQL for what is in requests and classified; prices: an SQL table of unit
    prices whose price_no are those of the rows.
    """
    labels, keys = grouping(by, timezone)
    named = [f"{label} AS label_k{i}" for i, label in enumerate(labels)]
    figures = [f"{column.sql} AS {quote(column.name)}" for column in COLUMNS]
    return _grouped_sql(variants, _sums_over(rows, keys), prices, named, figures)


def _grouped_sql(variants: str, sums: str, prices: str, labels: Sequence[str], figures: Sequence[str]) -> str:
    """Figures over the sums `s` and the unit prices `p`, per variant of `v` and group k0 …"""
    keys = [f"k{i}" for i in range(len(labels))]
    start = "v" if not keys else "s"
    join = "v LEFT JOIN s USING (variant_no)" if not keys else "s JOIN v USING (variant_no)"
    return f"""
WITH v AS ({variants}),
s AS ({sums})
SELECT {start}.variant_no{_more(labels)}{_more(figures)}
FROM {join} LEFT JOIN {prices} p ON p.price_no = s.price_no
GROUP BY {start}.variant_no, kind{_more(keys)} ORDER BY {start}.variant_no{_more(f"{k} NULLS LAST" for k in keys)}"""


def _more(parts: Iterable[str]) -> str:
    return "".join(f", {part}" for part in parts)


def is_sweep(con: duckdb.DuckDBPyConnection, run_no: int) -> bool:
    """Whether the run keeps sums over a grid of variants instead of one row per request."""
    return con.execute("SELECT 1 FROM sweep_groups WHERE run_no = ? LIMIT 1", [run_no]).fetchone() is not None


def _check_kept(con: duckdb.DuckDBPyConnection, run_no: int, by: Sequence[str], filters: Filters) -> None:
    """Raises UsageError for what would need the requests of a sweep, with the command that keeps them."""
    asked = [f"--by {name}" for name in by if name not in SWEEP_DIMENSIONS]
    asked += [f"--{name}" for name in ("since", "until") if getattr(filters, f"{name}_us") is not None]
    if asked:
        files = con.execute(
            "SELECT i.name FROM trace_inputs i JOIN runs USING (trace_no) WHERE run_no = ? ORDER BY file_no", [run_no]
        ).fetchall()
        raise UsageError(
            f"{asked[0]}: this run is a sweep, which keeps sums by {', '.join(SWEEP_DIMENSIONS)};"
            f" `cachesim replay {' '.join(name for (name,) in files)} --set min_prefix_tokens=1024` replays one variant"
            " in full"
        )


def request_rows(con: duckdb.DuckDBPyConnection, run_no: int, filters: Filters | None = None) -> Iterator[Row]:
    """One row per classified request in log order, variant after variant; fetched in chunks, so memory stays bounded.

    Read and creation tokens are the classifier's split, `billed_*` what the billing rule made of it. `at` is µs UTC.
    Raises UsageError for a sweep and for unknown variants, at once and not with the first row.
    """
    filters = filters or Filters()
    if is_sweep(con, run_no):
        _check_kept(con, run_no, ["request"], filters)
    variants = shown_variants(con, run_no, filters)
    head = _head(con, run_no, variants)
    row = con.execute("SELECT requests FROM traces JOIN runs USING (trace_no) WHERE run_no = ?", [run_no]).fetchone()
    count = int(row[0]) if row else 0
    names = [name for name, _, _ in REQUEST_COLUMNS]
    fields = ", ".join(sql for _, _, sql in REQUEST_COLUMNS)

    def rows() -> Iterator[Row]:
        for variant in variants:
            for start in range(0, count, CHUNK):
                con.execute(
                    f"SELECT {fields} FROM v_requests r WHERE run_no = {run_no} AND variant_no = {variant.variant_no}"
                    f" AND seq >= {start} AND seq < {start + CHUNK}{where(filters)} ORDER BY seq"
                )
                for values in con.fetchall():
                    yield {**head[variant.variant_no], **dict(zip(names, values, strict=True))}

    return rows()


def variants_of(con: duckdb.DuckDBPyConnection, run_no: int) -> list[Variant]:
    """Every variant of the run, bounds included, in the order of the replay."""
    con.execute(
        "SELECT variant_no, kind, policy, tariff, markers, rules_no,"
        " json_extract(rules, '$.min_prefix_tokens')::BIGINT, ttl, json_extract(rules, '$.walk_back')::BIGINT,"
        " json_extract_string(rules, '$.window') FROM variants WHERE run_no = ? ORDER BY 1",
        [run_no],
    )
    return [Variant(*row) for row in con.fetchall()]


def shown_variants(con: duckdb.DuckDBPyConnection, run_no: int, filters: Filters) -> list[Variant]:
    """The variants the filters leave; raises UsageError naming the choices if a policy or tariff is not in the run."""
    variants = variants_of(con, run_no)
    _check_names("policy", filters.policies, [v.policy for v in variants])
    _check_names("tariff", filters.tariffs, [v.tariff for v in variants if v.tariff is not None])
    return [
        v
        for v in variants
        if (v.policy in filters.policies if filters.policies else v.kind != "bound" or filters.bounds)
        and (not filters.tariffs or v.tariff in filters.tariffs or v.kind == "bound")
    ]


def _check_names(what: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise UsageError(f"--{what} {name!r}: not in this run, which has {', '.join(dict.fromkeys(known))}")


def lead_columns(variants: Sequence[Variant]) -> list[str]:
    """The leading columns of a report: run, policy, tariff, and of VARYING those that tell its policies apart."""
    policies = [v for v in variants if v.kind != "bound"]
    return ["run", "policy", "tariff", *(name for name in VARYING if len({getattr(v, name) for v in policies}) > 1)]


def _head(con: duckdb.DuckDBPyConnection, run_no: int, variants: Sequence[Variant]) -> dict[int, Row]:
    """The leading columns by variant."""
    row = con.execute("SELECT digest FROM runs WHERE run_no = ?", [run_no]).fetchone()
    if row is None:
        raise UsageError(f"run {run_no}: no such run; `cachesim runs` lists them")
    names = lead_columns(variants)[1:]
    return {v.variant_no: {"run": row[0], **{name: getattr(v, name) for name in names}} for v in variants}


def dimension(name: str) -> Dimension:
    """The dimension called `name`, or the tag of `tag:NAME`; raises UsageError with the nearest names."""
    if name.startswith("tag:") and len(name) > len("tag:"):
        pointer = "/" + name[len("tag:") :].replace("~", "~0").replace("/", "~1")
        return Dimension(f"json_extract_string(tags, {literal(pointer).replace('{', '{{').replace('}', '}}')})")
    if name not in DIMENSIONS:
        raise UsageError(unknown("--by", name, [*DIMENSIONS, "request", "tag:NAME"]))
    return DIMENSIONS[name]


def where(filters: Filters) -> str:
    """SQL conditions on requests that leave what the filters show, each after an AND."""
    parts = []
    if filters.since_us is not None:
        parts.append(f"at_us >= {filters.since_us}")
    if filters.until_us is not None:
        parts.append(f"at_us < {filters.until_us}")
    if filters.models:
        parts.append(f"model IN ({', '.join(map(literal, filters.models))})")
    if filters.parts:
        parts.append(f"part IN ({', '.join(map(literal, filters.parts))})")
    if filters.principals:
        parts.append(f"principal IN ({', '.join(map(literal, filters.principals))})")
    return "".join(f" AND {part}" for part in parts)


def _numbers(variants: Sequence[Variant]) -> str:
    return ", ".join(str(v.variant_no) for v in variants) or "-1"


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
