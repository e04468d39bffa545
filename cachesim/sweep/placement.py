"""Which requests reach the cache and with which breakpoints: the gates, asked once for all requests that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachesim.core.gates import REJECTED, Breakpoints, Gated, Gates, Prompt
from cachesim.sweep.columns import Prompts, Requests, offsets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]


@dataclass(slots=True)
class Placement:
    """rejected: by request of the trace; the breakpoints as parallel arrays, in order of scope, arrival and block.

    row: the request, by its place in the trace; block; tier as marked.
    """

    rejected: Flags
    row: Ints
    block: Ints
    tier: Ints


def place_marks(requests: Requests, prompts: Prompts, gates: Gates, enabled: Flags) -> Placement:
    """Every breakpoint under `gates`; enabled: the model has a cache tariff at the request's arrival.

    Requests whose gates must decide alike are asked about once, through a small prompt that stands for all of them.
    """
    import numpy as np

    captured = gates.strategy.name == "as-captured"
    last = prompts.count - 1
    if captured:
        marks = np.diff(prompts.mark_from)
        at_end = np.zeros(len(requests), bool)
        some = marks > 0
        at_end[some] = prompts.blocks[prompts.mark_from[1:][some] - 1] == last[some]
        shape = [prompts.facts, prompts.automatic, at_end, last < 0]
    else:
        places = [prompts.last_tool, prompts.last_system, prompts.last_user, last]
        # A place is coded by how many places lie before it: order and coincidences stay, numbers become small.
        codes = [sum(((p >= 0) & (p < place)).astype(np.int64) for p in places) for place in places]
        shape = [np.where(place >= 0, code, -1) for place, code in zip(places, codes, strict=True)]
    states = [(k.body_state, k.query_marker, k.model is None, k.principal is None, k.tokenizer is None)
              for k in requests.keys]  # fmt: skip
    numbers = {state: number for number, state in enumerate(dict.fromkeys(states))}
    state = np.array([numbers[s] for s in states], np.int64)[requests.key] if states else requests.key
    kinds = np.zeros(len(requests), np.int64)
    for column in (state, enabled, prompts.ingress_error, *shape):
        values = np.asarray(column, np.int64) + 1
        kinds = kinds * (int(values.max(initial=0)) + 1) + values
    _, example, inverse = np.unique(kinds, return_index=True, return_inverse=True)
    by_shape = np.argsort(inverse, kind="stable")
    ends = offsets(np.bincount(inverse, minlength=len(example)))
    rejected = np.zeros(len(requests), bool)
    found: list[tuple[Ints, Ints, Ints]] = [(by_shape[:0], by_shape[:0], by_shape[:0])]
    for number, one in enumerate(example):
        rows = by_shape[ends[number] : ends[number + 1]]
        code = [int(column[one]) for column in shape]
        prompt = _captured(prompts, code) if captured else _placed(code)
        if prompts.ingress_error[one]:
            prompt = prompt._replace(ingress_error="error")
        key = requests.keys[requests.key[one]]
        result = gates.check(
            prompt,
            key.body_state,
            key.query_marker,
            key.model,
            key.principal is not None,
            bool(enabled[one]),
            key.tokenizer is not None,
        )
        if isinstance(result, Gated):
            rejected[rows] = result.outcome == REJECTED
        else:
            found += _expand(result, rows, prompts, code, captured)
    row, block, tier = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((block, row, requests.scope[row]))
    return Placement(rejected, row[order], block[order], tier[order])


def _captured(prompts: Prompts, code: list[int]) -> Prompt:
    """Marker i stands at block i, the last block (if unmarked) right after them, as in `Gates`."""
    facts_no, automatic, at_end, empty = code
    facts = prompts.fact_tuples[facts_no]
    count = 0 if empty else len(facts) + (not at_end)
    return Prompt(count - 1, count, tuple(range(len(facts))), facts, automatic, -1, -1, -1, None)


def _placed(code: list[int]) -> Prompt:
    tool, system, user, last = code
    return Prompt(last, last + 1, (), (), -1, user, system, tool, None)


def _expand(
    marks: Breakpoints, rows: Ints, prompts: Prompts, code: list[int], captured: bool
) -> list[tuple[Ints, Ints, Ints]]:
    """The breakpoints of the small prompt, as blocks of each real one."""
    import numpy as np

    last = prompts.count[rows] - 1
    found = []
    for place, tier in marks:
        if captured:
            known = len(prompts.fact_tuples[code[0]])
            block = prompts.blocks[prompts.mark_from[rows] + place] if place < known else last
        else:
            columns = (prompts.last_tool, prompts.last_system, prompts.last_user, prompts.count - 1)
            block = next(column[rows] for column, value in zip(columns, code, strict=True) if value == place)
        found.append((rows, block, np.full(len(rows), tier, np.int64)))
    return found
