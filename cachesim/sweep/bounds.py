"""The bounds of a sweep: `off` reads nothing, `ideal` every prefix that was ever seen before in its scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachesim.core import kernel as core_kernel
from cachesim.sweep.accounts import Groups
from cachesim.sweep.columns import Forest, Prompts, Requests
from cachesim.sweep.engine import Counted, order_events
from cachesim.sweep.kernels import compiled_ideal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]


def ideal_tokens(requests: Requests, forest: Forest, prompts: Prompts, *, compiled: bool) -> Ints:
    """Per request the tokens of its longest prefix that an earlier completed successful one of its scope contained."""
    import numpy as np

    state = np.array([key.body_state == "ok" for key in requests.keys], bool)
    scoped = (requests.scope >= 0) & (prompts.end >= 0)
    if len(requests):
        scoped &= state[requests.key]
    tokenizer = np.array([t for _, _, t in requests.scopes], np.int64)
    best = np.zeros(len(requests), np.int64)
    for number, cumulative in enumerate(forest.cumulative):
        rows = np.flatnonzero(scoped)
        rows = rows[tokenizer[requests.scope[rows]] == number]
        rows = rows[np.lexsort((rows, requests.scope[rows]))]
        best[rows] = _ideal(requests, forest, prompts, rows, cumulative, compiled=compiled)
    return best


def _ideal(
    requests: Requests, forest: Forest, prompts: Prompts, rows: Ints, cumulative: Ints, *, compiled: bool
) -> Ints:
    import numpy as np

    scope = requests.scope[rows]
    events, _ = order_events(scope, requests.at[rows], requests.done[rows], requests.succeeded[rows])
    given: list[Any] = [events, scope + 1, prompts.end[rows], cumulative, forest.parents, forest.prefixes]
    if compiled:
        seen, walked = np.zeros((2, len(forest.parents)), np.int64)
        best = np.zeros(len(rows), np.int64)
        compiled_ideal()(*given, seen, walked, best)
        return best
    answer = [0] * len(rows)
    lists: list[Any] = [*(column.tolist() for column in given), *([0] * len(forest.parents) for _ in range(2)), answer]
    core_kernel.ideal(*lists)
    return np.array(answer, np.int64)


def bound_cells(requests: Requests, groups: Groups, counted: Counted, read: Ints) -> dict[str, Ints]:
    """The cells of a bound that reads `read` tokens of each request, at most its prompt, and creates nothing."""
    import numpy as np

    served = np.minimum(read, np.maximum(requests.prompt, 0))
    tokens = groups.total(counted.billed, served)
    return {
        **counted.cells,
        "read": tokens,
        "requests_read": groups.total(counted.billed & (served > 0)),
        "uncached": counted.cells["prompt"] - tokens,
    }
