"""Work on many items in copies of this process: a process computes in one thread of Python at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from entrypoint.system import child, parallel
from entrypoint.system.parallel import Pace

T = TypeVar("T")
R = TypeVar("R")

# Gets the number of processes, and a lock that all of them have.
Share = Callable[[int, AbstractContextManager[Any]], None]

CHUNK = 128  # items that a process gets at a time
LEAST_CHUNKS = 4  # for fewer, more processes save less time than they take to start


class _Copy:
    """What a copy of the process works with."""

    work: Callable[[Any], Any]
    workers: int
    pool: ThreadPoolExecutor
    pace: Pace


def map_in_order(work: Callable[[T], R], items: Sequence[T], workers: int, share: Share) -> Iterator[R]:
    """Works like parallel.map_in_order, and in a process for each core if the items are many. They start at once.

    `workers` is the number of threads in all processes together. Each of them calls `share` before its work, to take no
    more than its part of the machine. Results are pickled.

    Raises:
        MemoryError: a process was killed, as the kernel does if memory runs out.
    """
    number = min(parallel.CORES, len(items) // (LEAST_CHUNKS * CHUNK))
    if number < 2 or not may_copy():
        return parallel.map_in_order(work, items, workers)
    context = multiprocessing.get_context("fork")
    alone = context.Lock()
    begin = (os.getpid(), work, max(1, workers // number), lambda: share(number, alone))
    pool = ProcessPoolExecutor(number, context, _begin, begin)
    chunks = (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    # The first task starts the processes, before the caller has a thread that shows the progress.
    return _results(pool, deque(pool.submit(_work_on, chunk) for chunk in chunks))


def _results(pool: ProcessPoolExecutor, waiting: deque[Future[list[Any]]]) -> Iterator[Any]:
    """Yields the results of the tasks in their order and closes the pool."""
    with pool:
        try:
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise MemoryError("a process was killed") from None
        except BaseException:
            # Nobody waits for what is left. It is not cancelled: the pool reports that its processes have ended to each
            # task, and fails at one that is cancelled.
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def may_copy() -> bool:
    """Returns whether this process has only one thread: a copy would wait for the locks of others for ever."""
    return sys.platform == "linux" and threading.active_count() == 1


def _begin(parent: int, work: Callable[[Any], Any], workers: int, share: Callable[[], None]) -> None:
    """Prepares a copy. Ctrl-C, which a terminal sends to it as well, is for the parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    child.end_with(parent)
    share()
    _Copy.work, _Copy.workers = staticmethod(work), workers
    _Copy.pool, _Copy.pace = ThreadPoolExecutor(workers), Pace(workers)


def _work_on(items: Iterable[Any]) -> list[Any]:
    """Returns the results of a chunk, in a copy."""
    return list(parallel.map_in_order(_Copy.work, items, _Copy.workers, _Copy.pool, _Copy.pace))
