"""A log format that the user describes: which member of a row is which field of a record. Made from a mapping file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final

import msgspec

from cachesim.core.model import LogRecord, Usage
from cachesim.trace.formats.base import (
    BadRecord,
    Format,
    NotARequest,
    bad_field,
    body_bytes,
    cost_of,
    digest_key,
    duration_us,
    fingerprint,
    status_field,
)
from cachesim.trace.formats.fields import elapsed_us, loose_time, nested, principal_name, text
from cachesim.trace.formats.parts import members_of, path_of, rebuilt
from cachesim.trace.times import END_US, SECOND_US
from cachesim.trace.usage import MAX_TOKENS, reported

TEXTS: Final = ("id", "principal", "model", "uri", "method", "purpose", "completion_window", "session")
TIMES: Final = ("at", "completed_at", "batch_created_at")
_COUNTS: Final = ("prompt", "completion", "read", "write_5m", "write_1h", "write_24h")
_OTHERS: Final = ("api_key", "status", "success", "duration", "cost", "usage", "body")
TARGETS: Final = (*TEXTS, *TIMES, *_OTHERS, *(f"usage.{name}" for name in _COUNTS))
FAMILIES: Final = ("body.", "tags.")
"""Beginnings of targets that may end in any name: a member of a body put together from parts, and a tag."""
CONSTANTS: Final = (*TEXTS, "status")
UNITS_US: Final = {"s": Decimal(SECOND_US), "ms": Decimal(1000), "us": Decimal(1), "ns": Decimal("0.001")}
TIMED: Final = (*TIMES, "duration")

_NOT_MAPPED: Final = "not_mapped"
_JSON_PARTS: Final = ("messages", "tools")
_SUCCESS: Final = {"true": True, "false": False, "1": True, "0": False, "success": True, "failure": False}
_NUMBER: Final = re.compile(r"\d{1,20}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


def mapped_format(mapping: Mapping[str, Any]) -> Format:
    """The format of a mapping as `cachesim.config.mapping` gives it: name, fields, detect, constants, units.

    fields: target -> dotted path, or name with dots; detect: path -> true (is there), false (is not) or the text it
    has; constants: target -> value where the row has none; units: what times and durations count that are numbers.
    """
    fields = {*mapping["fields"], *mapping["constants"]}
    return Format(
        name=mapping["name"],
        description="rows as the mapping file describes them",
        kind="lines",
        detect=lambda row: True,
        decode_line=partial(_decode, mapping),
        has_times="at" in fields,
        has_principals=not fields.isdisjoint(("principal", "api_key")),
    )


def _decode(mapping: Mapping[str, Any], line: bytes, file_no: int, number: int, offset: int) -> LogRecord:
    """One row. Raises DECODE_ERRORS, NotARequest for a row that is not what `detect` says."""
    row = _Row(mapping, _members.decode(line))
    if not all(row.has(path, wanted) for path, wanted in mapping["detect"].items()):
        raise NotARequest(_NOT_MAPPED)
    body, path = _body(row)
    at_us, key = row.time("at"), row.text("api_key")
    duration = _duration(row)
    if duration is None:
        duration = elapsed_us("completed_at", at_us, row.time("completed_at"))
    return LogRecord(
        file_no,
        number,
        offset,
        mapping["name"],
        body,
        id=row.text("id"),
        at_us=at_us,
        duration_us=duration,
        principal=principal_name(row.text("principal")) or (digest_key(key) if key else None),
        model=row.text("model"),
        uri=row.text("uri") or path,
        method=(row.text("method") or "POST").upper(),
        status=status_field("status", row.count("status", 999)),
        success=_success(row),
        usage=_usage(row),
        cost=cost_of(row.text("cost")),
        purpose=row.text("purpose"),
        completion_window=row.text("completion_window"),
        batch_created_us=row.time("batch_created_at"),
        session=row.text("session"),
        tags={name: value for name in row.family("tags.") if (value := row.text(f"tags.{name}")) is not None},
        digest=fingerprint(line),
    )


class _Row:
    """The members of a row by the targets of a mapping; what was looked into once stays decoded."""

    def __init__(self, mapping: Mapping[str, Any], members: dict[str, msgspec.Raw]) -> None:
        self.fields: Mapping[str, str] = mapping["fields"]
        self.constants: Mapping[str, Any] = mapping["constants"]
        self.units: Mapping[str, str] = mapping["units"]
        self.inside: dict[str, dict[str, msgspec.Raw]] = {"": members}

    def family(self, start: str) -> list[str]:
        return [name.removeprefix(start) for name in (*self.fields, *self.constants) if name.startswith(start)]

    def raw(self, target: str) -> msgspec.Raw | None:
        """The JSON of a target, None where the row does not have it or it is null or an empty text."""
        path = self.fields.get(target)
        found = None if path is None else self._find("", path)
        return None if found is None or nested(found) is None else found

    def value(self, target: str) -> Any:
        found = self.raw(target)
        return self.constants.get(target) if found is None else msgspec.json.decode(found)

    def text(self, target: str) -> str | None:
        """A text, number or boolean as text, of a list the first but nulls; raises BadRecord for anything else."""
        found = self.raw(target)
        if found is not None and bytes(found)[:1] == b"[":
            found = next((item for item in _list.decode(found) if nested(item) is not None), None)
        if found is None:
            return text(self.constants.get(target))
        value = msgspec.json.decode(found)
        if isinstance(value, bool | int | float):
            return bytes(found).decode()
        if not isinstance(value, str):
            raise bad_field(target, "neither a text nor a number")
        return value

    def number(self, target: str) -> Decimal | None:
        """A number, or one in a text, exactly; None for any other text. Raises BadRecord."""
        found = self.text(target)
        return Decimal(found) if found is not None and _NUMBER.fullmatch(found) else None

    def count(self, target: str, most: int) -> int | None:
        if self.text(target) is None:
            return None
        number = self.number(target)
        if number is None or number != int(number) or number > most:
            raise bad_field(target, "not a count")
        return int(number)

    def time(self, target: str) -> int | None:
        """µs UTC. Raises BadRecord."""
        unit, number = self.units.get(target), self.number(target)
        if unit is None or number is None:
            return loose_time(target, self.text(target))
        at_us = int(number * UNITS_US[unit])
        if at_us >= END_US:
            raise bad_field(target, "after the year 9999; check its unit")
        return at_us

    def has(self, path: str, wanted: object) -> bool:
        found = self._find("", path)
        there = found is not None and nested(found) is not None
        if not there or isinstance(wanted, bool):
            return there is wanted
        assert found is not None
        value = msgspec.json.decode(found)
        return str(value).lower() == str(wanted).lower() if isinstance(value, bool) else str(value) == str(wanted)

    def _find(self, prefix: str, path: str) -> msgspec.Raw | None:
        """The member at `path` inside the one at `prefix`; a name that holds dots goes before a way through members."""
        members = self.inside[prefix]
        if path in members:
            return members[path]
        for dot in re.finditer(r"\.", path):
            name = path[: dot.start()]
            if name in members:
                place = f"{prefix}.{name}"
                if place not in self.inside:
                    self.inside[place] = _inside(members[name])
                return self._find(place, path[dot.end() :])
        return None


def _inside(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of an object, those of a list by their position, also of the text of one; else none."""
    value = nested(raw)
    if value is None or value[:1] not in (b"{", b"["):
        return {}
    try:
        return _members.decode(value) if value[:1] == b"{" else {str(n): v for n, v in enumerate(_list.decode(value))}
    except msgspec.DecodeError:
        return {}


