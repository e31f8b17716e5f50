"""Work on many items at a time, in threads, within the memory of the machine."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(work: Callable[[T], R], items: Iterable[T], workers: int, pool: Executor | None = None) -> Iterator[R]:
    """Works like pool.map, but keeps a bounded number of results waiting, so that memory is bounded too.

    A pool that is given can be shared with other callers: this call has at most twice `workers` tasks in it at a time.
    """
    waiting: deque[Future[R]] = deque()
    with nullcontext(pool) if pool else ThreadPoolExecutor(workers) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(work, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


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

    @contextmanager
    def part(self, wanted: int) -> Iterator[None]:
        """Takes a part for the block. A part above the total takes all of it, so that the block runs alone."""
        taken = min(wanted, self.total)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self.changed:
                self.free += taken
                self.changed.notify_all()
