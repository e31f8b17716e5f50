"""Training: exactly NUM_STEPS steps, from the newest whole checkpoint of this job, or from the zoo's."""

from __future__ import annotations

import logging
import math
import time
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

# Between two looks at the clock, the losses and SIGTERM; the loss is logged as often.
SECONDS_BETWEEN_LOOKS = 3.0
MAX_STEPS_BETWEEN_LOOKS = 100
HISTORY_POINTS = 1000


def run(work: Workspace) -> str:
    """Trains to NUM_STEPS and leaves a checkpoint of that step; returns a digest of it.

    Raises:
        UserError: the loss became NaN, or the batch does not fit into memory.
        Stopped: SIGTERM arrived; a checkpoint of the step it arrived at is saved.
    """
    identity = identify(work)
    checkpoints.refuse_foreign(work)
    saved = checkpoints.newest(identity, work)
    if saved and is_last(saved, work):
        logger.info("step %d is in %s: nothing is left to train", saved.step, saved.source)
        checkpoints.adopt(saved, identity, work)
        Events(work.events, saved.history).close()
    else:
        train_with_others(saved, identity, work)
    return files.digest([identity, work.settings.num_steps])


def is_last(saved: checkpoints.Saved, work: Workspace) -> bool:
    """Whether nothing is left to train; of a cluster's machines the chief must have it, or have published it."""
    return saved.step == work.settings.num_steps and (work.is_chief or saved.source != work.checkpoints)


def train_with_others(saved: checkpoints.Saved | None, identity: str, work: Workspace) -> None:
    """Trains as `train` does; raises Stopped if another machine of a cluster has gone.

    TensorFlow raises the same errors on a single machine for other reasons, which the next run would meet again.
    """
    import tensorflow as tf

    try:
        train(saved, identity, work)
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if work.settings.tf_config is None:
            raise
        words = error.message.splitlines()[0]
        raise Stopped(f"another machine of the cluster has gone ({words}); the next run goes on") from None


def train(saved: checkpoints.Saved | None, identity: str, work: Workspace) -> None:
    """Trains from a checkpoint of this job, or from the one that it starts from, to the last step."""
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
    """How often photos are shown in an epoch, by their labels; None for once."""
    if work.settings.oversample == "off":
        return None
    manifest = records.load(work)
    photos = manifest.train.photos_per_label
    found = oversampling.factors([photos[label] for label in manifest.labels])
    shown = ", ".join(f"{label} {factor:.1f}" for label, factor in zip(manifest.labels, found, strict=True))
    logger.info("OVERSAMPLE=%s: how often photos are shown in an epoch: %s", work.settings.oversample, shown)
    return found


def identify(work: Workspace) -> str:
    """What makes a checkpoint one of this job: settings, records, start and pipeline.config; not machine or path."""
    before = [workspace.output_of(name, work) for name in ("tf_record", "checkpoint", "pipeline")]
    return files.digest([work.settings.seed, work.settings.precision, work.settings.oversample, *before])


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    prefix = last_checkpoint(work)
    return [
        checkpoints.manifest_of(prefix),
        *(Path(f"{prefix}.{end}") for end in ("index", "data-00000-of-00001")),
    ]


def last_checkpoint(work: Workspace) -> Path:
    """The prefix of the checkpoint with which training ends."""
    return work.checkpoints / f"ckpt-{plan.load(work).num_steps}"


def resume(trainer: Trainer, saved: checkpoints.Saved | None, work: Workspace) -> list[dict[str, float]]:
    """Fills the weights from this job's own checkpoint, or the one it starts from; the losses so far."""
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
    """Trains with a look at losses, clock and signals every few seconds; saves now and then, and at the end."""
    total = work.settings.num_steps
    with signals.deferred():
        if trainer.step < total:
            # The first step compiles the model. Until it is told of, nothing is lost with it.
            with signals.at_once():
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
        # No machine leaves before the chief has published what a new one would go on from.
        trainer.agree(False, 0, False)
    if trainer.step < total:
        raise Stopped("another machine of the cluster was stopped")


def advance(trainer: Trainer, steps: int, work: Workspace) -> list[dict[str, float]]:
    """Trains some steps; step, losses and learning rate of each.

    Raises:
        UserError: memory does not suffice, photos make no batch, or the loss is no number any more.
    """
    import tensorflow as tf

    first = trainer.step
    used = plan.load(work)
    try:
        rows = trainer.train(steps)
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"out of memory at step {first + 1} with batches of {used.batch_size}: {error.message.splitlines()[0]}. "
            f"Set BATCH_SIZE={max(1, used.batch_size // 2)}, or take a smaller MODEL"
        ) from None
    except tf.errors.InvalidArgumentError as error:
        if "Cannot add tensor to the batch" not in error.message:
            raise
        raise UserError(
            "photos of several shapes are no batch, and the config's image_resizer leaves them as they are: set "
            "BATCH_SIZE=1, or take a fixed_shape_resizer or a keep_aspect_ratio_resizer"
        ) from None
    points = [{"step": step, **row} for step, row in enumerate(rows, start=first + 1)]
    for point in points:
        if not math.isfinite(point[LOSS]):
            raise UserError(
                f"the loss became {point[LOSS]} at step {point['step']}, learning rate {point['learning_rate']:.3g}: "
                f"set LEARNING_RATE={used.learning_rate / 10:.2g}, a tenth of its peak. The last checkpoint is kept"
            )
    return points


def tell(points: list[dict[str, float]], events: Events) -> list[dict[str, float]]:
    """Logs the last of some steps and writes TensorBoard's scalars; returns the steps."""
    events.write(points)
    # cacli reads `tensorflow:loss = ([\d.]*), step = (\d*)`.
    logger.info("tensorflow:loss = %.4f, step = %d", points[-1][LOSS], points[-1]["step"])
    return points


def thin(history: list[dict[str, float]], total: int) -> list[dict[str, float]]:
    """At most HISTORY_POINTS of the steps, evenly, and always the last."""
    stride = math.ceil(total / HISTORY_POINTS)
    return [point for point in history if point["step"] % stride == 0 or point is history[-1]]


class Pace:
    """How many steps to train in a row so that a look comes every few seconds."""

    def __init__(self) -> None:
        self.steps = 1
        self.began = time.monotonic()

    def measure(self, steps: int) -> None:
        """Fits the number of steps to the time that the last ones took."""
        now = time.monotonic()
        seconds, self.began = (now - self.began) / steps, now
        fitting = int(SECONDS_BETWEEN_LOOKS / max(seconds, 1e-6))
        self.steps = min(max(1, fitting), 2 * steps, MAX_STEPS_BETWEEN_LOOKS)
