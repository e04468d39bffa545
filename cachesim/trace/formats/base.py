"""What every log format is made of: the `Format` type, and the pieces that decoders share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec
from isal import isal_zlib

from cachesim.core.model import BadLine, LogRecord
from cachesim.trace.times import decimal_of, parse_time

Row: TypeAlias = Mapping[str, Any]
DecodeLine: TypeAlias = Callable[[bytes, int, int, int], LogRecord]
"""(line, file_no, line number, byte offset) -> record. Raises DECODE_ERRORS or NotARequest."""
KnownPart: TypeAlias = Callable[[bytes, int], tuple[int, bytes]]
"""(line, where its body begins) -> where in the line the part of the body ends that needs no scanning, and what the
record's body shall have in its place, KNOWN_START or KNOWN_BODY; -1 if nothing is known.
"""
DecodeKnownLine: TypeAlias = Callable[[bytes, int, int, int, KnownPart], LogRecord]
DecodeDocument: TypeAlias = Callable[[bytes, int], "Iterator[LogRecord | BadLine | NotARequest]"]
"""(document, file_no) -> its requests, and as data the parts that are none or cannot be used, numbered together from 1.

Raises DECODE_ERRORS where the document as a whole is not as it should be.
"""

CHAT_PATH: Final = "/v1/chat/completions"
MESSAGES_PATH: Final = "/v1/messages"
KEY_PREFIX: Final = "sha256:"
_TAIL_BYTES: Final = 1024
_COST_DIGITS: Final = 12
"""Before the point. Money is stored with 18 of them: a million such costs still add up."""
MAX_DURATION_US: Final = 366 * 86_400 * 1_000_000

_FIELD: Final = re.compile(r"\$((?:\.\w+)+)")
_MISSING: Final = re.compile(r"required field `(\w+)`")
_BEARER: Final = re.compile(r"bearer\s+", re.IGNORECASE)
_text: Final = msgspec.json.Decoder(str)


class BadRecord(ValueError):
    """A record that cannot be used: a reason code of `BadLine` and a sentence without content."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotARequest(Exception):
    """What a log holds beside requests to a provider: not an error, in no total, counted under a reason code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


RESPONSE_CACHE: Final = "response_cache"
"""The reason for rows that a gateway answered from its own cache of whole responses: no provider saw a request."""

DECODE_ERRORS: Final = (BadRecord, msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that a decoder raises for input that is not as it should be."""


