"""The one sentence a replay begins with, honest about what is missing or estimated."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cachesim.report.tables import money, money_decimals, number, percent

if TYPE_CHECKING:
    from cachesim.report.facts import Coverage

Row = dict[str, Any]


def headline(row: Row, seen: Coverage, *, estimated_counts: bool = False, unknown_completions: bool = False) -> str:
    """What caching would do under the variant of `row` (its ungrouped report row), in one sentence.

    estimated_counts: some model's tokens were counted with the embedded default tokenizer; unknown_completions: some
    completions are in no bill, since nobody reported their tokens.
    """
    if not seen.requests:
        return "Nothing was replayed: the trace holds no request."
    if not seen.classified:
        reasons = ", ".join(f"{reason} {number(n)}" for reason, n in seen.reasons.get("inactive", {}).items())
        return f"Nothing could be classified: none of {number(seen.requests)} requests reached the cache ({reasons})."
    if not row["requests"]:
        apart = f"{number(row['requests_failed'])} failed, {number(row['requests_rejected'])} rejected"
        return f"No request counts under {row['policy']}: of {number(seen.requests)}, {apart}."
    if row["token_hit_rate"] is None:
        return (
            f"{number(row['requests'])} requests under {row['policy']}, but not one prompt token: no rate, no saving."
        )
    prompt = number(row["prompt_tokens"])
    served = f"serve {percent(row['token_hit_rate'])} of {prompt} prompt tokens from cache"
    label = _label(row, estimated_counts)
    apart = ", completions apart that nobody reported" if unknown_completions and row["list"] is not None else ""
    return f"{label}aching under {row['policy']} would {served}{_bill(row)}{apart}."


def _label(row: Row, estimated_counts: bool) -> str:
    if estimated_counts or row["prompt_estimated_requests"] == row["requests"]:
        return "Estimated: c"
    return "C"


def _bill(row: Row) -> str:
    before, after = row["list"], row["charged"]
    if before is None:
        return f"; the bill is unknown ({number(row['unpriced'])} of {number(row['requests'])} requests have no price)"
    decimals = money_decimals([before, after])
    if before == after:
        return f" and leave the bill at {money(before, decimals)}"
    change = f" and change the bill from {money(before, decimals)} to {money(after, decimals)}"
    return f"{change} ({_relative(after - before, before)})" if before else change


def _relative(delta: Decimal, base: Decimal) -> str:
    return percent(float(delta / base), signed=True)
