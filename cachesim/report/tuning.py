"""What `tune` found, read once from a stored sweep: rows, answers per model, and both as data for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cachesim.fan_out import CATCHING, FanOut
from cachesim.recommend import Answer, Choice, Evidence, Objective, Refusal, Whole, recommend, whole
from cachesim.report.formats import Report, money_text, rate_number
from cachesim.report.lifetimes import (
    Factors,
    Lifetime,
    TierChoice,
    lifetimes,
    price_factors,
    tier_choices,
)
from cachesim.report.runs import Run, show_run
from cachesim.report.sweeps import NOW, SweepFacts, along, sweep_columns, sweep_facts, sweep_rows, varied

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
HOUR_US: Final = 3_600_000_000


@dataclass(slots=True)
class Tuning:
    """A sweep with its answers. rows: by `by`; models: by model; totals: ungrouped; answers: none without floors.

    fan_outs: what the walk-back of `now` missed, where it was looked for.
    """

    run: Run
    facts: SweepFacts
    by: list[str]
    objective: Objective
    rows: list[Row]
    models: list[Row]
    totals: list[Row]
    varied: list[str]
    answers: list[Answer]
    together: Whole
    factors: dict[tuple[int, str | None], Factors]
    fan_outs: Sequence[FanOut] = ()

    @property
    def now(self) -> Row:
        """Everything under `now`."""
        return self.totals[NOW]

    @property
    def policies(self) -> int:
        """Grid points, `now` among them, without the bounds."""
        return sum(row["kind"] == "policy" for row in self.totals)

    def answer(self, model: str | None) -> Answer | None:
        """The answer for a model."""
        return next((a for a in self.answers if a.model == model), None)

    @property
    def refused(self) -> bool:
        """Whether a floor was asked for and no model has an answer."""
        return "floor" in self.varied and not any(isinstance(a, Choice) for a in self.answers)


def read_tuning(
    con: duckdb.DuckDBPyConnection, run_no: int, by: Sequence[str] = ("model",), objective: Objective | None = None
) -> Tuning:
    """A stored sweep read for people and programs; objective: what floors are chosen for (default: customer cost).

    Raises UsageError for a run that is no sweep, or holds no request.
    """
    facts = sweep_facts(con, run_no)
    by = list(dict.fromkeys(by))
    objective = objective or Objective.CUSTOMER_COST
    models = sweep_rows(con, run_no, ["model"])
    changing = varied(models)
    answers: list[Answer] = []
    if "floor" in changing:
        first, rest = (along(sweep_rows(con, run_no, ["model"], part), "floor") for part in ("first", "rest"))
        evidence = Evidence(facts.span_us, facts.longest_ttl_s, facts.present_floors, facts.estimated_models)
        answers = recommend(first, rest, evidence, objective)
    return Tuning(
        run=show_run(con, run_no),
        facts=facts,
        by=by,
        objective=objective,
        rows=models if by == ["model"] else sweep_rows(con, run_no, by),
        models=models,
        totals=sweep_rows(con, run_no, []),
        varied=changing,
        answers=answers,
        together=whole(answers, [row for row in models if row["variant"] == NOW]),
        factors=price_factors(con, run_no),
    )


def tuning_report(tuning: Tuning) -> Report:
    """Every grid point and group as rows, with answers and break-even figures in the JSON envelope."""
    found = lifetimes(along(tuning.models, "ttl"), tuning.factors)
    more: Row = {"objective": str(tuning.objective), "recommendations": [answer_row(a) for a in tuning.answers]}
    if found:
        more["lifetimes"] = [_lifetime_row(one) for one in found]
        more["tier_choices"] = [_choice_row(one) for one in tier_choices(found)]
    if tuning.fan_outs:
        more["fan_outs"] = [_fan_out_row(one) for one in tuning.fan_outs]
    run = tuning.run
    columns = sweep_columns(tuning.by)
    return Report("tune", columns, tuning.rows, tuning.by, [run.entry()], run.assumptions, run.problems, more)


def answer_row(answer: Answer) -> Row:
    """An answer for JSON: money as exact text, shares as rates of six decimals; floors in tokens."""
    if isinstance(answer, Refusal):
        return {"model": answer.model, "answer": "refused", "missing": answer.missing, "why": answer.why}
    money = {
        name: None if value is None else money_text(value)
        for name, value in (("charged_now", answer.charged_now), ("charged_best", answer.charged_best))
    }
    prompt = answer.prompt_tokens
    return {
        "model": answer.model,
        "answer": "keep" if answer.keep else "change",
        "floor_now": answer.now,
        "floor_best": answer.best,
        "equal_floors": list(answer.equals) if answer.equals else None,
        **money,
        "token_hit_rate_now": rate_number(answer.read_now / prompt) if prompt else None,
        "token_hit_rate_best": rate_number(answer.read_best / prompt) if prompt else None,
        "promised": rate_number(float(answer.promised)),
        "confirmed": rate_number(float(answer.confirmed)),
        "deciding_first": answer.deciding[0],
        "deciding_rest": answer.deciding[1],
        "near_5_rate": rate_number(float(answer.near)),
        "floors_tried": answer.floors_tried,
        "confidence": answer.confidence,
        "why": answer.why,
    }


def _lifetime_row(one: Lifetime) -> Row:
    return {
        "model": one.model,
        "ttl": one.ttl,
        "write_multiplier": money_text(one.write),
        "read_multiplier": money_text(one.read),
        "reads_to_pay_back": one.reads_to_pay_back,
        "break_even_cacheable_hit_rate": None if one.break_even is None else rate_number(float(one.break_even)),
        "cacheable_hit_rate": None if one.measured is None else rate_number(one.measured),
        "creation_tokens": one.creation_tokens,
    }


def _choice_row(one: TierChoice) -> Row:
    return {
        "model": one.model,
        "short": one.short,
        "long": one.long,
        "limit": None if one.limit is None else rate_number(float(one.limit)),
        "measured": None if one.measured is None else rate_number(float(one.measured)),
        "pays": one.pays,
    }


def _fan_out_row(one: FanOut) -> Row:
    catching = {f"walk_back_for_{share}": needed for share, needed in zip(CATCHING, one.walk_backs, strict=True)}
    named = {"model": one.model, "requests": one.requests, "missed_tokens": one.tokens, "by_tools": one.by_tools}
    return {**named, **catching}