class Answer(NamedTuple):
    """What a row of a second kind says about the request with this id: values of fields of its `LogRecord`."""

    id: str
    says: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Join:
    """A second kind of file of a format: whether a sample row is of that kind, and the answer in one of its lines.

    alone: one sentence on why such files are of no use without requests, and what to do.
    """

    is_answer: Callable[[Row], bool]
    decode: Callable[[bytes], Answer]
    alone: str

    def matches(self, sample: Sequence[Row]) -> bool:
        """Whether most of the sample rows are answers of this kind."""
        return 2 * sum(map(self.is_answer, sample)) > len(sample)


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of log. kind "lines": one record a line, `decode_line`; "document": a whole file, `decode_document`.

    detect: whether a parsed row (or document) is of this format. has_times, has_principals: whether its records can
    tell; where not, both must come from the user. joins: how answers in files of their own find their requests; where
    two kinds say the same, the later one holds. assumes: code and sentence for every run of such a log.
    decode_known_line: `decode_line` for a caller that knows parts of bodies; it gives the same records.
    """

    name: str
    description: str
    kind: Literal["lines", "document"]
    detect: Callable[[Row], bool]
    decode_line: DecodeLine | None = None
    decode_known_line: DecodeKnownLine | None = None
    decode_document: DecodeDocument | None = None
    has_times: bool = True
    has_principals: bool = False
    joins: tuple[Join, ...] = ()
    assumes: tuple[str, str] | None = None

    def matches(self, sample: Sequence[Row]) -> bool:
        """Whether most of the sample rows are of this format."""
        return 2 * sum(map(self.detect, sample)) > len(sample)


def explain(error: Exception) -> tuple[str, str]:
    """Reason code and sentence for one of DECODE_ERRORS."""
    if isinstance(error, BadRecord):
        return error.reason, str(error)
    if isinstance(error, UnicodeDecodeError):
        return "invalid_utf8", "a byte is not UTF-8"
    if isinstance(error, RecursionError):
        return "too_deep", "arrays or objects are nested too deeply"
    if isinstance(error, msgspec.ValidationError):
        path, missing = _FIELD.search(str(error)), _MISSING.search(str(error))
        names = [*(path[1][1:].split(".") if path else ()), *(missing.groups() if missing else ())]
        if not names:
            return "not_an_object", "JSON, but not an object"
        name = ".".join(names)
        return f"bad_field:{name}", f"the field {name} {'is missing' if missing else 'has the wrong type'}"
    return "not_json", f"not JSON ({error})"


def bad_line(file_no: int, number: int, offset: int, raw: bytes, reason: str, message: str) -> BadLine:
    """The bad line with this raw text, whose line end is not part of it."""
    raw = raw.rstrip(b"\r\n")
    return BadLine(file_no, number, offset, reason, message, hashlib.sha256(raw).hexdigest(), raw)


def bad_field(name: str, problem: str) -> BadRecord:
    """The error for a field with an unusable value; `problem` completes the sentence `the field is …`."""
    return BadRecord(f"bad_field:{name}", f"the field {name} is {problem}")


@lru_cache(maxsize=4096)
def digest_key(key: str) -> str | None:
    """What stands for an API key or an authorization header, whose scheme `Bearer` is not part of the key."""
    key = _BEARER.sub("", key.strip(), count=1) if _BEARER.match(key.strip()) else key.strip()
    return KEY_PREFIX + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest() if key else None


def fingerprint(raw: bytes) -> int:
    """A 63-bit fingerprint of a line without its line end: equal lines have equal ones, in every process."""
    end = len(raw)
    while end and raw[end - 1] in b"\r\n":
        end -= 1
    view = memoryview(raw)[:end]
    tail = isal_zlib.adler32(view[-_TAIL_BYTES:]) ^ end * 0x9E3779B1
    return (isal_zlib.crc32(view) << 31) | (tail & 0x7FFFFFFF)


def body_bytes(raw: msgspec.Raw, name: str = "body") -> bytes:
    """The request body of a field that holds it as an object, or as a string with its raw text.

    Raises DECODE_ERRORS.
    """
    body = bytes(raw)
    first = body[:1]
    if first == b"{":
        return body
    if first == b'"':
        return _text.decode(body).encode()
    if body in (b"", b"null"):
        raise BadRecord("missing_body", f"the record has no {name}")
    raise bad_field(name, "neither an object nor a string")


def time_field(name: str, value: object) -> int:
    """`parse_time`, raising BadRecord."""
    try:
        return parse_time(value)
    except ValueError as error:
        raise bad_field(name, str(error)) from None


def duration_us(name: str, value: float | None, unit_us: int) -> int | None:
    """A duration given as a number of units of `unit_us` microseconds, cut off below one microsecond."""
    if value is None:
        return None
    if type(value) is float and not abs(value) < MAX_DURATION_US:
        raise bad_field(name, "out of range")
    us = int(value * unit_us) if type(value) is int else int(decimal_of(value) * unit_us)
    if not 0 <= us <= MAX_DURATION_US or value < 0:
        raise bad_field(name, "negative or longer than a year")
    return us


def status_field(name: str, value: int | None) -> int:
    """An HTTP status, 200 where the log has none."""
    if value is None:
        return 200
    if not 0 <= value <= 999:
        raise bad_field(name, "not an HTTP status")
    return value


def cost_of(value: object) -> Decimal | None:
    """A reported cost as it was written, None where it is no finite number, or none that can be an amount of money.

    >>> cost_of("0.25"), cost_of("1e400"), cost_of("1_000"), cost_of(True)
    (Decimal('0.25'), None, None, None)
    """
    if type(value) not in (int, float, str) or "_" in str(value):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    return cost if is_amount(cost) else None


def is_amount(cost: Decimal) -> bool:
    """Whether it can be an amount of money: finite, and not so large that nothing holds it."""
    return cost.is_finite() and cost.adjusted() < _COST_DIGITS


def path_and_query(url: str, default: str) -> str:
    """Path and query of a URL, which may also be given as just those."""
    if not url.startswith("/"):
        try:
            parts = urlsplit(url)
        except ValueError:
            return default
        url = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return url or default


def header(headers: object, name: str) -> str | None:
    """A header's value, from an object (of strings or lists) or a list of pairs; names in any case."""
    pairs: Iterable[Any] = (
        headers.items() if isinstance(headers, dict) else headers if isinstance(headers, list) else ()
    )
    for pair in pairs:
        if isinstance(pair, tuple | list) and len(pair) == 2 and str(pair[0]).lower() == name:
            value = pair[1][0] if isinstance(pair[1], list) and pair[1] else pair[1]
            return value if isinstance(value, str) else None
    return None
