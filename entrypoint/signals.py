"""SIGTERM, and Ctrl-C: at once while a step can simply be run again, at the next safe point while training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from entrypoint.errors import Stopped

UNDONE = "the next run with the same settings goes on from here"


class _State:
    requested = False
    deferred = False


def raise_on_sigterm() -> None:
    """From now on SIGTERM and SIGINT raise Stopped in the main thread, inside `deferred` at its end."""
    _State.requested = _State.deferred = False
    take_back()


def take_back() -> None:
    """Handles both signals again, where a library has put its own handler in the place of ours."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle)


def _handle(number: int, _frame: FrameType | None) -> None:
    # Whoever presses Ctrl-C twice does not want to wait.
    is_impatient = _State.requested and number == signal.SIGINT
    _State.requested = True
    if is_impatient or not _State.deferred:
        raise Stopped(UNDONE)


@contextmanager
def deferred() -> Iterator[None]:
    """Holds Stopped back until the block ends; the block asks `requested` at points where it can end early."""
    _State.deferred = True
    try:
        yield
    finally:
        _State.deferred = False
    if _State.requested:
        raise Stopped("the next run with the same settings goes on from the last checkpoint")


@contextmanager
def at_once() -> Iterator[None]:
    """Inside `deferred`: a part with which nothing is lost, where Stopped is raised as soon as a signal arrives."""
    _State.deferred = False
    try:
        if _State.requested:
            raise Stopped(UNDONE)
        yield
    finally:
        _State.deferred = True


def requested() -> bool:
    """Whether a signal to stop has arrived."""
    return _State.requested