def _body(row: _Row) -> tuple[bytes, str]:
    """The body, as it stands in the row or from its parts, and the path of the API that it is written for."""
    names = row.family("body.")
    if not names:
        found = row.raw("body")
        if found is None:
            raise BadRecord("missing_body", "the row has no body where the mapping says")
        body = body_bytes(found)
        return body, path_of(members_of(body))
    parts: dict[str, bytes | msgspec.Raw] = {}
    for name in names:
        value = row.raw(f"body.{name}")
        if value is not None:
            parts[name] = (nested(value) or b"null") if name in _JSON_PARTS else value
    if not parts:
        raise BadRecord("missing_body", "the row has none of the parts of a body that the mapping names")
    return rebuilt(parts)


def _duration(row: _Row) -> int | None:
    number = row.number("duration")
    if number is None:
        if row.text("duration") is not None:
            raise bad_field("duration", "not a number")
        return None
    return duration_us("duration", int(number * UNITS_US[row.units.get("duration", "ms")]), 1)


def _success(row: _Row) -> bool | None:
    value = row.value("success")
    if value is None:
        return None
    found = _SUCCESS.get(str(value).lower())
    if found is None:
        raise bad_field("success", "neither true nor false, nor success nor failure")
    return found


def _usage(row: _Row) -> Usage | None:
    """A provider's object by its shape, or counts by their names."""
    prompt, completion, read, write_5m, write_1h, write_24h = (
        row.count(f"usage.{name}", MAX_TOKENS) for name in _COUNTS
    )
    counted = Usage(prompt, completion, read, write_5m, write_1h, write_24h)
    if counted != Usage():
        return counted
    found = row.raw("usage")
    value = None if found is None else nested(found)
    try:
        return None if value is None else reported(msgspec.json.decode(value))
    except msgspec.DecodeError:
        raise bad_field("usage", "neither an object nor the text of one") from None
