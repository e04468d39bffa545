"""One sweep: a run's trace under every point of a grid, stored as sums; the run's own variant stands first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from cachesim import __version__
from cachesim.assumptions import sweep_assumptions
from cachesim.core.ledger import TariffSet
from cachesim.core.markers import MarkerFact
from cachesim.core.policy import BodyRules, rules
from cachesim.run import RunPlan
from cachesim.store.db import insert_frame, transaction
from cachesim.store.runs import Prices, RunWriter
from cachesim.store.trace_reader import trace_rules
from cachesim.stored_plan import plan_options, stored_plan, trace_with_rules
from cachesim.sweep.accounts import NO_PRICE, Groups, make_groups, present_floors, split_us
from cachesim.sweep.bounds import bound_cells, ideal_tokens
from cachesim.sweep.columns import Prompts, Requests, read_forest, read_prompts, read_requests
from cachesim.sweep.engine import Engine
from cachesim.sweep.grid import Axes
from cachesim.sweep.kernels import Choice, Kernel, cores
from cachesim.sweep.points import Point, points
from cachesim.sweep.rows import SweptRows

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

HOLD_OUT: Final = Fraction(2, 5)
"""The share of the log's time, its end, on which a choice made on the rest is checked."""
_TARIFF_STEP: Final = 1_000_000
"""Price numbers set aside for one tariff."""

Started = Callable[[int], Callable[[int], None]]
"""Told the work in requests × variants, gives what is told how much of it is done."""


def sweep(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    axes: Axes,
    *,
    hold_out: Fraction = HOLD_OUT,
    jobs: int | None = 1,
    kernel: Choice = "auto",
    progress: Started | None = None,
) -> int:
    """Replay the trace of a run under every point of `axes` and store the sums; returns the number of the sweep's run.

    The index starts empty, also where the run continued another. jobs: workers, None as many as there are cores; worker
    processes import the caller's main module, so a script needs a main guard (threads with the compiled kernel do not).
    The same sweep again replaces itself. Raises CannotEvaluate where rules that shape bodies need the log again and it
    cannot be read, UsageError for grids that are too large.
    """
    stored = stored_plan(con, run_no)
    base = RunPlan(stored.policies[:1], stored.tariffs[:1], stored.strategy)  # its first variant is `now`
    grid = points(base, axes)
    trace_no = _trace(con, run_no, list(dict.fromkeys(point.policy.body_rules for point in grid)))
    return _Sweep(con, run_no, trace_no, base, axes, grid, hold_out).execute(
        jobs or cores(), kernel, progress or (lambda work: lambda done: None)
    )


def _trace(con: duckdb.DuckDBPyConnection, run_no: int, wanted: Sequence[BodyRules]) -> int:
    """The run's own trace, or that of its log read again, if these rules need another reading of the bodies."""
    row = con.execute("SELECT trace_no FROM runs WHERE run_no = ?", [run_no]).fetchone()
    assert row is not None
    if set(wanted) <= set(trace_rules(con, row[0])):
        return int(row[0])
    return trace_with_rules(con, run_no, wanted).trace_no


