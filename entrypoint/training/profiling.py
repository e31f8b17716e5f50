"""--profile: where the time of a step goes, as a trace for TensorBoard and one line in the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.engines.engine import Trainer

logger = logging.getLogger("job")

# The first steps after a start are slower: caches are empty, and libraries try which of their kernels is the fastest.
WARM_UP = 10
STEPS = 3  # in the trace
# The share of a step from which its input is what a training waits for.
BOUND = 0.8
# A fixed name: a run that goes on replaces the trace of the run before, and does not add one.
NAME = "job"


@dataclass(frozen=True)
class Profile:
    """What a step takes."""

    photos: int  # of a step
    seconds: float  # of a step
    input_seconds: float  # that the input pipeline takes for these photos by itself

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


def run(train: Callable[[int], Any], trainer: Trainer, photos: int, seconds: float, folder: Path) -> Any:
    """Trains STEPS steps with a trace in a folder of TensorBoard's events, and logs what a step takes.

    `seconds` is what the steps before took, each: a trace makes steps slower. Returns what `train` returns. The photos
    that are read to time the input pipeline are not trained on, so that the training goes on as without a profile.
    """
    with traced(folder):
        points = train(STEPS)
    try:
        logger.info("%s", Profile(photos, seconds, trainer.seconds_of_input(STEPS)))
    except Exception as error:
        # What only measures must not end a training.
        logger.warning("the input pipeline could not be timed: %s", error)
    return points


@contextmanager
def traced(folder: Path) -> Iterator[None]:
    """Writes a trace of what TensorFlow does in the block into a folder, for the plugin `profile` of TensorBoard."""
    import tensorflow as tf

    try:
        tf.profiler.experimental.start(str(folder))
    except tf.errors.OpError as error:
        logger.warning("no trace could be made: %s", error.message)
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(tf.errors.OpError):
            tf.profiler.experimental.stop()
        # TensorFlow names the folder after the time, and the file after the machine.
        for path in (folder / "plugins" / "profile").glob("*/*.xplane.pb"):
            path.rename(path.with_name(f"{NAME}.xplane.pb"))
        for path in (folder / "plugins" / "profile").glob("*"):
            path.rename(path.with_name(NAME))
