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
from cachesim.conformance.pricing import run_pricing_case
from cachesim.conformance.scenarios import run_classify
from cachesim.core.model import BadLine
from cachesim.errors import InputError, NothingUsable
from cachesim.trace.open import find_sources

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


def run_files(paths: Sequence[str], limit_differences: int = 10) -> ConformanceResult:
    """Run every case of the files (JSON Lines, compressed or not). Raises InputError for what are no golden cases."""
    result = ConformanceResult()
    for source in find_sources(paths)[0]:
        for item in source.lines():
            if isinstance(item, BadLine):
                raise InputError(f"{source.name}:{item.line}: {item.message}; expected golden cases")
            number, _, line = item
            if line.strip():
                _count(result, _parse(line, f"{source.name}:{number}"), line, limit_differences)
    if not result.passed + result.failed + result.skipped:
        raise NothingUsable("no golden case found; expected JSON Lines like those in fixtures/golden")
    return result


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        case = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error}); expected a golden case") from None
    if not isinstance(case, dict) or not {"id", "expect"} <= case.keys():
        raise InputError(f"{where}: not a golden case; expected an object with `id` and `expect`")
    return case


def _count(result: ConformanceResult, case: dict[str, Any], line: bytes, limit: int) -> None:
    difference = run_case(case, line)
    if difference is None:
        result.passed += 1
    elif SKIPPABLE.intersection(case.get("tags", ())):
        result.skipped += 1
    else:
        result.failed += 1
        if len(result.differences) < limit:
            result.differences.append(f"{case['id']}: {difference}")
