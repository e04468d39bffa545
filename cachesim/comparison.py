"""From what two sides are called to two sides: found in a stored run, priced anew, or replayed again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from cachesim.assumptions import Assumption, is_continued, tariff_assumptions
from cachesim.config import apply_rules, load_tariff_sets, parse_set
from cachesim.config.toml import did_you_mean
from cachesim.core.gates import MarkerStrategy
from cachesim.core.ledger import BaseRow, CacheRow, TariffSet
from cachesim.core.policy import PRESETS, Policy
from cachesim.errors import UsageError
from cachesim.pipeline import Progress
from cachesim.rehearsal import Rehearsal, rehearse, replay_again, steps
from cachesim.report.compare import Pair, Side, same_requests
from cachesim.report.query import Filters, Variant, variants_of
from cachesim.repricing import can_reprice, reprice
from cachesim.run import RunPlan
from cachesim.stored_plan import stored_plan

if TYPE_CHECKING:
    import duckdb

TARIFF_FILES: Final = (".toml", ".csv", ".parquet")
_OF_TARIFFS: Final = ("default_cache_tariff", "assumed_prices", "tariff_warning")
_NEXT_RULE: Final = re.compile(r", (?=\w+=)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One side as the user names it; None: what the run has first.

    run_no: the run it starts from; policy: of the run, a preset, or `PRESET [rule=value, …]`; tariff: of the run, or
    files; filters and period: which arrivals it is about.
    """

    run_no: int
    policy: str | None = None
    tariff: str | None = None
    markers: MarkerStrategy | None = None
    filters: Filters = Filters()  # noqa: RUF009  (immutable)
    period: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides ready to be read. notes: where each came from, for people."""

    pair: Pair
    assumptions: list[Assumption]
    notes: list[str]


@dataclass(slots=True)
class _Found:
    """A side on its way: where it stands, or what to replay for it."""

    wanted: Wanted
    variant: Variant | None = None
    run_no: int = 0
    tariff: TariffSet | None = None
    plan: RunPlan | None = None
    note: str = ""

    @property
    def markers(self) -> str:
        return str(self.plan.strategy) if self.plan else self.variant.markers if self.variant else ""


def compare(
    con: duckdb.DuckDBPyConnection,
    a: Wanted,
    b: Wanted,
    *,
    may_replay: bool,
    progress: Progress | None = None,
) -> Comparison:
    """Find both sides. Without `may_replay` the database is only read, and ReplayNeeded says that this is not enough.

    Raises UsageError for names that do not exist and for two sides that are the same; CannotEvaluate where a run of an
    older cachesim does not hold what is needed.
    """
    tariffs = _load_tariffs(con, (a, b))
    found = [_find(con, wanted, tariffs) for wanted in (a, b)]
    if any(side.variant is None for side in found):
        _replay(con, found, may_replay=may_replay, progress=progress)
    sides, assumed = [], []
    for number, side in enumerate(found):
        made, texts = _side(con, side, number)
        sides.append(made)
        assumed.append(texts)
    if _same(sides[0], sides[1]):
        raise UsageError(
            "both sides are the same; give two of --policy, --tariff, --markers, --run or --period, or one that the "
            "run does not have"
        )
    aligned = sides[0].filters == sides[1].filters and same_requests(con, sides[0].trace_no, sides[1].trace_no)
    notes = [f"{letter}: {side.note}" for letter, side in zip("AB", found, strict=True)]
    if found[0].note == found[1].note:
        notes = [f"both sides: {found[0].note}"]
    return Comparison(Pair(sides[0], sides[1], aligned), merged(*assumed), notes)


def rehearsed(
    con: duckdb.DuckDBPyConnection, a: Wanted, b: Wanted, *, may_replay: bool, progress: Progress | None = None
) -> Rehearsal:
    """The upgrade from the policy of `a` to that of `b`, one change at a time. Raises like `compare`."""
    if replace(a, policy=b.policy) != b:
        raise UsageError("--by-rule: the sides may differ in --policy only")
    plan = stored_plan(con, a.run_no)
    before, after = (_policy(side.policy or plan.policies[0].name, plan.policies) for side in (a, b))
    if not steps(before, after):
        raise UsageError(f"--by-rule: {before.name} and {after.name} have the same rules; name two policies")
    tariffs = {tariff.name: tariff for tariff in plan.tariffs} | _load_tariffs(con, (a, b))
    tariff = tariffs[a.tariff or plan.tariffs[0].name]
    strategy = a.markers or plan.strategy
    return rehearse(con, a.run_no, before, after, tariff, strategy, may_replay=may_replay, progress=progress)


def _same(a: Side, b: Side) -> bool:
    return replace(a, period=None) == replace(b, period=None)


def merged(a: Sequence[Assumption], b: Sequence[Assumption]) -> list[Assumption]:
    """The assumptions of both sides; what only one of them assumes says which."""
    both = [assumed for assumed in a if assumed in b]
    only = [
        {"code": assumed["code"], "text": f"{letter}: {assumed['text']}"}
        for letter, own, other in (("A", a, b), ("B", b, a))
        for assumed in own
        if assumed not in other
    ]
    return [*both, *only]


# -- finding


def _load_tariffs(con: duckdb.DuckDBPyConnection, wanted: Sequence[Wanted]) -> dict[str, TariffSet]:
    """The tariff sets of files, by how they were named; what a run calls a tariff is not a file."""
    specs: list[str] = []
    known: set[str] = set()
    for side in wanted:
        names = {v.tariff for v in _variants(con, side.run_no) if v.tariff}
        known |= names
        if side.tariff is not None and side.tariff not in {*names, *specs}:
            specs.append(side.tariff)
    for spec in specs:
        if PurePath(spec).suffix.lower() not in TARIFF_FILES:
            raise UsageError(f"--tariff {spec!r}: neither a tariff of the run ({', '.join(sorted(known))}) nor a file")
    return dict(zip(specs, load_tariff_sets(specs, taken=known), strict=True))


def _variants(con: duckdb.DuckDBPyConnection, run_no: int) -> list[Variant]:
    return [v for v in variants_of(con, run_no) if v.kind == "policy"]


def _find(con: duckdb.DuckDBPyConnection, wanted: Wanted, loaded: dict[str, TariffSet]) -> _Found:
    """By name among the run's variants; else by what the names stand for."""
    side = _Found(wanted, run_no=wanted.run_no)
    variants = _variants(con, wanted.run_no)
    if not variants:
        raise UsageError(f"run {wanted.run_no}: no such replay; `cachesim runs` lists them")
    first = variants[0]
    policy, tariff = wanted.policy or first.policy, wanted.tariff or first.tariff
    markers = str(wanted.markers) if wanted.markers else first.markers
    side.variant = _held(variants, policy, tariff, markers)
    side.note = f"run {wanted.run_no}, as stored"
    if side.variant is not None:
        return side
    plan = stored_plan(con, wanted.run_no)
    replayed = next((t for t in plan.tariffs if t.name == tariff), None) or equal_tariff(
        plan.tariffs, loaded[tariff or ""]
    )
    new = replayed or loaded[tariff or ""]
    side.variant = _held(variants, policy, new.name, markers)
    if side.variant is not None:
        return side
    for stored in plan.tariffs:
        if can_reprice(stored, new) and (variant := _held(variants, policy, stored.name, markers)) is not None:
            side.variant, side.tariff = variant, new
            side.note = f"run {wanted.run_no}, priced with {new.name} instead of {stored.name} without replaying"
            return side
    side.plan = RunPlan([_policy(policy, plan.policies)], [new], wanted.markers or plan.strategy)
    return side


