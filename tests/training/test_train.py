"""When a stop takes effect while training; that the job goes on from it is shown in tests/end_to_end/test_faults.py."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from entrypoint.system import documents
from entrypoint.system.errors import Stopped, UserError
from entrypoint.training import checkpoints, train
from entrypoint.training.plan import Plan
from entrypoint.workspace import Workspace
from tests.conftest import make_settings
from tests.training.counting import CountingTrainer

pytestmark = pytest.mark.usefixtures("handled_signals")


class Told:
    """TensorBoard's scalars; the process gets SIGTERM while those of a given step are written."""

    def __init__(self, stopped_at: int = 0) -> None:
        self.steps: list[float] = []
        self.stopped_at = stopped_at

    def write(self, points: list[dict[str, float]]) -> None:
        self.steps += [point["step"] for point in points]
        if self.stopped_at in self.steps:
            signal.raise_signal(signal.SIGTERM)


def train_to_end(model: CountingTrainer, told: Any, folder: Path) -> None:
    work = Workspace(make_settings(folder, num_steps=5))
    documents.write(work.plan, Plan("x.config", "tf2", 5, 4, 0.1, ()))
    train.train_to_end(model, checkpoints.Saved(Path(), 0), "identity", told, work)


def saved_in(folder: Path) -> list[int]:
    """The steps of the whole checkpoints that were published."""
    paths = (folder / "results" / "checkpoint").glob("ckpt-*.json")
    return sorted(checkpoints.step_of(path) for path in paths)


def test_every_step_is_trained_and_the_last_saved(tmp_path: Path) -> None:
    told = Told()
    train_to_end(CountingTrainer(), told, tmp_path)
    assert told.steps == [1, 2, 3, 4, 5]
    assert saved_in(tmp_path) == [5]


def test_step_that_was_told_of_is_saved_the_first_too(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="the last checkpoint"):
        train_to_end(CountingTrainer(), Told(stopped_at=1), tmp_path)
    assert saved_in(tmp_path) == [1]


def test_stop_while_the_model_is_compiled_is_not_held_back(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(Stopped, match="goes on from here"):
        train_to_end(CountingTrainer(stopped_in=1), told, tmp_path)
    assert told.steps == saved_in(tmp_path) == []


def test_stop_in_a_later_step_ends_it_first(tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(Stopped):
        train_to_end(CountingTrainer(stopped_in=2), told, tmp_path)
    assert told.steps == [1, 2]
    assert saved_in(tmp_path) == [2]


class GreedyTrainer(CountingTrainer):
    """A trainer whose second step does not fit into memory."""

    def train(self, steps: int) -> Any:
        if self.step:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nof a large shape")
        return super().train(steps)


def test_batch_that_does_not_fit_into_memory_is_named_with_half_of_it(tmp_path: Path) -> None:
    words = r"out of memory at step 2 with batches of 4: OOM when allocating tensor\. Set BATCH_SIZE=2,"
    with pytest.raises(UserError, match=words):
        train_to_end(GreedyTrainer(), Told(), tmp_path)


def test_connection_error_is_a_stop_only_in_a_cluster() -> None:
    error = tf.errors.UnavailableError(None, None, "Connection reset\nby peer")
    words = r"another machine of the cluster has gone \(Connection reset\)"
    with pytest.raises(Stopped, match=words), train.lost_machine_stops(is_cluster=True):
        raise error
    with pytest.raises(tf.errors.UnavailableError), train.lost_machine_stops(is_cluster=False):
        raise error
