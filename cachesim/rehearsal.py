"""A stored log under other rules: replayed again as `replay` would, all at once or one rule of an upgrade at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cachesim.assumed_prices import price_data_version
from cachesim.assumptions import assumptions, problems
from cachesim.collector import no_collection
from cachesim.core.gates import MarkerStrategy
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import PRESETS, Policy, rules
from cachesim.pipeline import Progress
from cachesim.run import Run, RunPlan, check_plan, digest_of
from cachesim.store.db import transaction
from cachesim.stored_plan import plan_options, trace_with_rules
from cachesim.trace.reader import ReadOptions

if TYPE_CHECKING:
    import duckdb


class ReplayNeeded(Exception):
    """What was asked for is not in the database yet and must be replayed into it."""


@dataclass(frozen=True, slots=True)
class Change:
    """Rules that upstream switched together, or that only make sense together. upstream: the version that did."""

    name: str
    upstream: str
    rules: tuple[str, ...]


CHANGES: Final = (
    Change("bad markers", "8.68.0", ("null_marker_counts", "type_required", "lenient_ttl", "reject_bad_markers")),
    Change("enabled tiers", "8.68.0", ("enabled_ttls", "default_ttl")),
    Change("tools hashed", "8.70.0", ("hash_tools",)),
    Change("telemetry left out", "8.70.2", ("telemetry_prefixes",)),
    Change("automatic marker", "8.73.0", ("automatic_marker", "ingress_top_level_marker")),
    Change("ingress text markers", "8.75.1", ("ingress_text_markers",)),
    Change("tool calls hashed", "8.81.1", ("hash_tool_calls", "ingress_tool_use_markers")),
    Change("billing cap", "8.104.0", ("billing_rule",)),
    Change("ingress system in place", "10.10.1", ("ingress_system_in_place",)),
    Change("query marker", "10.12.0", ("query_marker",)),
)
"""In the order of upstream's versions; a rule that is in none of them is a change of its own, after these."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a rehearsal and the policy after it."""

    change: Change
    policy: Policy


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A run whose variants are the policies before and after each step, in order. before: the first one's name."""

    run_no: int
    before: str
    steps: tuple[Step, ...]


def steps(before: Policy, after: Policy) -> list[Step]:
    """The way from one policy to another, one change at a time; the last step's policy is `after` itself.

    Going back to an older preset takes the same steps backwards, through the same policies.
    """
    order = list(PRESETS)
    names = [policy.name.partition(" ")[0] for policy in (before, after)]
    backwards = all(name in order for name in names) and order.index(names[0]) > order.index(names[1])
    first, last = (after, before) if backwards else (before, after)
    way = _forward(first, last)
    if not backwards:
        return way
    policies = [first, *(step.policy for step in way)]
    return [Step(step.change, policies[i]) for i, step in reversed(list(enumerate(way)))]


def _forward(before: Policy, after: Policy) -> list[Step]:
    old, new = rules(before), rules(after)
    known = {rule for change in CHANGES for rule in change.rules}
    others = [Change(rule.replace("_", " "), "", (rule,)) for rule in new if rule not in known]
    found: list[Step] = []
    policy = before
    for change in (*CHANGES, *others):
        differing = tuple(rule for rule in change.rules if old[rule] != new[rule])
        if differing:
            policy = replace(policy, name=f"{before.name} up to {change.name}", **{r: new[r] for r in differing})
            found.append(Step(replace(change, rules=differing), policy))
    if found:
        found[-1] = replace(found[-1], policy=after)
    return found


def rehearse(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    before: Policy,
    after: Policy,
    tariff: TariffSet,
    strategy: MarkerStrategy,
    *,
    may_replay: bool = True,
    progress: Progress | None = None,
) -> Rehearsal:
    """Replay the log of a run under every policy on the way from `before` to `after`, in one pass, as a run.

    Rules that shape bodies read the log again, once. Raises as `replay_again` does.
    """
    way = steps(before, after)
    plan = RunPlan([before, *(step.policy for step in way)], [tariff], strategy)
    made = replay_again(con, run_no, plan, may_replay=may_replay, progress=progress)
    return Rehearsal(made, before.name, tuple(way))


def replay_again(
    con: duckdb.DuckDBPyConnection,
    run_no: int,
    plan: RunPlan,
    *,
    may_replay: bool = True,
    progress: Progress | None = None,
) -> int:
    """The number of a run of the log of run `run_no` under `plan`: one that is stored already, or a new one.

    The index starts empty, whatever run `run_no` continued. `con` must be outside a transaction. Without `may_replay`
    it is only read, and ReplayNeeded says that this is not enough. Raises UsageError for two variants of one name,
    CannotEvaluate where the log must be read again and cannot be.
    """
    check_plan(plan)
    row = con.execute("SELECT t.digest FROM traces t JOIN runs USING (trace_no) WHERE run_no = ?", [run_no]).fetchone()
    stored = _stored_run(con, row[0], plan) if row else None
    if stored is not None:
        return stored
    if not may_replay:
        raise ReplayNeeded
    trace = trace_with_rules(con, run_no, [policy.body_rules for policy in plan.policies], progress)
    stored = _stored_run(con, trace.digest, plan)
    if stored is not None:
        return stored
    reading = trace.facts.get("reading")
    options = ReadOptions(**reading["options"]) if reading else ReadOptions()
    warnings = [warning for tariff in plan.tariffs for warning in tariff.warnings]
    names = con.execute(
        "SELECT name FROM trace_inputs WHERE trace_no = ? ORDER BY file_no", [trace.trace_no]
    ).fetchall()
    with no_collection(), transaction(con):
        return Run(con, trace, plan).execute(
            plan_options(plan, [name for (name,) in names], "compare"),
            lambda prices: assumptions(trace, plan, options, prices, warnings, None),
            problems(trace),
            progress or (lambda count: None),
        )


def _stored_run(con: duckdb.DuckDBPyConnection, trace: str, plan: RunPlan) -> int | None:
    """An equal run over the trace of that digest, unless its assumed prices are of other data than is installed now."""
    row = con.execute("SELECT run_no FROM runs WHERE digest = ?", [digest_of(trace, plan, None)]).fetchone()
    if row is None:
        return None
    sources = con.execute("SELECT base_source FROM unit_prices WHERE run_no = ? AND assumed", [row[0]]).fetchall()
    current = all(source.startswith(f"{price_data_version()}:") for (source,) in sources)
    return int(row[0]) if current else None
