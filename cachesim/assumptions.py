"""What a run takes for granted, in words: every number that is not in the log, with where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cachesim.core.calibration import (
    INHERITED,
    LEAST_FACTOR,
    LEAST_REQUESTS,
    MOST_FACTOR,
    OFF,
    Calibration,
    factor_text,
)
from cachesim.core.gates import STRATEGIES
from cachesim.core.ledger import DEFAULT_CACHE_ROW
from cachesim.run import RunPlan
from cachesim.store.runs import Prices
from cachesim.store.traces import PreparedTrace
from cachesim.trace.formats import FORMATS
from cachesim.trace.reader import ReadOptions
from cachesim.trace.times import format_us

SHORT_DIGEST: Final = 12
"""Digits of a run's digest that name it to people; its number would differ from database to database."""

MODELS_NAMED: Final = 5

Assumption = dict[str, str]
"""`code`: stable name; `text`: one sentence."""


def assumptions(
    trace: PreparedTrace,
    plan: RunPlan,
    options: ReadOptions,
    prices: Sequence[Prices],
    warnings: Sequence[str],
    continued: str | None,
    overlap: int = 0,
) -> list[Assumption]:
    """Everything a reader of the numbers has to know, the most decisive first.

    continued: the digest of the run whose index this one starts from; overlap: requests that arrived before its last.
    """
    found = [
        *_markers(plan),
        *_formats(trace),
        *_mapping(options),
        *_tokenizers(trace),
        *_not_calibrated(trace),
        *_clock(trace, options),
        *_principals(trace),
        *_recorded(trace),
        *tariff_assumptions(plan, prices),
        *_start(options, continued, overlap),
    ]
    return [{"code": code, "text": text} for code, text in [*found, *(("tariff_warning", w) for w in warnings)]]


def sweep_assumptions(
    of_run: Sequence[Assumption],
    plans: Sequence[RunPlan],
    prices: Sequence[Prices],
    multipliers: Mapping[str, str],
    unpriced: Sequence[str],
) -> list[Assumption]:
    """What a sweep takes for granted: what its run did of the log, and what its own variants assume.

    plans: its policies and tariffs under each marker strategy; multipliers: given for lifetimes without a price;
    unpriced: lifetimes that have none.
    """
    found = [pair for plan in plans for pair in _markers(plan)]
    tariffs = [pair for plan in plans[:1] for pair in tariff_assumptions(replace(plan, policies=()), prices)]
    for name, factor in multipliers.items():
        tariffs.append(("multiplier", f"a write that lives {name} costs {factor} × the input price, as given"))
    if unpriced:
        tariffs.append(("unpriced_lifetime", f"no price of a write that lives {', '.join(unpriced)}: tokens only"))
    own = {code for code, _ in (*found, *tariffs)} | set(_OF_RUN_ONLY)
    kept = [a for a in of_run if a["code"] not in own and not a["code"].startswith("markers")]
    text = "the index starts empty: what was cached before the log begins is unknown"
    if is_continued(of_run):
        text = "the index starts empty, although the run itself went on from another: now is that run from a cold start"
    start = {"code": "cold_start", "text": text}
    mine = [{"code": code, "text": text} for code, text in dict.fromkeys(found)]
    return [*mine, *kept, *({"code": code, "text": text} for code, text in tariffs), start]


def is_continued(of_run: Iterable[Assumption]) -> bool:
    """Whether a run with these assumptions started from the index of another."""
    return any(assumption["code"] == "continued" for assumption in of_run)


def problems(trace: PreparedTrace) -> dict[str, Any]:
    """What was wrong with the input, as counts; `bad_line_reasons`, and `left_out` (no requests), by reason."""
    facts = trace.facts
    return {
        "bad_lines": sum(facts["bad"].values()),
        "bad_line_reasons": facts["bad"],
        "duplicates": facts["duplicates"],
        "repeated_ids": facts["repeated_ids"],
        "unordered": facts["unordered"],
        "unmatched_answers": facts["unmatched_answers"],
        "conflicting_answers": facts.get("conflicting_answers", 0),
        "parted_principals": facts.get("parted_principals", 0),
        "failed_without_usage": facts.get("failed_without_usage", 0),
        "without_principal": facts["unscoped"],
        "filtered_by_time": facts["filtered"],
        "left_out": facts.get("left_out", {}),  # absent from traces that an older version prepared
    }


