"""SIGTERM and Ctrl-C stop a step at once if it can simply run again, and the training at its next safe point."""

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
    """Makes SIGTERM and SIGINT raise Stopped in the main thread: at once, or at the end of a `deferred` block."""
    _State.requested = _State.deferred = _State.raised = False
    take_back()
    # The parent process has blocked them until there are handlers.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())


def take_back() -> None:
    """Installs the handlers of the signals again, in case a library has replaced them.

    SIGHUP ends a job whose terminal is closed, unless it was started with nohup.
    """
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, _handle)


def _handle(number: int, _frame: FrameType | None) -> None:
    # A user who presses Ctrl-C twice does not want to wait. SIGTERM comes twice if a service and the container's init
    # both send it; the second SIGTERM must not interrupt the orderly end that the first one has started.
    is_impatient = _State.requested and number == signal.SIGINT
    _State.requested = True
    if is_impatient or not (_State.deferred or _State.raised):
        raise stop(UNDONE)


def stop(message: str) -> Stopped:
    """Returns Stopped, for the caller to raise. From then on SIGTERM does nothing."""
    _State.raised = True
    return Stopped(message)


@contextmanager
def deferred() -> Iterator[None]:
    """Holds Stopped back until the block ends. The block calls `requested` at points where it can end early."""
    _State.deferred = True
    try:
        yield
    finally:
        _State.deferred = False
    if _State.requested:
        raise stop("the next run with the same settings goes on from the last checkpoint")


@contextmanager
def at_once() -> Iterator[None]:
    """Raises Stopped as soon as a signal arrives. It is for a part of `deferred` that can be lost without harm."""
    _State.deferred = False
    try:
        raise_if_requested()
        yield
    finally:
        _State.deferred = True


def raise_if_requested() -> None:
    """Raises Stopped if a signal has arrived.

    The handler's own exception can get lost: Python drops an exception that is raised while it frees an object.
    """
    if _State.requested:
        raise stop(UNDONE)


def raise_again() -> None:
    """Raises Stopped if the handler's own exception has got lost; not in a `deferred` block."""
    if not _State.deferred:
        raise_if_requested()


def requested() -> bool:
    """Returns whether a signal to stop has arrived."""
    return _State.requested
