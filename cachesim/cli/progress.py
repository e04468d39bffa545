"""A progress bar that stays out of the way: on stderr, only on a terminal, only for work of more than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.progress import Progress

DELAY_S: Final = 2.0
BYTES: Final = "bytes"
Advance = Callable[[int], None]


class _Bar:
    """Counts from the start and becomes visible after DELAY_S; `clock` returns seconds."""

    def __init__(self, total: int | None, label: str, unit: str, clock: Callable[[], float]) -> None:
        self._total, self._label, self._unit, self._clock = total, label, unit, clock
        self._started = clock()
        self._done = 0
        self.shown: Progress | None = None

    def advance(self, n: int) -> None:
        self._done += n
        if self.shown is None:
            if self._clock() - self._started < DELAY_S:
                return
            self.shown = _make_bar(self._unit, self._total is not None)
            self.shown.start()
            self.shown.add_task(self._label, total=self._total)
        self.shown.update(self.shown.task_ids[0], completed=self._done)

    def stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()


@contextmanager
def progress(
    total: int | None,
    label: str,
    quiet: bool,
    *,
    unit: str = BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Advance]:
    """Gives `advance(n)` for n more of `unit`; `total` None shows what is done without an end. Silent when quiet."""
    if quiet or not sys.stderr.isatty():
        yield lambda n: None
        return
    bar = _Bar(total, label, unit, clock)
    try:
        yield bar.advance
    finally:
        bar.stop()


def _make_bar(unit: str, has_end: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts: list[ProgressColumn] = [DownloadColumn(), TransferSpeedColumn()]
    if unit != BYTES:
        of = " of {task.total:,.0f}" if has_end else ""
        amounts = [TextColumn(f"{{task.completed:,.0f}}{of} {unit}", markup=False)]
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
