"""Planted traffic: requests by which one floor, or one time to live, is the cheapest for a reason that is known.

The floor F (model PLANT_MODEL, markers 5m, all prompts system + user with the marker on the system message):

    single    0.6 F … 0.9 F tokens up to the breakpoint, sent once: written and never read, 25 % extra at 1.25
    repeated  1.0 F … 1.4 F tokens, sent 4 to 8 times, less than 5 minutes apart: every read saves 90 % at 0.1

Sizes crowd at 0.9 F and at F. A floor at or below 0.9 F pays for dead writes, one above F loses reads. So with writes
dearer than 1 and reads cheaper, every floor above 0.9 F and up to F costs this model the least; the cost rises on both
sides. Both kinds arrive all the time, so any part of the log says the same.

The TTL (model SLOW_MODEL): sessions of 4 to 8 requests, 10 to 50 minutes apart, with 1,500 … 3,000 tokens marked 5m.
Five requests cost 5 · 1.25 = 6.25 prompts at 5m, but 2 + 4 · 0.1 = 2.4 at 1h with a write at 2; 5 at list price.

Texts are frequent English words with single spaces, so that counts are exact for a tokenizer of words
(`fixtures/words-tokenizer.json`) and within three tokens of it for the embedded one. The reported usage is exact too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, NamedTuple

from cachesim.synth.lines import rfc3339, start_ms, usage_field
from cachesim.synth.pool import escape
from cachesim.synth.words import VOCABULARY

PLANT_MODEL: Final = "mistral-large"
SLOW_MODEL: Final = "gpt-oss-20b"
SHARE: Final = 1 / 8
FEWEST: Final = 600
"""Requests of a kind: at least so many, else this share of the other traffic."""
_MEAN_WORD_BYTES: Final = 5.4

_WORDS: Final = VOCABULARY["one_token"]


class Plant(NamedTuple):
    """What to plant: the floor in tokens that shall be the best (None: none), and whether 1h shall pay."""

    floor_tokens: int | None = None
    ttl: bool = False


NOTHING: Final = Plant()


class _Kind(NamedTuple):
    """One kind of planted session. Most have about `usual_tokens` up to the breakpoint, some up to `extreme_tokens`.

    turns: fewest and most requests; gap_ms: least and most from one arrival to the next.
    """

    name: str
    model: str
    usual_tokens: int
    extreme_tokens: int
    turns: tuple[int, int]
    gap_ms: tuple[int, int]


class _Session(NamedTuple):
    """Requests with one text up to the breakpoint; `arrivals`: ms after the start of all traffic."""

    kind: _Kind
    tokens: int
    arrivals: tuple[int, ...]


def _kinds(plant: Plant) -> Iterator[_Kind]:
    floor = plant.floor_tokens
    if floor is not None:
        yield _Kind("single", PLANT_MODEL, round(0.9 * floor), round(0.6 * floor), (1, 1), (0, 0))
        yield _Kind("repeated", PLANT_MODEL, floor, round(1.4 * floor), (4, 8), (20_000, 290_000))
    if plant.ttl:
        yield _Kind("slow", SLOW_MODEL, 1500, 3000, (4, 8), (600_000, 3_000_000))


def mean_planted_bytes(plant: Plant) -> float:
    """Bytes of one planted request of every kind, roughly."""
    # A third of the way: the mean of a squared uniform number.
    tokens = sum(kind.usual_tokens + (kind.extreme_tokens - kind.usual_tokens) / 3 for kind in _kinds(plant))
    return tokens * _MEAN_WORD_BYTES


def planted_lines(
    plant: Plant, seed: int, requests: int, principals: Sequence[str], days: float
) -> Iterator[tuple[int, bytes]]:
    """(arrival in ms, capture line) in order of arrival, spread over `days`; equal arguments, equal lines."""
    sessions = list(_sessions(plant, Random(f"plant {seed}"), requests, days))
    due = [(at_ms, number) for number, session in enumerate(sessions) for at_ms in session.arrivals]
    for order, (at_ms, number) in enumerate(sorted(due)):
        principal = principals[number % len(principals)]
        # The session's text is made anew for every request: cheaper than keeping those of a week.
        text = Random(f"plant {seed} {number}")
        yield at_ms, _line(sessions[number], number, order, at_ms, principal, text)


def _sessions(plant: Plant, rng: Random, requests: int, days: float) -> Iterator[_Session]:
    """Of every kind until enough requests are planned; no session is cut short."""
    for kind in _kinds(plant):
        planned = 0
        while planned < max(FEWEST, round(requests * SHARE)):
            # Squaring a uniform number crowds the sizes at the usual end, so that a floor beside the best one shows.
            tokens = round(kind.usual_tokens + (kind.extreme_tokens - kind.usual_tokens) * rng.random() ** 2)
            at_ms = start_ms(rng, days)
            arrivals = [at_ms]
            for _ in range(rng.randint(*kind.turns) - 1):
                at_ms += rng.randint(*kind.gap_ms)
                arrivals.append(at_ms)
            planned += len(arrivals)
            yield _Session(kind, tokens, tuple(arrivals))


def _line(session: _Session, number: int, order: int, at_ms: int, principal: str, text: Random) -> bytes:
    """One request; its answer takes at most five seconds, well under any gap."""
    prefix = " ".join(text.choices(_WORDS, k=session.tokens))
    turn = Random(f"{number} {at_ms}")
    question = " ".join(turn.choices(_WORDS, k=turn.randint(20, 40)))
    usage = usage_field(session.tokens + question.count(" ") + 1, turn.randint(20, 200))
    who = escape(principal)
    head = b'{"at":"%b","duration_ms":%d,"id":"p%07d","principal":"%b","session":"p%06d","tags":{"app":"%b-%b"},' % (
        rfc3339(at_ms),
        turn.randint(800, 5000),
        order,
        who,
        number,
        who,
        session.kind.name.encode(),
    )
    body = (
        b'"body":{"model":"%b","messages":[{"role":"system","content":[{"type":"text","text":"%b",'
        b'"cache_control":{"type":"ephemeral"}}]},{"role":"user","content":"%b"}],"max_tokens":1024}}\n'
    ) % (session.kind.model.encode(), prefix.encode(), question.encode())
    return head + b'"status":200,' + usage + body
