"""One run: a prepared trace replayed under every variant in one pass, stored as it goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cachesim import __version__
from cachesim.core.gates import Gates, MarkerStrategy
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import Policy, rules
from cachesim.core.pricing import billed_split, fit_split
from cachesim.errors import CannotEvaluate, UsageError
from cachesim.index.memory import MemoryIndex
from cachesim.replay import Classified, IdealBound, Lane
from cachesim.sensitivity import Answers, Sensitivity
from cachesim.store.earlier import inherit_prefixes
from cachesim.store.index_state import Places, load_index, save_index
from cachesim.store.runs import Prices, RunWriter
from cachesim.store.trace_reader import Scopes, TraceRow, trace_rows
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """One column of the answer: a policy and a tariff set; variants with equal gates share a lane."""

    number: int
    policy: Policy
    tariff: TariffSet
    lane: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to replay: policies × tariff sets under one marker strategy."""

    policies: Sequence[Policy]
    tariffs: Sequence[TariffSet]
    strategy: MarkerStrategy

    def variants(self) -> list[Variant]:
        """Policy-major; a lane serves the tariff sets with equal enablement windows and floors."""
        lanes: dict[tuple[int, Any], int] = {}
        found: list[Variant] = []
        for number, policy in enumerate(self.policies):
            for tariff in self.tariffs:
                lane = lanes.setdefault((number, tariff.gates_key()), len(lanes))
                found.append(Variant(len(found), policy, tariff, lane))
        return found

    def describe(self) -> dict[str, Any]:
        """Everything that decides the result besides the trace, for digests."""
        return {
            "policies": [{"name": p.name, **rules(p)} for p in self.policies],
            "tariffs": [describe_tariff(t) for t in self.tariffs],
            "markers": str(self.strategy),
        }


def describe_tariff(tariff: TariffSet) -> dict[str, Any]:
    """A tariff set as JSON: its name and every row of it, apart from where the rows were read."""

    def plain(row: Any) -> dict[str, str]:
        return {name: str(value) for name, value in asdict(row).items() if name != "source"}

    return {
        "name": tariff.name,
        "cache": [plain(row) for row in tariff.all_cache_rows],
        "base": [plain(row) for row in tariff.all_base_rows if not row.assumed],
    }


def run_digest(trace: PreparedTrace, plan: RunPlan, continued: str | None) -> str:
    """SHA-256 over the trace, the plan and the program's version: equal for equal results."""
    return digest_of(trace.digest, plan, continued)


def digest_of(trace: str, plan: RunPlan, continued: str | None) -> str:
    """The digest of a run over the trace of that digest."""
    what = {"trace": trace, "plan": plan.describe(), "continues": continued, "version": __version__}
    return sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


