"""How many steps a training has: NUM_STEPS, or with NUM_STEPS=auto as many as the photos need."""

from __future__ import annotations

import math
import re

from entrypoint.settings.schema import MOST_STEPS, Settings
from entrypoint.training import plan
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue, pipeline_config

# How often NUM_STEPS=auto shows each photo, from a checkpoint and from random weights. docs/recipes.md has the
# measurements behind these figures.
EPOCHS, EPOCHS_FROM_RANDOM = 16, 60
# A head learns within a few hundred steps, however few the photos are, and within fewer steps of a larger batch: the
# least are as many as show LEAST_SHOWN photos, from 300 to 600.
FEWEST, FEWEST_OF_SMALL_BATCHES, FEWEST_FROM_RANDOM = 300, 600, 2000
LEAST_SHOWN = 9600
# The longest training that NUM_STEPS=auto begins: the number of steps in the zoo's configs for fine-tuning is 25,000.
MOST = 25_000
# The batch size in the text of a pipeline.config, if no other message of train_config stands before it.
BATCH = re.compile(r"\btrain_config\s*(?::\s*)?\{[^{}]*?\bbatch_size\s*:\s*(\d+)")


def decide(settings: Settings, photos: int, batch: int, *, has_start: bool) -> int:
    """Returns the number of steps of the schedule for training photos in batches."""
    return advise(photos, batch, has_start=has_start) if settings.num_steps == "auto" else settings.num_steps


def advise(photos: int, batch: int, *, has_start: bool) -> int:
    """Returns the number of steps of NUM_STEPS=auto for training photos in batches."""
    epochs = EPOCHS if has_start else EPOCHS_FROM_RANDOM
    return min(MOST, max(fewest(batch, has_start=has_start), steps_for(epochs * photos, batch)))


def fewest(batch: int, *, has_start: bool) -> int:
    """Returns the fewest steps of NUM_STEPS=auto, however few photos there are."""
    if not has_start:
        return FEWEST_FROM_RANDOM
    return min(FEWEST_OF_SMALL_BATCHES, max(FEWEST, steps_for(LEAST_SHOWN, batch)))


def steps_for(shown: int, batch: int) -> int:
    """Returns the number of steps that show so many photos, rounded up to hundreds.

    So a photo more or less does not make another training.
    """
    return 100 * math.ceil(shown / batch / 100)


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


def describe(steps: int, batch: int, photos: int, *, has_start: bool) -> str:
    """Returns how often a training shows each photo, and whether that is less than NUM_STEPS=auto would show it."""
    epochs = steps * batch / max(1, photos)
    advised = advise(photos, batch, has_start=has_start)
    words = f"{steps} steps of {batch} photos show each of the {photos} training photos {epochs:.1f} times"
    if steps < advised:
        words += f"; NUM_STEPS=auto takes {advised} steps, and the model may still gain until then"
    return words


def foresee(settings: Settings, photos: int) -> str | None:
    """Returns `describe` for a job that has not begun; None if time limits it or its batch size is not known yet.

    The configs of the zoo's archives and BATCH_SIZE=auto decide on the batch size later.
    """
    batch = settings.batch_size
    path = settings.pipeline_config or catalogue.find(settings.model).pipeline
    if batch is None and path is not None:
        found = BATCH.search(pipeline_config.without_comments(pipeline_config.text_of(path)))
        batch = int(found[1]) if found else None
    if is_open(settings) or batch is None or batch == "auto":
        return None
    checkpoint = catalogue.find(settings.model).archive if settings.checkpoint == "zoo" else settings.checkpoint
    has_start = checkpoint not in ("", "none")
    return describe(decide(settings, photos, batch, has_start=has_start), batch, photos, has_start=has_start)
