"""The schedule of a train_config: number of steps, batch size and learning rate, fitted to this job."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.training.changes import Changes

# The largest batch of one device if BATCH_SIZE is not set. Published batches reach 256 photos, for COCO's 118,000
# photos. Many buckets hold fewer photos than that, and many GPUs do not have enough memory.
LARGEST_BATCH = 32
MOST_PHOTOS = 65_536  # of a batch, as for BATCH_SIZE


def inject(
    train: Any,
    settings: Settings,
    steps_for: Callable[[int], int],
    batch_size: int | None,
    archive: str | None,
    changes: Changes,
) -> None:
    """Writes number of steps, batch size and learning rate into a train_config, and fits the schedule to them.

    `steps_for` returns the number of steps for a batch size. Without `batch_size`, the batch is the config's. `archive`
    is the name of the archive that a published config came in, or None for any other config.

    A batch size other than the config's scales the learning rate: linearly for SGD with momentum (Goyal et al. 2017,
    arXiv:1706.02677), by the square root for Adam and RMSProp (Malladi et al. 2022, arXiv:2205.10287).
    LEARNING_RATE is used unchanged, and does not change the batch size.
    """
    kind = train.optimizer.WhichOneof("optimizer")
    if kind is None:
        raise UserError("the pipeline.config has no optimizer in train_config")
    optimizer = getattr(train.optimizer, kind)
    schedule = optimizer.learning_rate.WhichOneof("learning_rate")
    if schedule is None:
        raise UserError(f"the pipeline.config has no learning_rate in train_config.optimizer.{kind}")
    rate = getattr(optimizer.learning_rate, schedule)
    peak = peak_of(rate, schedule)
    if train.batch_size < 1 or peak <= 0:
        raise UserError(
            f"the pipeline.config has batch_size {train.batch_size} and learning rate {peak:g}: both must be above 0"
        )
    if train.batch_size > MOST_PHOTOS:
        raise UserError(f"the pipeline.config has batch_size {train.batch_size}: the most is {MOST_PHOTOS}")
    batch = batch_size or (train.batch_size if archive is None else published_batch(train, archive))
    ratio = batch / train.batch_size
    factor = ratio if kind == "momentum_optimizer" else math.sqrt(ratio)
    if settings.learning_rate:
        factor = settings.learning_rate / peak
    steps = steps_for(batch)
    changes.set(train, "train_config", "batch_size", batch)
    path = f"train_config.optimizer.{kind}.learning_rate.{schedule}"
    stretch(rate, schedule, path, train.num_steps, steps, changes)
    scale(rate, schedule, path, factor, changes)
    changes.set(train, "train_config", "num_steps", steps)


def published_batch(train: Any, archive: str) -> int:
    """Returns one device's part of a published batch, which is for all devices of the published training; at most 32.

    Some configs have the number of replicas that they aggregate. The names of some archives have the number of devices,
    such as `tpu-32`.
    """
    named = re.search(r"_[tg]pu-(\d+)", archive)
    devices = max(1, train.replicas_to_aggregate, int(named.group(1)) if named else 1)
    return int(min(LARGEST_BATCH, max(1, train.batch_size // devices)))


def peak_of_optimizer(optimizer: Any) -> float:
    """Returns the highest learning rate of an optimizer's schedule."""
    rate = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    name = rate.WhichOneof("learning_rate")
    return peak_of(getattr(rate, name), name)


def peak_of(rate: Any, schedule: str) -> float:
    """Returns the highest learning rate of a schedule. Manual steps can rise above the initial learning rate."""
    steps = rate.schedule if schedule == "manual_step_learning_rate" else []
    return float(max([getattr(rate, PEAK_FIELDS[schedule]), *(step.learning_rate for step in steps)]))


PEAK_FIELDS = {
    "constant_learning_rate": "learning_rate",
    "exponential_decay_learning_rate": "initial_learning_rate",
    "manual_step_learning_rate": "initial_learning_rate",
    "cosine_decay_learning_rate": "learning_rate_base",
}
OTHER_RATES = {
    "exponential_decay_learning_rate": ("burnin_learning_rate", "min_learning_rate"),
    "cosine_decay_learning_rate": ("warmup_learning_rate",),
}
STEP_FIELDS = {
    "exponential_decay_learning_rate": ("decay_steps", "burnin_steps"),
    "cosine_decay_learning_rate": ("warmup_steps", "hold_base_rate_steps"),
}


def scale(rate: Any, schedule: str, path: str, factor: float, changes: Changes) -> None:
    """Multiplies every learning rate of a schedule."""
    if factor == 1:
        return
    for name in (PEAK_FIELDS[schedule], *OTHER_RATES.get(schedule, ())):
        changes.set(rate, path, name, to_float32(getattr(rate, name) * factor))
    if schedule == "manual_step_learning_rate":
        for index, entry in enumerate(rate.schedule):
            changes.set(entry, f"{path}.schedule[{index}]", "learning_rate", to_float32(entry.learning_rate * factor))


def stretch(rate: Any, schedule: str, path: str, before: int, after: int, changes: Changes) -> None:
    """Fits warm-up and decay, which were made for `before` steps, to `after` steps."""
    if schedule == "cosine_decay_learning_rate":
        before = rate.total_steps
        changes.set(rate, path, "total_steps", after)
    if not before:
        return
    for name in STEP_FIELDS.get(schedule, ()):
        steps = getattr(rate, name)
        least = 1 if name == "decay_steps" else 0
        changes.set(rate, path, name, max(least, steps * after // before))
    if schedule == "manual_step_learning_rate":
        last = 0
        for index, entry in enumerate(rate.schedule):
            last = max(last + 1, entry.step * after // before)
            changes.set(entry, f"{path}.schedule[{index}]", "step", last)


def clear_length(train: Any) -> None:
    """Clears what `inject` derives from the number of steps."""
    train.num_steps = 0
    kind = train.optimizer.WhichOneof("optimizer")
    learning_rate = getattr(train.optimizer, kind).learning_rate
    name = learning_rate.WhichOneof("learning_rate")
    rate = getattr(learning_rate, name)
    fields = STEP_FIELDS.get(name, ()) + (("total_steps",) if name == "cosine_decay_learning_rate" else ())
    for field in fields:
        rate.ClearField(field)
    for entry in rate.schedule if name == "manual_step_learning_rate" else ():
        entry.ClearField("step")


def to_float32(value: float) -> float:
    """Returns the value as the config's fields hold it, so that an unchanged value does not count as a change."""
    import numpy as np

    return float(np.float32(value))
