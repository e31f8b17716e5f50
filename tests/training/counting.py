"""A trainer that only counts its steps, and is saved and restored by TensorFlow as real ones are."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from entrypoint.engines.engine import LOSS, Detections
from entrypoint.engines.shared.class_outputs import Known


class CountingTrainer:
    """A model of one variable; the process gets SIGTERM while it trains a given step."""

    def __init__(self, stopped_in: int = 0) -> None:
        self.value = tf.Variable(0)
        self.checkpoint = tf.train.Checkpoint(value=self.value)
        self.stopped_in = stopped_in
        self.is_averaged = False

    @property
    def step(self) -> int:
        return int(self.value.numpy())

    @property
    def is_exact(self) -> bool:
        return True

    def start_from(self, prefix: str, known: Known | None = None) -> Any:
        raise NotImplementedError

    def restore(self, prefix: Path) -> None:
        self.checkpoint.read(str(prefix)).assert_consumed()

    def share(self, identity: str) -> None:
        raise NotImplementedError

    def agree(self, is_stopped: bool, numbers: list[int]) -> tuple[bool, list[int]]:
        return is_stopped, numbers

    def follow(self, first: int, position: int, pace: float) -> None:
        self.followed = (first, position, pace)

    def train(self, steps: int) -> list[dict[str, float]]:
        self.value.assign_add(steps)
        if self.step == self.stopped_in:
            signal.raise_signal(signal.SIGTERM)
        return [{LOSS: 1.0, "learning_rate": 0.1}] * steps

    def seconds_of_input(self, batches: int) -> float:
        # No step of a test takes as long.
        return 1000.0 * batches

    @contextmanager
    def averaged(self) -> Iterator[None]:
        self.is_averaged = True
        yield
        self.is_averaged = False

    def detect(self, prefix: Path, records: list[str]) -> Iterator[Detections]:
        raise NotImplementedError

    def save(self, prefix: Path) -> None:
        self.checkpoint.write(str(prefix))
