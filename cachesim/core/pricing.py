"""What one request costs: the billed split under a billing rule, exact charges, and the break-even formulas.

Tokens are ints, prices are Decimals per token, nothing here ever rounds.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from fractions import Fraction
from typing import Final, Literal, NamedTuple

BillingRule = Literal["void", "cap"]
BillState = Literal["ok", "capped", "corrupt", "voided"]

EXACT: Final = Context(prec=2000, traps=[Inexact, InvalidOperation, Overflow])
"""Wide enough for any figure of a ledger; it raises instead of rounding, whatever context the caller has set."""

_ONE: Final = Decimal(1)


class Split(NamedTuple):
    """Cached tokens of one request as the classifier or a log states them, before the billing rule."""

    read: int
    creation_5m: int
    creation_1h: int
    creation_24h: int


class Multipliers(NamedTuple):
    """Factors on the input price, per class of cached tokens."""

    read: Decimal
    write_5m: Decimal
    write_1h: Decimal
    write_24h: Decimal


class BilledSplit(NamedTuple):
    """The prompt as billed: the five counts are never negative and add up to the prompt tokens.

    state: ok (the split fits), capped (the read was cut), corrupt (creations alone exceed the prompt, rule cap) or
    voided (the split exceeds the prompt, rule void); the last two bill the whole prompt as uncached.
    """

    read: int
    creation_5m: int
    creation_1h: int
    creation_24h: int
    uncached: int
    state: BillState


class UnitPrices(NamedTuple):
    """Exact price of one token of each class: a charge is the sum of tokens times these."""

    uncached: Decimal
    read: Decimal
    creation_5m: Decimal
    creation_1h: Decimal
    creation_24h: Decimal
    completion: Decimal


def billed_split(prompt: int, read: int, c5m: int, c1h: int, c24h: int, rule: BillingRule) -> BilledSplit:
    """The split `rule` bills for a prompt of `prompt` tokens; negative counts count as 0.

    A prompt of 10,100 with 10,000 read and 200 created exceeds itself by 100: `cap` bills 9,900 read and 200 created,
    `void` bills 10,100 uncached.
    """
    if prompt < 0:
        prompt = 0
    if not (read or c5m or c1h or c24h):
        return BilledSplit(0, 0, 0, 0, prompt, "ok")
    if read < 0 or c5m < 0 or c1h < 0 or c24h < 0:
        read, c5m, c1h, c24h = max(read, 0), max(c5m, 0), max(c1h, 0), max(c24h, 0)
    left = prompt - c5m - c1h - c24h
    if read <= left:
        return BilledSplit(read, c5m, c1h, c24h, left - read, "ok")
    if rule == "void":
        return BilledSplit(0, 0, 0, 0, prompt, "voided")
    if left < 0:
        return BilledSplit(0, 0, 0, 0, prompt, "corrupt")
    return BilledSplit(left, c5m, c1h, c24h, 0, "capped")


def fit_split(prompt: int, read: int, c5m: int, c1h: int, c24h: int) -> Split:
    """A calibrated split as far as a prompt of `prompt` tokens can hold it: what exceeds it is cut in proportion.

    A factor is right on average, so half of all estimates exceed what is reported. In upstream that is counting drift,
    which its billing rules punish; of an estimate it is known to be an error. 8,400 read and 2,100 created of a prompt
    of 10,000 become 8,000 and 2,000. Sums are rounded, not tiers, so it does not matter how creation is told apart.
    """
    prompt = max(prompt, 0)
    created = c5m + c1h + c24h
    if read + created <= prompt:
        return Split(read, c5m, c1h, c24h)
    fitting_read = read * prompt // (read + created)
    left = prompt - fitting_read
    short = c5m * left // created if created else 0
    both = (c5m + c1h) * left // created if created else 0
    return Split(fitting_read, short, both - short, left - both if created else 0)


def unit_prices(input_price: Decimal, output_price: Decimal, multipliers: Multipliers | None) -> UnitPrices:
    """The price of a token of each class; without multipliers (no cache tariff) every prompt token costs the same.

    At an input price of 0.001 and a read multiplier of 0.1 a read token costs 0.0001.
    """
    if multipliers is None:
        return UnitPrices(input_price, input_price, input_price, input_price, input_price, output_price)
    return UnitPrices(
        input_price,
        EXACT.multiply(input_price, multipliers.read),
        EXACT.multiply(input_price, multipliers.write_5m),
        EXACT.multiply(input_price, multipliers.write_1h),
        EXACT.multiply(input_price, multipliers.write_24h),
        output_price,
    )


def charge(billed: BilledSplit, completion: int, prices: UnitPrices) -> Decimal:
    """The exact charge of one request; a negative completion count is 0.

    500 uncached at 0.001, 1000 read at 0.0001, 500 created at 0.002, 100 completed at 0.002: 0.5 + 0.1 + 1 + 0.2 = 1.8.
    """
    total = EXACT.multiply(billed.uncached, prices.uncached)
    total = EXACT.fma(billed.read, prices.read, total)
    total = EXACT.fma(billed.creation_5m, prices.creation_5m, total)
    total = EXACT.fma(billed.creation_1h, prices.creation_1h, total)
    total = EXACT.fma(billed.creation_24h, prices.creation_24h, total)
    return EXACT.fma(max(completion, 0), prices.completion, total)


def list_price(
    prompt: int, completion: int, input_price: Decimal | None, output_price: Decimal | None
) -> Decimal | None:
    """The cost without any cache. None where neither price is known; a single unknown price counts as 0."""
    if input_price is None and output_price is None:
        return None
    total = EXACT.multiply(max(prompt, 0), input_price or Decimal(0))
    return EXACT.fma(max(completion, 0), output_price or Decimal(0), total)


def total_cost(
    prompt: int,
    completion: int,
    split: Split,
    input_price: Decimal | None,
    output_price: Decimal | None,
    multipliers: Multipliers,
    rule: BillingRule,
) -> Decimal | None:
    """The cost with the split under `rule`. None where neither price is known; a single unknown price counts as 0."""
    if input_price is None and output_price is None:
        return None
    prices = unit_prices(input_price or Decimal(0), output_price or Decimal(0), multipliers)
    return charge(billed_split(prompt, *split, rule), completion, prices)


def charged_cost(
    prompt: int,
    completion: int,
    split: Split,
    input_price: Decimal | None,
    output_price: Decimal | None,
    multipliers: Multipliers | None,
    rule: BillingRule,
) -> Decimal | None:
    """What the customer is charged: `total_cost` where a cache tariff is valid, else the list price.

    Without a tariff the reported cache tokens are the provider's, not ours, and change nothing.
    """
    if multipliers is None:
        return list_price(prompt, completion, input_price, output_price)
    return total_cost(prompt, completion, split, input_price, output_price, multipliers, rule)


def reads_to_pay_back(write: Decimal, read: Decimal) -> int | None:
    """Full reads after which one write has paid for itself: ⌈(w−1)/(1−r)⌉; None if it never does.

    w = 2.0, r = 0.1: ⌈1 / 0.9⌉ = 2. A write at or below the list price owes nothing: 0.
    """
    if write <= _ONE:
        return 0
    if read >= _ONE:
        return None
    return -((Fraction(write) - 1) // (Fraction(read) - 1))


def break_even_hit_rate(write: Decimal, read: Decimal) -> Fraction | None:
    """The cacheable hit rate read/(read+creation) from which caching saves: (w−1)/(w−r).

    w = 1.25, r = 0.1: 0.25 / 1.15 = 21.7 %. 0 if neither a write nor a read costs more than the list price; None if
    there is no rate above which caching saves (reads at or above list while writes are dearer, or dearer reads).
    """
    if write <= _ONE and read <= _ONE:
        return Fraction(0)
    if write <= _ONE or read >= _ONE:
        return None
    return (Fraction(write) - 1) / (Fraction(write) - Fraction(read))


def tier_choice_ratio(short_write: Decimal, long_write: Decimal, read: Decimal) -> Fraction | None:
    """The longer tier pays when writes(long)/writes(short) is below this: (w_short−r)/(w_long−r).

    1.25 against 2.0 with r = 0.1: 1.15 / 1.9 = 0.605. None where a long write costs no more than a read.
    """
    if long_write <= read:
        return None
    return (Fraction(short_write) - Fraction(read)) / (Fraction(long_write) - Fraction(read))
