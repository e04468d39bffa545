"""Runs every variant of a sweep over a trace in columns, shard by shard; variants that behave alike only once.

State belongs to a scope, so any cut between scopes is exact. Within a shard two floors behave alike if no prompt's
token count lies between them, two walk-backs if no look-up does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachesim.core.gates import Gates
from cachesim.core.kernel import CELLS, WIDTH, Knobs, Shard
from cachesim.core.markers import MarkerFact
from cachesim.core.policy import BodyRules, Policy
from cachesim.sweep.accounts import Groups, floors, near_floor, static_cells
from cachesim.sweep.columns import Forest, Prompts, Requests
from cachesim.sweep.kernels import Kernel, Task
from cachesim.sweep.layout import Layout, layouts
from cachesim.sweep.placement import place_marks
from cachesim.sweep.points import FAR_WALK_BACK, Point

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

SHARD_REQUESTS: Final = 4096
"""Small scopes are put together up to this many requests, so that a call is worth its cost."""
BATCH_CELLS: Final = 8_000_000
"""Variants × groups × cells held in memory at a time (8 bytes each)."""

Progress = Callable[[int], None]


class Timing(NamedTuple):
    """When commits of a layout happen: events in order, the cut before each scope, commit times, and who commits."""

    events: Ints
    cuts: Ints
    done: Ints
    commits: Ints


class Simulation(NamedTuple):
    """What the kernel is told of a variant: equal for variants that differ in their prices only."""

    early: bool
    override: bool
    knobs: Knobs


@dataclass(slots=True)
class Counted:
    """What no variant of a layout changes: which requests are billed, and the cells of `static_cells`."""

    billed: Flags
    cells: dict[str, Ints]


@dataclass(slots=True)
class Answer:
    """The summed cells of one variant, for the groups from `first_group` on."""

    place: int
    first_group: int
    cells: dict[str, Ints]


class Engine:
    """A trace in memory, and the variants to run over it."""

    def __init__(
        self,
        requests: Requests,
        forest: Forest,
        prompts: Callable[[BodyRules], Prompts],
        facts: Sequence[MarkerFact],
        groups: Groups,
        kernel: Kernel,
    ) -> None:
        self.requests = requests
        self.forest = forest
        self.groups = groups
        self._prompts = prompts
        self._facts = facts
        self._kernel = kernel
        self._end_us = int(requests.at[-1]) if len(requests) else 0
        self._counted: dict[Hashable, Counted] = {}

    def run(self, points: Sequence[Point], progress: Progress) -> Iterator[Answer]:
        """The answers of all points, some groups at a time; progress is told requests × variants done."""
        by_layout: dict[Hashable, list[int]] = {}
        for place, point in enumerate(points):
            by_layout.setdefault(_layout_key(point), []).append(place)
        for places in by_layout.values():
            yield from self._run_layout([(place, points[place]) for place in places], progress)

    def counted(self, point: Point) -> Counted:
        """What every variant of a point's layout has in common; `run` has met the point before."""
        return self._counted[_layout_key(point)]

    def _run_layout(self, points: Sequence[tuple[int, Point]], progress: Progress) -> Iterator[Answer]:
        first = points[0][1]
        floor = floors(self.requests, first.tariff)
        gates = Gates(first.policy, first.strategy, self._facts)
        placed = place_marks(self.requests, self._prompts(first.policy.body_rules), gates, floor >= 0)
        static = static_cells(self.requests, self.groups, placed)
        billed = self.requests.succeeded & ~placed.rejected
        self._counted[_layout_key(first)] = Counted(billed, static)
        wanted: dict[Simulation, list[tuple[int, Point]]] = {}
        for number, point in points:
            early = point.policy.visible_at != "completion"
            simulation = Simulation(early, point.ttl is not None, point.knobs(self._end_us))
            wanted.setdefault(simulation, []).append((number, point))
        order = sorted(wanted, key=lambda s: (s.early, s.override, s.knobs))
        chunks = layouts(
            self.requests,
            self.forest,
            self._prompts(first.policy.body_rules),
            placed,
            collapse=first.policy.collapse_tool_runs,
            walk_back=max(s.knobs.walk_back for s in order),
        )
        for layout, groups in self._with_groups(chunks):
            size = max(1, BATCH_CELLS // (max(groups.stop - groups.start, 1) * WIDTH))
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                sums = self._simulate(layout, floor, batch, groups, progress)
                near = self._near(layout, floor, batch, groups)
                for simulation, table in zip(batch, sums, strict=True):
                    for number, point in wanted[simulation]:
                        cells = {**{name: column[groups] for name, column in static.items()}, **_named(table, point)}
                        cells["near_5"], cells["near_10"] = near[simulation.knobs.floor]
                        cells["uncached"] = cells["prompt"] - sum(cells[n] for n in ("read", "c5", "c1", "c24", "cx"))
                        yield Answer(number, groups.start, cells)

    def _with_groups(self, chunks: Iterable[Layout]) -> Iterator[tuple[Layout | None, slice]]:
        """Each layout with its groups: all from the one before up to those of its last scope; at last what is left."""
        import numpy as np

        first = 0
        for layout in chunks:
            end = int(np.searchsorted(self.groups.scope, layout.scope[-1], side="right"))
            yield layout, slice(first, end)
            first = end
        if first < len(self.groups):
            yield None, slice(first, len(self.groups))

    def _near(
        self, layout: Layout | None, floor: Ints, batch: Sequence[Simulation], groups: slice
    ) -> dict[int, tuple[Ints, Ints]]:
        """By floor, -1 for the tariff's, the requests near it per group: within ±5 %, and ±10 %."""
        import numpy as np

        numbers = {simulation.knobs.floor for simulation in batch}
        if layout is None:
            nothing = np.zeros(groups.stop - groups.start, np.int64)
            return dict.fromkeys(numbers, (nothing, nothing))
        own = floor[layout.asked]
        return {n: near_floor(self.requests, self.groups, layout, own if n < 0 else n, groups) for n in numbers}

    def _simulate(
        self, layout: Layout | None, floor: Ints, batch: Sequence[Simulation], groups: slice, progress: Progress
    ) -> Any:
        """Cells as an array [simulation, group, cell]."""
        import numpy as np

        sums = np.zeros((len(batch), groups.stop - groups.start, WIDTH), np.int64)
        if layout is not None:
            for task, outs in self._kernel.run(self._tasks(layout, floor[layout.asked], batch)):
                first = task.first_group - groups.start
                for out, places in zip(outs, task.owners, strict=True):
                    sums[places, first : first + task.groups] += out.reshape(task.groups, WIDTH)
                    progress(len(places) * len(task.shard.at))
        return sums

    def _tasks(self, layout: Layout, floor: Ints, batch: Sequence[Simulation]) -> Iterator[Task]:
        for early, override in sorted({(s.early, s.override) for s in batch}):
            members = [i for i, s in enumerate(batch) if (s.early, s.override) == (early, override)]
            for shard, entries, groups in self._shards(layout, floor, early, override):
                alike = _alike(shard, [batch[i].knobs for i in members], layout.one_count)
                parts = self._kernel.jobs if len(shard.at) > 4 * SHARD_REQUESTS else 1
                for part in range(min(parts, len(alike))):
                    mine = alike[part::parts]
                    owners = [[members[i] for i in places] for _, places in mine]
                    yield Task(shard, [k for k, _ in mine], entries, groups[0], groups[1] - groups[0], owners)

    def _shards(
        self, layout: Layout, floor: Ints, early: bool, override: bool
    ) -> Iterator[tuple[Shard, int, tuple[int, int]]]:
        """Runs of scopes as (shard, entries, (first group, end)), every number counted from the shard's own 0."""
        import numpy as np

        requests, asked = self.requests, layout.asked
        timing = self._timing(layout, early)
        slot = 1 - layout.mark_stable if override else layout.mark_tier
        starts = np.flatnonzero(np.diff(layout.scope, prepend=-2)) if len(asked) else np.zeros(0, np.int64)
        columns = [
            requests.at[asked],
            timing.done,
            np.maximum(requests.prompt[asked], 0),
            requests.calibrated[asked].astype(np.int64),
            requests.succeeded[asked].astype(np.int64),
            timing.commits,
            self.groups.of[asked],
            floor,
        ]
        for first, end, cut in _runs(starts, len(asked), timing.cuts):
            marks = slice(*layout.mark_from[[first, end]])
            looks = slice(*layout.look_from[[first, end]])
            own = [column[first:end] for column in columns]
            groups = int(own[6].min()), int(own[6].max()) + 1
            own[6] = own[6] - groups[0]
            base = int(layout.mark_entry[marks].min())
            entries = int(layout.mark_entry[marks].max()) + 1 - base
            events = timing.events[cut]
            shared: list[Any] = [
                np.where(events >= 0, events - first, events + first),
                *own,
                layout.mark_from[first : end + 1] - marks.start,
                layout.mark_entry[marks] - base,
                layout.mark_tokens[marks],
                slot[marks],
                layout.look_from[first : end + 1] - looks.start,
                layout.look_entry[looks] - base,
                layout.look_tokens[looks],
                layout.look_need[looks],
                layout.look_beyond[looks],
            ]
            shard = Shard(*shared)
            yield shard, entries, groups

    def _timing(self, layout: Layout, early: bool) -> Timing:
        """Events under `visible_at`; early: a write shows from the arrival on, and for every answer that began."""
        requests, asked = self.requests, layout.asked
        commits = (requests.served if early else requests.succeeded)[asked]
        done = (requests.at if early else requests.done)[asked]
        events, cuts = order_events(layout.scope, requests.at[asked], done, commits)
        return Timing(events, cuts, done, commits.astype("int64"))


def order_events(scope: Ints, at: Ints, done: Ints, commits: Flags) -> tuple[Ints, Ints]:
    """Arrivals (n) and completions (~n) of requests in order of scope and arrival, and the cut after each request.

    A completion comes right before the first later arrival of its scope that is not earlier, among completions by
    time and log order: what `cachesim.replay.Lane` does with its heap. cuts[n]: events up to the end of request n's
    scope if n is its last request.
    """
    import numpy as np

    count = len(scope)
    ends = np.searchsorted(scope, scope, side="right")
    starts = np.searchsorted(scope, scope, side="left")
    place = np.arange(1, count + 1)
    for first in np.unique(starts):
        own = slice(int(first), int(ends[first]))
        place[own] = np.maximum(place[own], first + np.searchsorted(at[own], done[own], side="left"))
    late = np.flatnonzero(commits)
    late = late[np.lexsort((late, done[late], place[late]))]
    # An arrival at place n has key 2n + 1, what completes before it 2n.
    keys = np.concatenate([2 * np.arange(count) + 1, 2 * place[late]])
    order = np.argsort(keys, kind="stable")
    events = np.concatenate([np.arange(count), ~late])[order]
    cuts = np.searchsorted(keys[order], 2 * np.arange(1, count + 1), side="right")
    return events, cuts


def _runs(starts: Ints, count: int, cuts: Ints) -> Iterator[tuple[int, int, slice]]:
    """Runs of whole scopes as (first request, end, their events)."""
    first = 0
    ends = [*starts[1:].tolist(), count] if count else []
    for end in ends:
        if end - first >= SHARD_REQUESTS or end == count:
            yield first, end, slice(int(cuts[first - 1]) if first else 0, int(cuts[end - 1]))
            first = end


def _alike(shard: Shard, knobs: Sequence[Knobs], one_count: bool) -> list[tuple[Knobs, list[int]]]:
    """Variants that cannot differ in this shard, as (one of them, positions of all)."""
    import numpy as np

    tokens, needs = np.unique(np.asarray(shard.mark_tokens)), np.unique(np.asarray(shard.look_need))
    groups: dict[Hashable, tuple[Knobs, list[int]]] = {}
    for place, own in enumerate(knobs):
        # Where one entry can be met with several token counts, what is compared with the floor is not known here.
        floor = int(np.searchsorted(tokens, own.floor)) if own.floor >= 0 and one_count else own.floor
        reach = int(np.searchsorted(needs, own.walk_back, side="right"))
        key = (own.floor >= 0, own._replace(floor=floor, walk_back=reach))
        groups.setdefault(key, (own, []))[1].append(place)
    return list(groups.values())


def _named(table: Ints, point: Point) -> dict[str, Ints]:
    """The kernel's cells of one variant by the names of table `swept`."""
    cells: dict[str, Ints] = {}
    for name in ("c5", "c1", "c24", "cx", "dead_c5", "dead_c1", "dead_c24", "dead_cx"):
        cells[name] = table[:, 0] * 0
    for column, name in enumerate(CELLS):
        prefix, slot, number = name.partition("slot_")
        if slot:
            cell = prefix + point.slot_cells[int(number)]
            cells[cell] = cells[cell] + table[:, column]
        else:
            cells[name] = table[:, column]
    return cells


def _layout_key(point: Point) -> Hashable:
    """Equal for points with the same breakpoints and enablement; a walk-back without an end has its own look-ups."""
    neutral: dict[str, Any] = {
        "name": "", "walk_back": 1, "min_prefix_tokens": None, "tier_seconds": (1, 1, 1), "window": "sliding",
        "refresh": "deepest", "floor_scope": "request", "visible_at": "completion", "billing_rule": "cap",
    }  # fmt: skip
    policy: Policy = replace(point.policy, **neutral)
    return policy, point.strategy, point.tariff.gates_key(), point.policy.walk_back >= FAR_WALK_BACK
