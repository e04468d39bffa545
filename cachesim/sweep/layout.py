"""Where breakpoints are and what they look up, for all requests at once: what any number of variants then share.

A layout belongs to one body rule set, one way to place and judge markers, and one set of enablement windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachesim.core.blocks import KINDS, TOOL_DEFINITION
from cachesim.core.gates import REJECTED, Breakpoints, Gated, Gates, Prompt
from cachesim.core.policy import Policy
from cachesim.sweep.columns import Forest, Prompts, Requests, offsets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

STABLE: Final = (KINDS.index("system"), TOOL_DEFINITION)
"""Breakpoints that close one of these are the stable beginning of a prompt."""
_FAR: Final = 16


@dataclass(slots=True)
class Layout:
    """The requests that reach the cache, in order of scope and arrival, and which others are rejected.

    rejected: by request of the trace; asked: positions in the trace of the requests that reach the cache, the order
    all other arrays are in. Marks of request n: mark_from[n] to mark_from[n + 1], in block order: entry, cumulative
    tokens, tier as marked, and stable (1: closes a tool definition or system block). Look-ups of request n likewise,
    deepest first, see `cachesim.core.kernel.Shard`. entries: how many there are, numbered in order of scope.
    one_count: every entry has one token count wherever it is met, so a stored count never differs from the own one.
    """

    rejected: Flags
    asked: Ints
    scope: Ints
    mark_from: Ints
    mark_entry: Ints
    mark_tokens: Ints
    mark_tier: Ints
    mark_stable: Ints
    look_from: Ints
    look_entry: Ints
    look_tokens: Ints
    look_need: Ints
    look_beyond: Ints
    entries: int
    one_count: bool

    @property
    def deepest_tokens(self) -> Ints:
        """Tokens up to the deepest breakpoint of each request: what is compared with the floor."""
        return self.mark_tokens[self.mark_from[1:] - 1]


def lay_out(
    requests: Requests, forest: Forest, prompts: Prompts, gates: Gates, enabled: Flags, walk_back: int
) -> Layout:
    """The layout under `gates`; enabled: the model has a cache tariff at the request's arrival; walk_back: the longest
    that will be asked for."""
    import numpy as np

    rejected, row, block, tier = _breakpoints(requests, prompts, gates, enabled)
    # From here on requests are numbered in order of scope and arrival, those without breakpoints left out.
    asked = np.unique(row)
    asked = asked[np.lexsort((asked, requests.scope[asked]))]
    number = np.full(len(requests), -1, np.int64)
    number[asked] = np.arange(len(asked))
    order = np.lexsort((block, number[row]))
    row, block, tier = row[order], block[order], tier[order]
    owner = number[row]
    mark_from = offsets(np.bincount(owner, minlength=len(asked)))
    node = _ancestors(forest.parents, prompts.end[row], prompts.count[row] - 1 - block)
    scope = requests.scope[asked]
    tokens = _Tokens(forest, np.array([t for _, _, t in requests.scopes], np.int64)[scope])
    keys = scope[owner] * len(forest.parents) + forest.prefixes[node]
    entries, first, entry = np.unique(keys, return_index=True, return_inverse=True)  # the first: the earliest request
    mark_tokens = tokens(owner, node)
    look = _look_ups(forest, gates.policy, mark_from, node, walk_back)
    look_key = scope[look.owner] * len(forest.parents) + forest.prefixes[look.node]
    place = np.minimum(np.searchsorted(entries, look_key), max(len(entries) - 1, 0))
    # Only what an earlier request of the scope had as a breakpoint can be found.
    useful = (entries[place] == look_key) & (owner[first[place]] < look.owner) if len(entries) else look_key >= 0
    look_tokens = tokens(look.owner[useful], look.node[useful])
    return Layout(
        rejected=rejected,
        asked=asked,
        scope=scope,
        mark_from=mark_from,
        mark_entry=entry,
        mark_tokens=mark_tokens,
        mark_tier=tier,
        mark_stable=np.isin(forest.kinds[node], STABLE).astype(np.int64),
        look_from=offsets(np.bincount(look.owner[useful], minlength=len(asked))),
        look_entry=place[useful],
        look_tokens=look_tokens,
        look_need=look.need[useful],
        look_beyond=look.beyond[useful],
        entries=len(entries),
        one_count=bool(
            (mark_tokens == mark_tokens[first][entry]).all()
            and (look_tokens == mark_tokens[first][place[useful]]).all()
        ),
    )


def _breakpoints(requests: Requests, prompts: Prompts, gates: Gates, enabled: Flags) -> tuple[Flags, Ints, Ints, Ints]:
    """Which requests are rejected, and every breakpoint as (request, block, tier), in no order.

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
    return rejected, row, block, tier


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