_OF_RUN_ONLY: Final = (
    "continued",
    "continued_overlap",
    "cold_start",
    "floor_override",
    "default_cache_tariff",
    "assumed_prices",
)


def _markers(plan: RunPlan) -> Iterator[tuple[str, str]]:
    name = plan.strategy.name
    if name == "as-captured":
        yield "markers", "breakpoints: as-captured, the markers that the clients sent"
        return
    yield "markers", f"breakpoints: {plan.strategy}, assumed in place of every captured marker ({STRATEGIES[name]})"
    for policy in plan.policies:
        if name == "automatic" and not policy.automatic_marker:
            yield "markers_ignored", f"{policy.name} knows no top-level marker, so it sees no breakpoint at all"
        if plan.strategy.tier not in policy.enabled_ttls:
            yield (
                "markers_refused",
                f"{policy.name} does not offer the tier {plan.strategy.tier}: its markers are errors",
            )


def _tokenizers(trace: PreparedTrace) -> Iterator[tuple[str, str]]:
    for tokenizer in trace.tokenizers:
        if tokenizer.calibration is not None:
            yield "calibrated", _calibrated(tokenizer.calibration)
            continue
        version = tokenizer.version[:12]
        if tokenizer.exact:
            yield (
                "tokenizer",
                f"tokens: {tokenizer.source} (version {version}), text of the blocks without chat template",
            )
        else:
            yield (
                "tokenizer_estimated",
                f"tokens: estimated with the embedded tokenizer (version {version}), the floor decided by the same "
                "estimates; give the model's own with --tokenizer MODEL=SOURCE",
            )
    if accelerator := trace.facts.get("accelerator"):
        yield (
            "accelerator",
            f"tokens: counted with {accelerator} where it counts as tokenizers does, checked on a sample of the texts",
        )


def _calibrated(made: Calibration) -> str:
    """One model's factor, where it is from, and how far its estimates are off with it."""
    sources = {
        "fitted": f"fitted to {made.fitted_requests:,} requests",
        "configured": "as configured",
        INHERITED: "as in the run that is continued",
    }
    head = f"estimates × {factor_text(made.factor_e4)} for {made.model}, {sources[made.origin]}"
    if made.residual_median is None or made.residual_p95 is None:
        return f"{head}; nothing is reported to check it"
    which = "others" if made.fitted_requests else "requests"
    median, p95 = 100 * made.residual_median, 100 * made.residual_p95
    return f"{head}; {made.checked_requests:,} {which} off by {median:.1f} % (median), {p95:.1f} % (p95)"


def _not_calibrated(trace: PreparedTrace) -> Iterator[tuple[str, str]]:
    """Estimated models that are not scaled, by reason."""
    by_reason: dict[str, list[str]] = {}
    for left in trace.facts.get("not_calibrated", ()):
        why, model = left["why"], left["model"]
        listed = (
            model
            if why in (OFF, INHERITED)
            else f"{model} ({left['requests']:,})"
            if why == "few"
            else f"{model} ({why})"
        )
        by_reason.setdefault(why.partition(" ")[0], []).append(listed)
    texts = {
        OFF: "as asked",
        INHERITED: "as in the run that is continued",
        "few": f"{LEAST_REQUESTS} requests with reported prompt tokens are needed",
        "factor": f"beyond {factor_text(LEAST_FACTOR)} to {factor_text(MOST_FACTOR)}, so other things are counted too",
    }
    for why, models in by_reason.items():
        rest = f" and {len(models) - MODELS_NAMED:,} more" if len(models) > MODELS_NAMED else ""
        yield "not_calibrated", f"estimates not calibrated: {', '.join(models[:MODELS_NAMED])}{rest}; {texts[why]}"


def _clock(trace: PreparedTrace, options: ReadOptions) -> Iterator[tuple[str, str]]:
    facts = trace.facts
    if facts["synthetic_times"] and options.start_us is not None:
        yield (
            "synthetic_times",
            f"arrivals of {facts['synthetic_times']:,} records: made up, from {format_us(options.start_us)} on, "
            f"{(options.interval_us or 0) / 1_000_000:g} s apart, in file order",
        )
    if facts["without_duration"]:
        records = sum(file["records"] for file in facts["files"])
        which = _share(facts["without_duration"], records)
        yield "instant_completion", f"response times: unknown for {which} records, which complete as they arrive"


