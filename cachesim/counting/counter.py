"""Counts every unique text once, in background threads, while the caller goes on parsing."""

from __future__ import annotations

import queue
import threading
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from types import TracebackType
from typing import TYPE_CHECKING, Final

from cachesim.errors import CachesimError

if TYPE_CHECKING:
    from cachesim.counting.accelerator import Counting

BATCH_BYTES: Final = 400_000
"""UTF-8 bytes of text handed to the tokenizer at a time: large enough to keep every core busy, small in memory."""
WORKERS: Final = 2
"""Two, because a batch that ends in one long text leaves all cores but one idle; the second fills them."""
PENDING: Final = -1
"""What `counts` holds for a slot whose text has not been counted yet."""

Known = Mapping[bytes, int] | Callable[[bytes], int | None]
_Batch = tuple[list[int], list[str]]


def text_digest(text: str) -> bytes:
    """The 16 bytes under which the count of `text` is remembered."""
    return blake2b(text.encode(), digest_size=16).digest()


class TokenCounter:
    """Gives each unique text a slot in `counts`; after `finish()` every slot holds the text's tokens.

    tokenizer: loaded, or how to load it, which happens when the first unknown text is counted.
    known: counts remembered from earlier runs of the same tokenizer version by `text_digest`; such texts cost no
    tokenizing. Slots are numbered in order of first sight, so results do not depend on the threads.

    >>> with TokenCounter(tokenizer, known={}) as counter:      # doctest: +SKIP
    ...     a, b, c = counter.slot("one two"), counter.slot("three"), counter.slot("one two")
    ...     counter.finish()
    ...     (a, b, c), list(counter.counts)
    ((0, 1, 0), [2, 1])
    """

    def __init__(
        self,
        tokenizer: Counting | Callable[[], Counting],
        known: Known,
        *,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.counts = array("q")
        self._known = known if callable(known) else known.get
        self._tokenizer = tokenizer
        self._name = ""
        self._batch_bytes = batch_bytes
        self._slots: dict[bytes, int] = {}
        self._learned = bytearray()
        self._slots_queued: list[int] = []
        self._texts_queued: list[str] = []
        self._bytes_queued = 0
        # A bounded queue makes a caller that is faster than the tokenizer wait, so memory stays flat.
        self._batches: queue.Queue[_Batch | None] = queue.Queue(maxsize=WORKERS + 1)
        self._workers: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._stopping = False

    def slot(self, text: str) -> int:
        """The place of `text` in `counts`; the same text has the same slot. Raises CachesimError after a failure."""
        data = text.encode()
        digest = blake2b(data, digest_size=16).digest()
        slot = self._slots.get(digest)
        return slot if slot is not None else self._new_slot(digest, text, len(data))

    def slot_of(self, digest: bytes) -> int:
        """The place of a text by its `text_digest`: it is known, or was given to `count_ahead`. Raises KeyError."""
        slot = self._slots.get(digest)
        if slot is None:
            count = self._known(digest)
            if count is None:
                raise KeyError(digest)
            slot = self._known_slot(digest, count)
        return slot

    def count_ahead(self, digests: bytes, texts: Sequence[bytes]) -> None:
        """Have texts (UTF-8) counted whose slots are asked for later; digests: their `text_digest`s in a row."""
        for number, text in enumerate(texts):
            digest = digests[16 * number : 16 * number + 16]
            if digest not in self._slots:
                self._new_slot(digest, text.decode(), len(text))

    def _new_slot(self, digest: bytes, text: str, size: int) -> int:
        count = self._known(digest)
        if count is not None:
            return self._known_slot(digest, count)
        slot = self._slots[digest] = len(self.counts)
        self.counts.append(PENDING)
        self._learned.append(1)
        self._slots_queued.append(slot)
        self._texts_queued.append(text)
        self._bytes_queued += size
        if self._bytes_queued >= self._batch_bytes:
            self._send()
        return slot

    def _known_slot(self, digest: bytes, count: int) -> int:
        slot = self._slots[digest] = len(self.counts)
        self.counts.append(count)
        self._learned.append(0)
        return slot

    def finish(self) -> None:
        """Waits until every text is counted and stops the threads; more texts may follow, then finish again.

        Raises CachesimError if the tokenizer failed on any text.
        """
        if self._texts_queued:
            self._send()
        self._stop()
        self._check()

    def close(self) -> None:
        """Stops the threads without counting what is still queued; for interrupts. Safe to call twice."""
        self._stopping = True
        self._stop()

    def new_counts(self) -> Iterator[tuple[bytes, int]]:
        """(digest, tokens) of each text `known` did not have, in order of digests; call after `finish()`."""
        learned, counts = self._learned, self.counts
        if 1 not in learned:
            return
        found = [(digest, slot) for digest, slot in self._slots.items() if learned[slot] and counts[slot] != PENDING]
        for digest, slot in sorted(found):
            yield digest, counts[slot]

    def __enter__(self) -> TokenCounter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self) -> None:
        self._check()
        if not self._workers:
            self._start()
        batch = (self._slots_queued, self._texts_queued)
        self._slots_queued, self._texts_queued, self._bytes_queued = [], [], 0
        self._batches.put(batch)

    def _start(self) -> None:
        if callable(self._tokenizer):  # loaded only when something has to be counted
            self._tokenizer = self._tokenizer()
        # Daemons: an exception that skips close() must not leave the program hanging at exit.
        self._name = self._tokenizer.source
        work = partial(self._work, self._tokenizer)
        self._workers = [threading.Thread(target=work, name="count", daemon=True) for _ in range(WORKERS)]
        for worker in self._workers:
            worker.start()

    def _work(self, tokenizer: Counting) -> None:
        counts = self.counts
        while (batch := self._batches.get()) is not None:
            # After a failure the queue is still emptied, or a caller waiting to put would wait for ever.
            if self._failure is not None or self._stopping:
                continue
            slots, texts = batch
            try:
                for slot, count in zip(slots, tokenizer.count_batch(texts), strict=True):
                    counts[slot] = count
            except BaseException as exc:  # a panic in the native library is not an Exception; surfaced by _check
                self._failure = exc

    def _stop(self) -> None:
        for _ in self._workers:
            self._batches.put(None)
        for worker in self._workers:
            worker.join()
        self._workers = []

    def _check(self) -> None:
        if self._stopping:
            raise CachesimError("token counting: the counter was closed before its counts were complete")
        if isinstance(self._failure, CachesimError):
            raise self._failure
        if self._failure is not None:
            raise CachesimError(
                f"token counting with {self._name}: the tokenizer failed on a text "
                f"({type(self._failure).__name__}); check that the file fits the installed tokenizers package"
            ) from self._failure
