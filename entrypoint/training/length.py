"""How many steps a training has: NUM_STEPS, or with NUM_STEPS=auto as many as the photos need."""

from __future__ import annotations

import math

from entrypoint.settings.schema import MOST_STEPS, Settings
from entrypoint.training import plan
from entrypoint.workspace import Workspace

# How often NUM_STEPS=auto shows each photo, and the fewest steps that it takes, from a checkpoint and from random
# weights: a head learns within a few hundred steps, whatever the photos. docs/recipes.md has the measurements.
EPOCHS, EPOCHS_FROM_RANDOM = 16, 60
FEWEST, FEWEST_FROM_RANDOM = 600, 2000
# The longest training that NUM_STEPS=auto begins: the number of steps in the zoo's configs for fine-tuning is 25,000.
MOST = 25_000


def decide(settings: Settings, photos: int, batch: int, *, has_start: bool) -> int:
    """Returns the number of steps of the schedule for training photos in batches."""
    if settings.num_steps != "auto":
        return settings.num_steps
    epochs, fewest = (EPOCHS, FEWEST) if has_start else (EPOCHS_FROM_RANDOM, FEWEST_FROM_RANDOM)
    # To hundreds, so that a photo more or less does not make another training.
    steps = 100 * math.ceil(epochs * photos / batch / 100)
    return min(MOST, max(fewest, steps))


def scheduled(work: Workspace) -> int:
    """Returns the number of steps of the schedule, which the step `pipeline` has decided on."""
    steps = work.settings.num_steps
    return plan.load(work).num_steps if steps == "auto" else steps


def is_open(settings: Settings) -> bool:
    """Returns whether time alone limits the training: MAX_MINUTES without a number of steps."""
    return settings.max_minutes is not None and settings.num_steps == "auto"


def most(work: Workspace) -> int:
    """Returns the last step if time does not matter."""
    return MOST_STEPS if is_open(work.settings) else scheduled(work)
