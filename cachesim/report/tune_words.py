"""The sentences of `tune`: headline, a line per model, both sides of the bill, lifetimes, what it all rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from cachesim.core.pricing import EXACT
from cachesim.fan_out import CATCHING, FanOut
from cachesim.recommend import Choice, Objective, Refusal
from cachesim.report.formats import clean
from cachesim.report.lifetimes import Bands, Lifetime, TierChoice
from cachesim.report.render import problem_lines
from cachesim.report.sweeps import FAR, NOW, SETTINGS, UNLIMITED, along, bound_rows, share
from cachesim.report.tables import NONE, counted, money, money_decimals, number, percent
from cachesim.report.times import instant_text
from cachesim.report.tuning import HOUR_US, Row, Tuning

GOALS: Final = {
    Objective.CUSTOMER_COST: "the lowest customer bill",
    Objective.OPERATOR_REVENUE: "the highest operator revenue",
    Objective.TOKEN_HIT_RATE: "the highest token hit rate",
    Objective.FEWEST_LOSERS: "the fewest principals above list",
}
NAMES_SHOWN: Final = 3
GAP_TITLES: Final = ("under 5m", "5m to 1h", "1h to 8h", "over 8h")
REACH_TITLES: Final = ("up to 20", "21 to 40", "41 to 80", "more")
LABELS: Final = {
    "policy": ("policy", "policies"),
    "tariff": ("tariff", "tariffs"),
    "markers": ("markers", "marker strategies"),
    "floor": ("floor", "floors"),
    "ttl": ("lifetime", "lifetimes"),
    "walk_back": ("walk-back", "walk-backs"),
    "window": ("window", "windows"),
}
"""What a setting is called, one and several."""


def headline(tuning: Tuning) -> str:
    """The answer in one sentence."""
    goal, together = GOALS[tuning.objective], tuning.together
    if not tuning.now["requests"]:
        return "Nothing to tune: no request of this run counts."
    if not tuning.answers:
        cheapest = _cheapest(tuning)
        return f"Estimated: {cheapest[0].lower()}{cheapest[1:]}" if tuning.facts.estimated_models else cheapest
    if tuning.refused:
        reasons = {a.missing: a.why for a in tuning.answers if isinstance(a, Refusal)}
        why = f": {next(iter(reasons.values()))}" if len(reasons) == 1 else ""
        return f"No floor can be recommended for {goal}{why}."
    some = f"{together.changed} of {len(tuning.answers)} models" if len(tuning.answers) > 1 else "the model"
    rest = f"; {_models(together.refused)} without an answer" if together.refused else ""
    confidence = f"confidence {together.confidence}"
    if not together.changed:
        return f"For {goal} keep the present {_plural('floor', together.kept)}; {confidence}{rest}."
    return f"For {goal} change the floor of {some}: {_outcome(tuning)}; {confidence}{rest}."


def _outcome(tuning: Tuning) -> str:
    together = tuning.together
    rates = [_rate(read, together.prompt_tokens) for read in (together.read_now, together.read_best)]
    if together.charged_now is None or together.charged_best is None:
        return f"the token hit rate goes from {rates[0]} to {rates[1]}"
    return f"the bill goes {_from_to(together.charged_now, together.charged_best)}, the token hit rate to {rates[1]}"


def _from_to(before: Decimal, after: Decimal) -> str:
    decimals = money_decimals([before, after])
    change = share(EXACT.subtract(after, before), before)
    relative = "" if change is None else f" ({percent(change, signed=True)})"
    return f"from {money(before, decimals)} to {money(after, decimals)}{relative}"


def _cheapest(tuning: Tuning) -> str:
    """Without floors nothing is recommended: the cheapest point of the grid, as the figure it is."""
    priced = [row for row in tuning.totals if row["kind"] == "policy" and row["charged"] is not None]
    if tuning.now["charged"] is None or not priced:
        best = max((r for r in tuning.totals if r["kind"] == "policy"), key=lambda r: r["token_hit_rate"] or 0)
        return f"The bill is unknown; of {tuning.policies} variants {point_text(tuning, best)} reads most."
    best = min(priced, key=lambda row: row["charged"])
    if best["charged"] >= tuning.now["charged"]:
        return f"None of {tuning.policies} variants is cheaper for customers than now."
    bill = _from_to(tuning.now["charged"], best["charged"])
    return (
        f"Of {tuning.policies} variants {point_text(tuning, best)} is the cheapest for customers: the bill goes {bill}."
    )


def point_text(tuning: Tuning, row: Row) -> str:
    """A grid point by the settings that vary: `floor 512 · lifetime 1h`."""
    parts = []
    for name in SETTINGS:
        if name in tuning.varied:
            value = row[name]
            text = number(value) if isinstance(value, int) else clean(str(value))
            parts.append(f"{LABELS[name][0]} {_absent(name) if value is None else text}")
    return " · ".join(parts)


def _absent(name: str) -> str:
    return "as marked" if name == "ttl" else "of the tariff"


def answer_lines(tuning: Tuning) -> list[tuple[str, str, str, str]]:
    """model, what to do, what it brings, why: models with the most prompt tokens first.

    Those that are refused for one reason share a line.
    """
    tokens = {row["model"]: row["prompt_tokens"] for row in tuning.models if row["variant"] == NOW}
    answers = sorted(tuning.answers, key=lambda answer: -tokens.get(answer.model, 0))
    refused: dict[str, list[str]] = {}
    lines = []
    for answer in answers:
        name = clean(answer.model or NONE)
        if isinstance(answer, Refusal):
            refused.setdefault(answer.why, []).append(name)
        else:
            lines.append((name, *_advice(tuning, answer)))
    together = len(answers) > 1 and len(refused) == 1 and not lines
    for why, names in refused.items():
        few = ", ".join(names) if len(names) <= NAMES_SHOWN else f"{len(names)} models"
        lines.append((f"all {_models(len(names))}" if together else few, "no answer", "", why))
    return lines


def _advice(tuning: Tuning, answer: Choice) -> tuple[str, str, str]:
    now = "varying" if answer.now is None else number(answer.now)
    if answer.keep:
        return f"keep {now}", "", f"{answer.confidence} confidence: {answer.why}"
    assert answer.best is not None
    equal = ""
    if answer.equals and answer.equals[0] != answer.equals[1]:
        low, high = map(number, answer.equals)
        equal = f"; of the floors tried {low} to {high} do as well"
    if not _row_at(tuning, answer, answer.best)["eligible"]:
        equal += "; no prompt is that long: for this model it means no caching at all"
    return (
        f"{now} → {number(answer.best)}",
        _gain(tuning, answer),
        f"{answer.confidence} confidence: {answer.why}{equal}",
    )


def _row_at(tuning: Tuning, choice: Choice, floor: int | None) -> Row:
    """The model's row at a floor, None: now."""
    rows = along([row for row in tuning.models if row["model"] == choice.model], "floor")
    return rows[0] if floor is None else next(row for row in rows if row["floor"] == floor)


