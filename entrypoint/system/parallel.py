"""Work on many items at a time, in threads, within the memory of the machine."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
CORES = len(os.sched_getaffinity(0))
SAMPLE = 16  # items, at least, that decide about the next ones


class Pace:
    """How many items are in work at a time: few at first, and more as long as most of their time is waiting.

    A bucket makes a thread wait, and many threads can wait at a time. Threads that compute wait for Python's lock: the
    more they are, the more time is lost.
    """

    def __init__(self, workers: int) -> None:
        self.most = 2 * workers
        self.ahead = min(self.most, 2 * CORES)  # items that are in work, or whose results are waited for
        self.ended = 0
        self.seconds = self.computed = 0.0

    def add(self, seconds: float, computed: float) -> None:
        """Adds an item that has ended: the seconds that it took, and those of them in which its thread computed."""
        self.ended += 1
        self.seconds += seconds
        self.computed += computed
        if self.ended < max(self.ahead, SAMPLE):
            return
        # So many threads would compute all the time. If threads compute in turns and never wait, these are the threads
        # that there are, and some more by chance.
        busy = self.seconds / max(self.computed, 1e-9)
        if busy > 2 * self.ahead:
            self.ahead = min(self.most, int(busy))
        self.ended, self.seconds, self.computed = 0, 0.0, 0.0


def map_in_order(
    work: Callable[[T], R], items: Iterable[T], workers: int, pool: Executor | None = None, pace: Pace | None = None
) -> Iterator[R]:
    """Works like pool.map with up to `workers` threads, but keeps a bounded number of results waiting, see `Pace`.

    So memory is bounded too. A pool that is given can be shared with other callers: this call has at most twice
    `workers` tasks in it at a time. A pace that is given knows how much time earlier items have waited.
    """
    waiting: deque[Future[tuple[R, float, float]]] = deque()
    pace = pace or Pace(workers)

    def timed(item: T) -> tuple[R, float, float]:
        began, computed = time.perf_counter(), time.thread_time()
        result = work(item)
        return result, time.perf_counter() - began, time.thread_time() - computed

    with nullcontext(pool) if pool else ThreadPoolExecutor(workers) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(timed, item))
                if len(waiting) >= pace.ahead:
                    yield first(waiting, pace)
            while waiting:
                yield first(waiting, pace)
        finally:
            for future in waiting:
                future.cancel()


def first(waiting: deque[Future[tuple[R, float, float]]], pace: Pace) -> R:
    """Takes the first result out of those that are waited for, and adds its times to the pace."""
    result, *times = waiting.popleft().result()
    pace.add(*times)
    return result


def merge(sources: Sequence[Iterator[T]], workers: int) -> Iterator[T]:
    """Yields the items of all sources as they arrive. Each source runs in its own thread, `workers` of them at a time.

    An error in a source is raised here and stops the other sources at their next item. The number of items that wait is
    not bounded, so the items should be small.
    """
    found: SimpleQueue[T | Future[None]] = SimpleQueue()
    stopped = threading.Event()

    def drain(source: Iterator[T]) -> None:
        for item in source:
            if stopped.is_set():
                return
            found.put(item)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(drain, source) for source in sources]
        for future in futures:
            future.add_done_callback(found.put)
        try:
            left = len(futures)
            while left:
                item = found.get()
                if isinstance(item, Future):
                    item.result()
                    left -= 1
                else:
                    yield item
        finally:
            stopped.set()
            for future in futures:
                future.cancel()


def in_background(work: Callable[[], R], name: str) -> Future[R]:
    """Runs a function in a thread that does not keep the process alive."""
    future: Future[R] = Future()

    def target() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=target, name=name, daemon=True).start()
    return future


class Budget:
    """An amount, such as bytes of memory, that threads share: a thread waits until its part is free."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self.changed = threading.Condition()
        self.alone: AbstractContextManager[Any] = nullcontext()

    def divide(self, processes: int, alone: AbstractContextManager[Any]) -> None:
        """Keeps one of so many equal parts, before anything is taken: the others are for other processes.

        `alone` is a lock of all of them for a part that is above the total of one.
        """
        self.total = self.free = max(1, self.total // processes)
        self.alone = alone

    @contextmanager
    def part(self, wanted: int) -> Iterator[None]:
        """Takes a part for the block. A part above the total takes all of it, so that the block runs alone."""
        taken = min(wanted, self.total)
        with self.alone if wanted > self.total else nullcontext(), self.taking(taken):
            yield

    @contextmanager
    def taking(self, taken: int) -> Iterator[None]:
        """Takes a part for the block, which is no more than the total."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self.changed:
                self.free += taken
                self.changed.notify_all()
