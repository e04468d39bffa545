"""Writes prose, code, shell output, JSON and the like from templates and a seeded random source."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from cachesim.synth.words import VOCABULARY, adverb, gerund, past, third_person

KINDS: Final = ("paragraph", "markdown", "python", "javascript", "other", "json", "output")
"""The sections of templates.txt that are whole texts."""

_HOLE: Final = re.compile(r"«(@?\w+)»")
_REPEAT: Final = re.compile(r"^([ \t]*)«\*(\w+) (\d+)-(\d+)»$", re.MULTILINE)
_HEX: Final = "0123456789abcdef"
_SHORT: Final = "abcdefghijklmnpqrstuvwxyz"


def _sections() -> dict[str, list[str]]:
    text = Path(__file__).with_name("templates.txt").read_text(encoding="utf-8")
    sections = {}
    parts = re.split(r"^\[(\w+)(=blocks)?\]\n", text, flags=re.MULTILINE)[1:]
    for name, blocks, body in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
        body = body.strip("\n")
        sections[name] = body.split("\n~~~~\n") if blocks else body.split("\n")
    return sections


TEMPLATES: Final = _sections()


class Writer:
    """Texts of one random source: the same seed and the same calls give the same texts on every platform."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._fill: dict[str, Callable[[], str]] = _fillers(self)

    def text(self, kind: str) -> str:
        """One text of a kind of KINDS, or one line of any other section of templates.txt."""
        template = _REPEAT.sub(self._repeat, self._pick(TEMPLATES[kind]))
        return _HOLE.sub(self._hole, template)

    def word(self, section: str) -> str:
        """One word of a section of the vocabulary, each equally likely."""
        return self._pick(VOCABULARY[section])

    def identifier(self) -> str:
        """A snake_case name of one to three parts."""
        parts = [self._part() for _ in range(self._below(1, 4) if self._below(0, 4) else 1)]
        return "_".join(parts)

    def camel(self) -> str:
        """A camelCase name of one to three parts."""
        first, *rest = self.identifier().split("_")
        return first + "".join(part.capitalize() for part in rest)

    def class_name(self) -> str:
        """A CamelCase name of one to three parts, often ending like a class does."""
        head = self._capital(self._part()) if self._below(0, 3) else self._capital(self.word("nouns"))
        return head + (self._pick(VOCABULARY["suffixes"]) if self._below(0, 2) else "")

    def path(self) -> str:
        """A relative file path."""
        folders = "/".join(self._part() for _ in range(self._below(1, 4)))
        return f"{folders}/{self.identifier()}.{self.word('extensions')}"

    def phrase(self) -> str:
        """Two to five words without a full stop."""
        words = [self.word("verbs"), self.word("function_words"), self.word("adjectives"), self.word("nouns")]
        return " ".join(words[: self._below(2, 5)])

    def digits(self, low: int, high: int) -> str:
        """A whole number of low to high digits, small ones as likely as large ones."""
        return str(self._below(0, 10 ** self._below(low, high + 1)))

    def hex(self, length: int) -> str:
        """Lower-case hexadecimal digits."""
        return "".join(self._pick(_HEX) for _ in range(length))

    def uuid(self) -> str:
        """A random UUID in text form."""
        return "-".join(self.hex(length) for length in (8, 4, 4, 4, 12))

    def date(self) -> str:
        """A calendar date of the years 2015 to 2026."""
        return f"{self._below(2015, 2027)}-{self._below(1, 13):02}-{self._below(1, 29):02}"

    def time(self) -> str:
        """A time of day in hours, minutes and seconds."""
        return f"{self._below(0, 24):02}:{self._below(0, 60):02}:{self._below(0, 60):02}"

    def _part(self) -> str:
        # One in five from the English lists: real identifiers mix jargon with plain words.
        which = self._below(0, 10)
        return self.word("parts") if which < 8 else self.word("nouns") if which == 8 else self.word("verbs")

    def _pick(self, items: tuple[str, ...] | list[str] | str) -> str:
        return items[int(self.rng.random() * len(items))]

    def _below(self, low: int, high: int) -> int:
        return low + int(self.rng.random() * (high - low))

    def _capital(self, word: str) -> str:
        return word[:1].upper() + word[1:]

    def _common(self, section: str) -> str:
        # The lists start with the most frequent words: a cubed random number gives those their share.
        words = VOCABULARY[section]
        draw = self.rng.random()
        return words[int(draw * draw * draw * len(words))]

    def _repeat(self, match: re.Match[str]) -> str:
        indent, section, low, high = match.groups()
        lines = (self._pick(TEMPLATES[section]) for _ in range(self._below(int(low), int(high) + 1)))
        return "\n".join(indent + line for line in lines)

    def _hole(self, match: re.Match[str]) -> str:
        name = match.group(1)
        if name.startswith("@"):
            return _HOLE.sub(self._hole, self._pick(TEMPLATES[name[1:]]))
        fill = self._fill.get(name)
        if fill is not None:
            return fill()
        return _HOLE.sub(self._hole, self._pick(TEMPLATES[name]))