def _ancestors(parents: Ints, nodes: Ints, steps: Ints) -> Ints:
    """The node `steps` boundaries before each of `nodes`; long ways in strides."""
    import numpy as np

    far = np.arange(len(parents), dtype=np.int64)
    for _ in range(_FAR):
        far = np.where(far >= 0, parents[far], -1)
    node, left = nodes.copy(), steps.copy()
    for table, stride in ((far, _FAR), (parents, 1)):
        while (going := left >= stride).any():
            node[going] = table[node[going]]
            left[going] -= stride
    return node


@dataclass(slots=True)
class _LookUps:
    """Boundaries looked up: request, node, the least walk-back that reaches it, and how many breakpoints lie deeper."""

    owner: Ints
    node: Ints
    need: Ints
    beyond: Ints


def _look_ups(forest: Forest, policy: Policy, mark_from: Ints, mark_node: Ints, walk_back: int) -> _LookUps:
    """From each deepest breakpoint upwards, visiting only boundaries that are some request's breakpoint.

    All requests take a step at a time; `mark` is the shallowest breakpoint already passed, whose window counts.
    """
    import numpy as np

    position = forest.positions(policy.collapse_tool_runs)
    nearest = _nearest(forest, mark_node)
    first, mark = mark_from[:-1], mark_from[1:] - 1
    node = mark_node[mark]
    owner = np.arange(len(mark))
    steps: list[tuple[Ints, Ints, Ints, Ints]] = []
    while len(owner):
        above = mark - 1
        mark = np.where((mark > first) & (mark_node[above] == node), above, mark)
        need = position[mark_node[mark]] - position[node] + 1
        beyond = mark_from[owner + 1] - mark - (mark_node[mark] == node)
        seen = need <= walk_back
        steps.append((owner[seen], node[seen], need[seen], beyond[seen]))
        parent = forest.parents[node]
        upper = np.where(parent >= 0, nearest[parent], -1)
        out = (upper < 0) | (position[mark_node[mark]] - position[upper] + 1 > walk_back)
        # Beyond this window: on to the next breakpoint, if there is one.
        upper = np.where(out, np.where(mark > first, mark_node[mark - 1], -1), upper)
        on = upper >= 0
        owner, node, mark, first = owner[on], upper[on], mark[on], first[on]
    columns = [np.concatenate(c) for c in zip(*steps, strict=True)] if steps else [mark_from[:0]] * 4
    order = np.argsort(columns[0], kind="stable")
    return _LookUps(*(column[order] for column in columns))


def _nearest(forest: Forest, mark_node: Ints) -> Ints:
    """For each node the deepest boundary up to it that is somebody's breakpoint, -1 if there is none."""
    import numpy as np

    marked = np.zeros(len(forest.parents), bool)
    marked[forest.prefixes[mark_node]] = True
    ends = marked[forest.prefixes]
    link = np.where(ends, np.arange(len(ends)), forest.parents)
    while (going := (link >= 0) & ~ends[link]).any():
        link[going] = link[link[going]]
    return link


class _Tokens:
    """Cumulative tokens of nodes, each counted with its request's own tokenizer."""

    def __init__(self, forest: Forest, tokenizer: Ints) -> None:
        self._forest = forest
        self._tokenizer = tokenizer

    def __call__(self, owner: Ints, node: Ints) -> Ints:
        import numpy as np

        found = np.zeros(len(node), np.int64)
        used = self._tokenizer[owner]
        for number, cumulative in enumerate(self._forest.cumulative):
            own = used == number
            found[own] = cumulative[node[own]]
        return found
