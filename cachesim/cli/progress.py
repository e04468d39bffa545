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
Advance = Callable[[int], None]


class _Bar:
    """Counts from the start and becomes visible after DELAY_S; `clock` returns seconds."""

    def __init__(self, total: int | None, label: str, clock: Callable[[], float]) -> None:
        self._total, self._label, self._clock = total, label, clock
        self._started = clock()
        self._done = 0
        self.shown: Progress | None = None

    def advance(self, n: int) -> None:
        self._done += n
        if self.shown is None:
            if self._clock() - self._started < DELAY_S:
                return
            self.shown = _make_bar()
            self.shown.start()
            self.shown.add_task(self._label, total=self._total)
        self.shown.update(self.shown.task_ids[0], completed=self._done)

    def stop(self) -> None:
        if self.shown is not None:
            self.shown.stop()


@contextmanager
def progress(
    total_bytes: int | None, label: str, quiet: bool, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Advance]:
    """Gives `advance(n)` for n more bytes; `total_bytes` None shows what is done without an end. Silent when quiet."""
    if quiet or not sys.stderr.isatty():
        yield lambda n: None
        return
    bar = _Bar(total_bytes, label, clock)
    try:
        yield bar.advance
    finally:
        bar.stop()


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
