"""Where breakpoints are and what they look up, for all requests at once: what any number of variants then share.

A layout belongs to one body rule set, one way to place and judge markers, and one set of enablement windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachesim.core.blocks import KINDS, TOOL_DEFINITION
from cachesim.sweep.columns import Forest, Prompts, Requests, offsets
from cachesim.sweep.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

STABLE: Final = (KINDS.index("system"), TOOL_DEFINITION)
"""Breakpoints that close one of these are the stable beginning of a prompt."""
LAYOUT_MARKS: Final = 100_000
"""Breakpoints laid out at a time, or as many as the largest scope has."""
_FAR: Final = 16


@dataclass(slots=True)
class Layout:
    """Some scopes' requests that reach the cache, in order of scope and arrival, which all other arrays are in.

    asked: their places in the trace. Marks of request n: mark_from[n] to mark_from[n + 1], in block order: entry,
    cumulative tokens, tier as marked, and stable (1: closes a tool definition or system block). Look-ups of request n
    likewise, deepest first, see `cachesim.core.kernel.Shard`. Entries are numbered in order of scope.
    one_count: every entry has one token count wherever it is met, so a stored count never differs from the own one.
    """

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
    one_count: bool

    @property
    def deepest_tokens(self) -> Ints:
        """Tokens up to the deepest breakpoint of each request: what is compared with the floor."""
        return self.mark_tokens[self.mark_from[1:] - 1]


def layouts(
    requests: Requests, forest: Forest, prompts: Prompts, placed: Placement, *, collapse: bool, walk_back: int
) -> Iterator[Layout]:
    """The layout of all placed breakpoints, some whole scopes at a time, so that memory does not grow with the log.

    walk_back: the longest that will be asked for; collapse: a run of tool blocks is one walk-back position.
    """
    import numpy as np

    scope = requests.scope[placed.row]
    ends = [*np.flatnonzero(np.diff(scope)).tolist(), len(scope) - 1]
    first = 0
    for end in ends:
        if end + 1 - first >= LAYOUT_MARKS or end == len(scope) - 1:
            if end >= first:
                yield _lay_out(requests, forest, prompts, placed, slice(first, end + 1), collapse, walk_back)
            first = end + 1


def _lay_out(
    requests: Requests,
    forest: Forest,
    prompts: Prompts,
    placed: Placement,
    marks: slice,
    collapse: bool,
    walk_back: int,
) -> Layout:
    import numpy as np

    row, block = placed.row[marks], placed.block[marks]
    new = np.diff(row, prepend=-1) != 0  # every request's marks stand together
    owner = np.cumsum(new) - 1
    asked = row[new]
    scope = requests.scope[asked]
    mark_from = offsets(np.bincount(owner))
    node = _ancestors(forest.parents, prompts.end[row], prompts.count[row] - 1 - block)
    tokens = _Tokens(forest, np.array([t for _, _, t in requests.scopes], np.int64)[scope])
    keys = scope[owner] * len(forest.parents) + forest.prefixes[node]
    entries, first, entry = np.unique(keys, return_index=True, return_inverse=True)  # the first: the earliest request
    mark_tokens = tokens(owner, node)
    look = _look_ups(forest, forest.positions(collapse), mark_from, node, walk_back)
    look_key = scope[look.owner] * len(forest.parents) + forest.prefixes[look.node]
    found = np.minimum(np.searchsorted(entries, look_key), len(entries) - 1)
    # Only what an earlier request of the scope had as a breakpoint can be found.
    useful = (entries[found] == look_key) & (owner[first[found]] < look.owner)
    look_entry, look_tokens = found[useful], tokens(look.owner[useful], look.node[useful])
    counts = mark_tokens[first]
    return Layout(
        asked=asked,
        scope=scope,
        mark_from=mark_from,
        mark_entry=entry,
        mark_tokens=mark_tokens,
        mark_tier=placed.tier[marks],
        mark_stable=np.isin(forest.kinds[node], STABLE).astype(np.int64),
        look_from=offsets(np.bincount(look.owner[useful], minlength=len(asked))),
        look_entry=look_entry,
        look_tokens=look_tokens,
        look_need=look.need[useful],
        look_beyond=look.beyond[useful],
        one_count=bool((mark_tokens == counts[entry]).all() and (look_tokens == counts[look_entry]).all()),
    )


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


def _look_ups(forest: Forest, position: Ints, mark_from: Ints, mark_node: Ints, walk_back: int) -> _LookUps:
    """From each deepest breakpoint upwards, visiting only boundaries that are some request's breakpoint.

    All requests take a step at a time; `mark` is the shallowest breakpoint already passed, whose window counts.
    """
    import numpy as np

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
