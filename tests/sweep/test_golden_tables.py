"""The hand-computed tables of fixtures/sweeps, and every way of computing them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from computed import sweep_of
from golden import CASES, Case, Figures, load_case, single_replays

COMPUTED_BY: dict[str, Callable[[Case, Path], list[Figures]]] = {
    "single replays": single_replays,
    "sweep, plain": lambda case, _: sweep_of("plain", case),
    "sweep, compiled": lambda case, _: sweep_of("compiled", case),
}
"""Each takes a case and an empty folder and returns the figures of the case's points, in their order."""


@pytest.mark.parametrize("how", COMPUTED_BY)
@pytest.mark.parametrize("name", CASES)
def test_every_figure_is_the_one_on_paper(name: str, how: str, tmp_path: Path) -> None:
    if "compiled" in how:
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    case = load_case(name)
    found = COMPUTED_BY[how](case, tmp_path)
    for point, figures in zip(case.points, found, strict=True):
        assert figures == point.expected, (point.floor, point.ttl, point.walk_back)


def charged(name: str) -> dict[tuple[int, str, int], object]:
    return {(point.floor, point.ttl, point.walk_back): point.expected["charged"] for point in load_case(name).points}


def test_the_tables_show_what_they_are_for() -> None:
    """In each case the cheapest point is a certain one, and lies where a search along a slope would miss it."""
    floors = charged("floor-not-monotone")
    assert min(floors, key=floors.__getitem__) == (40, "5m", 20)  # type: ignore[arg-type]
    longer = {p.ttl: p.expected["read"] for p in load_case("longer-reads-less").points if p.floor == 20}
    assert longer["1h"] < longer["15m"] == longer["5m"] < longer["1h+5m"]
    mixed = charged("mixed-lifetimes")
    assert min(mixed, key=mixed.__getitem__) == (20, "1h+5m", 20)  # type: ignore[arg-type]
    reach = {p.walk_back: p.expected["read"] for p in load_case("fan-out").points if p.ttl == "5m"}
    assert reach[10] < reach[20] < reach[40]
