"""Training: exactly NUM_STEPS steps, from the newest whole checkpoint of this job, or from the zoo's."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from entrypoint import checkpoint, checkpoints, engine, signals, workspace
from entrypoint.engine import LOSS, Engine, Trainer
from entrypoint.errors import UserError
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
    runner, config = engine.load(work)
    saved = checkpoints.newest(identity, work)
    trainer = runner.build(config, work.settings.seed)
    history = resume(trainer, saved, work)
    with signals.deferred():
        train_to_end(runner, trainer, history, identity, work)
    return workspace.digest([identity, trainer.step])


def identify(work: Workspace) -> str:
    """What makes a checkpoint one of this job: seed, records, start and pipeline.config; not the machine or a path."""
    before = [workspace.output_of(name, work) for name in ("tf_record", "checkpoint", "pipeline")]
    return workspace.digest([work.settings.seed, *before])


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    prefix = last_checkpoint(work)
    return [checkpoints.manifest_of(prefix), *(Path(f"{prefix}.{end}") for end in ("index", "data-00000-of-00001"))]


def last_checkpoint(work: Workspace) -> Path:
    """The prefix of the checkpoint with which training ends."""
    return work.checkpoints / f"ckpt-{work.settings.num_steps}"


def resume(trainer: Trainer, saved: checkpoints.Saved | None, work: Workspace) -> list[dict[str, float]]:
    """Fills the weights from this job's own checkpoint, or the one it starts from; the losses so far."""
    if saved:
        trainer.restore(saved.prefix)
        logger.info("resumed at step %d from %s", trainer.step, saved.prefix)
        return saved.history
    start = checkpoint.load(work)
    if start:
        trainer.start_from(start["prefix"])
    return []


def train_to_end(
    runner: Engine, trainer: Trainer, history: list[dict[str, float]], identity: str, work: Workspace
) -> None:
    """Trains with a look at losses, clock and signals every few seconds; saves now and then, and at the end."""
    total = work.settings.num_steps
    if trainer.step == total:
        # Nothing is left to train, but the checkpoint may lie in RESULT_DIR alone.
        checkpoints.save(trainer, identity, history, work)
    pace = Pace()
    saved_at = time.monotonic()
    with Events(work.checkpoints) as events:
        while trainer.step < total:
            first = trainer.step
            rows = run_steps(runner, trainer, min(pace.steps, total - first))
            pace.measure(len(rows))
            history = thin(history + note(first, rows, events), total)
            is_stopped = signals.requested()
            is_due = time.monotonic() - saved_at >= work.settings.checkpoint_seconds
            if is_stopped or is_due or trainer.step == total:
                checkpoints.save(trainer, identity, history, work)
                saved_at = time.monotonic()
            if is_stopped:
                return


def run_steps(runner: Engine, trainer: Trainer, steps: int) -> list[dict[str, float]]:
    """Trains some steps; UserError where memory does not suffice or the loss is no number any more."""
    import tensorflow as tf

    first = trainer.step
    try:
        rows = runner.train(trainer, steps)
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"out of memory at step {first + 1}: {error.message.splitlines()[0]}. Set BATCH_SIZE to half of what the "
            "log's table of the pipeline.config says, or take a smaller MODEL"
        ) from None
    for step, row in enumerate(rows, start=first + 1):
        if not math.isfinite(row[LOSS]):
            raise UserError(
                f"the loss became {row[LOSS]} at step {step}, at learning rate {row['learning_rate']:.3g}: set "
                f"LEARNING_RATE={row['learning_rate'] / 10:.1g}. Checkpoints saved before it are kept"
            )
    return rows


def note(first: int, rows: list[dict[str, float]], events: Events) -> list[dict[str, float]]:
    """Logs the last of some steps, writes all of them as TensorBoard scalars and returns them for the history."""
    for step, row in enumerate(rows, start=first + 1):
        events.write(step, row)
    last = rows[-1]
    # cacli reads `tensorflow:loss = ([\d.]*), step = (\d*)`.
    logger.info("tensorflow:loss = %.4f, step = %d", last[LOSS], first + len(rows))
    return [
        {"step": step, "loss": row[LOSS], "learning_rate": row["learning_rate"]}
        for step, row in enumerate(rows, start=first + 1)
    ]


def thin(history: list[dict[str, float]], total: int) -> list[dict[str, float]]:
    """At most HISTORY_POINTS of the steps, evenly, and always the last."""
    stride = math.ceil(total / HISTORY_POINTS)
    return [point for point in history if point["step"] % stride == 0 or point is history[-1]]


class Pace:
    """How many steps to train in a row so that a look comes every few seconds."""

    def __init__(self) -> None:
        self.steps = 1
        self.began = time.monotonic()
        self.is_first = True

    def measure(self, done: int) -> None:
        """Fits the number of steps to the time that the last ones took; the very first one compiles the model."""
        now = time.monotonic()
        seconds, self.began = (now - self.began) / done, now
        if not self.is_first:
            fitting = int(SECONDS_BETWEEN_LOOKS / max(seconds, 1e-6))
            self.steps = min(max(1, fitting), 2 * self.steps, MAX_STEPS_BETWEEN_LOOKS)
        self.is_first = False


class Events:
    """TensorBoard's scalars, in local files; they are published with the checkpoint at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Events:
        import tensorflow as tf

        self.writer: Any = tf.summary.create_file_writer(str(self.folder / "events"))
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def write(self, step: int, row: dict[str, float]) -> None:
        """Writes the losses and the learning rate of a step."""
        import tensorflow as tf

        with self.writer.as_default():
            for name, value in row.items():
                tf.summary.scalar(name, value, step=step)
