"""SIGTERM, and Ctrl-C: at once while a step can simply be run again, at the next safe point while training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from entrypoint.system.errors import Stopped

UNDONE = "the next run with the same settings goes on from here"


class _State:
    requested = False
    deferred = False
    raised = False


def raise_on_sigterm() -> None:
    """From now on SIGTERM and SIGINT raise Stopped in the main thread, inside `deferred` at its end."""
    _State.requested = _State.deferred = _State.raised = False
    take_back()


def take_back() -> None:
    """Handles both signals again, where a library has put its own handler in the place of ours."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle)


def _handle(number: int, _frame: FrameType | None) -> None:
    # Whoever presses Ctrl-C twice does not want to wait. SIGTERM comes twice where a service and the container's init
    # both send it, and would break off what the first one ends in order.
    is_impatient = _State.requested and number == signal.SIGINT
    _State.requested = True
    if is_impatient or not (_State.deferred or _State.raised):
        raise stop(UNDONE)


def stop(message: str) -> Stopped:
    """Stopped, to be raised; from then on SIGTERM does nothing."""
    _State.raised = True
    return Stopped(message)


@contextmanager
def deferred() -> Iterator[None]:
    """Holds Stopped back until the block ends; the block asks `requested` at points where it can end early."""
    _State.deferred = True
    try:
        yield
    finally:
        _State.deferred = False
    if _State.requested:
        raise stop("the next run with the same settings goes on from the last checkpoint")


@contextmanager
def at_once() -> Iterator[None]:
    """Inside `deferred`: a part with which nothing is lost, where Stopped is raised as soon as a signal arrives."""
    _State.deferred = False
    try:
        raise_if_requested()
        yield
    finally:
        _State.deferred = True


def raise_if_requested() -> None:
    """Raises Stopped where a signal has arrived: Python drops what is raised while it frees an object."""
    if _State.requested:
        raise stop(UNDONE)


def requested() -> bool:
    """Whether a signal to stop has arrived."""
    return _State.requested
