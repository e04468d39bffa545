"""Golden cases of the real upstream classifier, run through the code that replays logs: the proof of fidelity.

A case names its kind and version in its id: canon/…, p863/… and p1013/… (parse), c863/… and c1013/… (classify),
price/… and price863/…. Cases tagged `extreme` or `rawvalue` are beyond what an upstream customer meets: they may be
skipped, and are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from cachesim.conformance.bodies import run_canon, run_parse
from cachesim.conformance_pricing import run_pricing_case
from cachesim.conformance.scenarios import run_classify
from cachesim.errors import InputError, NothingUsable


SKIPPABLE: Final = frozenset({"extreme", "rawvalue"})


@dataclass(slots=True)
class ConformanceResult:
    """How many cases passed, failed and were skipped; the first differences in words."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    differences: list[str] = field(default_factory=list)


_RUNNERS: Final[dict[str, Callable[[Mapping[str, Any], bytes], str | None]]] = {
    "canon": lambda case, _: run_canon(case),
    "p863": lambda case, _: run_parse(case, old=True),
    "p1013": lambda case, _: run_parse(case, old=False),
    "c863": lambda case, raw: run_classify(case, raw, old=True),
    "c1013": lambda case, raw: run_classify(case, raw, old=False),
    "price": lambda case, _: run_pricing_case(case),
    "price863": lambda case, _: run_pricing_case(case),
}


def run_case(case: Mapping[str, Any], raw: bytes) -> str | None:
    """None if the case passes, else what differs. `raw` is the case's own line: bodies are taken from it verbatim."""
    kind = str(case["id"]).partition("/")[0]
    if kind not in _RUNNERS:
        raise InputError(f"{case['id']}: unknown kind of case, expected one of {', '.join(sorted(_RUNNERS))}")
    return _RUNNERS[kind](case, raw)