def _gain(tuning: Tuning, choice: Choice) -> str:
    """What the change brings over the whole log, in the objective's unit."""
    if choice.objective is Objective.FEWEST_LOSERS:
        now, then = (_row_at(tuning, choice, floor)["principals_above_list"] for floor in (None, choice.best))
        return f"{number(now)} → {number(then)} principals above list"
    if choice.objective is Objective.TOKEN_HIT_RATE:
        rates = (_rate(read, choice.prompt_tokens) for read in (choice.read_now, choice.read_best))
        return " → ".join(rates)
    assert choice.charged_now is not None
    assert choice.charged_best is not None
    shift = EXACT.subtract(choice.charged_best, choice.charged_now)
    relative = share(shift, choice.charged_now)
    verb = "saves" if shift < 0 else "adds"
    amount = money(abs(shift), money_decimals([shift]))
    return f"{verb} {amount}" + (f" ({percent(relative, signed=True)})" if relative is not None else "")


def _rate(read: int, prompt: int) -> str:
    return percent(read / prompt) if prompt else NONE


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _models(count: int) -> str:
    return f"{count} {_plural('model', count)}"


# -- lifetimes


def lifetime_text(one: Lifetime) -> str:
    """`1h: a write (×2) pays back after 2 reads, above a cacheable hit rate of 52.6 %; measured 74.7 %`."""
    if one.reads_to_pay_back is None or one.break_even is None:
        needs = "never pays back"
    else:
        reads = f"{number(one.reads_to_pay_back)} {_plural('read', one.reads_to_pay_back)}"
        needs = f"pays back after {reads}, above a cacheable hit rate of {percent(float(one.break_even))}"
    measured = NONE if one.measured is None else percent(one.measured)
    changes = "; prices change within the log, these weigh most" if one.several else ""
    return f"{one.ttl}: a write (×{one.write:f}, read ×{one.read:f}) {needs}; measured {measured}{changes}"


def tier_choice_text(one: TierChoice) -> str:
    """`1h instead of 5m pays below 0.605 of the tokens written; measured 0.412, pays`."""
    if one.limit is None:
        return f"{one.long} instead of {one.short}: a write costs no more than a read, nothing decides"
    head = f"{one.long} instead of {one.short} pays below {_ratio(one.limit)} of the tokens written"
    if one.measured is None:
        return f"{head}; nothing is written for {one.short}"
    return f"{head}; measured {_ratio(one.measured)}, {'pays' if one.pays else 'does not pay'}"


def fan_out_text(one: FanOut) -> str:
    """What the walk-back of `now` missed, and which one would reach it."""
    reach = ", ".join(f"{number(needed)} for {share} %" for share, needed in zip(CATCHING, one.walk_backs, strict=True))
    tools = f"{number(one.by_tools)} of them after tool calls and results" if one.by_tools else "none after tool calls"
    missed = f"{number(one.requests)} {_plural('request', one.requests)} found {number(one.tokens)} tokens less"
    model = clean(one.model or NONE)
    return f"{model}: {missed} than lay alive further back, {tools}; walk-backs that reach them: {reach}"


