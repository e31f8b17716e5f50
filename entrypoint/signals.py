"""SIGTERM: at once while a step can simply be run again, at the next safe point while training."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from entrypoint.errors import Stopped


class _State:
    requested = False
    deferred = False


def raise_on_sigterm() -> None:
    """From now on SIGTERM raises Stopped in the main thread, except inside `deferred`."""
    _State.requested = _State.deferred = False
    signal.signal(signal.SIGTERM, _handle)


def _handle(_number: int, _frame: FrameType | None) -> None:
    _State.requested = True
    if not _State.deferred:
        raise Stopped("the next run with the same settings goes on from here")


@contextmanager
def deferred() -> Iterator[None]:
    """Holds Stopped back; the block asks `requested` at points where it can stop."""
    _State.deferred = True
    try:
        yield
    finally:
        _State.deferred = False


def requested() -> bool:
    """Whether SIGTERM has arrived."""
    return _State.requested
