"""The Python interface: open a run database and get its figures as polars frames.

    from cachesim.api import open

    with open("cachesim.duckdb") as db:
        print(db.run("latest").frame(by=["model"]))

Types are the same in every frame: tokens and counts Int64; rates Float64 from 0 to 1, null where the denominator is 0;
money Decimal(38, 20), exact, in the currency of the tariff, null where a price is unknown; times Datetime in UTC.
`columns()` defines every figure; `errors` are those of `cachesim.errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from cachesim.errors import UsageError
from cachesim.report.query import Filters
from cachesim.store.db import DEFAULT_DATABASE

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from cachesim.report.runs import Run as StoredRun

_RUNS: Final = (
    "run_no", "kind", "run", "made_at", "cachesim_version", "trace", "requests",
    "policies", "tariffs", "markers", "files",
)  # fmt: skip


def open(path: str = DEFAULT_DATABASE, *, read_only: bool = True) -> Database:
    """The run database at `path`; a context manager.

    read_only: several programs may read at once, nothing is written. Otherwise sweeps are kept in the file.
    Raises InputError where there is no such run database, DatabaseBusy while another program writes to it.
    """
    return Database(path, read_only=read_only)


def columns() -> pl.DataFrame:
    """Every figure of a run and of a sweep: column, unit, kind, definition (all String)."""
    import polars as pl

    from cachesim.report.columns import SWEEP_COLUMNS, VERSUS

    rows = [(column.name, column.unit, column.kind, column.definition) for column in (*SWEEP_COLUMNS, *VERSUS)]
    return pl.DataFrame(rows, schema=dict.fromkeys(("column", "unit", "kind", "definition"), pl.String), orient="row")


class Database:
    """A run database. Made by `open`; close it, or use it in a `with` statement."""

    def __init__(self, path: str, *, read_only: bool = True) -> None:
        from cachesim.store.db import open_database

        self.path = path
        self._file = open_database(path, read_only=read_only, must_exist=True)
        self._room = None if read_only else self._file
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what was made from this database can no longer be asked, and says so (UsageError)."""
        self._closed = True
        if self._room is not None:
            self._room.close()
        self._file.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: closed; ask before its `with` block or close() ends it, or open it again")

    @property
    def _con(self) -> duckdb.DuckDBPyConnection:
        self._check_open()
        return self._file

    def runs(self) -> pl.DataFrame:
        """Every run, oldest first.

        run_no            Int64         its number in this database
        kind              String        replay, or sweep: a grid of variants, see `sweep`
        run               String        SHA-256 of inputs, configuration and program version: its name everywhere
        made_at           Datetime UTC  when it was stored
        cachesim_version  String        what made it
        trace             String        SHA-256 of the prepared log
        requests          Int64         requests in the log
        policies          List[String]  classifier rules replayed
        tariffs           List[String]  sets of prices
        markers           List[String]  marker strategies
        files             List[String]  the log files

        Source: tables runs, traces, trace_inputs and variants.
        """
        import polars as pl

        from cachesim.report.query import is_sweep
        from cachesim.report.runs import list_runs

        schema: dict[str, Any] = dict.fromkeys(_RUNS, pl.String)
        schema |= dict.fromkeys(("run_no", "requests"), pl.Int64)
        schema |= dict.fromkeys(("policies", "tariffs", "markers", "files"), pl.List(pl.String))
        rows = [_run_row(run, is_sweep(self._con, run.run_no)) for run in list_runs(self._con)]
        made_at = pl.col("made_at").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", time_zone="UTC")
        return pl.DataFrame(rows, schema=schema, orient="row").with_columns(made_at)

    def run(self, name: str | int = "latest") -> Run:
        """The replay of that number, digest (or its beginning), or the `latest`; UsageError if there is none."""
        from cachesim.report.runs import find_replay, show_run

        return Run(self, show_run(self._con, find_replay(self._con, str(name))))

    def sweep(self, name: str | int = "latest") -> Sweep:
        """The sweep (of `cachesim tune`) of that number, digest, or the `latest`; UsageError if there is none."""
        from cachesim.report.runs import find_run

        if name == "latest":
            row = self._con.execute("SELECT max(run_no) FROM sweep_groups").fetchone()
            if row is None or row[0] is None:
                raise UsageError("the database holds no sweep yet; make one with `cachesim tune` or Run.sweep")
            name = row[0]
        return Sweep(self, self._con, find_run(self._con, str(name)))

    def _room_for_sweeps(self) -> duckdb.DuckDBPyConnection:
        """The file if it may be written, else tables that end with this object."""
        from cachesim.store.scratch import scratch

        self._check_open()
        if self._room is None:
            self._room = scratch(self._file)
        return self._room