def _ratio(value: Fraction) -> str:
    return f"{float(value):.3f}"


def gaps_text(one: Bands) -> str:
    """How long after the last touch entries are read, if they never expired, as shares of the tokens read."""
    if not sum(one.tokens):
        return "nothing would be read, however long entries lived"
    return (
        f"if entries lived for ever, {number(sum(one.requests))} requests would read; of their tokens, by the time"
        f" since the entry was last touched: {_shares(one.tokens, GAP_TITLES)}"
    )


def reach_text(one: Bands) -> str:
    """How far back what is read lies, if the walk-back had no end, as shares of the tokens read."""
    if not sum(one.tokens):
        return "nothing would be read, however far the walk-back looked"
    return (
        f"if the walk-back had no end, {number(sum(one.requests))} requests would read; of their tokens, by the"
        f" walk-back that finds them: {_shares(one.tokens, REACH_TITLES)}"
    )


def _shares(tokens: Sequence[int], titles: Sequence[str]) -> str:
    total = sum(tokens)
    return " · ".join(f"{title} {percent(own / total)}" for title, own in zip(titles, tokens, strict=True))


# -- what it rests on


def fact_lines(tuning: Tuning, db: str = "") -> Iterator[tuple[str, str]]:
    """Labels and lines below the tables; db: what suggested commands end with."""
    yield from _sides(tuning)
    now = tuning.now
    yield "now", clean(f"{now['policy']} · tariff {now['tariff']} · markers {now['markers']}, the run's first variant")
    yield "tried", _tried(tuning)
    if tuning.facts.hold_out_us is not None and tuning.answers:
        yield (
            "held out",
            f"chosen on the log before {instant_text(tuning.facts.hold_out_us)}, confirmed on the rest;"
            " the figures above are of the whole log",
        )
    yield "bounds", _bounds(tuning)
    yield from _labelled("assumed", [clean(a["text"]) for a in tuning.run.assumptions] or ["nothing"])
    yield from _labelled("problems", problem_lines(tuning.run.problems) or ["none"])
    groups = ",".join(tuning.by)
    yield "next", f"1. cachesim report --by {groups} --format csv --output grid.csv{db}  # every grid point"
    yield "", f"2. cachesim losers{db}  # who pays more with caching than without"


def _labelled(label: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(lines):
        yield ("" if i else label, line)


def _sides(tuning: Tuning) -> Iterator[tuple[str, str]]:
    """The customers' bill and the operator's revenue are one figure, seen from two sides."""
    together, listed = tuning.together, tuning.now["list"]
    before, after = together.charged_now, together.charged_best
    if not tuning.answers or tuning.refused or before is None or after is None or listed is None:
        return
    to_list = share(EXACT.subtract(after, listed), listed)
    versus_list = f", {percent(to_list, signed=True)} to list" if to_list is not None else ""
    yield "customers", f"pay {_from_to(before, after)}{versus_list}"
    revenue = EXACT.subtract(after, before)
    if revenue:
        amount = money(abs(revenue), money_decimals([revenue]))
        relative = share(revenue, before)
        to_now = f" ({percent(relative, signed=True)})" if relative is not None else ""
        yield "operator", f"takes in {amount} {'more' if revenue > 0 else 'less'} than now{to_now}"


def _tried(tuning: Tuning) -> str:
    requests = number(tuning.now["requests"] + tuning.now["requests_failed"] + tuning.now["requests_rejected"])
    tried = [row for row in tuning.totals if row["kind"] == "policy" and row is not tuning.now]
    axes = [f"{len({row[name] for row in tried})} {LABELS[name][1]}" for name in tuning.varied]
    grid = f" ({' × '.join(axes)})" if axes else ""
    return f"now and {counted('variant', len(tried))}{grid}, each a replay of {requests} requests over {_span(tuning)}"


def _span(tuning: Tuning) -> str:
    hours = tuning.facts.span_us / HOUR_US
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h"


def _bounds(tuning: Tuning) -> str:
    rates: dict[str, Any] = {"now": tuning.now["token_hit_rate"]}
    for name, meaning in (
        ("off", "off, no cache"),
        (UNLIMITED, "unlimited, now without expiry"),
        (FAR, "far, now with an endless walk-back"),
        ("ideal", "ideal, every prefix seen before is read"),
    ):
        found = bound_rows(tuning.totals, name)
        if found:
            rates[meaning] = found[0]["token_hit_rate"]
    return "token hit rate " + " · ".join(f"{k} {NONE if v is None else percent(v)}" for k, v in rates.items())


def page_marks(tuning: Tuning) -> list[tuple[str, float, str | None]]:
    """What to find on the floor axis of each model: (`now` or `best`, tokens, model)."""
    best = [a for a in tuning.answers if isinstance(a, Choice) and not a.keep]
    return [
        *(("now", floor, model) for model, floor in tuning.facts.present_floors.items() if floor is not None),
        *(("best", a.best, a.model) for a in best if a.best is not None),
    ]
