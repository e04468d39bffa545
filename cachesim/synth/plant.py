"""Planted traffic: requests by which one floor, or one time to live, is the cheapest for a reason that is known.

The floor F (model PLANT_MODEL, markers 5m, all prompts system + user with the marker on the system message):

    single    0.6 F … 0.9 F tokens up to the breakpoint, sent once: written and never read, 25 % extra at 1.25
    repeated  1.0 F … 1.4 F tokens, sent 4 to 8 times, less than 5 minutes apart: every read saves 90 % at 0.1

A floor at or below 0.9 F pays for dead writes, one above F loses reads. So with writes dearer than 1 and reads cheaper,
every floor above 0.9 F and up to F costs the least; the cost rises on both sides of it. Both kinds arrive all the time,
so any part of the log says the same.

The TTL (model SLOW_MODEL): sessions of 4 to 8 requests, 10 to 50 minutes apart, with 1,500 … 3,000 tokens marked 5m.
Five requests cost 5 · 1.25 = 6.25 prompts at 5m, but 2 + 4 · 0.1 = 2.4 at 1h with a write at 2; 5 at list price.

Texts are frequent English words with single spaces, so that counts are exact for a tokenizer of words
(`fixtures/words-tokenizer.json`) and within a token of exact for the embedded one. The reported usage counts words too.
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
SINGLE_SHARE: Final = (0.6, 0.9)
REPEATED_SHARE: Final = (1.0, 1.4)
"""Tokens up to the breakpoint as shares of the planted floor."""
SLOW_TOKENS: Final = (1500, 3000)
TURNS: Final = (4, 8)
QUICK_MS: Final = (20_000, 290_000)
SLOW_MS: Final = (600_000, 3_000_000)
"""From one arrival to the next."""
_MEAN_WORD_BYTES: Final = 5.4

_WORDS: Final = VOCABULARY["one_token"]


class Plant(NamedTuple):
    """What to plant: the floor in tokens that shall be the best (None: none), and whether 1h shall pay."""

    floor_tokens: int | None = None
    ttl: bool = False


NOTHING: Final = Plant()


class _Session(NamedTuple):
    """Requests with one text up to the breakpoint; `arrivals`: ms after the start of all traffic."""

    kind: str
    model: str
    tokens: int
    arrivals: tuple[int, ...]


def mean_planted_bytes(plant: Plant) -> float:
    """Bytes of planted lines for each request of other traffic, roughly."""
    floor = plant.floor_tokens or 0
    tokens = (sum(SINGLE_SHARE) + sum(REPEATED_SHARE)) / 2 * floor + plant.ttl * sum(SLOW_TOKENS) / 2
    return tokens * _MEAN_WORD_BYTES * SHARE


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
    count = max(FEWEST, round(requests * SHARE))
    if plant.floor_tokens is not None:
        low, high = _tokens(SINGLE_SHARE, plant.floor_tokens)
        for _ in range(count):
            yield _Session("single", PLANT_MODEL, rng.randint(low, high), (start_ms(rng, days),))
        yield from _repeated(
            rng, days, count, "repeated", PLANT_MODEL, _tokens(REPEATED_SHARE, plant.floor_tokens), QUICK_MS
        )
    if plant.ttl:
        yield from _repeated(rng, days, count, "slow", SLOW_MODEL, SLOW_TOKENS, SLOW_MS)


def _tokens(share: tuple[float, float], floor_tokens: int) -> tuple[int, int]:
    return round(share[0] * floor_tokens), round(share[1] * floor_tokens)


def _repeated(
    rng: Random, days: float, requests: int, kind: str, model: str, tokens: tuple[int, int], gap_ms: tuple[int, int]
) -> Iterator[_Session]:
    """Sessions until at least `requests` requests are planned."""
    planned = 0
    while planned < requests:
        at_ms = start_ms(rng, days)
        arrivals = [at_ms]
        for _ in range(rng.randint(*TURNS) - 1):
            at_ms += rng.randint(*gap_ms)
            arrivals.append(at_ms)
        planned += len(arrivals)
        yield _Session(kind, model, rng.randint(*tokens), tuple(arrivals))


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
        session.kind.encode(),
    )
    body = (
        b'"body":{"model":"%b","messages":[{"role":"system","content":[{"type":"text","text":"%b",'
        b'"cache_control":{"type":"ephemeral"}}]},{"role":"user","content":"%b"}],"max_tokens":1024}}\n'
    ) % (session.model.encode(), prefix.encode(), question.encode())
    return head + b'"status":200,' + usage + body
