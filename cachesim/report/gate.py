"""Checks of a run against limits and a baseline: each passes, fails, or says why it cannot be evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from cachesim.core.pricing import EXACT
from cachesim.errors import UsageError
from cachesim.report.changes import is_changed, transitions
from cachesim.report.compare import Pair, Side, ratio, same_requests, total_of
from cachesim.report.formats import money_text
from cachesim.report.query import Filters, variant_rows
from cachesim.report.tables import number

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
Unit = Literal["money", "rate", "tokens", "requests"]
Result = Literal["pass", "fail", "not_evaluated"]


@dataclass(frozen=True, slots=True)
class CheckKind:
    """What a check measures. least: the limit is the least that passes, else the most."""

    unit: Unit
    least: bool
    text: str


CHECKS: Final[dict[str, CheckKind]] = {
    "max_cost": CheckKind("money", False, "charged"),
    "min_token_hit_rate": CheckKind("rate", True, "read tokens / prompt tokens"),
    "min_cacheable_hit_rate": CheckKind("rate", True, "read tokens / (read + creation tokens)"),
    "max_uncached": CheckKind("tokens", False, "uncached prompt tokens"),
    "max_rejected": CheckKind("requests", False, "requests answered with HTTP 400"),
    "max_changed_requests": CheckKind("requests", False, "successful requests of another class than in the baseline"),
}

_LIMIT: Final = re.compile(r"([+\-−]?)(\d+(?:\.\d*)?|\.\d+)\s*(%|pp)?")
_EXPECTED: Final[dict[Unit, str]] = {
    "money": "0.25 (money), +2% or +0.25 (over the baseline) was expected",
    "rate": "40% or 0.4, or -1.5% (percentage points from the baseline) was expected",
    "tokens": "12000 (tokens), 30% (of the prompt tokens), +2% or +500 (over the baseline) was expected",
    "requests": "a number, 1% (of the requests) or +5 (over the baseline) was expected",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """relative: from the baseline's figure on; percent: of it, or of the whole. value: percent as a fraction."""

    text: str
    value: Decimal
    relative: bool
    percent: bool


def parse_limit(check: str, text: str) -> Limit:
    """The limit of `--max-cost +2%` and its kin; raises UsageError saying what was expected."""
    kind = CHECKS[check]
    option = f"--{check.replace('_', '-')}"
    found = _LIMIT.fullmatch(text.strip())
    wrong = UsageError(f"{option} {text!r}: {_EXPECTED[kind.unit]}")
    if found is None:
        raise wrong
    sign, digits, unit = found.groups()
    value = Decimal(digits) / 100 if unit else Decimal(digits)
    if unit == "pp" and (kind.unit != "rate" or not sign):
        raise wrong
    if kind.unit == "money" and unit and not sign:
        raise UsageError(f"{option} {text!r}: a share of what? +{text} is over the baseline")
    if kind.unit == "rate" and not sign and value > 1:
        raise UsageError(f"{option} {text!r}: more than everything; {_EXPECTED['rate']}")
    if check == "max_changed_requests" and sign:
        raise UsageError(f"{option} {text!r}: counts changes from the baseline already; give it without a sign")
    if kind.unit == "requests" and not unit and value != value.to_integral_value():
        raise wrong
    return Limit(text, -value if sign in ("-", "−") else value, bool(sign), unit is not None)


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its verdict; figures are exact text: money, rates 0…1, whole numbers. detail: what of what, or why
    not."""

    check: str
    result: Result
    given: str
    measured: str | None
    limit: str | None
    baseline: str | None
    unit: str
    detail: str

    def row(self) -> Row:
        """The columns of COLUMNS."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS: Final = ("check", "result", "given", "measured", "limit", "baseline", "unit", "detail")


