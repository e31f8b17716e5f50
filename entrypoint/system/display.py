"""What is in progress: a live display at a terminal, and a line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from entrypoint.system import signals

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

logger = logging.getLogger("job")

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


class Task:
    """A task of the live display."""

    def __init__(self, live: Progress, number: TaskID) -> None:
        self.live = live
        self.number = number

    def update(self, done: int, total: int | None, facts: str = "") -> None:
        """Shows how much is done of a total, if that is known, and facts about it in a line of their own."""
        self.live.update(self.number, completed=done, total=total, facts=facts)


class Display:
    """The live display of a process. It is there while at least one task is: tasks of several threads share it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.live: Progress | None = None

    @contextmanager
    def task(self, what: str, total: int | None, done: int = 0) -> Iterator[Task]:
        """Shows a task while the block runs. `total` is None as long as it is not known."""
        with self.lock:
            if self.live is None:
                self.live = make_live()
                self.live.start()
            live = self.live
            number = live.add_task(what, total=total, completed=done, facts="")
        try:
            yield Task(live, number)
        finally:
            with self.lock:
                live.remove_task(number)
                if not live.tasks:
                    live.stop()
                    self.live = None


DISPLAY = Display()


def is_live() -> bool:
    """Returns whether standard output is a terminal that can show the display below the log."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    return not Console(file=sys.stdout).is_dumb_terminal


def restore_cursor() -> None:
    """Shows the cursor of a terminal, which a process that was killed has left hidden."""
    if is_live():
        from rich.console import Console

        Console(file=sys.stdout).show_cursor(show=True)


def make_live() -> Progress:
    """Returns the display: a row for each task, and the facts about a task below the rows.

    While it is there, what goes to standard output and standard error is printed above it.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rows(Progress):
        def get_renderables(self) -> Iterator[Any]:
            yield self.make_tasks_table(self.tasks)
            for each in self.tasks:
                if each.fields["facts"]:
                    yield Text(each.fields["facts"])

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Rows(*columns, console=Console(file=sys.stdout, highlight=False), transient=True, refresh_per_second=4)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields the items and reports how many of the total are done. Stops between two items if a signal asks for it."""
    if is_live():
        with DISPLAY.task(what, total) as task:
            for done, item in enumerate(items, start=1):
                signals.raise_again()
                yield item
                task.update(done, total)
        return
    began = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        signals.raise_again()
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            left = time_in_words((total - done) * (now - began) / done)
            logger.info("%s: %d of %d, about %s left", what, done, total, left)


def time_in_words(seconds: float) -> str:
    """Returns a time as a person says it: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
