"""Bad lines on their way into the run database, and to whoever wants to see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from cachesim.core.model import BadLine
from cachesim.store.traces import TraceWriter

_BATCH: Final = 10_000


class TellOnce:
    """Tells bad lines, which a log that is read again has once more in the same order, only the first time."""

    def __init__(self, tell: Callable[[BadLine], None] | None) -> None:
        self._tell = tell
        self._told = self._met = 0

    def __call__(self, line: BadLine) -> None:
        self._met += 1
        if self._met > self._told:
            self._told = self._met
            if self._tell is not None:
                self._tell(line)

    def again(self) -> None:
        """The log is read from the start."""
        self._met = 0


class BadLines:
    """Stores bad lines in batches, and counts why."""

    def __init__(self, writer: TraceWriter, told: Callable[[BadLine], None] | None) -> None:
        self.reasons: Counter[str] = Counter()
        self._writer = writer
        self._told = told
        self._lines: list[BadLine] = []

    def add(self, line: BadLine) -> None:
        self.reasons[line.reason] += 1
        if self._told is not None:
            self._told(line)
        self._lines.append(line)
        if len(self._lines) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        self._writer.bad_lines(self._lines)
        self._lines.clear()