class Run:
    """Replays a trace under a plan into the caller's transaction. continued: (run_no, digest) to start from."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        trace: PreparedTrace,
        plan: RunPlan,
        continued: tuple[int, str] | None = None,
    ) -> None:
        self.trace = trace
        self.plan = plan
        self.variants = plan.variants()
        self.writer = RunWriter(con, run_digest(trace, plan, continued[1] if continued else None), trace.trace_no)
        self._con = con
        self._continued = continued
        self._scopes = Scopes()
        self._rules_nos = {policy.name: trace.rules.index(policy.body_rules) for policy in plan.policies}
        # Prompts come once per body rule set, in this order, however many policies share one.
        self._distinct = list(dict.fromkeys(self._rules_nos.values()))
        self._lanes: list[Lane] = []
        self._lane_variants: list[list[Variant]] = []
        for variant in self.variants:
            if variant.lane == len(self._lanes):
                gates = Gates(variant.policy, plan.strategy, trace.markers)
                self._lanes.append(Lane(gates, trace, trace.cumulative, MemoryIndex()))
                self._lane_variants.append([])
            self._lane_variants[variant.lane].append(variant)
        self._places = [Places(trace, self._scopes) for _ in self._lanes]
        self._sensitivity = {
            number: Sensitivity(lane, trace)
            for number, lane in enumerate(self._lanes)
            if lane.policy is plan.policies[0]
        }

    def execute(
        self,
        options: dict[str, Any],
        assumptions: Callable[[Sequence[Prices]], Sequence[dict[str, str]]],
        problems: dict[str, Any],
        progress: Progress,
    ) -> int:
        """Replay everything and store it; returns the run's number.

        assumptions: told the prices that were used; progress: told how many requests are done.
        """
        self._declare()
        ideals = [IdealBound(self.trace, self.trace.cumulative) for _ in self._distinct]
        if self._continued:
            self._inherit(self._continued[0], ideals)
        prices = [Prices(tariff, number * 1_000_000) for number, tariff in enumerate(self.plan.tariffs)]
        last_us = 0
        for rows in trace_rows(self._con, self.trace, self._distinct, self._scopes):
            priced = [[_price(p, row) for row in rows] for p in prices]
            results = [self._replay(rows, lane_no, lane, priced) for lane_no, lane in enumerate(self._lanes)]
            self._bounds(rows, ideals, results)
            last_us = rows[-1].request.at_us
            progress(len(rows))
        self.writer.prices(prices)
        for sensitivity in self._sensitivity.values():
            sensitivity.store(self._con, self.writer.run_no)
        for lane_no, lane in enumerate(self._lanes):
            numbers = [variant.number for variant in self._lane_variants[lane_no]]
            save_index(self._con, self.writer.run_no, numbers, lane, self._places[lane_no], last_us)
        self.writer.head(options, assumptions(prices), problems)
        return self.writer.run_no

    def _declare(self) -> None:
        markers = str(self.plan.strategy)
        for variant in self.variants:
            policy = variant.policy
            rules_no = self._rules_nos[policy.name]
            self.writer.variant(
                variant.number, "policy", policy.name, variant.tariff.name, markers, rules(policy), rules_no
            )
        ideals = [f"ideal ({self._beside(rules_no).policy.name})" for rules_no in self._distinct]
        names = zip(["off", "ideal", *ideals[1:]], [self._distinct[0], *self._distinct], strict=True)
        for number, (name, rules_no) in enumerate(names, len(self.variants)):
            self.writer.variant(number, "bound", name, None, markers, {}, rules_no)

    def _beside(self, rules_no: int) -> Variant:
        """The variant that the bound of a body rule set stands beside: the first with these rules."""
        return next(v for v in self.variants if self._rules_nos[v.policy.name] == rules_no)

    def _bounds(
        self, rows: Sequence[TraceRow], ideals: Sequence[IdealBound], results: Sequence[Sequence[Classified]]
    ) -> None:
        """`off` reads nothing; `ideal` at most the prompt, one per body rule set: other blocks, other prefixes.

        A bound counts what counts under the first policy it stands beside, or the rates could not be compared.
        """
        first = rows[0].request.seq
        count = len(self.variants)
        prompts = [row.prompt_tokens or 0 for row in rows]
        self.writer.bound(count, first, [0] * len(rows), prompts, results[0])
        for place, (rules_no, ideal) in enumerate(zip(self._distinct, ideals, strict=True)):
            reachable = [ideal.arrive(row.request, row.prompts[place]) for row in rows]
            best = [min(tokens, prompt) for tokens, prompt in zip(reachable, prompts, strict=True)]
            rest = [prompt - read for prompt, read in zip(prompts, best, strict=True)]
            self.writer.bound(count + 1 + place, first, best, rest, results[self._beside(rules_no).lane])

    def _replay(
        self, rows: Sequence[TraceRow], lane_no: int, lane: Lane, priced: Sequence[Sequence[int | None]]
    ) -> Sequence[Classified]:
        variants = self._lane_variants[lane_no]
        gate = variants[0].tariff.gate
        place = self._distinct.index(self._rules_nos[lane.policy.name])

        def answers(rows: Sequence[TraceRow], lane: Lane) -> Answers:
            return _answers(rows, lane, gate, place)

        results, billed = found = answers(rows, lane)
        prices = {variant.number: priced[self.plan.tariffs.index(variant.tariff)] for variant in variants}
        for number, own in prices.items():
            self.writer.classified(number, rows[0].request.seq, results, billed, own)
        if lane_no in self._sensitivity:
            self._sensitivity[lane_no].follow(rows, found, answers, prices)
        return results

    # -- the index between runs

    def _inherit(self, run_no: int, ideals: Sequence[IdealBound]) -> None:
        """Start every lane from what the variant of the same policy left in the index of another run."""
        for lane, variants, places in zip(self._lanes, self._lane_variants, self._places, strict=True):
            first = variants[0]
            number = same_variant(self._con, run_no, first.policy, self.plan.strategy, first.tariff)
            load_index(self._con, run_no, number, lane, places)
        rules_of_bounds = [self.trace.rules[number] for number in self._distinct]
        inherit_prefixes(self._con, run_no, self.trace, rules_of_bounds, self._scopes, ideals)
        for sensitivity in self._sensitivity.values():
            sensitivity.inherit()


def same_variant(
    con: duckdb.DuckDBPyConnection, run_no: int, policy: Policy, strategy: MarkerStrategy, tariff: TariffSet
) -> int:
    """The variant of a run whose index one with this policy, these markers and this tariff continues.

    Raises CannotEvaluate where the run has no such policy and markers.
    """
    row = con.execute(
        "SELECT variant_no FROM variants WHERE run_no = ? AND policy = ? AND markers = ? AND kind = 'policy' "
        "AND rules = ? ORDER BY tariff = ? DESC, variant_no LIMIT 1",
        [run_no, policy.name, str(strategy), json.dumps(rules(policy)), tariff.name],
    ).fetchone()
    if row is None:
        raise CannotEvaluate(
            f"run {run_no}: no variant with policy {policy.name}, the same rules and markers {strategy}; continue with "
            "the options that run had"
        )
    return int(row[0])


def _answers(rows: Sequence[TraceRow], lane: Lane, gate: Callable[[str, int], int | None], place: int) -> Answers:
    """What a lane says of requests, and what is billed; gate: the floor in force; place: which prompts it reads."""
    rule = lane.policy.billing_rule
    results: list[Classified] = []
    billed = []
    for row in rows:
        request = row.request
        floor = gate(request.model, request.at_us) if request.model is not None else None
        result = lane.arrive(request, row.prompts[place], floor)
        results.append(result)
        split = result.classification
        prompt_tokens = row.prompt_tokens or 0
        if split is None:
            billed.append(billed_split(prompt_tokens, 0, 0, 0, 0, rule))
        else:
            parts = (split.read, *split.creation)
            fitting = fit_split(prompt_tokens, *parts) if row.calibrated else parts
            billed.append(billed_split(prompt_tokens, *fitting, rule))
    return results, billed


def _price(prices: Prices, row: TraceRow) -> int | None:
    """The price number of a request; None also where its prompt tokens are unknown: unknown is not free."""
    if row.prompt_tokens is None:
        return None
    return prices.number(row.request.model, row.purpose, row.completion_window, row.priced_at_us)


def check_plan(plan: RunPlan) -> None:
    """Raises UsageError where two variants could not be told apart."""
    for what, names in (("policy", [p.name for p in plan.policies]), ("tariff", [t.name for t in plan.tariffs])):
        if len(set(names)) < len(names):
            raise UsageError(f"--{what}: the same {what} twice ({', '.join(names)}); name each once")
