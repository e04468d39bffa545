"""The nouns that flow through cachesim: what a log says of one request, before anything is computed.

Times are whole microseconds UTC, tokens are ints, money is Decimal, keys are already digests.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

_NOBODYS: Final = b'{"' + secrets.token_hex(16).encode()  # nobody can have written it into a log
KNOWN_START: Final = _NOBODYS + b'":['
"""Stands in a record's body for the beginning that preparation said it knows, up to between two messages.

It opens as many brackets.
"""
KNOWN_BODY: Final = _NOBODYS + b'":0}'
"""Stands for a body that preparation has taken to pieces already."""


class Usage(NamedTuple):
    """Reported token usage in normal form: prompt = read + writes + uncached, whatever the provider's shape.

    A field is None where the log does not say. The cache fields describe the *recorded* split.
    `write_5m_assumed` is true where an untiered creation count was taken as 5m.
    """

    prompt: int | None = None
    completion: int | None = None
    read: int | None = None
    write_5m: int | None = None
    write_1h: int | None = None
    write_24h: int | None = None
    write_5m_assumed: bool = False


@dataclass(slots=True)
class LogRecord:
    """One request as the log tells it. None means the log does not say.

    file_no: position in the list of input files; line: 1-based line (or 1-based record of a document);
    offset: byte offset of the line or document in the decompressed file; size: its bytes.
    at_us / duration_us: arrival and response time; body: the raw request body bytes as sent
    by the client, or behind KNOWN_START, or KNOWN_BODY.
    principal: scope and billing principal (a digest where it came from a key).
    digest: cheap 63-bit fingerprint of the raw record, to find byte-identical duplicates.
    """

    file_no: int
    line: int
    offset: int
    log_format: str
    body: bytes | None
    id: str | None = None
    at_us: int | None = None
    duration_us: int | None = None
    principal: str | None = None
    model: str | None = None
    uri: str = "/v1/chat/completions"
    method: str = "POST"
    status: int = 200
    success: bool | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    purpose: str | None = None
    completion_window: str | None = None
    batch_created_us: int | None = None
    session: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    digest: int = 0


@dataclass(frozen=True, slots=True)
class BadLine:
    """A record that could not be used, kept as data.

    reason: stable snake_case code (not_json, invalid_utf8, truncated, not_an_object, bad_field:<name>, missing_time …);
    message: one sentence for people, without any content of the line; digest: SHA-256 hex of the raw line;
    raw: the line itself, kept in memory only while it is being handled (written out only with --bad-lines-raw).
    """

    file_no: int
    line: int
    offset: int
    reason: str
    message: str
    digest: str
    raw: bytes = b""
