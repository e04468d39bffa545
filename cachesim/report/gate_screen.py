"""What people see of a gate: the verdict, then one line a check with what was measured, against what, and of what."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from cachesim.report.formats import clean
from cachesim.report.gate import CHECKS, Check, verdict
from cachesim.report.render import say
from cachesim.report.tables import NONE, change_decimals, frame, money, number, percent

if TYPE_CHECKING:
    from rich.console import Console

    from cachesim.report.compare import Side

_MOST_DIGITS: Final = 12
_WORDS: Final = {"pass": "pass", "fail": "FAIL", "not_evaluated": "unknown"}
_STYLES: Final = {"pass": "green", "fail": "bold red", "not_evaluated": "yellow"}


def print_checks(console: Console, checks: Sequence[Check], side: Side, base: Side | None) -> None:
    """The verdict in one sentence, what was checked, and a table of the checks."""
    from rich.text import Text

    say(console, _sentence(checks), "bold")
    console.print()
    for label, found in (("run", side), ("baseline", base)):
        if found is not None:
            say(console, f"{label:<8}  {found.run_no} · {clean(found.policy)} · tariff {clean(found.tariff)}")
    console.print()
    out = frame()
    out.add_column("check", no_wrap=True)
    out.add_column("")
    for head in ("measured", "limit", "baseline"):
        out.add_column(head, justify="right", no_wrap=True)
    out.add_column("of what", overflow="fold")
    for check in checks:
        name = f"{check.check.replace('_', ' ')} {check.given}"
        word = Text(_WORDS[check.result], style=_STYLES[check.result])
        out.add_row(Text(name), word, *map(Text, _figures(check)), Text(check.detail))
    console.print(out)


def _sentence(checks: Sequence[Check]) -> str:
    count = len(checks)
    names = {result: [c.check.replace("_", " ") for c in checks if c.result == result] for result in _WORDS}
    failed, unknown = names["fail"], names["not_evaluated"]
    match verdict(checks):
        case "pass":
            return f"Passed: {number(count)} of {number(count)} checks."
        case "fail":
            rest = f"; {', '.join(unknown)} could not be evaluated" if unknown else ""
            return f"Failed: {', '.join(failed)} ({number(len(failed))} of {number(count)} checks){rest}."
        case _:
            return f"Not evaluated: {', '.join(unknown)} ({number(len(unknown))} of {number(count)} checks)."


def _figures(check: Check) -> list[str]:
    """Measured, limit with its direction, and baseline, as people read them."""
    sign = "≥ " if CHECKS[check.check].least else "≤ "
    known = [None if text is None else Decimal(text) for text in (check.measured, check.limit, check.baseline)]
    measured, limit, _ = known
    decimals = change_decimals(known, [measured - limit] if measured is not None and limit is not None else [])
    for more in range(_MOST_DIGITS):
        texts = [NONE if v is None else _text(v, check.unit, decimals + more, 1 + more) for v in known]
        if measured == limit or texts[0] != texts[1]:  # what fails must not look equal
            break
    return [texts[0], texts[1] if limit is None else f"{sign}{texts[1]}", texts[2]]


def _text(value: Decimal, unit: str, decimals: int, percent_decimals: int) -> str:
    if unit.startswith("money"):
        return money(value, decimals)
    if unit == "share":
        return percent(float(value)) if percent_decimals == 1 else f"{100 * value:.{percent_decimals}f} %"
    return number(int(value)) if value == value.to_integral_value() else f"{value:,.1f}"
