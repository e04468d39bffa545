"""What changes if local counts are off: the first policy replayed beside itself with every count moved by ±5 %.

Only what is counted locally moves: the tokens up to each block boundary, and a request's prompt tokens where the log
reports none. Reported prompt tokens and completions stay. Each total is rounded on its own, half up, so an error never
adds up along a prompt, counts never fall from one boundary to the next, and equal prefixes keep equal counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from cachesim.core.calibration import ScaledCounts, scaled
from cachesim.core.gates import REJECTED
from cachesim.core.pricing import BilledSplit
from cachesim.index.memory import MemoryIndex
from cachesim.replay import Classified, InFlight, Lane
from cachesim.store.db import insert_frame
from cachesim.store.trace_reader import TraceRow
from cachesim.store.traces import PreparedTrace

if TYPE_CHECKING:
    import duckdb

UNMOVED: Final = 100
PERCENTS: Final = (95, 105)
"""The moved counts, in percent of the counts."""

Answers = tuple[Sequence[Classified], Sequence[BilledSplit]]
"""What a lane says of some requests, and what is billed of each."""

Key = tuple[int, int, str | None, int | None]
"""What is summed by: variant, percent, model and price number."""

_CELLS: Final = (
    "requests", "asked", "below_floor", "requests_read", "prompt", "read", "c5", "c1", "c24", "uncached", "completion",
    "changed", "floor_up", "floor_down",
)  # fmt: skip
"""The sums of table `sensitivity`, where they are defined."""


def moved(tokens: int, percent: int) -> int:
    """A count moved to `percent` of itself, half up: 1,010 at 95 % is 959.5, so 960; at 105 % 1,060.5, so 1,061."""
    return scaled(tokens, percent, UNMOVED)


class Sensitivity:
    """The moved twins of one lane, and the sums of the variants that the lane serves."""

    def __init__(self, lane: Lane, trace: PreparedTrace) -> None:
        self._lane = lane
        self._twins: dict[int, Lane] = {}
        for percent in PERCENTS:
            counts = [ScaledCounts(own, percent, UNMOVED) for own in trace.cumulative]
            self._twins[percent] = Lane(lane.gates, trace, counts, MemoryIndex())
        self._sums: dict[Key, tuple[int, ...]] = {}

    def inherit(self) -> None:
        """Start the twins from what the lane has inherited from another run, its counts moved alike.

        What the floor decided in that run stays decided: whether an entry is there is not asked again.
        """
        index = self._lane.index
        assert isinstance(index, MemoryIndex)
        for percent, twin in self._twins.items():
            own = twin.index
            assert isinstance(own, MemoryIndex)
            for scope, prefix, entry in index.entries():
                own.put(scope, prefix, replace(entry, tokens=moved(entry.tokens, percent)))
            twin.in_flight = [_moved_flight(flight, percent) for flight in self._lane.in_flight]

    def follow(
        self,
        rows: Sequence[TraceRow],
        answers: Answers,
        replay: Callable[[Sequence[TraceRow], Lane], Answers],
        prices: Mapping[int, Sequence[int | None]],
    ) -> None:
        """Let the twins replay what the lane has answered; prices: the price numbers by variant."""
        now, _ = answers
        self._add(UNMOVED, rows, answers, now, prices)
        for percent, twin in self._twins.items():
            own = [
                row._replace(prompt_tokens=moved(row.prompt_tokens, percent))
                if row.prompt_estimated and row.prompt_tokens is not None
                else row
                for row in rows
            ]
            self._add(percent, own, replay(own, twin), now, prices)

    def _add(
        self,
        percent: int,
        rows: Sequence[TraceRow],
        answers: Answers,
        now: Sequence[Classified],
        prices: Mapping[int, Sequence[int | None]],
    ) -> None:
        """Sum up the requests that are billed, by model and price, beside what the lane says `now`."""
        counted = [
            (position, row.request.model, _cells(row, result, split, before))
            for position, (row, result, split, before) in enumerate(zip(rows, *answers, now, strict=True))
            if row.request.succeeded and result.outcome != REJECTED
        ]
        for variant_no, numbers in prices.items():
            cells: dict[Key, list[tuple[int, ...]]] = {}
            for position, model, own in counted:
                cells.setdefault((variant_no, percent, model, numbers[position]), []).append(own)
            for key, of_requests in cells.items():
                so_far = self._sums.get(key, (0,) * len(_CELLS))
                self._sums[key] = tuple(map(sum, zip(so_far, *of_requests, strict=True)))

    def store(self, con: duckdb.DuckDBPyConnection, run_no: int) -> None:
        """Write the sums inside the caller's transaction."""
        names = ("variant_no", "percent", "model", "price_no", *_CELLS)
        rows = [(*key, *sums) for key, sums in self._sums.items()]
        if rows:
            columns: dict[str, Sequence[Any]] = dict(zip(names, zip(*rows, strict=True), strict=True))
            insert_frame(con, "sensitivity", {"run_no": [run_no] * len(rows), **columns})


def _cells(row: TraceRow, result: Classified, split: BilledSplit, before: Classified) -> tuple[int, ...]:
    below = result.classification is not None and result.classification.below_floor
    was_below = before.classification is not None and before.classification.below_floor
    read, c5, c1, c24, uncached, _ = split
    return (
        1,
        result.classification is not None,
        below,
        read > 0,
        row.prompt_tokens or 0,
        read,
        c5,
        c1,
        c24,
        uncached,
        row.completion_tokens,
        (result.outcome, result.reason) != (before.outcome, before.reason),
        was_below and not below,
        below and not was_below,
    )


def _moved_flight(flight: InFlight, percent: int) -> InFlight:
    writes = tuple(replace(write, tokens=moved(write.tokens, percent)) for write in flight.result.writes)
    return replace(flight, result=replace(flight.result, writes=writes))