def _run_row(run: StoredRun, sweep: bool) -> tuple[Any, ...]:
    def names(key: str) -> list[str]:
        found = (variant[key] for variant in run.variants if variant["kind"] == "policy")
        return list(dict.fromkeys(name for name in found if name is not None))

    files = [file["name"] for file in run.inputs]
    head = (run.digest, run.created_at, run.cachesim_version, run.trace_digest, run.requests)
    return (run.run_no, "sweep" if sweep else "replay", *head, *map(names, ("policy", "tariff", "markers")), files)


class Run:
    """One replay of a log under one or more policies and tariffs.

    digest: its name, the same for the same inputs, configuration and program version; run_no: its number in the
    database; assumptions: what its figures rest on, as dicts of code and text; problems: what was wrong with the log.
    """

    def __init__(self, database: Database, stored: StoredRun) -> None:
        self._database = database
        self.run_no = stored.run_no
        self.digest = stored.digest
        self.assumptions = stored.assumptions
        self.problems = stored.problems

    def frame(self, by: Sequence[str] = ("model",), *, bounds: bool = False) -> pl.DataFrame:
        """One row per policy, tariff and group, as `cachesim report --by …` has them; no group: one row each.

        by: model, principal, day, hour (both UTC), session, tier, outcome, reason, log_format, tag:NAME; [] for totals.
        bounds: also `off` (no cache) and `ideal` (every prefix seen before is read), which have tokens and no price.
        Only successful requests that the policy serves are in totals and rates.

        run, policy, tariff                String  and markers, where they differ between policies
        <the groups>                       String
        requests, requests_failed,         Int64   requests
          requests_rejected, requests_read
        prompt_tokens, read_tokens,        Int64   tokens, after the billing rule
          creation_5m_tokens, creation_1h_tokens, creation_24h_tokens, uncached_tokens, completion_tokens
        token_hit_rate                     Float64 read / prompt tokens
        cacheable_hit_rate                 Float64 read / (read + creation) tokens
        request_hit_rate                   Float64 requests with read tokens / requests
        list, charged, delta               Decimal price without a cache, with it, and charged − list
        unpriced                           Int64   requests without a known price
        rejected_list                      Decimal list price of the rejected requests
        recorded_cost                      Decimal charges recorded in the log
        recorded_cost_requests             Int64   requests that record one
        recorded_read_tokens,              Int64   tokens recorded in the log
          recorded_creation_5m_tokens, recorded_creation_1h_tokens, recorded_creation_24h_tokens
        recorded_read_requests             Int64   requests that record them
        prompt_estimated_requests,         Int64   requests counted locally, requests nobody could count
          prompt_unknown_requests
        local_tokens,                      Int64   tokens of the requests that were counted twice
          reported_prompt_tokens
        drift                              Float64 local / reported tokens − 1
        capped, corrupt, voided            Int64   requests whose split exceeded the prompt
        capped_tokens                      Int64   read tokens cut by the rule

        Source: tables classified, requests and unit_prices; exact definitions: `columns()`. Raises UsageError for an
        unknown group.
        """
        from cachesim.report.columns import COLUMNS
        from cachesim.report.formats import polars_frame
        from cachesim.report.query import lead_columns, report_rows, shown_variants

        groups = _groups(by)
        filters = Filters(bounds=bounds)
        lead = lead_columns(shown_variants(self._database._con, self.run_no, filters))
        names = [*lead, *groups, *(column.name for column in COLUMNS)]
        return polars_frame(names, report_rows(self._database._con, self.run_no, groups, filters), rounded=False)

    def requests(self, *, bounds: bool = False) -> pl.DataFrame:
        """One row per request and policy × tariff, in order of arrival, as `cachesim report --by request` has them.

        run, policy, tariff                String  and markers, where they differ between policies
        request, principal, model,         String  as the log has them
          session, log_format
        at                                 Datetime UTC  arrival
        tier                               String  lifetimes of its breakpoints: 5m, 1h+5m, none
        outcome, reason                    String  what became of it, and why it did not use the cache
        succeeded, prompt_estimated,       Boolean
          committed
        prompt_tokens, local_tokens,       Int64   tokens: as reported (else counted), counted, as reported
          completion_tokens
        read_tokens, uncached_tokens,      Int64   tokens: the classifier's split
          creation_5m_tokens, creation_1h_tokens, creation_24h_tokens
        billed_read_tokens,                Int64   tokens: what the billing rule made of the split
          billed_uncached_tokens, billed_creation_5m_tokens, billed_creation_1h_tokens, billed_creation_24h_tokens
        bill_state                         String  ok, capped, corrupt, voided
        list, charged, delta,              Decimal null where nothing is billed or no price is known
          rejected_list
        recorded_cost                      Decimal and recorded_read_tokens, recorded_creation_5m_tokens,
          recorded_creation_1h_tokens, recorded_creation_24h_tokens (Int64): as the log records them

        Source: view v_requests.
        """
        import polars as pl

        from cachesim.report.lists import REQUEST_COLUMNS
        from cachesim.report.query import lead_columns, literal, quote, shown_variants

        variants = shown_variants(self._database._con, self.run_no, Filters(bounds=bounds))
        numbers = ", ".join(str(variant.variant_no) for variant in variants)
        fields = [*lead_columns(variants), *(f"{sql} AS {quote(name)}" for name, _, sql in REQUEST_COLUMNS)]
        query = (
            f"SELECT {', '.join(fields)} FROM v_requests WHERE run_no = {self.run_no} AND variant_no IN ({numbers})"
            " ORDER BY variant_no, seq"
        )
        # Through a file: rows as Python objects take ten times as long, and after DuckDB's own Arrow stream (2.0.0) the
        # interpreter ends with a page of warnings.
        with TemporaryDirectory(prefix="cachesim-") as folder:
            file = f"{folder}/requests.parquet"
            self._database._con.execute(f"COPY ({query}) TO {literal(file)} (FORMAT parquet)")
            frame = pl.read_parquet(file, memory_map=False)
        return frame.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))

    def sensitivity(self, by: Sequence[str] = ("model",)) -> pl.DataFrame:
        """What counts 5 % lower and higher would change: three rows per tariff and group, for the run's first policy.

        by: model; [] for totals. Only what is counted locally moves, see `cachesim.sensitivity`.

        run, policy, tariff, model         String
        count_change                       Float64 −0.05, 0 and 0.05
        requests, asked, eligible          Int64   requests; that reached the cache; and were not below the floor
        decisions_changed,                 Int64   requests with another outcome or reason than in the run
          fell_below_floor, rose_above_floor
        eligible_rate, token_hit_rate,     Float64
          cacheable_hit_rate, request_hit_rate
        prompt_tokens, read_tokens,        Int64   tokens, after the billing rule
          creation_tokens, uncached_tokens
        list, charged, delta               Decimal as in `frame`
        unpriced                           Int64   requests without a known price
        bill_change                        Decimal charged − charged of the run
        bill_change_share                  Float64 bill_change / charged of the run

        Source: table sensitivity. Raises CannotEvaluate for a run that keeps no moved counts (an older version made it)
        and UsageError for another group.
        """
        from cachesim.report.formats import polars_frame
        from cachesim.report.query import lead_columns, shown_variants
        from cachesim.report.sensitivity import COLUMNS, check_kept, moved_rows

        groups = _groups(by)
        if groups not in ([], ["model"]):
            raise UsageError(f"by={groups!r}: moved counts are kept by model only")
        con = self._database._con
        check_kept(con, self.run_no, Filters())
        names = [*lead_columns(shown_variants(con, self.run_no, Filters())), *groups, *COLUMNS]
        return polars_frame(names, moved_rows(con, self.run_no, by_model=bool(groups)), rounded=False)

    def sweep(
        self,
        *,
        floors: Iterable[int | None] = (),
        ttls: Iterable[str | None] = (),
        walk_backs: Iterable[int] = (),
        windows: Iterable[str] = (),
        markers: Iterable[str] = (),
        tariffs: Iterable[str] = (),
        multipliers: Mapping[str, Decimal | str] | None = None,
        jobs: int | None = 1,
    ) -> Sweep:
        """The log of this run under every combination of these settings, and under the run's own (variant 0, `now`).

        An axis that is not given stays as the run has it (its first policy, tariff and markers). floors: tokens, None
        the tariff's own; ttls: lifetimes like "15m" for every entry, "1h+5m" for tools and system blocks and for all
        others, None as marked; walk_backs: block boundaries; windows: sliding, fixed; markers: STRATEGY[:TIER] as in
        `cachesim replay --markers`; tariffs: files as in `--tariff`; multipliers: write multiplier of a lifetime that
        no tariff prices, {"15m": "1.4"}, without which it has tokens and no price; jobs: workers, None one a core
        (a script then needs its main guard).

        The file is not written unless the database was opened for it. Raises UsageError for values that are none and
        for grids that are too large, CannotEvaluate where the run does not keep what is needed.
        """
        from cachesim.cli.replay import parse_markers
        from cachesim.config import load_tariff_sets
        from cachesim.sweep import grid, sweep

        given = {"floors": floors, "ttls": ttls, "walk_backs": walk_backs, "windows": windows, "markers": markers}
        for name, axis in {**given, "tariffs": tariffs}.items():
            if isinstance(axis, str):
                raise UsageError(f"{name}={axis!r}: a list was expected, such as {name}=[{axis!r}]")
        axes = grid.Axes(
            floors=tuple(None if floor is None else grid.parse_floors(str(floor))[0] for floor in floors),
            ttls=tuple(None if ttl is None else grid.parse_ttl(ttl) for ttl in ttls),
            windows=grid.parse_windows(windows),
            walk_backs=grid.parse_walk_backs(map(str, walk_backs)),
            strategies=tuple(map(parse_markers, markers)),
            tariffs=tuple(load_tariff_sets(list(tariffs))),
            multipliers=grid.parse_multipliers(f"{name}={factor}" for name, factor in (multipliers or {}).items()),
        )
        con = self._database._room_for_sweeps()
        return Sweep(self._database, con, sweep(con, self.run_no, axes, jobs=jobs))


