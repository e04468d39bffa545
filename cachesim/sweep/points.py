"""The variants of a sweep: the run's own first ("now"), the grid, and the bounds; and what of each the kernel needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, Final, Literal

from cachesim.core.gates import MarkerStrategy
from cachesim.core.kernel import Knobs
from cachesim.core.ledger import TariffSet
from cachesim.core.policy import TIERS, Policy
from cachesim.errors import UsageError
from cachesim.run import RunPlan, describe_tariff
from cachesim.sweep.grid import Axes, Lifetimes, lifetime_name

MOST_VARIANTS: Final = 20_000
FAR_WALK_BACK: Final = 1_000_000
"""Further than any prompt has blocks."""
_SECOND_US: Final = 1_000_000
_FOREVER_S: Final = 100 * 366 * 86_400
_CELL_OF: Final = dict(zip(TIERS, ("c5", "c1", "c24"), strict=True))
CUSTOM_CELL: Final = "cx"


@dataclass(frozen=True, slots=True)
class Point:
    """One variant: a policy with its rules set, markers, prices, and the lifetime given to every breakpoint.

    kind: policy, or bound for one that is no offer (it has no price); ttl None: as marked.
    """

    kind: Literal["policy", "bound"]
    policy: Policy
    strategy: MarkerStrategy
    tariff: TariffSet
    ttl: Lifetimes | None = None

    @property
    def slot_cells(self) -> tuple[str, str, str]:
        """Which creation cell the tokens of each slot of the kernel belong to."""
        if self.ttl is None:
            return "c5", "c1", "c24"
        stable, other = (_CELL_OF.get(lifetime_name(s), CUSTOM_CELL) for s in (self.ttl.stable_s, self.ttl.other_s))
        return stable, other, CUSTOM_CELL

    @property
    def custom(self) -> str | None:
        """The name of its lifetime that upstream does not price, if there is one."""
        seconds = () if self.ttl is None else (self.ttl.stable_s, self.ttl.other_s)
        return next((name for name in map(lifetime_name, seconds) if name not in TIERS), None)

    @property
    def offered_s(self) -> list[int]:
        """The lifetimes in seconds of the tiers that its policy offers."""
        seconds = dict(zip(TIERS, self.policy.tier_seconds, strict=True))
        return [seconds[tier] for tier in self.policy.enabled_ttls]

    def used_s(self, cells: Mapping[str, Any]) -> set[int]:
        """Of a variant with lifetimes as marked, those in seconds in which it created tokens by these cells."""
        seconds = zip(self.slot_cells, self.policy.tier_seconds, strict=True)
        return {lifetime for cell, lifetime in seconds if cells[cell].any()}

    def knobs(self, end_us: int) -> Knobs:
        """What the kernel is told."""
        policy = self.policy
        lives = policy.tier_seconds if self.ttl is None else (self.ttl.stable_s, self.ttl.other_s, 1)
        return Knobs(
            floor=-1 if policy.min_prefix_tokens is None else policy.min_prefix_tokens,
            walk_back=policy.walk_back,
            life_0=lives[0] * _SECOND_US,
            life_1=lives[1] * _SECOND_US,
            life_2=lives[2] * _SECOND_US,
            sliding=int(policy.window == "sliding"),
            every_match=int(policy.refresh == "all_matched"),
            per_breakpoint=int(policy.floor_scope == "breakpoint"),
            cap=int(policy.billing_rule == "cap"),
            end_us=end_us,
        )


def points(base: RunPlan, axes: Axes) -> list[Point]:
    """Now first, then the grid with floors innermost (without a copy of now), then two bounds.

    These are `unlimited` (now, but no entry ever expires) and `far` (now, but the walk-back has no end).

    Raises UsageError for a grid that is too large, or two different tariffs of one name.
    """
    now = Point("policy", base.policies[0], base.strategy, base.tariffs[0])
    axes = replace(axes, tariffs=_told_apart(now.tariff, axes.tariffs))
    count = prod(len(axis) or 1 for axis in _all(axes))
    if count > MOST_VARIANTS:
        raise UsageError(f"{count:,} variants, at most {MOST_VARIANTS:,}; take fewer values on one of the axes")
    grid = list(dict.fromkeys([now, *_grid(now, axes)]))
    forever = replace(now.policy, name="unlimited", tier_seconds=(_FOREVER_S,) * 3)
    far = replace(now.policy, name="far", walk_back=FAR_WALK_BACK)
    return [*grid, *(Point("bound", policy, now.strategy, now.tariff) for policy in (forever, far))]


def _told_apart(now: TariffSet, tariffs: Sequence[TariffSet]) -> tuple[TariffSet, ...]:
    """The tariff sets, the present one as the same object; raises UsageError for two of one name that differ."""
    known = {now.name: now}
    for tariff in tariffs:
        if describe_tariff(known.setdefault(tariff.name, tariff)) != describe_tariff(tariff):
            raise UsageError(f"--tariff {tariff.name}: two different tariff sets have this name; rename a file")
    return tuple(known[tariff.name] for tariff in tariffs)


def _all(axes: Axes) -> list[tuple[Any, ...]]:
    return [axes.policies, axes.strategies, axes.tariffs, axes.windows, axes.walk_backs, axes.ttls, axes.floors]


def _grid(now: Point, axes: Axes) -> Iterator[Point]:
    present = (now.policy, now.strategy, now.tariff, None, None, now.ttl, None)
    values = [axis or (own,) for axis, own in zip(_all(axes), present, strict=True)]
    for policy, strategy, tariff, window, walk_back, ttl, floor in product(*values):
        changes: dict[str, Any] = {"window": window, "walk_back": walk_back, "min_prefix_tokens": floor}
        changed = replace(policy, **{name: value for name, value in changes.items() if value is not None})
        yield Point("policy", changed, strategy, tariff, ttl)
