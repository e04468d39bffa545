"""Every error a user can meet, with the exit code each one ends the program with.

CachesimError                1   a check or gate failed
├── UsageError               2   wrong arguments
│   └── InputError           2   a file that is missing, unreadable or not what it should be
├── CannotEvaluate           3   the question has no answer from this evidence
├── NothingUsable           65   no usable record (or any bad line under --strict)
├── DatabaseBusy            75   another process holds the run database
└── ConfigError             78   bad configuration or tariff file
(Ctrl-C ends with 130, see `cachesim.cli`.)

Messages read `where: what was found, what was expected, what to do`; they never contain prompt text or keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class CachesimError(Exception):
    """A failure that is reported as one line on stderr, never as a traceback."""

    exit_code = 1


class UsageError(CachesimError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(UsageError):
    """An input file is missing, unreadable, or of an unknown kind."""


class CannotEvaluate(CachesimError):
    """The evidence is not enough for an answer; the message names the missing fact."""

    exit_code = 3


class NothingUsable(CachesimError):
    """The inputs hold no usable record."""

    exit_code = 65


class DatabaseBusy(CachesimError):
    """The run database is locked by another process."""

    exit_code = 75


class ConfigError(CachesimError):
    """A configuration or tariff file is wrong; the message starts with `file:line:` where a line is known."""

    exit_code = 78


def nearest(name: str, known: Iterable[str]) -> str:
    """ "did you mean …?" with the name nearest to a wrong one, empty where none is near."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else ""


def unknown(option: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist, with the nearest one that does."""
    names = list(known)
    listed = f"there are {', '.join(names)}"
    near = nearest(name, names)
    return f"{option} {name!r}: unknown; " + (f"{near} ({listed})" if near else listed)
