"""Sessions on a clock: capture-format lines in order of arrival, with failures, retries and concurrent requests."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import itemgetter
from random import Random
from typing import IO, Final, NamedTuple

from cachesim.synth.apps import ARCHETYPES, App, make_apps
from cachesim.synth.lines import rfc3339, start_ms, usage_field
from cachesim.synth.plant import FEWEST, NOTHING, SHARE, Plant, mean_planted_bytes, planted_lines
from cachesim.synth.pool import Pool
from cachesim.synth.session import Draft, Session

MODELS: Final = ("deepseek-chat", "kimi-k2", "gpt-oss-120b", "minimax-m2")
PRINCIPALS: Final = ("harbor", "juniper", "meridian", "quarry", "saffron", "tundra")
_MEAN_LINE_BYTES: Final = 31_700
"""Of a large log at scale 1, by measurement."""


class _Due(NamedTuple):
    """Something that arrives at `at_ms`: the next turn of a session, or a request already drafted."""

    at_ms: int
    order: int
    session: Session
    drafted: Draft | None


class _Outcome(NamedTuple):
    """How a request ended; `fields` are the capture fields that say so, without the usage."""

    duration_ms: int
    fields: bytes
    succeeded: bool


def generate(
    seed: int,
    requests: int,
    *,
    models: Sequence[str] = MODELS,
    principals: Sequence[str] = PRINCIPALS,
    days: float = 1.0,
    scale: float = 1.0,
    plant: Plant = NOTHING,
) -> Iterator[bytes]:
    """Yields `requests` capture lines (each with its line end) in order of arrival; equal arguments, equal bytes.

    Sessions begin within `days` of START and may run on for hours after it. `scale` multiplies the length of
    prompts and results (1.0: about 30 kB a line), but not of the short prompts around the floor. The lines of a plant
    come on top, among the others, which stay as they are.
    """
    lines = _Traffic(seed, requests, list(models), list(principals), days, scale).lines()
    planted = planted_lines(plant, seed, requests, principals, days)
    return (line for _, line in heapq.merge(lines, planted, key=itemgetter(0)))


def requests_for(size_bytes: float, plant: Plant = NOTHING) -> int:
    """How many requests make a log of about `size_bytes` at scale 1, what is planted beside them included."""
    planted = mean_planted_bytes(plant)
    requests = size_bytes / (_MEAN_LINE_BYTES + SHARE * planted)
    if requests * SHARE < FEWEST:
        requests = (size_bytes - FEWEST * planted) / _MEAN_LINE_BYTES
    return max(1, round(requests))


def write(
    out: IO[bytes],
    seed: int,
    requests: int,
    *,
    models: Sequence[str] = MODELS,
    principals: Sequence[str] = PRINCIPALS,
    days: float = 1.0,
    scale: float = 1.0,
    plant: Plant = NOTHING,
) -> int:
    """Writes what `generate` yields and returns the number of lines written."""
    written = 0
    for line in generate(seed, requests, models=models, principals=principals, days=days, scale=scale, plant=plant):
        out.write(line)
        written += 1
    return written


class _Traffic:
    def __init__(
        self, seed: int, requests: int, models: list[str], principals: list[str], days: float, scale: float
    ) -> None:
        self._rng = Random(seed)
        self._requests = requests
        self._scale = scale
        self._pool = Pool(seed, min(1500, 150 + requests // 4))
        self._apps = make_apps(self._rng, self._pool, scale, models, principals)
        self._due: list[_Due] = []
        self._order = 0
        self._plan = self._plan_sessions(days)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines, each with its arrival in ms; one pass only."""
        starts = iter(self._plan)
        start = next(starts, None)
        for number in range(self._requests):
            while start is not None and (not self._due or start[0] <= self._due[0].at_ms):
                self._begin(*start)
                start = next(starts, None)
            due = heapq.heappop(self._due)
            yield due.at_ms, self._arrive(number, due)

    def _plan_sessions(self, days: float) -> list[tuple[int, int, App, int]]:
        """(start in ms, number, application, turns), by start, with enough turns in all."""
        rng = self._rng
        weights = [app.archetype.weight for app in self._apps]
        plan: list[tuple[int, int, App, int]] = []
        planned = 0
        while planned < self._requests:
            # One session of every archetype first, so that a small run shows all of them.
            app = self._apps[len(plan)] if len(plan) < len(ARCHETYPES) else rng.choices(self._apps, weights)[0]
            low, high = app.archetype.turns
            turns = rng.randrange(low, high + 1)
            plan.append((start_ms(rng, days), len(plan), app, turns))
            planned += turns
        plan.sort(key=lambda item: item[:2])
        return plan

    def _begin(self, start_ms: int, number: int, app: App, turns: int) -> None:
        name = b"s%06d-%06x" % (number, self._rng.getrandbits(24))
        self._push(start_ms, Session(app, name, turns, self._rng, self._pool, self._scale), None)

    def _push(self, at_ms: int, session: Session, drafted: Draft | None) -> None:
        self._order += 1
        heapq.heappush(self._due, _Due(at_ms, self._order, session, drafted))

    def _arrive(self, number: int, due: _Due) -> bytes:
        """The line of one request, after scheduling whatever follows from how it ended."""
        session = due.session
        clock = rfc3339(due.at_ms)
        draft = due.drafted or session.draft(clock)
        outcome = self._outcome(draft)
        completion_tokens = self._rng.randrange(40, 400)
        if due.drafted is None:
            if outcome.succeeded:
                completion_tokens = self._go_on(due.at_ms, outcome, session, draft, clock)
            else:
                self._push(due.at_ms + outcome.duration_ms + self._rng.randrange(500, 20_000), session, None)
        usage = usage_field(draft.prompt_tokens, completion_tokens) if outcome.succeeded else b""
        head = b'{"at":"%b","duration_ms":%d,"id":"r%07d","principal":"%b","session":"%b","tags":{"app":"%b"},' % (
            clock,
            outcome.duration_ms,
            number,
            session.app.principal,
            session.name,
            session.app.name,
        )
        return b"".join([head, _routing(session.app), outcome.fields, usage, b'"body":', *draft.parts, b"}\n"])

    def _outcome(self, draft: Draft) -> _Outcome:
        rng = self._rng
        draw = rng.random()
        if draw < 0.008:
            return _Outcome(rng.randrange(40, 900), b'"status":429,', False)
        if draw < 0.012:
            return _Outcome(rng.randrange(900, 30_000), b'"status":500,', False)
        # Longer prompts take longer; the cubed part gives the long answers, 60 s at most.
        duration = 1000 + draft.prompt_tokens // 20 + int(50_000 * rng.random() ** 3)
        if draw < 0.018:
            return _Outcome(min(duration, 60_000), b'"status":200,"success":false,', False)
        return _Outcome(min(duration, 60_000), b'"status":200,', True)

    def _go_on(self, at_ms: int, outcome: _Outcome, session: Session, draft: Draft, clock: bytes) -> int:
        """Schedules duplicates, sub-tasks and the next turn; returns the tokens of the answer."""
        rng = self._rng
        if rng.random() < 0.004:
            self._push(at_ms + rng.randrange(0, 300), session, draft)
        if rng.random() < session.app.archetype.fan_out:
            for number in range(rng.randrange(3, 7)):
                self._push(at_ms + 5 + rng.randrange(0, 60), session, session.fan_out(number, clock))
        tokens, person = session.answer()
        if session.turns_left > 0:
            wait = self._think_ms(session.app) if person else rng.randrange(200, 15_000)
            self._push(at_ms + outcome.duration_ms + wait, session, None)
        return tokens

    def _think_ms(self, app: App) -> int:
        """How long a person takes: under 5 minutes, up to an hour, or up to 8 hours, by the application's habits."""
        low, high = self._rng.choices(((4, 300), (300, 3600), (3600, 28_800)), app.archetype.gaps)[0]
        draw = self._rng.random()
        return int(1000 * (low + (high - low) * draw * draw))


def _routing(app: App) -> bytes:
    """The capture fields of applications that are called in a special way."""
    fields = b""
    if app.archetype.uri:
        fields += b'"uri":"/v1/chat/completions%b",' % app.archetype.uri
    if app.archetype.purpose:
        fields += b'"purpose":"%b","completion_window":"24h",' % app.archetype.purpose
    return fields
