"""What all generated traffic shares: its clock, the load over the day, and how times and usage stand in a line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
"""Midnight at the start of all generated traffic, a Monday."""
HOURLY_LOAD: Final = (2, 1, 1, 1, 1, 2, 3, 6, 10, 13, 14, 13, 10, 13, 15, 15, 13, 10, 8, 6, 5, 4, 3, 2)
_HOURS: Final = [hour for hour, load in enumerate(HOURLY_LOAD) for _ in range(load)]
_HOUR_MS: Final = 3_600_000


def start_ms(rng: Random, days: float) -> int:
    """When a session begins, in ms after START: on any of `days` days, by the load of the hours."""
    # Less than a day keeps the shape of the day, only faster.
    hour = (rng.choice(_HOURS) + rng.random()) * min(1.0, days)
    day = int(rng.random() * max(1.0, days))
    return int((day * 24 + hour) * _HOUR_MS)


def rfc3339(at_ms: int) -> bytes:
    """The time `at_ms` after START, as `2026-03-02T00:00:00.000Z`."""
    moment = START + timedelta(milliseconds=at_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S").encode() + b".%03dZ" % (at_ms % 1000)


def usage_field(prompt: int, completion: int) -> bytes:
    """The usage as a member of a line, with the comma after it."""
    return b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d},' % (
        prompt,
        completion,
        prompt + completion,
    )