def _fillers(w: Writer) -> dict[str, Callable[[], str]]:
    """What may stand for each «name» that is not a section of templates.txt."""
    capital, word, below, pick = w._capital, w.word, w._below, w._pick
    return {
        "noun": lambda: word("nouns"),
        "Noun": lambda: capital(word("nouns")),
        "nouns": lambda: third_person(word("nouns")),
        "verb": lambda: word("verbs"),
        "Verb": lambda: capital(word("verbs")),
        "verbs": lambda: third_person(word("verbs")),
        "verbed": lambda: past(word("verbs")),
        "verbing": lambda: gerund(word("verbs")),
        "Verbing": lambda: capital(gerund(word("verbs"))),
        "adj": lambda: word("adjectives"),
        "Adj": lambda: capital(word("adjectives")),
        "adv": lambda: adverb(word("adjectives")),
        "Adv": lambda: capital(adverb(word("adjectives"))),
        "fw": lambda: w._common("function_words"),
        "Fw": lambda: capital(w._common("function_words")),
        "product": lambda: word("products"),
        "person": lambda: word("people"),
        "foreign": lambda: word("foreign"),
        "symbol": lambda: word("symbols"),
        "id": w.identifier,
        "x": lambda: w._part() if below(0, 4) else pick(_SHORT),
        "x1": lambda: pick(_SHORT),
        "camel": w.camel,
        "Camel": lambda: capital(w.camel()),
        "Class": w.class_name,
        "CONST": lambda: w.identifier().upper(),
        "slug": lambda: w.identifier().replace("_", "-"),
        "mod": lambda: word("modules") if below(0, 2) else w._part(),
        "type": lambda: word("types"),
        "err": lambda: word("errors"),
        "cmd": lambda: word("commands"),
        "ext": lambda: word("extensions"),
        "path": w.path,
        "dir": lambda: w.path().rsplit("/", 1)[0],
        "phrase": w.phrase,
        "Phrase": lambda: capital(w.phrase()),
        "str": lambda: w.identifier() if below(0, 2) else w.phrase(),
        "n": lambda: w.digits(1, 2),
        "n3": lambda: w.digits(2, 3),
        "n4": lambda: w.digits(3, 5),
        "d": lambda: str(below(0, 10)),
        "d2": lambda: str(below(10, 60)),
        "float": lambda: f"{w.digits(1, 2)}.{w.digits(1, 3)}",
        "ver": lambda: f"{below(0, 12)}.{below(0, 30)}.{below(0, 10)}",
        "year": lambda: str(below(2015, 2027)),
        "date": w.date,
        "time": w.time,
        "hm": lambda: w.time()[:5],
        "hex4": lambda: w.hex(4),
        "hex7": lambda: w.hex(7),
        "uuid": w.uuid,
        "b64": lambda: "".join(pick(_HEX + "GHIJKLMNOPQRSTUVWXYZghijklmnopqrstuvwxyz+/") for _ in range(24)) + "==",
        "ip": lambda: f"{below(1, 255)}.{below(0, 255)}.{below(0, 255)}.{below(1, 255)}",
    }