def _principals(trace: PreparedTrace) -> Iterator[tuple[str, str]]:
    facts = trace.facts
    if facts["default_principal"]:
        name = facts["principal"]
        yield "default_principal", f'principal of {facts["default_principal"]:,} records without one: "{name}"'


def _formats(trace: PreparedTrace) -> Iterator[tuple[str, str]]:
    """What is always so of logs of a format."""
    formats = dict.fromkeys(file["log_format"] for file in trace.facts["files"] if file["records"])
    known = (FORMATS[name].assumes for name in formats if name in FORMATS)
    yield from (assumption for assumption in known if assumption is not None)


def _mapping(options: ReadOptions) -> Iterator[tuple[str, str]]:
    if options.mapping is not None:
        said = [f"{target} = {path}" for target, path in options.mapping["fields"].items()]
        said += [f"{target} is {value}" for target, value in options.mapping["constants"].items()]
        said += [f"{target} in {unit}" for target, unit in options.mapping["units"].items()]
        yield "mapping", f"rows: read as the mapping {options.mapping['name']} says ({', '.join(said)})"


def _recorded(trace: PreparedTrace) -> Iterator[tuple[str, str]]:
    facts = trace.facts  # of which an older version had prepared the last one only
    if count := facts.get("unanswered", 0):
        held = "failed, as others report usage" if facts["usage_reported"] else "taken as 200"
        yield "unanswered", f"outcome of {count:,} records: these logs hold no response to them; {held}"
    if count := facts.get("prompt_counted", 0):
        which = _share(count, facts["billed"])
        yield "prompt_counted", f"prompt tokens of {which} successful requests: not reported, counted locally"
    if count := facts.get("completion_unknown", 0):
        yield (
            "completion_unknown",
            f"completion tokens of {_share(count, facts['billed'])} successful requests: not reported, billed as 0; "
            "list and charged lack them, delta does not",
        )
    if count := facts["recorded_writes_assumed_5m"]:
        yield "recorded_writes_assumed_5m", f"recorded creation of {count:,} records: without a lifetime, taken as 5m"


def _share(count: int, whole: int) -> str:
    return "all" if count == whole else f"{count:,} of {whole:,}"


def tariff_assumptions(plan: RunPlan, prices: Sequence[Prices]) -> Iterator[tuple[str, str]]:
    """(code, text) of what is assumed about the plan's tariffs and about prices that none of them gives."""
    for tariff in plan.tariffs:
        if tariff.by_default:
            row = DEFAULT_CACHE_ROW
            yield (
                "default_cache_tariff",
                f"tariff {tariff.name}: no cache tariff given, so every model is enabled with "
                f"write {row.write_5m}/{row.write_1h}/{row.write_24h}, read {row.read}, "
                f"floor {row.min_prefix_tokens:,} tokens",
            )
    for policy in plan.policies:
        if policy.min_prefix_tokens is not None:
            text = f"{policy.name}: floor {policy.min_prefix_tokens:,} tokens instead of every tariff's"
            yield "floor_override", text
    assumed = sorted({source for p in prices for source in p.assumed_sources()})
    if assumed:
        by_data: dict[str, list[str]] = {}
        for source in assumed:
            data, _, entry = source.partition(": ")
            by_data.setdefault(data, []).append(entry)
        listed = "; ".join(f"{data} ({', '.join(entries)})" for data, entries in by_data.items())
        yield "assumed_prices", f"list prices that no tariff gives: {listed}"


def _start(options: ReadOptions, continued: str | None, overlap: int) -> Iterator[tuple[str, str]]:
    if continued is not None:
        yield "continued", f"the index starts as run {continued[:SHORT_DIGEST]} left it"
        if overlap:
            yield (
                "continued_overlap",
                f"{overlap:,} requests arrived before the last of run {continued[:SHORT_DIGEST]}: they are replayed "
                "after it, so both runs together may differ from one over both logs",
            )
    elif options.since_us is not None:
        yield (
            "cold_start",
            f"the index starts empty at {format_us(options.since_us)}: earlier requests are not replayed",
        )
    else:
        yield "cold_start", "the index starts empty: what was cached before the log begins is unknown"
