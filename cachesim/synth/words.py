"""The vocabulary generated texts are made of, with the inflections of English."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final


def _sections() -> dict[str, tuple[str, ...]]:
    text = Path(__file__).with_name("vocabulary.txt").read_text(encoding="utf-8")
    found = re.findall(r"^\[(\w+)(=lines)?\]\n(.*?)(?=^\[\w+(?:=lines)?\]\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: tuple(body.strip().splitlines() if lines else body.split()) for name, lines, body in found}


VOCABULARY: Final = _sections()
"""Section name -> its words (or lines), in the order of vocabulary.txt."""
PAST: Final = dict(pair.split(":") for pair in VOCABULARY["past"])
"""Irregular past participles by verb."""


def _doubles(verb: str) -> bool:
    return (
        len(verb) in (3, 4)
        and verb[-1] in "bdgklmnprt"
        and verb[-2] in "aeiou"
        and verb[-3] not in "aeiou"
        and verb[-2:] not in ("en", "er", "ow")
    ) or verb in ("submit", "commit", "permit", "refer", "infer", "occur", "control", "prefer", "transfer", "transmit")


def third_person(verb: str) -> str:
    """`walk` -> `walks`, `push` -> `pushes`, `copy` -> `copies`; also the plural of a noun."""
    if verb.endswith(("s", "sh", "ch", "x", "z")):
        return verb + "es"
    return verb[:-1] + "ies" if verb[-1] == "y" and verb[-2] not in "aeiou" else verb + "s"


def past(verb: str) -> str:
    """The past participle: `walk` -> `walked`, `write` -> `written`."""
    if verb in PAST:
        return PAST[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + (verb[-1] if _doubles(verb) else "") + "ed"


def gerund(verb: str) -> str:
    """`walk` -> `walking`, `write` -> `writing`, `run` -> `running`."""
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _doubles(verb) else "") + "ing"


def adverb(adjective: str) -> str:
    """`quick` -> `quickly`, `happy` -> `happily`, `basic` -> `basically`, `stable` -> `stably`."""
    if adjective.endswith("le"):
        return adjective[:-1] + "y"
    if adjective.endswith("y"):
        return adjective[:-1] + "ily"
    return adjective + ("ally" if adjective.endswith("ic") else "ly")
