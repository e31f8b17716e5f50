"""--profile: where the time of a step goes, as a trace for TensorBoard and one line in the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from entrypoint.engines.engine import Trainer

# The first steps after a start are slower: caches are empty, and libraries try which of their kernels is the fastest.
WARM_UP = 10
STEPS = 5
# The share of a step from which its input is what a training waits for.
BOUND = 0.8
NEEDED = WARM_UP + 2 * STEPS

# Trains some steps, and returns the losses of each.
Train = Callable[[int], list[dict[str, float]]]


@dataclass(frozen=True)
class Profile:
    """What a step takes."""

    photos: int  # of a step
    seconds: float  # of a step
    input_seconds: float  # that the photos of a step take by themselves: to be read, decoded, augmented, batched

    def __str__(self) -> str:
        """Returns the line for the log."""
        share = self.input_seconds / self.seconds
        kind = (
            "input-bound: a faster model or GPU would gain nothing. Take more CPU cores, a smaller TRAIN_IMAGE_SIZE or "
            "less augmentation"
            if share >= BOUND
            else "compute-bound: the photos are not what it waits for"
        )
        return (
            f"profile: a step of {self.photos} photos takes {self.seconds:.3f} s, and its photos alone take "
            f"{self.input_seconds:.3f} s ({share:.0%}), so that the training is {kind}"
        )


def run(train: Train, trainer: Trainer, photos: int, folder: Path) -> tuple[list[dict[str, float]], Profile]:
    """Trains NEEDED steps, the last of them with a trace in a folder of TensorBoard's events.

    Returns what `train` returns for these steps, and what a step takes. The photos that are read to time the input are
    not trained on: the training goes on as without a profile.
    """
    import tensorflow as tf

    points = train(WARM_UP)
    began = time.monotonic()
    points += train(STEPS)
    seconds = (time.monotonic() - began) / STEPS
    # A trace makes the steps slower, so that they are not timed.
    with tf.profiler.experimental.Profile(str(folder)):
        points += train(STEPS)
    return points, Profile(photos, seconds, trainer.seconds_of_input(STEPS))
