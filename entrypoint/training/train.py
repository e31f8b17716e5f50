"""Training: exactly NUM_STEPS steps, from the newest whole checkpoint of this job, or from the start checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entrypoint import workspace
from entrypoint.data import records
from entrypoint.engines import loading
from entrypoint.engines.engine import LOSS, Trainer
from entrypoint.engines.shared import oversampling
from entrypoint.system import files, signals
from entrypoint.system.errors import Stopped, UserError
from entrypoint.training import checkpoints, plan, start_checkpoint
from entrypoint.training.events import Events
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# The time between two checks of the clock, the losses and SIGTERM. The loss is logged at each check.
SECONDS_BETWEEN_LOOKS = 3.0
MAX_STEPS_BETWEEN_LOOKS = 100
HISTORY_POINTS = 1000


def run(work: Workspace) -> str:
    """Trains to NUM_STEPS and leaves a checkpoint of that step; returns a digest of it.

    Raises:
        UserError: the loss became NaN, or the batch does not fit into memory.
        Stopped: SIGTERM arrived; a checkpoint of the step at which it arrived is saved.
    """
    identity = identify(work)
    checkpoints.refuse_foreign(work)
    saved = checkpoints.newest(identity, work)
    if saved and is_last(saved, work):
        logger.info("step %d is in %s: nothing is left to train", saved.step, saved.source)
        checkpoints.adopt(saved, identity, work)
        Events(work.events, saved.history).close()
    else:
        with lost_machine_stops(is_cluster=work.settings.tf_config is not None):
            train(saved, identity, work)
    return files.digest([identity, work.settings.num_steps])


def is_last(saved: checkpoints.Saved, work: Workspace) -> bool:
    """Returns whether nothing is left to train. In a cluster the chief must have or have published the checkpoint."""
    return saved.step == work.settings.num_steps and (work.is_chief or saved.source != work.checkpoints)


@contextmanager
def lost_machine_stops(*, is_cluster: bool) -> Iterator[None]:
    """Raises Stopped if another machine of a cluster has gone while the block runs.

    On a single machine TensorFlow raises the same errors for other reasons, which would stop the next run too.
    """
    import tensorflow as tf

    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if not is_cluster:
            raise
        words = error.message.splitlines()[0]
        raise Stopped(f"another machine of the cluster has gone ({words}); the next run continues") from None


def train(saved: checkpoints.Saved | None, identity: str, work: Workspace) -> None:
    """Trains to the last step, from a checkpoint of this job or from the start checkpoint."""
    engine, config = loading.load(work)
    trainer = engine.build(config, work.settings, saved.step if saved else 0, repeats(work))
    history = resume(trainer, saved, work)
    trainer.share(identity)
    events = Events(work.events, history)
    try:
        train_to_end(trainer, history, identity, events, work)
    finally:
        events.close()


def repeats(work: Workspace) -> list[float] | None:
    """Returns for each label how often photos with this label are shown in an epoch; None shows each photo once."""
    if work.settings.oversample == "off":
        return None
    manifest = records.load(work)
    photos = manifest.train.photos_per_label
    found = oversampling.factors([photos[label] for label in manifest.labels])
    shown = ", ".join(f"{label} {factor:.1f}" for label, factor in zip(manifest.labels, found, strict=True))
    logger.info("OVERSAMPLE=%s: how often photos are shown in an epoch: %s", work.settings.oversample, shown)
    return found


def identify(work: Workspace) -> str:
    """Returns the identity of this job in its checkpoints: a digest of settings, records, start and pipeline.config.

    The machine and the paths are not part of it.
    """
    before = [workspace.output_of(name, work) for name in ("tf_record", "checkpoint", "pipeline")]
    return files.digest([work.settings.seed, work.settings.precision, work.settings.oversample, *before])


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    prefix = last_checkpoint(work)
    return [
        checkpoints.manifest_of(prefix),
        *(Path(f"{prefix}.{end}") for end in ("index", "data-00000-of-00001")),
    ]


def last_checkpoint(work: Workspace) -> Path:
    """Returns the prefix of the checkpoint with which training ends."""
    return work.checkpoints / f"ckpt-{plan.load(work).num_steps}"


def resume(trainer: Trainer, saved: checkpoints.Saved | None, work: Workspace) -> list[dict[str, float]]:
    """Loads the weights of this job's own checkpoint, or of the start checkpoint; returns the losses so far."""
    if saved:
        trainer.restore(saved.prefix)
        logger.info("resumed at step %d from %s", trainer.step, saved.source)
        return saved.history
    start = start_checkpoint.load(work)
    if start:
        trainer.start_from(start.prefix)
    return []


