"""One reading process: prepares its parts of the log like the program itself, with numbers of its own."""

from __future__ import annotations

import gc
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cachesim.core.model import BadLine
from cachesim.errors import CachesimError
from cachesim.parallel.messages import (
    ADVANCE,
    FAILED,
    FINISHED,
    ROWS,
    TEXTS,
    Counted,
    Failed,
    Finished,
    PartFacts,
    Rows,
    Texts,
    decode,
    encode,
)
from cachesim.parallel.share import PartReading, Task
from cachesim.prepare.builder import TraceBuilder
from cachesim.prepare.chains import Slots
from cachesim.prepare.tokenizers import UNMAPPED, Mapped, ModelTokenizer
from cachesim.trace.ranges import Part

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_FAILURE: Final = 70
_BAD_LINES: Final = 1000
_TEXT_BYTES: Final = 256 << 10
_TOLD_BYTES: Final = 8 << 20


def work(connection: Connection, told: Connection, task: Task) -> NoReturn:
    """Read the task's parts and send what is in them; then end without taking apart what the memory holds.

    told: brings what is known.

    Any other error than the user's ends the process without a word, since it might quote the log; the parent tells that
    it ended, and a single process would tell where.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes
    gc.disable()
    code = 0
    try:
        known = {ModelTokenizer(*choice): digests for *choice, digests in decode(told.recv_bytes()).digests}
        _Reader(connection, replace(task, known=known)).run()
    except CachesimError as error:
        connection.send_bytes(encode(FAILED, Failed(type(error).__name__, str(error))))
    except Exception:
        code = _FAILURE
        if os.environ.get("CACHESIM_DEBUG") == "1":
            traceback.print_exc()
    connection.close()
    os._exit(code)


class _Reader:
    """Prepares and sends."""

    def __init__(self, connection: Connection, task: Task) -> None:
        self._task = task
        self._send = connection.send_bytes
        self._tokenizers = _Tokenizers(task, self._send)
        self._builder = TraceBuilder(task.rules, self._tokenizers, self._take)
        self._sent_nodes = self._sent_facts = self._sent_tokenizers = 0
        self._file_no = 0
        self._advanced = 0
        self._requests: list[list[Any]] = []
        self._prompts: list[list[Any]] = []
        self._bad: list[BadLine] = []

    def run(self) -> None:
        for part in self._task.parts:
            self._read(part)
        counted = [Counted(t.digests, t.slots.by_node.tobytes()) for t in self._tokenizers.used]
        self._send(encode(FINISHED, Finished(counted, self._builder.assumed_5m)))

    def _read(self, part: Part) -> None:
        self._file_no = part.file_no
        reading = PartReading(self._task, part, self._advance)
        for item in reading.items(self._builder.reader.parts.known_part, name_records=False):
            if type(item) is BadLine:
                self._bad.append(item)
                if len(self._bad) >= _BAD_LINES:
                    self._send_rows()
            else:
                self._builder.add(item)  # type: ignore[arg-type]
        self._builder.flush()
        self._send_rows(reading.facts())
        self._tell()

    def _advance(self, read: int) -> None:
        self._advanced += read
        if self._advanced >= _TOLD_BYTES:
            self._tell()

    def _tell(self) -> None:
        """Send how much was read since the last time."""
        self._send(encode(ADVANCE, self._advanced))
        self._advanced = 0

    def _take(self, kind: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """What the builder hands on: requests, then their prompts."""
        if kind == "requests":
            self._requests = [list(column) for column in columns.values()]
        else:
            self._prompts = [list(column) for column in columns.values()]
            self._send_rows()

    def _send_rows(self, ended: PartFacts | None = None) -> None:
        self._tokenizers.flush()
        nodes, facts, used = self._builder.nodes, self._builder.facts, self._tokenizers.used
        self._send(
            encode(
                ROWS,
                Rows(
                    self._file_no,
                    [tokenizer.alias for tokenizer in used[self._sent_tokenizers :]],
                    facts.all[self._sent_facts :],
                    nodes.parents[self._sent_nodes :].tobytes(),
                    nodes.kinds[self._sent_nodes :].tobytes(),
                    b"".join(nodes.digests[self._sent_nodes :]),
                    self._requests,
                    self._prompts,
                    self._bad,
                    ended,
                ),
            )
        )
        self._sent_nodes, self._sent_facts, self._sent_tokenizers = len(nodes), len(facts.all), len(used)
        self._requests, self._prompts, self._bad = [], [], []


class _Tokenizer:
    """Gives the texts of one tokenizer slots and sends those that have to be counted."""

    def __init__(self, alias: str | None, known: frozenset[bytes], send: Callable[[bytes], None]) -> None:
        self.alias = alias
        self.slots = Slots(self)
        self._known = known
        self._send = send
        self._by_digest: dict[bytes, int] = {}
        self._digests: list[bytes] = []
        self._texts: list[bytes] = []
        self._size = 0

    @property
    def digests(self) -> bytes:
        """The digests of all texts, by slot."""
        return b"".join(self._by_digest)

    def slot(self, text: str) -> int:
        data = text.encode()
        digest = blake2b(data, digest_size=16).digest()
        slot = self._by_digest.get(digest)
        if slot is None:
            slot = self._by_digest[digest] = len(self._by_digest)
            if digest not in self._known:
                self._digests.append(digest)
                self._texts.append(data)
                self._size += len(data)
                if self._size >= _TEXT_BYTES:
                    self.flush()
        return slot

    def flush(self) -> None:
        if self._texts:
            self._send(encode(TEXTS, Texts(self.alias, b"".join(self._digests), self._texts)))
            self._digests, self._texts, self._size = [], [], 0


class _Tokenizers:
    """Numbers the tokenizers of the process in order of first use."""

    def __init__(self, task: Task, send: Callable[[bytes], None]) -> None:
        self.used: list[_Tokenizer] = []
        self._task = task
        self._send = send
        self._by_alias: dict[str | None, Mapped] = {}
        self._by_choice: dict[ModelTokenizer, Mapped] = {}

    def of(self, alias: str | None) -> Mapped:
        """The tokenizer of a model alias."""
        mapped = self._by_alias.get(alias)
        if mapped is None:
            choice = self._task.choose(alias)
            mapped = self._by_choice.get(choice)
            if mapped is None:
                mapped = self._by_choice[choice] = self._new(alias, choice)
            self._by_alias[alias] = mapped
        return mapped

    def _new(self, alias: str | None, choice: ModelTokenizer) -> Mapped:
        if choice.source == UNMAPPED:
            return Mapped(-1, Slots(None))
        digests = self._task.known.get(choice, b"")
        known = frozenset(digests[start : start + 16] for start in range(0, len(digests), 16))
        self.used.append(_Tokenizer(alias, known, self._send))
        return Mapped(len(self.used) - 1, self.used[-1].slots)

    def flush(self) -> None:
        """Send all texts that are still here."""
        for tokenizer in self.used:
            tokenizer.flush()
