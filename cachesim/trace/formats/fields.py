"""Fields of exported rows, which may hold a value as such or, after a CSV file or a text column, as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from cachesim.trace.formats.base import KEY_PREFIX, bad_field, digest_key, time_field


class _Response(msgspec.Struct):
    usage: Any = None


Row = TypeVar("Row")

_response: Final = msgspec.json.Decoder(_Response)
_text: Final = msgspec.json.Decoder(str)
_raw: Final = msgspec.json.Decoder(msgspec.Raw)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_object: Final = msgspec.json.Decoder(dict[str, Any])
_NUMBER: Final = re.compile(r"\d{1,13}(?:\.\d*)?", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_KEY: Final = re.compile(r"\s*(?:bearer\s|[sp]k-)", re.IGNORECASE)
_ABSENT: Final = (b"", b"null", b'""')


def nested(raw: msgspec.Raw) -> bytes | None:
    """The JSON of a field that holds an object or array, or a string with its text, byte for byte; None where absent.

    Raises DECODE_ERRORS.
    """
    value = bytes(raw)
    while value[:1] == b'"' and value not in _ABSENT:
        try:
            value = _text.decode(value).strip().encode()
        except msgspec.DecodeError:  # a text that begins with a quotation mark
            break
    return None if value in _ABSENT else value


def is_json(value: bytes) -> bool:
    """Whether a text that begins like an array or an object is one.

    >>> is_json(b'[{"role": "user"}]'), is_json(b"[INST] Hello.")
    (True, False)
    """
    if value[:1] not in (b"[", b"{"):
        return False
    try:
        _raw.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def members(raw: msgspec.Raw, name: str) -> dict[str, msgspec.Raw]:
    """The members of an object, or of one in a string, uninterpreted; none where absent. Raises DECODE_ERRORS."""
    return _decoded(_members, raw, name)


def fields(raw: msgspec.Raw, name: str) -> dict[str, Any]:
    """The members of an object, or of one in a string; none where absent. Raises DECODE_ERRORS."""
    return _decoded(_object, raw, name)


def _decoded(decoder: msgspec.json.Decoder[dict[str, Any]], raw: msgspec.Raw, name: str) -> dict[str, Any]:
    value = nested(raw)
    if value is None:
        return {}
    try:
        return decoder.decode(value)
    except msgspec.DecodeError:
        raise bad_field(name, "neither an object nor the text of one") from None


def usage_of(response: msgspec.Raw) -> Any:
    """The `usage` of a response, an object or the text of one; None where it has none or is something else."""
    try:
        return _response.decode(nested(response) or b"null").usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def row_decoder(type_: type[Row], *not_text: str) -> Callable[[bytes], Row]:
    """Decodes a row of this type, whose members `not_text` may also be texts that hold their JSON, as in CSV.

    What it returns raises DECODE_ERRORS.
    """
    decode = msgspec.json.Decoder(type_).decode

    def decode_either(line: bytes) -> Row:
        try:
            return decode(line)
        except msgspec.ValidationError:
            changed = _from_text(line, not_text)
            if changed is None:
                raise
            return decode(changed)

    return decode_either


def _from_text(line: bytes, names: tuple[str, ...]) -> bytes | None:
    """The row with those of its named members that are the text of an object as just that; None where none is.

    In a row of nothing but texts, as CSV has it, numbers and booleans count too.

    >>> _from_text(b'{"status": "200", "at": "2026-01-01", "id": "7"}', ("status", "at"))
    b'{"status":200,"at":"2026-01-01","id":"7"}'
    """
    try:
        row = _members.decode(line)
    except RecursionError:
        return None
    texts = {name: _text.decode(value) for name, value in row.items() if name in names and bytes(value)[:1] == b'"'}
    only_texts = all(bytes(value)[:1] == b'"' for value in row.values())
    changed = False
    for name, held in texts.items():
        if only_texts or held.lstrip()[:1] == "{":
            held = held.lower() if held in ("True", "False") else held
            try:
                row[name] = msgspec.json.decode(held, type=msgspec.Raw)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
                continue  # a text after all
            changed = True
    return msgspec.json.encode(row) if changed else None


def part(value: object) -> dict[str, Any]:
    """A member that should be an object: itself, or an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """A name or id: a string that is not empty, or a number as text."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) is int else None


def tags_of(values: Mapping[str, Any], *own: str) -> dict[str, str]:
    """The texts and numbers among values that users attached to a request, without the gateway's `own` prefixes.

    Keys are digested, as in `principal_name`.
    """
    named = {name: principal_name(value) for name, value in values.items() if not name.lower().startswith(own)}
    return {name: value for name, value in named.items() if value is not None}


def loose_time(name: str, value: object) -> int | None:
    """`time_field`, for epoch numbers in strings too; None where absent. Raises BadRecord."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and "-" not in value and _NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    return time_field(name, value)


def elapsed_us(name: str, start_us: int | None, end_us: int | None) -> int | None:
    """The time from start to end, None where one is unknown. Raises BadRecord for an end before its start."""
    if start_us is None or end_us is None:
        return None
    if end_us < start_us:
        raise bad_field(name, "before the start")
    return end_us - start_us


def hashed_key(value: object) -> str | None:
    """A key that the log has hashed (SHA-256 in hex, as `digest_key` writes it); anything else is taken for a key."""
    key = text(value)
    if key is None:
        return None
    return KEY_PREFIX + key.lower() if _DIGEST.fullmatch(key) else digest_key(key)


def principal_name(value: object) -> str | None:
    """The name of a user, team or customer; what looks like a key is digested, so that no key is ever printed.

    >>> principal_name("acme"), principal_name("sk-1234")[:14]
    ('acme', 'sha256:88dc28d')
    """
    name = text(value)
    return None if name is None else without_key(name)


def without_key(name: str) -> str:
    """A name as it is, or its digest where it looks like a key."""
    digest = digest_key(name) if _KEY.match(name) else None
    return name if digest is None else digest


def first(row: Mapping[str, Any], *names: str) -> Any:
    """The first of these members that is there and neither null nor empty text."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)
