"""The bytes of a log: read once, hashed as stored, decompressed by what they are and not by what the file is called.

Damage is not an exception for the reader of the stream: everything before it is delivered, then the stream ends and
`LogBytes.damage` says why.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, cast

import zstandard
from isal import igzip_lib

from cachesim.errors import InputError

CHUNK_BYTES: Final = 1 << 20
"""Stored bytes taken at a time: large enough that per-chunk costs vanish, small enough to stay in the CPU's caches."""

_HASHED_CHUNKS: Final = 4
_HASHED_BATCHES: Final = 3
"""Chunks hashed at a time, and how many such batches may wait: what bounds the memory of hashing to 16 MiB."""

BOMB_RATIO: Final = 2000
BOMB_FREE_BYTES: Final = 1 << 30
"""A stream may always grow to BOMB_FREE_BYTES, and beyond that to BOMB_RATIO times its stored size.

Logs of long conversations repeat themselves hundreds of times over, so the ratio is generous; zstd can reach 32,768.
The limit guards time: memory is bounded by the longest line in any case.
"""

HEAD_BYTES: Final = 4096
_PIECE_BYTES: Final = 1 << 16
_ZSTD_SLICE_BYTES: Final = 1 << 13  # its decoder cannot be told when to stop: at most 256 MiB from one slice
_ZSTD_WINDOW_BYTES: Final = 1 << 31  # `zstd --long=31` files
_IsalError: Final = cast("type[Exception]", igzip_lib.IsalError)
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"


@dataclass(frozen=True, slots=True)
class Damage:
    """Why a stream ended early: a reason code and a sentence."""

    reason: str
    message: str


class LogBytes(io.RawIOBase):
    """The decompressed bytes of a log as a raw stream; wrap it in `io.BufferedReader` for lines.

    damage: why the stream ended early, else None. After the end, `finish` gives size and SHA-256 of the stored bytes.
    """

    def __init__(self, read: Callable[[int], bytes], name: str, progress: Callable[[int], None] | None = None) -> None:
        self.damage: Damage | None = None
        self._tally = _Tally()
        self._chunks = self._stored(read, name, progress)
        self._out_bytes = 0
        magic, chunks = _at_least(self._chunks, 4)
        self.head, self._pieces = _at_least(self._guarded(_decompressed(magic, chunks)), HEAD_BYTES)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def finish(self) -> tuple[int, str]:
        """Size and SHA-256 (hex) of all stored bytes; reads what is left of them."""
        for _ in self._chunks:
            pass
        return self._tally.size, self._tally.hexdigest()

    def close(self) -> None:
        self._tally.close()
        super().close()

    def _stored(
        self, read: Callable[[int], bytes], name: str, progress: Callable[[int], None] | None
    ) -> Iterator[bytes]:
        while True:
            try:
                chunk = read(CHUNK_BYTES)
            except OSError as error:
                raise unreadable(name, error) from error
            if not chunk:
                return
            self._tally.add(chunk)
            if progress is not None:
                progress(len(chunk))
            yield chunk

    def _guarded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """`pieces` until they end, turn out to be damaged, or grow beyond all proportion."""
        try:
            for piece in pieces:
                self._out_bytes += len(piece)
                if self._out_bytes > BOMB_FREE_BYTES and self._out_bytes > BOMB_RATIO * self._tally.size:
                    self.damage = Damage(
                        "decompression_limit",
                        f"decompressed to more than {BOMB_RATIO} times its size; the rest is left out",
                    )
                    return
                yield piece
        except (_IsalError, zstandard.ZstdError, EOFError) as error:
            self.damage = Damage("corrupt_compression", f"the compressed data is damaged ({error}); the rest is lost")


class _Tally:
    """Size and SHA-256 of chunks, hashed beside the parsing where it pays: hashlib lets other threads run.

    Chunks go to the other thread several at a time: getting back the interpreter costs it more than a chunk's hash.
    """

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._chunks: list[bytes] = []
        self._pool: ThreadPoolExecutor | None = None
        self._running: deque[Future[None]] = deque()

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._chunks.append(chunk)
        if len(self._chunks) < _HASHED_CHUNKS:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "cachesim-sha256")
        if len(self._running) == _HASHED_BATCHES:
            self._running.popleft().result()
        self._running.append(self._pool.submit(self._update, self._chunks))
        self._chunks = []

    def _update(self, chunks: list[bytes]) -> None:
        self._hash.update(b"".join(chunks))

    def hexdigest(self) -> str:
        while self._running:
            self._running.popleft().result()
        self._update(self._chunks)
        self._chunks = []
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def digest_file(path: Path) -> tuple[int, str]:
    """Size and SHA-256 (hex) of a file as stored. Raises InputError."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return file.tell(), digest.hexdigest()
    except OSError as error:
        raise unreadable(str(path), error) from error


def unreadable(name: str, error: OSError) -> InputError:
    """The error for a file that the system will not read."""
    return InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and its permissions")


def _decompressed(magic: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    if magic.startswith(_GZIP):
        return _gunzip(chunks)
    return _unzstd(chunks) if is_compressed(magic) else chunks


def is_compressed(head: bytes) -> bool:
    """Whether a file that starts like this is one that is decompressed for reading."""
    return head.startswith((_GZIP, _ZSTD)) or (head[1:4] == _ZSTD_SKIPPABLE and head[0] >> 4 == 5)


def _gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """All members, one after the other; zero bytes between or after them are padding."""
    member = None
    for data in chunks:
        while data:
            if member is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            yield member.decompress(data, _PIECE_BYTES)
            while not member.eof and not member.needs_input:
                yield member.decompress(b"", _PIECE_BYTES)
            data = b""
            if member.eof:
                data = member.unused_data
                member = None
    if member is not None:
        raise EOFError("it ends in the middle")


def _unzstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """All frames, one after the other."""
    frame = None
    for data in chunks:
        for start in range(0, len(data), _ZSTD_SLICE_BYTES):
            part = data[start : start + _ZSTD_SLICE_BYTES]
            while part:
                if frame is None:
                    frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
                yield frame.decompress(part)
                part = b""
                if frame.eof:
                    part = frame.unused_data
                    frame = None
    if frame is not None:
        raise EOFError("it ends in the middle")


def _at_least(pieces: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `size` bytes or more (less only if there are no more), and all pieces from the start again."""
    taken: list[bytes] = []
    total = 0
    for piece in pieces:
        taken.append(piece)
        total += len(piece)
        if total >= size:
            break
    head = b"".join(taken)
    return head, chain((head,), pieces) if head else pieces