def _held(variants: Sequence[Variant], policy: str, tariff: str | None, markers: str) -> Variant | None:
    return next((v for v in variants if (v.policy, v.tariff, v.markers) == (policy, tariff, markers)), None)


def equal_tariff(tariffs: Sequence[TariffSet], other: TariffSet) -> TariffSet | None:
    """The one of `tariffs` that says the same as `other`, wherever it was written."""

    def rows(tariff: TariffSet) -> tuple[list[CacheRow], list[BaseRow]]:
        cache = [] if tariff.by_default else [replace(row, source="") for row in tariff.all_cache_rows]
        return cache, [replace(row, source="") for row in tariff.all_base_rows if not row.assumed]

    return next((tariff for tariff in tariffs if rows(tariff) == rows(other)), None)


def _policy(text: str, known: Sequence[Policy]) -> Policy:
    """A policy of the run, a preset, or a preset with rules changed: `dwctl-10.13 [min_prefix_tokens=512]`."""
    of_run = next((policy for policy in known if policy.name == text), None)
    if of_run is not None:
        return of_run
    name, bracket, changes = text.partition(" [")
    preset = PRESETS.get(name)
    if preset is None or (bracket and not changes.endswith("]")):
        hint = did_you_mean(text, dict.fromkeys([*PRESETS, *(policy.name for policy in known)]))
        raise UsageError(f"--policy {text!r}: unknown, {hint}")
    if not bracket:
        return preset
    rules = dict(parse_set(change) for change in _NEXT_RULE.split(changes.removesuffix("]")))
    return replace(apply_rules(preset, rules), name=text)