class Sweep:
    """A grid of variants over the log of a run, kept as sums: variant 0 is `now`, the run's own policy and tariff.

    digest and assumptions as of a run; present_floors: the floor in force now, in tokens by model, None where it
    changes within the log.
    """

    def __init__(self, database: Database, con: duckdb.DuckDBPyConnection, run_no: int) -> None:
        from cachesim.report.runs import show_run
        from cachesim.report.sweeps import sweep_facts

        stored = show_run(con, run_no)
        self._database = database
        self._room = con
        self._run_no = run_no
        self.digest = stored.digest
        self.assumptions = stored.assumptions
        self.present_floors = sweep_facts(con, run_no).present_floors

    def frame(self, by: Sequence[str] = ("model",)) -> pl.DataFrame:
        """One row per variant and group, bounds included.

        by: model, principal, part (first or rest of the log); [] for totals.

        run, kind, policy, tariff          String  kind: policy, or bound (off, ideal, unlimited: tokens, no price)
        variant                            Int64   position in the grid; 0 is `now`
        markers, ttl, window               String  ttl null: as marked
        floor                              Int64   tokens; null: the tariff's own
        walk_back                          Int64   block boundaries
        <the groups>                       String
        <every figure of Run.frame>                null where a sweep does not keep it: what the log recorded
        creation_tokens                    Int64   tokens created, of all lifetimes
        creation_custom_tokens             Int64   tokens created in a lifetime that no tariff prices
        asked, eligible, below_floor       Int64   requests that reached the cache; not stopped, stopped by the floor
        near_5, near_10                    Int64   requests within ±5 %, ±10 % of the floor in force
        index_writes                       Int64   rows of the index
        live_entries                       Float64 mean number of rows that are live at a time
        dead_writes, open_writes           Int64   writes never read; writes not read yet and live when the log ends
        dead_tokens                        Int64   tokens of the dead writes
        dead_premium                       Decimal what they cost above the list price
        reads_under_5m, reads_5m_to_1h,    Int64   requests by the time since the entry was last written or refreshed
          reads_1h_to_8h, reads_over_8h
        read_tokens_under_5m,              Int64   tokens read, by the same
          read_tokens_5m_to_1h, read_tokens_1h_to_8h, read_tokens_over_8h
        reads_reach_20, reads_reach_40,    Int64   requests by the walk-back that finds their entry
          reads_reach_80, reads_reach_more
        read_tokens_reach_20,              Int64   tokens read, by the same
          read_tokens_reach_40, read_tokens_reach_80, read_tokens_reach_more
        read_change                        Int64   tokens read − those of `now`
        delta_share                        Float64 delta / list
        change, revenue, revenue_change    Decimal charged − that of `now`; charged as the operator sees it, and change
        change_share, revenue_change_share Float64 change / charged of `now`
        principals_better,                 Int64   principals charged less, more than under `now`, more than list
          principals_worse, principals_above_list

        Source: tables swept, sweep_groups and unit_prices; exact definitions: `columns()`. Raises UsageError for an
        unknown group.
        """
        from cachesim.report.formats import polars_frame
        from cachesim.report.sweeps import sweep_columns, sweep_rows

        self._database._check_open()
        groups = _groups(by)
        return polars_frame(sweep_columns(groups), sweep_rows(self._room, self._run_no, groups), rounded=False)


def _groups(by: Sequence[str]) -> list[str]:
    """A lone name is one group, not a sequence of letters."""
    return [by] if isinstance(by, str) else list(dict.fromkeys(by))
