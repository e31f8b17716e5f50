"""MAX_MINUTES: how many steps fit into the time of the job, and how the learning rate's schedule is fitted to them.

The first steps are timed. The time that is left, without what evaluations, checkpoints and exports will take, decides
the last step. If the job turns out to be slower, the last step moves forward; it never moves back. Every checkpoint
keeps what was decided and the time used, so a job that was killed ends at the same step. The time that a kill costs is
not counted.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.training import evaluation

logger = logging.getLogger("job")

# The pace is measured over so many seconds or steps after the first step, which compiles the model.
TIMED_SECONDS, TIMED_STEPS = 10.0, 30
# A training of fewer steps is no training: the job stops and names a time that suffices.
FEWEST_STEPS = 10
# A training of so many steps has a time that the job proposes.
WORTHWHILE = 100
# Before the first evaluation: its time per photo, in those of a training step per photo. It has no gradients.
EVALUATION = 0.5
# Compiling the first evaluation, in the time that building and compiling the training takes.
COMPILING = 0.4
# Loading an export in its runtime and running it on some photos, in the same time.
COMPARING = 0.4
# Report, cards and copies of small files, in seconds.
REPORT = 10.0
# The training becomes shorter only if it would be too long by more than this share: paces vary.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Fit:
    """Where a training ends, and where its steps lie on the schedule of the pipeline.config."""

    last: int  # the last step of the training
    first: int = 0  # the step from which this holds
    position: int = 0  # the step of the schedule at `first`

    def pace(self, scheduled: int) -> float:
        """Returns how many steps of the schedule pass in a step of the training, so that both end together."""
        return (scheduled - self.position) / max(1, self.last - self.first)

    def shortened(self, step: int, last: int, scheduled: int) -> Fit:
        """Returns the fit from a step on with another last step. The learning rate does not jump there."""
        return Fit(last, step, round(self.position + (step - self.first) * self.pace(scheduled)))


@dataclass(frozen=True)
class Costs:
    """How long the parts of a job take, in seconds."""

    step: float  # a training step
    evaluation: float  # an evaluation
    checkpoint: float  # saving and publishing a checkpoint
    after: float  # what follows on the training, with an evaluation


def affordable(seconds: float, costs: Costs, settings: Settings) -> int:
    """Returns how many steps of training fit into a time with evaluations, checkpoints and what follows on them."""
    seconds -= costs.after
    # The checkpoint of an evaluation is copied if it is the best.
    pause = costs.evaluation + 2 * costs.checkpoint
    step = costs.step * (1 + costs.checkpoint / max(settings.checkpoint_seconds, costs.step))
    if settings.evaluate_every != "auto":
        return int(seconds / (step + (pause / settings.evaluate_every if settings.evaluate_every else 0)))
    for count in range(evaluation.MOST, evaluation.FEWEST, -1):
        training = seconds - count * pause
        if count * costs.evaluation <= evaluation.SHARE * training:
            return int(training / step)
    return int((seconds - evaluation.FEWEST * pause) / step)


def seconds_for(steps: int, costs: Costs, settings: Settings) -> float:
    """Returns a time into which so many steps fit, with all that belongs to them; it is close to the shortest one."""
    seconds = costs.after + steps * costs.step
    while affordable(seconds, costs, settings) < steps:
        seconds *= 1.05
    return seconds


class Budget:
    """The time of a job with MAX_MINUTES, and what is known about its costs."""

    def __init__(self, settings: Settings, began: float, used: float, most: int) -> None:
        """`began` is when the clock of this run started, `used` the seconds that earlier runs used.

        `most` is the last step if time does not matter.
        """
        self.settings = settings
        self.began = began
        self.before = used
        self.most = most
        self.preparation = 0.0  # seconds to build and to compile the model
        self.training = 0.0  # seconds of the steps that were timed
        self.steps = 0
        self.checkpoint = 0.0

    @property
    def used(self) -> float:
        """The seconds of the job up to now."""
        return self.before + time.monotonic() - self.began

    def time_steps(self, steps: int, seconds: float) -> None:
        """Counts steps that were trained, without the first, which compiles the model."""
        self.steps += steps
        self.training += seconds

    def is_timed(self) -> bool:
        """Returns whether enough steps were timed to decide on the last step."""
        return self.training >= TIMED_SECONDS or self.steps >= TIMED_STEPS

    def costs(self, batch: int, photos: int, measured: float | None) -> Costs:
        """Returns what the parts of the job take, for batches of the training and photos to evaluate.

        `measured` is how long an evaluation takes, None before the first one.
        """
        step = self.training / max(1, self.steps)
        found = EVALUATION * photos * step / batch if measured is None else measured
        # Each export builds and traces the model anew, and so does an evaluation that is not of this process. A runtime
        # then loads the export, and finds what is on some of the photos.
        models = len(self.settings.exports) * (1 + COMPARING) + (COMPILING if measured is None else 0)
        after = models * self.preparation + found + 2 * self.checkpoint + REPORT
        return Costs(step, found, self.checkpoint, after)

    def fit(self, step: int, costs: Costs) -> Fit:
        """Returns where the training ends.

        Raises:
            UserError: the time suffices for hardly a step.
        """
        minutes = self.settings.max_minutes or 0.0
        left = 60 * minutes - self.used
        steps = affordable(left, costs, self.settings)
        if steps < 0 or step + steps < FEWEST_STEPS:
            needed = self.used + seconds_for(WORTHWHILE, costs, self.settings)
            raise UserError(
                f"MAX_MINUTES={minutes:g} leaves time for {max(0, steps)} steps of {costs.step:.2g} s: "
                f"{self.used:.0f} s have passed, and evaluation, exports and report take about {costs.after:.0f} s. "
                f"Set MAX_MINUTES={math.ceil(needed / 60)} or more, or choose a smaller MODEL"
            )
        last = min(step + steps, self.most)
        logger.info(
            "MAX_MINUTES=%g: %.1f minutes are left, about %.1f of them for evaluation, exports and report after the "
            "training; with %.2g s for a step, the training ends at step %d",
            minutes,
            left / 60,
            costs.after / 60,
            costs.step,
            last,
        )
        return Fit(last)

    def refit(self, step: int, fit: Fit, costs: Costs, scheduled: int) -> Fit:
        """Returns the fit, or a shorter one if the job has become slower than was expected."""
        minutes = self.settings.max_minutes or 0.0
        last = step + max(0, affordable(60 * minutes - self.used, costs, self.settings))
        if last >= fit.last - TOLERANCE * (fit.last - fit.first):
            return fit
        logger.info(
            "MAX_MINUTES=%g: the job is slower than expected; the training ends at step %d instead of %d",
            minutes,
            last,
            fit.last,
        )
        return fit.shortened(step, last, scheduled)
