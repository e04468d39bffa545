"""From command-line arguments to log files, and from a log file to its lines."""

from __future__ import annotations

import glob
import hashlib
import io
import os
import stat
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import msgspec

from cachesim.core.model import BadLine
from cachesim.errors import InputError
from cachesim.trace.stored import HEAD_BYTES, Damage, LogBytes, unreadable

Line: TypeAlias = tuple[int, int, bytes]
"""1-based number, byte offset in the decompressed stream, and the line as it stands there, with its line end."""

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of stored bytes read since the last call."""

MAX_LINE_BYTES: Final = 256 << 20
"""Longer lines are not read into memory. Requests with images reach tens of MB; providers refuse far smaller ones."""

STDIN_NAME: Final = "<stdin>"
_NEWLINE: Final = 10
BOM: Final = b"\xef\xbb\xbf"
_NOT_TEXT: Final = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x04\x22\x4d\x18": "lz4 data",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
}


class Damageable(Protocol):
    """What knows why its lines ended early."""

    @property
    def damage(self) -> Damage | None: ...


class Source:
    """One log file, or standard input.

    file_no: its position among the sources; name: as on the command line; path: None for standard input;
    stored_bytes: the file's size where it is known beforehand; rereadable: false for pipes;
    size, sha256: of the stored bytes, known once `lines` has been read to its end.
    """

    def __init__(self, file_no: int, name: str, path: Path | None) -> None:
        self.file_no = file_no
        self.name = name
        self.path = path
        status = path.stat() if path is not None else None
        self.rereadable = status is not None and stat.S_ISREG(status.st_mode)
        self.stored_bytes = status.st_size if status is not None and self.rereadable else None
        self.size: int | None = None
        self.sha256: str | None = None
        self._opened = False

    def __repr__(self) -> str:
        return f"Source({self.file_no}, {self.name!r})"

    def lines(
        self, progress: Progress | None = None, max_line_bytes: int = MAX_LINE_BYTES
    ) -> Generator[Line | BadLine, None, None]:
        """Every line of the decompressed file, split at \\n only; what cannot be read as one is a BadLine.

        A byte order mark is left out (the first line's offset is then 3). Damage ends the file with one BadLine.
        Raises InputError where the file cannot be opened or read, or a pipe is read a second time.
        """
        with self.content(progress) as data:
            yield from self.lines_of(data, max_line_bytes)

    @contextmanager
    def content(self, progress: Progress | None = None) -> Iterator[LogBytes]:
        """The decompressed bytes; when it ends without an error, `size` and `sha256` are known.

        Raises InputError where the file cannot be opened or read, or a pipe is read a second time.
        """
        with self._open() as read, LogBytes(read, self.name, progress) as data:
            yield data
            self.size, self.sha256 = data.finish()

    def lines_of(self, data: LogBytes, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line | BadLine]:
        """The lines of content that nothing was read of yet."""
        kind = not_text(data.head)
        if kind is not None:
            reason, message = kind
            _, digest = data.finish()
            yield BadLine(self.file_no, 1, 0, reason, message, digest)
            return
        stream, offset = text_of(data)
        yield from self._split(stream.readline, offset, data, max_line_bytes)

    def _split(
        self, readline: Callable[[int], bytes], offset: int, data: Damageable, limit: int
    ) -> Iterator[Line | BadLine]:
        number = 0
        while line := readline(limit + 1):
            number += 1
            if line[-1] != _NEWLINE:
                if len(line) > limit:
                    size, digest = _skip_line(readline, line)
                    message = f"the line is {size} bytes long, more than the limit of {limit}"
                    yield BadLine(self.file_no, number, offset, "line_too_long", message, digest)
                    offset += size
                    continue
                if data.damage is not None and not _is_json(line):
                    yield self._damaged(data, number, offset, line)
                    return
            yield number, offset, line
            offset += len(line)
        if data.damage is not None:
            yield self._damaged(data, number + 1, offset, b"")

    def _damaged(self, data: Damageable, number: int, offset: int, line: bytes) -> BadLine:
        assert data.damage is not None
        digest = hashlib.sha256(line).hexdigest()
        return BadLine(self.file_no, number, offset, data.damage.reason, data.damage.message, digest, line)

    @contextmanager
    def _open(self) -> Iterator[Callable[[int], bytes]]:
        if self._opened and not self.rereadable:
            raise InputError(f"{self.name}: a pipe can be read only once; store it in a file to read it again")
        self._opened = True
        if self.path is None:
            stdin = sys.stdin.buffer
            yield stdin.read1 if isinstance(stdin, io.BufferedReader | io.BytesIO) else stdin.read
            return
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise unreadable(self.name, error) from error
        with file:
            yield file.read


def find_sources(arguments: Iterable[str]) -> tuple[list[Source], list[str]]:
    """The log files that `arguments` name, in order, and remarks about arguments that were not taken as they stand.

    An argument is a path, a pattern (expanded sorted; `**` goes into folders) or `-` for standard input.
    Raises InputError for what is missing, unreadable or a directory.
    """
    sources: list[Source] = []
    remarks: list[str] = []
    seen: dict[object, str] = {}
    for argument in arguments:
        for name, path in _expand(argument):
            key = _identity(name, path)
            if key in seen:
                remarks.append(f"{name}: given more than once (as {seen[key]}), read once")
                continue
            seen[key] = name
            sources.append(Source(len(sources), utf8_name(name), path))
    return sources, remarks


def text_of(data: LogBytes) -> tuple[io.BufferedReader[LogBytes], int]:
    """The content as a stream from behind a byte order mark, and the offset of its first byte."""
    stream = io.BufferedReader(data, 1 << 20)
    return stream, len(stream.read(len(BOM))) if data.head.startswith(BOM) else 0


def utf8_name(name: str) -> str:
    """A file name that can be stored and printed: bytes that are not UTF-8 become `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _expand(argument: str) -> list[tuple[str, Path | None]]:
    if argument == "-":
        return [(STDIN_NAME, None)]
    if os.path.lexists(argument) or not glob.has_magic(argument):
        return [(argument, Path(argument))]
    # A pattern is about files: a directory that it happens to match is not meant.
    names = sorted(name for name in glob.glob(argument, recursive=True) if not os.path.isdir(name))
    if not names:
        raise InputError(f"{argument}: no file matches this pattern; check the folder and quote the pattern")
    return [(name, Path(name)) for name in names]


def _identity(name: str, path: Path | None) -> object:
    """What makes two arguments the same file; checks on the way that the file can be read."""
    if path is None:
        return name
    try:
        status = path.stat()
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise unreadable(name, error if isinstance(error, OSError) else OSError(str(error))) from error
    if stat.S_ISDIR(status.st_mode):
        pattern = Path(name, "*.jsonl*")
        raise InputError(f"{name}: is a directory, expected log files; name the files, such as '{pattern}'")
    if not os.access(path, os.R_OK):
        raise InputError(f"{name}: no permission to read it; check its owner and mode")
    return (status.st_dev, status.st_ino)


def _skip_line(readline: Callable[[int], bytes], start: bytes) -> tuple[int, str]:
    """Read to the end of a line that began with `start`, without holding it: its bytes and its SHA-256."""
    digest = hashlib.sha256()
    size = len(start)
    piece = start
    while piece and piece[-1] != _NEWLINE:
        digest.update(piece)
        piece = readline(1 << 20)
        size += len(piece) if piece else 0
    digest.update(piece.rstrip(b"\r\n"))
    return size, digest.hexdigest()


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def not_text(head: bytes) -> tuple[str, str] | None:
    """Why a file that starts with `head` is no text in UTF-8: reason code and sentence, else None."""
    head = head[:HEAD_BYTES]
    advice = "expected lines of JSON in UTF-8"
    for magic, kind in _NOT_TEXT.items():
        if head.startswith(magic):
            return "binary", f"{kind}, {advice}, plain or compressed with gzip or zstd; convert the file"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or (b"\0" in head[:2] and any(head[:4])):
        return "utf16", f"text in UTF-16 or UTF-32, {advice}; convert the file, for example with iconv"
    if b"\0" in head and not head.lstrip().startswith((b"{", b"[")):
        return "binary", f"binary data, {advice}; check that this is the log"
    # JSON with a NUL in it: a crash leaves blocks of zeros in a file, which cost the lines they are in.
    return None
