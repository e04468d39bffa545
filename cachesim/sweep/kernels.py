"""Runs the kernel of `cachesim.core.kernel` on shards: in this process, in worker processes, or compiled in threads."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from cachesim.core import kernel
from cachesim.core.kernel import WIDTH, Knobs, Shard, State
from cachesim.errors import CachesimError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

Choice = Literal["auto", "plain", "compiled"]

WORTH_COMPILING: Final = 1_000_000
"""Requests × variants from which loading the compiled kernel takes less time than it saves."""
WORTH_PROCESSES: Final = 400_000
"""Requests × variants from which starting worker processes takes less time than it saves."""
_AHEAD: Final = 2


class Task(NamedTuple):
    """One shard to be replayed under several variants; how many entries and groups it has.

    For whoever gets the answer: the first of its groups, and which variants each of `knobs` stands for.
    """

    shard: Shard
    knobs: Sequence[Knobs]
    entries: int
    first_group: int
    groups: int
    owners: Sequence[Sequence[int]]


class Kernel:
    """Runs tasks, in order, on `jobs` workers that live until `close`."""

    def __init__(self, choice: Choice, jobs: int, work: int) -> None:
        self.compiled = _is_compiled(choice, work)
        self.jobs = jobs if self.compiled or work >= WORTH_PROCESSES else 1
        self._pool: Executor | None = None

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Ints]]]:
        """Each task with its answer: per variant the summed cells, group after group, WIDTH each.

        Raises CachesimError where a worker process dies.
        """
        work = run_compiled if self.compiled else run_plain
        if self.jobs == 1:
            yield from ((task, work(task)) for task in tasks)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.jobs) if self.compiled else _processes(self.jobs)
        try:
            yield from _in_order(self._pool, work, tasks, self.jobs * _AHEAD)
        except BrokenProcessPool as error:
            raise CachesimError(
                "a worker process of the sweep ended early, perhaps for memory; try --jobs 1"
            ) from error

    def close(self) -> None:
        """End the workers, in the middle of a task if need be: whoever closes wants no more answers."""
        if self._pool is None:
            return
        workers = getattr(self._pool, "_processes", None) or {}  # there is no public way before Python 3.14
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in list(workers.values()):
            worker.terminate()


def _processes(jobs: int) -> Executor:
    """Fresh processes: this one may hold threads of DuckDB and Polars, which a fork would leave half alive."""
    import multiprocessing

    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _settle)


def _in_order(
    pool: Executor, work: Callable[[Task], list[Ints]], tasks: Iterable[Task], ahead: int
) -> Iterator[tuple[Task, list[Ints]]]:
    """At most `ahead` tasks are in memory."""
    waiting: deque[tuple[Task, Future[list[Ints]]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(work, task)))
        if len(waiting) >= ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    while waiting:
        done, future = waiting.popleft()
        yield done, future.result()


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_plain(task: Task) -> list[Ints]:
    """A task in plain Python, on lists: reading one number from an array makes an object each time."""
    import numpy as np

    columns: list[Any] = [np.asarray(column).tolist() for column in task.shard]
    shard = Shard(*columns)
    found = []
    for knobs in task.knobs:
        out = [0] * (task.groups * WIDTH)
        kernel.simulate(shard, knobs, State(*([0] * size for size in _sizes(task))), out)
        found.append(np.array(out, np.int64))
    return found


def run_compiled(task: Task) -> list[Ints]:
    """A task with the compiled kernel; it lets go of the interpreter, so threads run side by side."""
    import numpy as np

    simulate = compiled_kernel()
    found = []
    for knobs in task.knobs:
        out = np.zeros(task.groups * WIDTH, np.int64)
        arrays: list[Any] = [np.zeros(size, np.int64) for size in _sizes(task)]
        simulate(task.shard, knobs, State(*arrays), out)
        found.append(out)
    return found


def _sizes(task: Task) -> list[int]:
    requests, rows = len(task.shard.at), len(task.shard.look_entry)
    per_request = {"matched", "base", "paid"}
    return [rows if name == "revived" else requests if name in per_request else task.entries for name in State._fields]


@lru_cache(maxsize=1)
def compiled_kernel() -> Callable[..., None]:
    """`cachesim.core.kernel.simulate` as machine code."""
    from numba.extending import register_jitable

    for name in ("life", "floor_of", "below", "bill", "gap", "reach", "dead", "extend", "arrive", "commit", "finish"):
        register_jitable(forceinline=True)(getattr(kernel, name))
    return _compiled(kernel.simulate)


@lru_cache(maxsize=1)
def compiled_ideal() -> Callable[..., None]:
    """`cachesim.core.kernel.ideal` as machine code."""
    return _compiled(kernel.ideal)


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Kept on disk between processes where that is possible, else compiled once per process.

    Nothing is allocated inside, so arrays are handed around without counting references (`_nrt`): counting, and calls
    that are not inlined, took nineteen of twenty parts of the time.
    """
    from numba import njit

    try:
        compiled: Callable[..., None] = njit(nogil=True, _nrt=False, cache=True)(function)
    except RuntimeError:
        compiled = njit(nogil=True, _nrt=False)(function)
    return compiled


def _is_compiled(choice: Choice, work: int) -> bool:
    there = find_spec("numba") is not None
    if choice == "compiled" and not there:
        raise UsageError("--kernel compiled: numba is not installed; `pip install 'cachesim[fast]'` brings it")
    return choice == "compiled" or (choice == "auto" and there and work >= WORTH_COMPILING)


def _settle() -> None:
    """In a new worker: Ctrl-C is for the parent, which ends its workers; and they end with it, however it ends.

    A worker holds both ends of its own queue, so it would wait for ever for work from a parent that was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