class _Unknown(Exception):
    """Why a check cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """A figure of the run and of the baseline, if it is asked for, and what they are of."""

    run: Decimal | None
    baseline: Decimal | None
    unit: str
    detail: str


def evaluate(
    con: duckdb.DuckDBPyConnection,
    run: Side,
    baseline: Side | None,
    limits: Mapping[str, Limit],
    *,
    allow_estimates: bool = False,
) -> list[Check]:
    """The checks that `limits` (a key of CHECKS each) ask for, in the order of CHECKS.

    With the same requests on both sides, what is relative is about the requests that both bill; with other requests
    cost and uncached tokens are compared per prompt token. Raises UsageError where a limit needs a baseline.
    """
    judge = _Judge(con, run, baseline, allow_estimates)
    return [judge.check(name, limits[name]) for name in CHECKS if name in limits]


class _Judge:
    """Reads what the checks need, once."""

    def __init__(self, con: duckdb.DuckDBPyConnection, run: Side, baseline: Side | None, allow_estimates: bool) -> None:
        self.totals = _totals(con, run)
        self.base = None if baseline is None else _totals(con, baseline)
        self.classes: list[Row] | None = None
        if baseline is not None and same_requests(con, baseline.trace_no, run.trace_no):
            self.classes = transitions(con, Pair(baseline, run, same_requests=True))
        sides = [("the run", run), *([("the baseline", baseline)] if baseline is not None else [])]
        self.estimates = [who for who, side in sides if not allow_estimates and _is_estimated(con, side)]
        self.incomplete = [who for who, side in sides if not allow_estimates and _lacks_completions(con, side)]

    def check(self, name: str, limit: Limit) -> Check:
        kind = CHECKS[name]
        if self.base is None and (limit.relative or name == "max_changed_requests"):
            raise UsageError(f"--{name.replace('_', '-')} {limit.text}: needs a --baseline to compare with")
        try:
            self._refuse(kind, limit)
            found = self._measure(name, limit)
            return self._judged(name, kind, limit, found)
        except _Unknown as why:
            return Check(name, "not_evaluated", limit.text, None, None, None, kind.unit, str(why))

    def _refuse(self, kind: CheckKind, limit: Limit) -> None:
        if not self.totals["requests"]:
            raise _Unknown("no request of the run counts: none succeeded, or the policy rejects all")
        if self.estimates and kind is not CHECKS["max_rejected"]:
            raise _Unknown(
                f"tokens of {' and '.join(self.estimates)} are estimated, which also decides the floor; replay with "
                "--tokenizer MODEL=SOURCE, or add --allow-estimates"
            )
        if self.incomplete and kind is CHECKS["max_cost"]:
            raise _Unknown(
                f"completion tokens of {' and '.join(self.incomplete)} that nobody reported are in no bill; "
                "--allow-estimates takes them as 0"
            )
        if kind.unit in ("rate", "tokens"):
            self._refuse_unknown("the run", self.totals)
            if limit.relative and self.base is not None:
                self._refuse_unknown("the baseline", self.base)

    def _refuse_unknown(self, who: str, row: Row) -> None:
        if row["prompt_unknown_requests"]:
            raise _Unknown(
                f"requests of {who} with an unknown number of prompt tokens: {number(row['prompt_unknown_requests'])}; "
                "replay with --tokenizer MODEL=SOURCE"
            )

    def _judged(self, name: str, kind: CheckKind, limit: Limit, found: _Measured) -> Check:
        if found.run is None or (limit.relative and found.baseline is None):
            raise _Unknown(f"{kind.text}: unknown for want of a denominator ({found.detail})")
        bound = limit.value
        if limit.relative:
            assert found.baseline is not None
            share = limit.percent and kind.unit != "rate"
            more = EXACT.multiply(found.baseline, limit.value) if share else limit.value
            bound = EXACT.add(found.baseline, more)
        passed = found.run >= bound if kind.least else found.run <= bound
        measured, most, base = (None if v is None else money_text(v) for v in (found.run, bound, found.baseline))
        return Check(
            name, "pass" if passed else "fail", limit.text, measured, most, base, found.unit, found.detail
        )  # fmt: skip

    # -- what is measured

    def _measure(self, name: str, limit: Limit) -> _Measured:
        match name:
            case "max_cost":
                return self._cost(limit)
            case "max_uncached":
                return self._uncached(limit)
            case "max_rejected":
                return self._rejected(limit)
            case "max_changed_requests":
                return self._changed(limit)
        return self._rate(name.removeprefix("min_"), limit)

    def _common(self, column: str, side: str) -> Any:
        """The sum of a column over the requests that both sides bill; None as soon as one is unknown."""
        assert self.classes is not None
        both = [row for row in self.classes if "rejected" not in (row["outcome_a"], row["outcome_b"])]
        return total_of([row[f"{column}_{side}"] for row in both])

    def _both_bill(self) -> str:
        assert self.classes is not None
        both = sum(r["requests"] for r in self.classes if "rejected" not in (r["outcome_a"], r["outcome_b"]))
        return f"over the {number(both)} requests that both runs bill"

    def _cost(self, limit: Limit) -> _Measured:
        self._refuse_unpriced("the run", self.totals)
        if not limit.relative:
            return _Measured(self.totals["charged"], None, "money", f"charged for {self._requests(self.totals)}")
        base = self.base or {}
        self._refuse_unpriced("the baseline", base)
        if self.classes is not None:
            sums = [self._common("charged", side) for side in "ba"]
            return _Measured(sums[0], sums[1], "money", f"charged {self._both_bill()}")
        if not limit.percent:
            raise _Unknown(f"{limit.text} of money, but the baseline has other requests: give a percentage")
        per = [ratio(row["charged"], row["prompt_tokens"], 1_000_000) for row in (self.totals, base)]
        detail = f"charged per million prompt tokens, for the baseline has other requests ({self._volumes()})"
        return _Measured(per[0], per[1], "money per million prompt tokens", detail)

    def _refuse_unpriced(self, who: str, row: Row) -> None:
        if row["unpriced"]:
            raise _Unknown(f"requests of {who} without a known price: {number(row['unpriced'])}")
        if not row["requests"]:
            raise _Unknown(f"no request of {who} counts")

    def _rate(self, name: str, limit: Limit) -> _Measured:
        parts = ("read_tokens", "creation_tokens") if name == "cacheable_hit_rate" else ("read_tokens", "prompt_tokens")
        text = CHECKS[f"min_{name}"].text
        if limit.relative and self.classes is not None:
            rates = []
            for side in "ba":
                read, other = (self._common(part, side) or 0 for part in parts)
                rates.append(_share(read, read + other if name == "cacheable_hit_rate" else other))
            return _Measured(rates[0], rates[1], "share", f"{text}, {self._both_bill()}")
        shares = [None if row is None or row[name] is None else _rate_of(row, name) for row in (self.totals, self.base)]
        return _Measured(
            shares[0], shares[1] if limit.relative else None, "share", f"{text}, {self._tokens(self.totals)}"
        )

    def _uncached(self, limit: Limit) -> _Measured:
        run, base = self.totals, self.base
        if not limit.relative:
            of = f"of {number(run['prompt_tokens'])} prompt tokens"
            if limit.percent:
                return _Measured(_share(run["uncached_tokens"], run["prompt_tokens"]), None, "share", f"uncached {of}")
            return _Measured(Decimal(run["uncached_tokens"]), None, "tokens", f"uncached {of}")
        assert base is not None
        if self.classes is not None:
            sums = [
                self._common("prompt_tokens", s) - self._common("read_tokens", s) - self._common("creation_tokens", s)
                if self._common("prompt_tokens", s) is not None else None
                for s in "ba"
            ]  # fmt: skip
            run_sum, base_sum = (None if value is None else Decimal(value) for value in sums)
            return _Measured(run_sum, base_sum, "tokens", f"uncached {self._both_bill()}")
        if not limit.percent:
            raise _Unknown(f"{limit.text} tokens, but the baseline has other requests: give a percentage")
        shares = [_share(row["uncached_tokens"], row["prompt_tokens"]) for row in (run, base)]
        detail = f"uncached / prompt tokens, for the baseline has other requests ({self._volumes()})"
        return _Measured(shares[0], shares[1], "share", detail)

    def _rejected(self, limit: Limit) -> _Measured:
        run, base = self.totals, self.base
        count = run["requests_rejected"]
        whole = run["requests"] + run["requests_failed"] + count
        if limit.relative:
            assert base is not None
            if self.classes is None:
                raise _Unknown("the baseline has other requests: give a number or a share without a sign")
            return _Measured(
                Decimal(count), Decimal(base["requests_rejected"]), "requests", f"rejected of {number(whole)}"
            )
        if limit.percent:
            return _Measured(_share(count, whole), None, "share", f"rejected of {number(whole)} requests")
        return _Measured(Decimal(count), None, "requests", f"rejected of {number(whole)} requests")

    def _changed(self, limit: Limit) -> _Measured:
        if self.classes is None:
            raise _Unknown("the baseline has other requests, which cannot be told apart one by one")
        changed = sum(row["requests"] for row in self.classes if is_changed(row))
        whole = sum(row["requests"] for row in self.classes)
        detail = f"changed class, of {number(whole)} successful requests"
        if limit.percent:
            return _Measured(_share(changed, whole), None, "share", detail)
        return _Measured(Decimal(changed), None, "requests", detail)

    def _requests(self, row: Row) -> str:
        local = row["prompt_estimated_requests"]
        return f"{number(row['requests'])} requests" + (f", {number(local)} of them counted locally" if local else "")

    def _tokens(self, row: Row) -> str:
        return f"over {number(row['prompt_tokens'])} prompt tokens of {self._requests(row)}"

    def _volumes(self) -> str:
        base = self.base or {}
        return f"{number(base['prompt_tokens'])} prompt tokens there, {number(self.totals['prompt_tokens'])} here"


def _share(part: int, whole: int) -> Decimal | None:
    """part / whole, rounded half to even to 12 decimals."""
    return ratio(Decimal(part), whole)


def _rate_of(row: Row, name: str) -> Decimal | None:
    """A rate of a report row, from its tokens: a float would not do beside an exact limit."""
    read = row["read_tokens"]
    if name == "token_hit_rate":
        return _share(read, row["prompt_tokens"])
    return _share(read, read + sum(row[f"creation_{tier}_tokens"] for tier in ("5m", "1h", "24h")))


def _totals(con: duckdb.DuckDBPyConnection, side: Side) -> Row:
    found = dict(variant_rows(con, side.run_no, [], Filters(policies=(side.policy,), tariffs=(side.tariff,))))
    return found[side.variant_no]


def _is_estimated(con: duckdb.DuckDBPyConnection, side: Side) -> bool:
    """Counted with the embedded tokenizer: floors, and so reads and creations, are decided by estimates."""
    sql = "SELECT 1 FROM trace_tokenizers WHERE trace_no = ? AND NOT exact LIMIT 1"
    return con.execute(sql, [side.trace_no]).fetchone() is not None


def _lacks_completions(con: duckdb.DuckDBPyConnection, side: Side) -> bool:
    """Completions that nobody reported are billed as 0: the cost is only known to be no less."""
    row = con.execute("SELECT facts FROM traces WHERE trace_no = ?", [side.trace_no]).fetchone()
    return row is not None and json.loads(row[0]).get("completion_unknown", 0) > 0


def verdict(checks: Sequence[Check]) -> Result:
    """fail if any check fails, which is certain whatever else is unknown; else not_evaluated if any is; else pass."""
    results = [check.result for check in checks]
    return "fail" if "fail" in results else "not_evaluated" if "not_evaluated" in results else "pass"