class _Sweep:
    """Everything one sweep knows while it runs."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        base_no: int,
        trace_no: int,
        base: RunPlan,
        axes: Axes,
        grid: Sequence[Point],
        hold_out: Fraction,
    ) -> None:
        self.con = con
        self.base = base
        self.axes = axes
        self.grid = grid
        row = con.execute("SELECT digest, markers FROM traces WHERE trace_no = ?", [trace_no]).fetchone()
        assert row is not None
        self.trace_no, self.trace_digest = trace_no, row[0]
        self.facts = [MarkerFact(*fact) for fact in json.loads(row[1])]
        self.exact = [
            exact
            for (exact,) in con.execute(
                "SELECT exact FROM trace_tokenizers WHERE trace_no = ? ORDER BY tokenizer_no", [trace_no]
            ).fetchall()
        ]
        self.rules = trace_rules(con, trace_no)
        self.requests: Requests = read_requests(con, trace_no)
        self.split_us = split_us(self.requests, hold_out)
        self.hold_out = hold_out
        self.base_no = base_no
        self.tariffs: list[TariffSet] = list({id(point.tariff): point.tariff for point in grid}.values())
        self.prices = [Prices(tariff, number * _TARIFF_STEP) for number, tariff in enumerate(self.tariffs)]
        self.customs = list(dict.fromkeys(c for p in grid if (c := p.custom) in axes.multipliers and c is not None))
        self.groups: Groups = make_groups(self.requests, self.split_us, self.prices)
        self.lifetimes: set[int] = set()
        self._prompts: dict[int, Prompts] = {}

    def prompts(self, body_rules: BodyRules) -> Prompts:
        """Read when first needed; the latest one is kept."""
        number = self.rules.index(body_rules)
        if number not in self._prompts:
            self._prompts = {number: read_prompts(self.con, self.trace_no, number)}
        return self._prompts[number]

    def execute(self, jobs: int, choice: Choice, started: Started) -> int:
        work = len(self.requests) * len(self.grid)
        kernel = Kernel(choice, jobs, work)
        forest = read_forest(self.con, self.trace_no, len(self.exact))
        engine = Engine(self.requests, forest, self.prompts, self.facts, self.groups, kernel)
        with closing(kernel), transaction(self.con):
            writer = RunWriter(self.con, self._digest(), self.trace_no)
            rows = SweptRows(self.con, writer.run_no)
            for number, point in enumerate(self.grid):
                rules_no = self.rules.index(point.policy.body_rules)
                tariff = point.tariff.name if point.kind == "policy" else None
                ttl = None if point.ttl is None else point.ttl.name
                policy, markers = point.policy, str(point.strategy)
                writer.variant(number, point.kind, policy.name, tariff, markers, rules(policy), rules_no, ttl)
            for answer in engine.run(self.grid, started(work)):
                if answer.place == 0:
                    self.lifetimes |= self.grid[0].used_s(answer.cells)
                rows.add(answer.place, answer.first_group, answer.cells, self._price_nos(self.grid[answer.place]))
            self._bounds(engine, writer, rows, compiled=kernel.compiled)
            rows.flush()
            self._store_groups(writer.run_no)
            writer.prices(self.prices, self._custom_prices())
            writer.head(self._options(), self._assumptions(), self._row("problems"))
        return writer.run_no

    def _bounds(self, engine: Engine, writer: RunWriter, rows: SweptRows, *, compiled: bool) -> None:
        """`off` beside the run's own variant, and one `ideal` per body rule set: other blocks, other prefixes.

        A bound counts what counts under the first variant with its rules, or the rates could not be compared.
        """
        number = len(self.grid)
        nothing = self.requests.at * 0
        markers = str(self.base.strategy)
        for place, body_rules in enumerate(dict.fromkeys(point.policy.body_rules for point in self.grid)):
            first = next(point for point in self.grid if point.policy.body_rules == body_rules)
            counted = engine.counted(first)
            best = ideal_tokens(self.requests, engine.forest, self.prompts(body_rules), compiled=compiled)
            named = [("ideal" if place == 0 else f"ideal ({first.policy.name})", best)]
            for name, read in [("off", nothing), *named] if place == 0 else named:
                writer.variant(number, "bound", name, None, markers, {}, self.rules.index(body_rules))
                rows.add(number, 0, bound_cells(self.requests, self.groups, counted, read), None)
                number += 1

    def _price_nos(self, point: Point) -> Ints | None:
        """The price number of each group under a point, NO_PRICE where there is none; None for bounds."""
        if point.kind == "bound":
            return None
        numbers: Ints = self.groups.price_nos[self.tariffs.index(point.tariff)]
        custom = point.custom
        if custom not in self.customs:
            return numbers
        copies: Ints = numbers + (numbers != NO_PRICE) * self._custom_offset(custom)
        return copies

    def _custom_prices(self) -> list[tuple[int, Any]]:
        return [(self._custom_offset(name), self.axes.multipliers[name]) for name in self.customs]

    def _custom_offset(self, custom: str) -> int:
        """What is added to the price numbers of all tariffs for their copies with this lifetime."""
        return _TARIFF_STEP * len(self.tariffs) * (1 + self.customs.index(custom))

    def _store_groups(self, run_no: int) -> None:
        groups = self.groups
        columns: dict[str, Sequence[Any]] = {
            "run_no": [run_no] * len(groups),
            "group_no": range(len(groups)),
            "model": groups.model,
            "principal": groups.principal,
            "part": groups.part,
        }
        insert_frame(self.con, "sweep_groups", columns)

    def _describe(self) -> dict[str, Any]:
        """The grid as asked for, beside the base plan everything that decides the result."""
        axes = self.axes
        return {
            "floors": list(axes.floors),
            "ttls": [None if ttl is None else ttl._asdict() for ttl in axes.ttls],
            "windows": list(axes.windows),
            "walk_backs": list(axes.walk_backs),
            "markers": [str(strategy) for strategy in axes.strategies],
            "multipliers": {name: str(factor) for name, factor in sorted(axes.multipliers.items())},
            "hold_out": str(self.hold_out),
            "plan": RunPlan(list(axes.policies), list(axes.tariffs), self.base.strategy).describe(),
        }

    def _digest(self) -> str:
        what = {
            "sweep": self._describe(),
            "base": self.base.describe(),
            "trace": self.trace_digest,
            "version": __version__,
        }
        return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _options(self) -> dict[str, Any]:
        """What reports and later commands need to know; see `cachesim.stored_plan` for the first part."""
        longest = max(self.lifetimes or self.grid[0].offered_s)
        return {
            **plan_options(self.base, self._row("options").get("files", [])),
            "sweep": self._describe(),
            "span_us": self.requests.span_us,
            "split_us": self.split_us,
            "longest_ttl_s": longest,
            "present_floors": present_floors(
                self.requests, self.base.tariffs[0], self.base.policies[0].min_prefix_tokens
            ),
            "estimated_models": sorted(
                {
                    k.model
                    for k in self.requests.keys
                    if k.model and k.tokenizer is not None and not self.exact[k.tokenizer]
                }
            ),
        }

    def _assumptions(self) -> list[dict[str, str]]:
        unpriced = sorted({c for p in self.grid if (c := p.custom) is not None} - set(self.customs))
        strategies = dict.fromkeys(point.strategy for point in self.grid)
        policies = self.axes.policies or self.base.policies
        return sweep_assumptions(
            self._row("assumptions"),
            [RunPlan(policies, self.tariffs, strategy) for strategy in strategies],
            self.prices,
            {name: str(self.axes.multipliers[name]) for name in self.customs},
            unpriced,
        )

    def _row(self, column: str) -> Any:
        row = self.con.execute(f"SELECT {column} FROM runs WHERE run_no = ?", [self.base_no]).fetchone()
        assert row is not None
        return json.loads(row[0])
