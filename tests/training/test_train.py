"""When a stop takes effect while training; that the job goes on from it is shown in tests/end_to_end/test_faults.py."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from entrypoint.engines.engine import LOSS
from entrypoint.system import documents
from entrypoint.system.errors import Stopped
from entrypoint.training import checkpoints, train
from entrypoint.training.plan import Plan
from entrypoint.workspace import Workspace
from tests.conftest import make_settings

pytestmark = pytest.mark.usefixtures("handled_signals")


class Model:
    """A trainer that only counts; the process gets SIGTERM while it trains a given step."""

    def __init__(self, stopped_in: int = 0) -> None:
        self.step = 0
        self.stopped_in = stopped_in

    def agree(self, *wanted: Any) -> Any:
        return wanted

    def train(self, steps: int) -> list[dict[str, float]]:
        self.step += steps
        if self.step == self.stopped_in:
            signal.raise_signal(signal.SIGTERM)
        return [{LOSS: 1.0, "learning_rate": 0.1}] * steps


class Told:
    """TensorBoard's scalars; the process gets SIGTERM while those of a given step are written."""

    def __init__(self, stopped_at: int = 0) -> None:
        self.steps: list[float] = []
        self.stopped_at = stopped_at

    def write(self, points: list[dict[str, float]]) -> None:
        self.steps += [point["step"] for point in points]
        if self.stopped_at in self.steps:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of which checkpoints are saved."""
    steps: list[int] = []
    monkeypatch.setattr(checkpoints, "save", lambda trainer, *_: steps.append(trainer.step))
    return steps


def train_to_end(model: Any, told: Any, folder: Path) -> None:
    work = Workspace(make_settings(folder, num_steps=5))
    documents.write(work.plan, Plan("x.config", "tf2", 5, 4, 0.1, ()))
    train.train_to_end(model, [], "identity", told, work)


def test_every_step_is_trained_and_the_last_saved(tmp_path: Path, saved: list[int]) -> None:
    told = Told()
    train_to_end(Model(), told, tmp_path)
    assert told.steps == [1, 2, 3, 4, 5]
    assert saved == [5]


def test_step_that_was_told_of_is_saved_the_first_too(tmp_path: Path, saved: list[int]) -> None:
    with pytest.raises(Stopped, match="the last checkpoint"):
        train_to_end(Model(), Told(stopped_at=1), tmp_path)
    assert saved == [1]


def test_stop_while_the_model_is_compiled_is_not_held_back(tmp_path: Path, saved: list[int]) -> None:
    told = Told()
    with pytest.raises(Stopped, match="goes on from here"):
        train_to_end(Model(stopped_in=1), told, tmp_path)
    assert told.steps == saved == []


def test_stop_in_a_later_step_ends_it_first(tmp_path: Path, saved: list[int]) -> None:
    told = Told()
    with pytest.raises(Stopped):
        train_to_end(Model(stopped_in=2), told, tmp_path)
    assert told.steps == [1, 2]
    assert saved == [2]