def train_to_end(
    trainer: Trainer,
    history: list[dict[str, float]],
    identity: str,
    events: Events,
    work: Workspace,
) -> None:
    """Trains to the last step or until SIGTERM; checks the losses, the clock and the signals every few seconds.

    Saves a checkpoint every CHECKPOINT_SECONDS and at the end.
    """
    total = work.settings.num_steps
    with signals.deferred():
        if trainer.step < total:
            # The first step compiles the model. Nothing is lost if a signal interrupts it.
            with signals.at_once():
                logger.info("the first step compiles the model, which takes some seconds to minutes")
                points = advance(trainer, 1, work)
            history = thin(history + tell(points, events), total)
        pace = Pace()
        saved_at = time.monotonic()
        while trainer.step < total:
            is_due = time.monotonic() - saved_at >= work.settings.checkpoint_seconds
            is_stopped, steps, is_due = trainer.agree(signals.requested(), pace.steps, is_due)
            if is_stopped:
                break
            if is_due:
                checkpoints.save(trainer, identity, history, work)
                saved_at = time.monotonic()
            points = advance(trainer, min(steps, total - trainer.step), work)
            history = thin(history + tell(points, events), total)
            pace.measure(steps)
        checkpoints.save(trainer, identity, history, work)
        # No machine ends before the chief has published the checkpoint from which a new machine would continue.
        trainer.agree(False, 0, False)
    if trainer.step < total:
        raise Stopped("another machine of the cluster was stopped")


def advance(trainer: Trainer, steps: int, work: Workspace) -> list[dict[str, float]]:
    """Trains some steps; returns step, losses and learning rate of each.

    Raises:
        UserError: memory does not suffice, the photos cannot form a batch, or the loss is not finite.
    """
    import tensorflow as tf

    first = trainer.step
    try:
        rows = trainer.train(steps)
    except tf.errors.ResourceExhaustedError as error:
        batch = plan.load(work).batch_size
        raise UserError(
            f"out of memory at step {first + 1} with batches of {batch}: {error.message.splitlines()[0]}. "
            f"Set BATCH_SIZE={max(1, batch // 2)}, or take a smaller MODEL"
        ) from None
    except tf.errors.InvalidArgumentError as error:
        if "Cannot add tensor to the batch" not in error.message:
            raise
        raise UserError(
            "photos of several shapes cannot form a batch, and the config's image_resizer does not change the shapes: "
            "set BATCH_SIZE=1, or use a fixed_shape_resizer or a keep_aspect_ratio_resizer"
        ) from None
    points = [{"step": step, **row} for step, row in enumerate(rows, start=first + 1)]
    for point in points:
        if not math.isfinite(point[LOSS]):
            peak = plan.load(work).learning_rate
            raise UserError(
                f"the loss became {point[LOSS]} at step {point['step']}, learning rate {point['learning_rate']:.3g}: "
                f"set LEARNING_RATE={peak / 10:.2g}, a tenth of its peak. The last checkpoint is kept"
            )
    return points


def tell(points: list[dict[str, float]], events: Events) -> list[dict[str, float]]:
    """Logs the last of some steps and writes TensorBoard's scalars; returns the steps."""
    events.write(points)
    # cacli reads `tensorflow:loss = ([\d.]*), step = (\d*)`.
    logger.info("tensorflow:loss = %.4f, step = %d", points[-1][LOSS], points[-1]["step"])
    return points


def thin(history: list[dict[str, float]], total: int) -> list[dict[str, float]]:
    """Returns at most HISTORY_POINTS of the steps, evenly spaced, and always the last step."""
    stride = math.ceil(total / HISTORY_POINTS)
    return [point for point in history if point["step"] % stride == 0 or point is history[-1]]


class Pace:
    """The number of steps to train in a row, so that a check comes every few seconds."""

    def __init__(self) -> None:
        self.steps = 1
        self.began = time.monotonic()

    def measure(self, steps: int) -> None:
        """Fits the number of steps to the time that the last steps took."""
        now = time.monotonic()
        seconds, self.began = (now - self.began) / steps, now
        fitting = int(SECONDS_BETWEEN_LOOKS / max(seconds, 1e-6))
        self.steps = min(max(1, fitting), 2 * steps, MAX_STEPS_BETWEEN_LOOKS)
