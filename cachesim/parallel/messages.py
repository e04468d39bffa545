"""What a reading process tells its parent: bytes whose first one says which of these messages follows."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cachesim.core.markers import MarkerFact
from cachesim.core.model import BadLine
from cachesim.trace.reader import FileFacts

TEXTS: Final = b"t"
ROWS: Final = b"r"
ADVANCE: Final = b"a"
KNOWN: Final = b"k"
FAILED: Final = b"f"
FINISHED: Final = b"d"


class Known(msgspec.Struct, array_like=True, gc=False):
    """The one message to a process: digests of the texts whose counts need no text, by source and version of their
    tokenizer, 16 bytes each."""

    digests: list[tuple[str, str | None, bytes]]


class Texts(msgspec.Struct, array_like=True, gc=False):
    """Texts to count, in UTF-8, for the tokenizer of a model alias; digests: 16 bytes each."""

    alias: str | None
    digests: bytes
    texts: list[bytes]


class PartFacts(msgspec.Struct, array_like=True):
    """What was found in the part of a file that has just ended. lines: how many; size, sha256: of a whole file."""

    file: FileFacts
    lines: int
    size: int | None
    sha256: str | None
    usage_reported: bool
    default_principal: str | None


class Rows(msgspec.Struct, array_like=True):
    """What is new since the last such message, all numbers (rows, nodes, facts, tokenizers) the process's own.

    file_no: whose rows and bad lines these are; requests, prompts: columns as a `TraceBuilder` gives them, requests
    without a name and lines numbered within the part; parents: 32-bit integers; kinds: bytes; digests: 32 bytes each;
    aliases: for each new tokenizer, a model that has it; ended: the part's facts, with its last rows.
    """

    file_no: int
    aliases: list[str | None]
    facts: list[MarkerFact]
    parents: bytes
    kinds: bytes
    digests: bytes
    requests: list[list[Any]]
    prompts: list[list[Any]]
    bad: list[BadLine]
    ended: PartFacts | None = None


class Counted(msgspec.Struct, array_like=True):
    """Of one tokenizer: the digests of its texts by slot, 16 bytes each; the slot of each node, 32-bit integers."""

    digests: bytes
    by_node: bytes


class Finished(msgspec.Struct, array_like=True):
    """The last message, when all parts are read."""

    counted: list[Counted]
    assumed_5m: int


class Failed(msgspec.Struct, array_like=True):
    """Reading failed in a way the user is told about; kind: a class of `cachesim.errors`."""

    kind: str
    message: str


_encoder: Final = msgspec.msgpack.Encoder()
_decoders: Final[dict[bytes, msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(message, dec_hook=lambda wanted, found: wanted(found))  # a Counter
    for kind, message in (
        (KNOWN, Known),
        (TEXTS, Texts),
        (ROWS, Rows),
        (ADVANCE, int),
        (FAILED, Failed),
        (FINISHED, Finished),
    )
}


def encode(kind: bytes, message: Any) -> bytes:
    """A message as bytes."""
    return kind + _encoder.encode(message)


def decode(message: bytes) -> Any:
    """The message that `encode` was given."""
    return _decoders[message[:1]].decode(memoryview(message)[1:])
