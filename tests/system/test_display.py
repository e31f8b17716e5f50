from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.system import display
from tests.conftest import run_in_terminal


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5400, "90 min"), (12_000, "3 h 20 min")]
)
def test_time_is_in_words(seconds: float, words: str) -> None:
    assert display.time_in_words(seconds) == words


def test_progress_in_a_log_estimates_the_time_that_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0

    def items() -> Iterator[int]:
        nonlocal now
        for item in range(100):
            now += 2.0
            yield item

    monkeypatch.setattr("entrypoint.system.display.time.monotonic", lambda: now)
    with caplog.at_level(logging.INFO):
        assert list(display.progress(items(), 100, "photos")) == list(range(100))
    assert caplog.messages[0] == "photos: 3 of 100, about 3 min left"
    assert caplog.messages[-1] == "photos: 99 of 100, about 2 s left"


def test_terminal_shows_each_task_below_the_log_and_gets_its_cursor_back(tmp_path: Path) -> None:
    program = """
import logging, time
from entrypoint.system import display, logs
logs.configure()
for item in display.progress(range(4), 4, "photos"):
    for _ in display.progress(range(2), 2, "[boxes]"):
        time.sleep(0.15)
    logging.getLogger("job").info("item %d", item)
"""
    shown = run_in_terminal(program, tmp_path)
    assert [line.split("INFO ")[1].strip() for line in shown.splitlines() if "INFO" in line] == [
        f"item {item}" for item in range(4)
    ]
    # The names of tasks are no markup.
    assert {"photos", "[boxes]", "1/2", "3/4"} <= set(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", " ", shown).split())
    hidden, restored = "\x1b[?25l", "\x1b[?25h"
    assert shown.rindex(hidden) < shown.rindex(restored)


def test_terminal_gets_its_cursor_back_after_a_kill(tmp_path: Path) -> None:
    program = "from entrypoint.main import report_death; print(report_death(-9))"
    shown = run_in_terminal(program, tmp_path)
    assert shown.startswith("\x1b[?25h")
    assert "was killed by SIGKILL" in shown
