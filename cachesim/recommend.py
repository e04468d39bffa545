"""Which floor to take: chosen on the first part of a log, confirmed on the rest, refused where the evidence is thin.

Pure functions on the rows of `cachesim.report.sweeps.sweep_rows`, one model at a time: entries are never shared across
models, so the floor of one changes nothing for another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import reduce
from typing import Any, Final, Literal

from cachesim.core.pricing import EXACT

Row = Mapping[str, Any]
Confidence = Literal["high", "medium"]

HOUR_US: Final = 3_600_000_000
LEAST_SPAN_US: Final = 24 * HOUR_US
LIFETIMES_IN_SPAN: Final = 5
LEAST_DECIDING: Final = {"first": 30, "rest": 10}
"""Requests between the present and the best floor, without which a part says nothing about them."""
LEAST_GAIN: Final = Fraction(1, 1000)
"""Of the bill, or of the prompt tokens: less is no reason to change a floor."""
CONFIRMED: Final = Fraction(1, 2)
"""Of the promised share of the gain, which the rest of the log must bring."""
HIGH_CONFIRMED: Final = Fraction(4, 5)
HIGH_DECIDING: Final = {"first": 100, "rest": 30}
HIGH_FLOORS: Final = 5
"""Floors tried without a better one, before the present one is kept with high confidence."""
HIGH_NEAR: Final = Fraction(1, 50)
"""At most this share of the requests lies within ±5 % of the new floor where the confidence is high."""


class Objective(StrEnum):
    """What a floor is chosen for."""

    CUSTOMER_COST = "customer-cost"
    OPERATOR_REVENUE = "operator-revenue"
    TOKEN_HIT_RATE = "token-hit-rate"
    FEWEST_LOSERS = "fewest-losers"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a sweep rests on, see `cachesim.report.sweeps.SweepFacts`."""

    span_us: int
    longest_ttl_s: int
    present_floors: Mapping[str, int | None]
    estimated_models: Collection[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer for one model: keep the present floor, or go from `now` to `best`. Floors in tokens.

    now: None where the floor in force changes within the log; equals: the lowest and highest of the neighbouring floors
    tried that all do as well as `best` on the first part; promised, confirmed: the gain of the first part and of the
    rest, each as a share of what `now` has there; deciding: requests between the two floors, by part; near: share of
    the requests within ±5 % of `best`; money and tokens are of the whole log.
    """

    model: str | None
    objective: Objective
    keep: bool
    now: int | None
    best: int | None
    equals: tuple[int, int] | None
    promised: Fraction
    confirmed: Fraction
    deciding: tuple[int, int]
    near: Fraction
    charged_now: Decimal | None
    charged_best: Decimal | None
    prompt_tokens: int
    read_now: int
    read_best: int
    floors_tried: int
    confidence: Confidence
    why: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """No answer for one model. missing: a stable code of the fact that is missing; why: the fact and its numbers."""

    model: str | None
    objective: Objective
    missing: str
    why: str


Answer = Choice | Refusal


@dataclass(frozen=True, slots=True)
class Whole:
    """All models together, each at its own floor; those without an answer stay as they are.

    changed: models with another floor; kept: with an answer to keep theirs; refused: without an answer. confidence: the
    weakest of the answers.
    """

    changed: int
    kept: int
    refused: int
    charged_now: Decimal | None
    charged_best: Decimal | None
    prompt_tokens: int
    read_now: int
    read_best: int
    confidence: Confidence | None


def recommend(
    first: Sequence[Row], rest: Sequence[Row], evidence: Evidence, objective: Objective = Objective.CUSTOMER_COST
) -> list[Answer]:
    """One answer per model, by name.

    first, rest: the rows of `now` (variant 0) and of the variants that differ from it in the floor alone, by model, of
    either part of the log. The order of the rows does not matter.
    """
    models = {row["model"] for row in first} | {row["model"] for row in rest}
    return [
        _for_model(
            model,
            [row for row in first if row["model"] == model],
            [row for row in rest if row["model"] == model],
            evidence,
            objective,
        )
        for model in sorted(models, key=lambda name: (name is None, name or ""))
    ]


def whole(answers: Sequence[Answer], now: Sequence[Row]) -> Whole:
    """The answers together; now: the rows of variant 0 over the whole log, by model."""
    choices = [a for a in answers if isinstance(a, Choice)]
    changed = [a for a in choices if not a.keep]
    bills = [row["charged"] for row in now]
    before = _sum(bills)
    after = _sum([before, *(_shift(choice) for choice in changed)])
    read = sum(row["read_tokens"] for row in now)
    weakest: Confidence = "medium" if any(a.confidence == "medium" for a in choices) else "high"
    return Whole(
        changed=len(changed),
        kept=len(choices) - len(changed),
        refused=len(answers) - len(choices),
        charged_now=before,
        charged_best=after,
        prompt_tokens=sum(row["prompt_tokens"] for row in now),
        read_now=read,
        read_best=read + sum(a.read_best - a.read_now for a in changed),
        confidence=weakest if choices else None,
    )


def _shift(choice: Choice) -> Decimal | None:
    if choice.charged_best is None or choice.charged_now is None:
        return None
    return EXACT.subtract(choice.charged_best, choice.charged_now)


def _sum(values: Sequence[Decimal | None]) -> Decimal | None:
    """The exact sum, None as soon as one value is unknown."""
    known = [value for value in values if value is not None]
    return reduce(EXACT.add, known, Decimal(0)) if len(known) == len(values) else None


# -- one model


@dataclass(frozen=True, slots=True)
class _Side:
    """One part of the log for one model: the row of `now` and those of the other floors, by floor."""

    now: Row
    floors: dict[int, Row]


def _for_model(
    model: str | None, first: Sequence[Row], rest: Sequence[Row], evidence: Evidence, objective: Objective
) -> Answer:
    present = evidence.present_floors.get(model) if model is not None else None
    tried = {row["floor"] for row in first} & {row["floor"] for row in rest} - {None, present}
    sides = [_side(first, tried), _side(rest, tried)]
    missing = _thin(model, sides, evidence, objective)
    if missing is not None:
        return Refusal(model, objective, *missing)
    chosen, confirming = (side for side in sides if side is not None)
    best, equals = _best(chosen, present, objective)
    choice = _measure(model, chosen, confirming, present, best, equals, objective)
    if choice.keep:
        return choice
    doubt = _doubt(choice)
    return Refusal(model, objective, *doubt) if doubt is not None else _confident(choice)


def _side(rows: Sequence[Row], floors: Collection[int]) -> _Side | None:
    """None where the part holds nothing of the model."""
    now = next((row for row in rows if row["variant"] == 0), None)
    if now is None:
        return None
    return _Side(now, {row["floor"]: row for row in rows if row["variant"] != 0 and row["floor"] in floors})


def _thin(
    model: str | None, sides: Sequence[_Side | None], evidence: Evidence, objective: Objective
) -> tuple[str, str] | None:
    """The first fact that is missing for any answer, as a code and in words."""
    if model in evidence.estimated_models:
        return "exact_token_counts", (
            "token counts are estimates, and a floor decides on exact ones; replay with --tokenizer MODEL=SOURCE"
        )
    needed_us = max(LEAST_SPAN_US, LIFETIMES_IN_SPAN * evidence.longest_ttl_s * 1_000_000)
    if evidence.span_us < needed_us:
        return "span", (
            f"the log spans {_hours(evidence.span_us)}, {_hours(needed_us)} are needed"
            f" (24 h, and {LIFETIMES_IN_SPAN} times the longest lifetime)"
        )
    for part, side in zip(LEAST_DECIDING, sides, strict=True):
        asked = side.now["asked"] if side else 0
        if asked < LEAST_DECIDING[part]:
            return "requests", (
                f"{asked:,} requests reach the cache in the {_PARTS[part]}, at least {LEAST_DECIDING[part]} are needed"
            )
    for part, side in zip(LEAST_DECIDING, sides, strict=True):
        if side is None or not side.floors:
            return "floors", "no variant of the sweep differs from `now` in the floor alone; give --floor with others"
        if objective is not Objective.TOKEN_HIT_RATE and _unknown_money(side):
            return "prices", (
                f"{side.now['unpriced'] or 0:,} requests have no price in the {_PARTS[part]};"
                " add a [[base_tariff]], or choose --objective token-hit-rate"
            )
    if not any(_moves(row, side.now) for side in sides if side is not None for row in side.floors.values()):
        return "deciding_requests", "no request lies between the present floor and any floor tried; try others"
    return None


def _moves(row: Row, now: Row) -> bool:
    """Whether another floor treats any request in another way."""
    return any(row[name] != now[name] for name in ("below_floor", "read_tokens", "charged"))


_PARTS: Final = {"first": "first part of the log", "rest": "rest of the log"}


def _hours(us: int) -> str:
    return f"{us / HOUR_US:,.1f} h"


def _unknown_money(side: _Side) -> bool:
    return any(row["charged"] is None for row in (side.now, *side.floors.values()))


def _worth(row: Row, objective: Objective) -> Fraction:
    """What the objective makes of a row: larger is better, exact."""
    match objective:
        case Objective.CUSTOMER_COST:
            return -Fraction(row["charged"])
        case Objective.OPERATOR_REVENUE:
            return Fraction(row["charged"])
        case Objective.TOKEN_HIT_RATE:
            return Fraction(row["read_tokens"], row["prompt_tokens"] or 1)
        case Objective.FEWEST_LOSERS:
            return -Fraction(row["principals_above_list"])


def _gain(row: Row, now: Row, objective: Objective) -> Fraction:
    return _worth(row, objective) - _worth(now, objective)


def _best(side: _Side, present: int | None, objective: Objective) -> tuple[int, tuple[int, int]]:
    """The floor that does best, of equals the nearest to the present one; and its run of neighbours that are equal."""
    gains = {floor: _gain(side.floors[floor], side.now, objective) for floor in sorted(side.floors)}
    top = max(gains.values())

    def distance(floor: int) -> tuple[int, int, int]:
        moved = abs(side.floors[floor]["below_floor"] - side.now["below_floor"])
        return (moved if present is None else abs(floor - present), moved, floor)

    best = min((floor for floor, gain in gains.items() if gain == top), key=distance)
    run: list[int] = []
    for floor, gain in gains.items():
        if gain == top:
            run.append(floor)
        elif best in run:
            break
        else:
            run = []
    return best, (run[0], run[-1])


def _measure(
    model: str | None,
    first: _Side,
    rest: _Side,
    present: int | None,
    best: int,
    equals: tuple[int, int],
    objective: Objective,
) -> Choice:
    rows = [(side.now, side.floors[best]) for side in (first, rest)]
    gains = [_gain(row, now, objective) for now, row in rows]
    shares = [_share(gain, now, objective) for gain, (now, _) in zip(gains, rows, strict=True)]
    keep = not _matters(gains[0], first.now, objective)
    taken = 0 if keep else 1
    asked = sum(row["asked"] for _, row in rows)
    prompt = sum(now["prompt_tokens"] for now, _ in rows)
    read_now, read_best = (sum(pair[i]["read_tokens"] for pair in rows) for i in (0, 1))
    made = Choice(
        model=model,
        objective=objective,
        keep=keep,
        now=present,
        best=present if keep else best,
        equals=None if keep else equals,
        promised=shares[0],
        confirmed=shares[1],
        deciding=_deciding(rows),
        near=Fraction(sum(pair[taken]["near_5"] for pair in rows), asked or 1),
        charged_now=_money(rows, 0),
        charged_best=_money(rows, taken),
        prompt_tokens=prompt,
        read_now=read_now,
        read_best=read_best if not keep else read_now,
        floors_tried=len(first.floors),
        confidence="high",
        why="",
    )
    return _kept(made, [now["asked"] for now, _ in rows]) if keep else made


def _share(gain: Fraction, now: Row, objective: Objective) -> Fraction:
    """The gain as a share of what `now` has; a rate is a share of the prompt tokens already."""
    if objective is Objective.TOKEN_HIT_RATE:
        return gain
    base = abs(_worth(now, objective))
    return gain / base if base else Fraction(0)


def _matters(gain: Fraction, now: Row, objective: Objective) -> bool:
    if objective is Objective.FEWEST_LOSERS:
        return gain >= 1
    return _share(gain, now, objective) >= LEAST_GAIN


def _deciding(rows: Sequence[tuple[Row, Row]]) -> tuple[int, int]:
    """Requests that only one of the two floors turns to zero, in the first part and in the rest."""
    first, rest = (abs(row["below_floor"] - now["below_floor"]) for now, row in rows)
    return first, rest


def _money(rows: Sequence[tuple[Row, Row]], side: int) -> Decimal | None:
    return _sum([pair[side]["charged"] for pair in rows])


# -- doubt and confidence


def _doubt(choice: Choice) -> tuple[str, str] | None:
    """Why a better floor is not recommended all the same."""
    for part, deciding in zip(LEAST_DECIDING, choice.deciding, strict=True):
        if deciding < LEAST_DECIDING[part]:
            return "deciding_requests", (
                f"{deciding:,} requests of the {_PARTS[part]} lie between {_floor(choice.now)} and {choice.best:,}"
                f" tokens, at least {LEAST_DECIDING[part]} are needed"
            )
    if choice.confirmed < CONFIRMED * choice.promised:
        return "confirmation", (
            f"floor {choice.best:,} promises {_percent(choice.promised)} on the first part of the log"
            f" and brings {_percent(choice.confirmed)} on the rest"
        )
    return None


def _confident(choice: Choice) -> Choice:
    share = choice.confirmed / choice.promised
    certain = share >= HIGH_CONFIRMED and choice.near <= HIGH_NEAR and _plenty(choice.deciding)
    first, rest = choice.deciding
    why = (
        f"{first + rest:,} requests decide ({first:,} in the first part, {rest:,} in the rest); the rest confirms"
        f" {round(share * 100)} % of the promised {_percent(choice.promised)}; {_percent(choice.near)} of the requests"
        " lie within ±5 % of the new floor and may flip with a tokenizer that counts 5 % differently"
    )
    return replace(choice, confidence="high" if certain else "medium", why=why)


def _plenty(requests: Sequence[int]) -> bool:
    return all(n >= HIGH_DECIDING[part] for part, n in zip(HIGH_DECIDING, requests, strict=True))


def _kept(choice: Choice, asked: Sequence[int]) -> Choice:
    """The answer that the present floor stays, whatever the rest of the log says."""
    what = _IMPROVED[choice.objective]
    does = "does better" if choice.promised <= 0 else f"improves the {what} by 0.1 % or more"
    why = f"no floor of {choice.floors_tried} tried {does} on the first part of the log"
    why += f"; {asked[0]:,} requests reach the cache there"
    certain = _plenty(asked) and choice.floors_tried >= HIGH_FLOORS
    return replace(choice, confidence="high" if certain else "medium", why=why)


_IMPROVED: Final = {
    Objective.CUSTOMER_COST: "bill",
    Objective.OPERATOR_REVENUE: "revenue",
    Objective.TOKEN_HIT_RATE: "token hit rate",
    Objective.FEWEST_LOSERS: "number of principals above list",
}


def _floor(tokens: int | None) -> str:
    return "the present floors" if tokens is None else f"{tokens:,}"


def _percent(share: Fraction) -> str:
    sign, size = "−" if share < 0 else "", abs(share)
    return f"{sign}<0.1 %" if 0 < size < Fraction(1, 2000) else f"{sign}{float(size * 100):,.1f} %"