# -- replaying


def _replay(
    con: duckdb.DuckDBPyConnection, found: Sequence[_Found], *, may_replay: bool, progress: Progress | None
) -> None:
    """Replay what is missing, unless an equal run is stored: both sides in one run where one can hold both."""
    a, b = found
    together = a.wanted.run_no == b.wanted.run_no and a.markers == b.markers
    for side in found:
        # What was found must not stand warm beside a cold start, or priced at another time.
        if side.plan is None and (together or is_continued(_assumptions(con, side.run_no))):
            side.plan = _plan_of(con, side)
    if together and a.plan and b.plan:
        both = RunPlan(
            _distinct([*a.plan.policies, *b.plan.policies]),
            _distinct([*a.plan.tariffs, *b.plan.tariffs]),
            a.plan.strategy,
        )
        run_no = replay_again(con, a.wanted.run_no, both, may_replay=may_replay, progress=progress)
        for side in found:
            _place(con, side, run_no)
        return
    for side in found:
        if side.plan is not None:
            run_no = replay_again(con, side.wanted.run_no, side.plan, may_replay=may_replay, progress=progress)
            _place(con, side, run_no)


def _distinct(items: Sequence[Any]) -> list[Any]:
    """Policies or tariffs of both sides, each once, in an order that is the same for swapped sides."""
    found = {item.name: item for item in items}
    return [
        found[name]
        for name in sorted(found, key=lambda name: (name not in PRESETS, [*PRESETS, name].index(name), name))
    ]


def _plan_of(con: duckdb.DuckDBPyConnection, side: _Found) -> RunPlan:
    """What to replay for a side that was found."""
    assert side.variant is not None
    plan = stored_plan(con, side.run_no)
    policy = next(policy for policy in plan.policies if policy.name == side.variant.policy)
    tariff = side.tariff or next(tariff for tariff in plan.tariffs if tariff.name == side.variant.tariff)
    return RunPlan([policy], [tariff], side.wanted.markers or plan.strategy)


def _place(con: duckdb.DuckDBPyConnection, side: _Found, run_no: int) -> None:
    assert side.plan is not None
    (policy,), (tariff,) = side.plan.policies, side.plan.tariffs
    side.run_no, side.tariff = run_no, None
    side.variant = _held(_variants(con, run_no), policy.name, tariff.name, str(side.plan.strategy))
    side.note = f"run {run_no}, a replay of the log of run {side.wanted.run_no}"


# -- what was found


def _side(con: duckdb.DuckDBPyConnection, side: _Found, number: int) -> tuple[Side, list[Assumption]]:
    assert side.variant is not None
    row = con.execute("SELECT digest, trace_no FROM runs WHERE run_no = ?", [side.run_no]).fetchone()
    assert row is not None
    variant, wanted, tariff = side.variant, side.wanted, side.tariff
    made = Side(
        run_no=side.run_no,
        run=row[0],
        trace_no=row[1],
        variant_no=variant.variant_no,
        policy=variant.policy,
        tariff=tariff.name if tariff else variant.tariff or "",
        markers=variant.markers,
        filters=wanted.filters,
        period=wanted.period,
        repriced=tariff is not None,
    )
    assumed = _assumptions(con, side.run_no)
    if tariff is not None:
        prices = reprice(con, made.trace_no, tariff, number)
        plan = RunPlan([], [tariff], stored_plan(con, side.run_no).strategy)
        found = [*tariff_assumptions(plan, [prices]), *(("tariff_warning", text) for text in tariff.warnings)]
        assumed = [a for a in assumed if a["code"] not in _OF_TARIFFS]
        assumed += [{"code": code, "text": text} for code, text in found]
    return made, assumed


def _assumptions(con: duckdb.DuckDBPyConnection, run_no: int) -> list[Assumption]:
    row = con.execute("SELECT assumptions FROM runs WHERE run_no = ?", [run_no]).fetchone()
    found: list[Assumption] = json.loads(row[0]) if row else []
    return found
