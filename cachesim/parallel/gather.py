"""Starting reading processes and taking in what they send, whatever becomes of them."""

from __future__ import annotations

import hashlib
import signal
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Final

import cachesim.errors
from cachesim.core.model import BadLine
from cachesim.errors import CachesimError
from cachesim.parallel.merge import Merger
from cachesim.parallel.messages import (
    ADVANCE,
    FAILED,
    FINISHED,
    KNOWN,
    TEXTS,
    Failed,
    Finished,
    Known,
    Rows,
    Texts,
    decode,
    encode,
)
from cachesim.parallel.share import Task, read_first
from cachesim.parallel.worker import work
from cachesim.trace.open import Progress, Source
from cachesim.trace.ranges import Part
from cachesim.trace.stored import unreadable

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_SPOOL_BYTES: Final = 32 << 20
_CHUNK_BYTES: Final = 16 << 20
_LENGTH: Final = struct.Struct("<Q")


def gather(
    shares: Sequence[Sequence[Part]],
    task: Task,
    sources: Sequence[Source],
    merger: Merger,
    progress: Progress | None = None,
) -> Iterator[BadLine]:
    """Read the first share here and each other in a process of its own into `merger`; gives the bad lines, in order.

    Afterwards the sources know their sizes and SHA-256. Raises what reading them here would raise, and CachesimError
    for a process that ended early; processes never outlive the call.
    """
    progress = progress or (lambda n: None)
    own, *others = (replace(task, parts=share, known={}) for share in shares)
    with _started(others, _known(task)) as processes, _Digests(sources, shares) as digests:
        gathering = _Gathering(processes, merger, progress)
        yield from read_first(own, merger, gathering.hear, progress)
        yield from gathering.run()
        digests.finish()


class _Process:
    """A reading process and what it sent before its turn: rows are few, but of a long log too many for memory."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.ended = False
        self._early: Any = SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115  closed by `close`

    def keep(self, message: bytes) -> None:
        """Keep a message for later."""
        self._early.write(_LENGTH.pack(len(message)))
        self._early.write(message)

    def early(self) -> Iterator[bytes]:
        """The messages that were kept, once."""
        self._early.seek(0)
        while length := self._early.read(_LENGTH.size):
            yield self._early.read(_LENGTH.unpack(length)[0])

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        self._early.close()


class _Gathering:
    """Receives from all processes at once; their rows are taken in one process after the other."""

    def __init__(self, processes: Sequence[_Process], merger: Merger, progress: Progress) -> None:
        self._processes = processes
        self._merger = merger
        self._progress = progress

    def hear(self) -> None:
        """Take in what is there, without waiting for more."""
        self._receive(None, 0)

    def run(self) -> Iterator[BadLine]:
        """Wait for all messages and take them in; gives the bad lines."""
        for process in self._processes:
            self._merger.start_process()
            for message in process.early():
                yield from self._take(message)
            while not process.ended:
                for message in self._receive(process):
                    yield from self._take(message)

    def _receive(self, current: _Process | None, timeout: float | None = None) -> list[bytes]:
        """Wait for messages: those of the current process; others' texts are counted, the rest is kept."""
        from multiprocessing.connection import wait

        messages: list[bytes] = []
        open_ = {process.connection: process for process in self._processes if not process.ended}
        for ready in wait(list(open_), timeout):
            process = open_[ready]  # type: ignore[index]
            try:
                message = process.connection.recv_bytes()
            except (EOFError, OSError):
                raise _ended_early(process.process) from None
            process.ended = message[:1] in (FINISHED, FAILED)
            if process is current:
                messages.append(message)
            elif message[:1] in (TEXTS, ADVANCE):
                self._take(message)
            else:
                process.keep(message)
        return messages

    def _take(self, message: bytes) -> Iterable[BadLine]:
        """The bad lines that come with rows; these are taken as they are asked for."""
        match decode(message):
            case Rows() as rows:
                return self._merger.add(rows)
            case Texts() as texts:
                self._merger.tokenizers.counter(texts.alias).count_ahead(texts.digests, texts.texts)
            case Finished() as finished:
                self._merger.finish_process(finished)
            case Failed() as failed:
                raise getattr(cachesim.errors, failed.kind)(failed.message)
            case read:
                self._progress(read)
        return ()


def _ended_early(process: BaseProcess) -> CachesimError:
    process.join()
    code = process.exitcode or 0
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return CachesimError(
        f"reading: one of several processes ended early ({how}), perhaps for memory; nothing was stored; "
        "try again with --jobs 1"
    )


@contextmanager
def _started(tasks: Sequence[Task], known: bytes) -> Iterator[list[_Process]]:
    """A process for each task; they are ended with the block."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    started: list[_Process] = []
    try:
        with _interrupts_blocked():
            for task in tasks:
                ours, theirs = context.Pipe(duplex=False)
                hears, tells = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(theirs, hears, task), daemon=True)
                process.start()
                theirs.close()
                hears.close()
                started.append(_Process(process, ours))
                # More than a pipe holds, and the process reads it only when it has started: not to be waited for.
                threading.Thread(target=_tell, args=(tells, known), name="cachesim-tell", daemon=True).start()
        yield started
    finally:
        for one in started:
            one.close()


def _known(task: Task) -> bytes:
    return encode(KNOWN, Known([(*choice, digests) for choice, digests in task.known.items()]))


def _tell(connection: Connection, message: bytes) -> None:
    with connection, suppress(OSError):  # of a process that has ended `_Gathering` hears
        connection.send_bytes(message)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started within inherit it, so that Ctrl-C is for the parent alone from their first moment."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # or the first process would start it, and it leaves the signal unblocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Digests:
    """Hashes, in a thread beside everything else, the files that are read in pieces."""

    def __init__(self, sources: Sequence[Source], shares: Sequence[Sequence[Part]]) -> None:
        sizes: dict[int, int] = {}
        for part in (part for share in shares for part in share if part.end is not None):
            sizes[part.file_no] = max(sizes.get(part.file_no, 0), part.end or 0)
        self._sizes = sizes
        self._sources = sources
        self._stopped = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cachesim-sha256", daemon=True)

    def __enter__(self) -> _Digests:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()

    def finish(self) -> None:
        """Wait for the digests. Raises InputError for a file that cannot be read."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            for file_no, size in self._sizes.items():
                self._hash(self._sources[file_no], size)
        except BaseException as failure:  # told by `finish`
            self._failure = failure

    def _hash(self, source: Source, size: int) -> None:
        assert source.path is not None
        digest, left = hashlib.sha256(), size
        buffer = memoryview(bytearray(min(size, _CHUNK_BYTES)))
        try:
            with source.path.open("rb", buffering=0) as file:
                while left and not self._stopped and (read := file.readinto(buffer[:left])):
                    digest.update(buffer[:read])
                    left -= read
        except OSError as error:
            raise unreadable(source.name, error) from error
        source.size, source.sha256 = size - left, digest.hexdigest()
