"""What a log says about a training, and what a terminal shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.engines.engine import LOSS
from entrypoint.training import progress
from entrypoint.training.metrics import Evaluations
from entrypoint.training.progress import Progress
from tests.conftest import run_in_terminal
from tests.training.test_evaluation import evaluations

PROGRAM = """
import itertools, sys, time
from entrypoint.engines.engine import LOSS
from entrypoint.system import logs
from entrypoint.training.metrics import Evaluations
from entrypoint.training.progress import Progress
logs.configure()
told = Progress(0, 8)
with told.shown():
    told.tell({"step": 30, LOSS: 0.25}, 120, 0.5, Evaluations())
    time.sleep(0.5)
"""


def test_log_has_a_line_for_cacli_each_time_and_one_for_people_every_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("entrypoint.training.progress.time.monotonic", lambda: now)
    monkeypatch.setattr("entrypoint.training.progress.memory.of_process", lambda: 3_140_000_000)
    told = Progress(100, 8)
    with caplog.at_level("INFO", logger="job"), told.shown():
        for step in range(103, 130, 3):
            now += 3.0
            told.tell({"step": step, LOSS: 0.5}, 1000, 1.0, evaluations(0.3, 0.2))
    for_cacli = [line for line in caplog.messages if line.startswith("tensorflow:loss = 0.5000, step = ")]
    for_people = [line for line in caplog.messages if line.startswith("training:")]
    assert len(for_cacli) == 9
    assert for_people == [
        f"training: step {step} of 1000, 1 steps/s, 8 photos/s, loss 0.500, mAP 0.200 (best 0.300 at step 10), "
        f"3.1 GB of memory, about {left} left"
        for step, left in ((112, "15 min"), (124, "15 min"))
    ]


def test_line_is_left_out_as_long_as_nobody_knows_the_end(caplog: pytest.LogCaptureFixture) -> None:
    told = Progress(0, 8)
    told.line_at -= 60
    with caplog.at_level("INFO", logger="job"):
        told.tell({"step": 3, LOSS: 0.5}, None, 0.0, Evaluations())
    assert caplog.messages == ["tensorflow:loss = 0.5000, step = 3"]


def test_metrics_are_left_out_if_there_is_nothing_to_find() -> None:
    assert "mAP" not in progress.describe(1.0, 0.5, 4, evaluations(None))
    assert progress.describe(1.0, 0.5, 4, Evaluations()).startswith("2 steps/s, 8 photos/s, loss 1.000, ")


def test_terminal_shows_the_training_and_no_line_of_the_log(tmp_path: Path) -> None:
    shown = run_in_terminal(PROGRAM, tmp_path)
    assert "tensorflow:loss" not in shown
    assert "30/120" in shown
    assert "2 steps/s, 16 photos/s, loss 0.250" in shown


def test_terminal_that_can_only_print_gets_the_log(tmp_path: Path) -> None:
    assert run_in_terminal(PROGRAM, tmp_path, "dumb").endswith("INFO tensorflow:loss = 0.2500, step = 30\r\n")
