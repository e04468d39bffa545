"""Reads a TOML file together with the line of every key, so that a message about a value can say where it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from cachesim.errors import ConfigError, InputError, nearest

TARIFF_SECTIONS: Final = ("cache_tariff", "base_tariff")
SECTIONS: Final = ("policy", "models", *TARIFF_SECTIONS, "principals", "strict_principals")
"""What may stand at the top of cachesim.toml."""

_PART: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY: Final = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER_LINE: Final = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_KEY})[ \t]*\]\]?[ \t]*(?:#.*)?")
_KEY_LINE: Final = re.compile(rf"[ \t]*({_KEY})[ \t]*=")
_SYNTAX_PLACE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")

_KINDS: Final[dict[type[object], str]] = {
    bool: "a boolean",
    str: "a string",
    int: "an integer",
    Decimal: "a float",
    float: "a float",
    list: "an array",
    tuple: "an array",
    dict: "a table",
    type(None): "nothing",
}

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A parsed file: `data` holds decimals for TOML floats, `lines` the line of each header and key by its path."""

    name: str
    data: dict[str, Any]
    lines: Mapping[Path, int]

    def where(self, *path: str | int) -> str:
        """ "file:line" of the value at `path`, or of the nearest part of it whose line is known."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


def read_toml(name: str) -> TomlFile:
    """The TOML file `name`. Raises InputError if it cannot be read, ConfigError if it is not TOML in UTF-8."""
    text = read_text(name)
    try:
        data = tomllib.loads(text, parse_float=exact_float)
    except ValueError as error:
        raise ConfigError(_syntax_message(name, text, str(error))) from error
    except RecursionError as error:
        raise ConfigError(f"{name}: TOML nested too deeply to read, tables and plain values were expected") from error
    return TomlFile(name, data, _lines(text))


def check_sections(file: TomlFile) -> None:
    """Raises ConfigError at the first key of the file that no section of cachesim.toml has."""
    for section in file.data:
        if section not in SECTIONS:
            raise ConfigError(f"{file.where(section)}: unknown key {section[:60]}, {did_you_mean(section, SECTIONS)}")


def read_text(name: str) -> str:
    """The text of the file `name` without a byte order mark."""
    data = read_bytes(name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"{name}:{line}: not UTF-8 (byte {error.start}), a text file was expected: save it as UTF-8"
        raise ConfigError(message) from error


def read_bytes(name: str) -> bytes:
    """The content of the file `name`. Raises InputError with the system's reason if there is none."""
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{name}: cannot be read ({reason}), a configuration or tariff file was expected") from error
    except ValueError as error:
        raise InputError("a file name with a NUL character: a configuration or tariff file was expected") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ ", did you mean …?" for the nearest known name, else the list of them."""
    names = list(known)
    return nearest(name, names) or f"expected one of {', '.join(names)}"


def exact_float(text: str) -> Decimal:
    """A TOML float as the decimal that was written. Raises ValueError for an exponent beyond all use."""
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise ValueError("a number out of range") from error


def kind_of(value: object) -> str:
    """What a TOML value is, in TOML's words; never the value itself."""
    return _KINDS.get(type(value), "a date or time")


def _syntax_message(name: str, text: str, reason: str) -> str:
    found = _SYNTAX_PLACE.search(reason)
    if found:
        line, reason = int(found[1]), f"{reason[: found.start()]} at column {found[2]}"
    else:
        line = text.rstrip("\n").count("\n") + 1
    return f"{name}:{line}: not valid TOML: {reason}"


def _lines(text: str) -> dict[Path, int]:
    """The line of every header and key; what a multi-line value hides or imitates only costs precision."""
    lines: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    inside_string = False
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        toggles = (line.count('"""') + line.count("'''")) % 2 == 1
        if not inside_string:
            table = _note_line(line, number, table, lines, arrays)
        inside_string ^= toggles
    return lines


def _note_line(line: str, number: int, table: Path, lines: dict[Path, int], arrays: dict[Path, int]) -> Path:
    """Records the line of a header or key and returns the table that the next line belongs to."""
    header = _HEADER_LINE.fullmatch(line)
    if header:
        table = _key_path(header[2])
        if header[1] == "[[":
            position = arrays[table] = arrays.get(table, -1) + 1
            table = (*table, position)
        lines.setdefault(table, number)
        return table
    key = _KEY_LINE.match(line)
    if key:
        lines.setdefault((*table, *_key_path(key[1])), number)
    return table


def _key_path(dotted: str) -> Path:
    """The parts of a dotted key, unquoted by TOML's own rules: 'models."a.b"' is ("models", "a.b")."""
    try:
        value: Any = tomllib.loads(f"{dotted} = 0")
    except ValueError:
        return (dotted,)
    parts: list[str] = []
    while isinstance(value, dict):
        part, value = next(iter(value.items()))
        parts.append(part)
    return tuple(parts)
