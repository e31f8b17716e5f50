from __future__ import annotations

import signal
import sys

import pytest

from entrypoint.system import display, signals
from entrypoint.system.errors import Stopped

pytestmark = pytest.mark.usefixtures("handled_signals")


def test_signal_stops_at_once() -> None:
    with pytest.raises(Stopped, match="goes on from here"):
        signal.raise_signal(signal.SIGTERM)


def test_second_sigterm_does_not_break_off_what_the_first_ends_in_order() -> None:
    ended = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            ended.append("in order")

    with pytest.raises(Stopped):
        work()
    assert ended == ["in order"]


def test_deferred_signal_stops_at_the_end_of_the_block() -> None:
    seen = []

    def work() -> None:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            seen.append(signals.requested())

    with pytest.raises(Stopped, match="from the last checkpoint"):
        work()
    assert seen == [True]


def test_second_ctrl_c_does_not_wait_for_the_block() -> None:
    seen = []

    def work() -> None:
        with signals.deferred():
            signal.raise_signal(signal.SIGINT)
            seen.append(1)
            signal.raise_signal(signal.SIGINT)
            seen.append(2)

    with pytest.raises(Stopped):
        work()
    assert seen == [1]


def test_signal_that_came_before_a_part_without_losses_is_raised_ahead_of_it() -> None:
    begun = []

    def work() -> None:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            with signals.at_once():
                begun.append(1)

    with pytest.raises(Stopped):
        work()
    assert begun == []


def test_signal_that_came_while_an_object_was_freed_is_raised_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Freed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    # Python drops what is raised there, and says so.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    Freed()
    with pytest.raises(Stopped):
        signals.raise_if_requested()


def test_closed_terminal_stops_a_job_but_not_one_under_nohup() -> None:
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals.raise_on_sigterm()
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


class Freed:
    """A signal arrives while this object is freed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_stop_that_python_drops_comes_at_the_next_item() -> None:
    seen = []

    def work() -> None:
        for item in display.progress(range(3), 3, "items"):
            seen.append(item)
            if item == 1:
                # Python drops what is raised here.
                Freed()

    with pytest.raises(Stopped, match="goes on from here"):
        work()
    assert seen == [0, 1]


def test_deferred_block_goes_through_all_items() -> None:
    def work() -> list[int]:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            return list(display.progress(range(3), 3, "items"))

    with pytest.raises(Stopped, match="from the last checkpoint"):
        work()
