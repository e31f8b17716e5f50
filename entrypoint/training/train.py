"""Training: exactly NUM_STEPS steps, from the newest whole checkpoint of this job, or from the start checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from entrypoint import workspace
from entrypoint.data import records
from entrypoint.engines import loading, machine
from entrypoint.engines.engine import LOSS, Trainer
from entrypoint.engines.shared import oversampling
from entrypoint.system import documents, files, signals
from entrypoint.system.errors import Stopped, UserError
from entrypoint.training import (
    checkpoints,
    evaluation,
    known_labels,
    length,
    plan,
    profiling,
    resuming,
    start_checkpoint,
)
from entrypoint.training.budget import Budget, Costs, Fit
from entrypoint.training.evaluation import Evaluator
from entrypoint.training.events import Events
from entrypoint.training.progress import Progress
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# The time between two checks of the clock, the losses and SIGTERM. The loss is logged at each check.
SECONDS_BETWEEN_LOOKS = 3.0
MAX_STEPS_BETWEEN_LOOKS = 100
HISTORY_POINTS = 1000
# A loss that is so many times the lowest one so far, in one of the first steps, comes from the learning rate.
EXPLODED, FIRST_STEPS = 100, 100


@dataclass(frozen=True)
class Trained:
    """The steps of the checkpoints with which the training ended."""

    step: int  # of the last one
    best: int | None  # of the best evaluation, if its checkpoint is there
    is_averaged: bool = False  # whether the best checkpoint has averaged weights


def run(work: Workspace) -> str:
    """Trains to NUM_STEPS, or until EARLY_STOPPING ends it, and leaves the last and the best checkpoint.

    Returns a digest of their steps.

    Raises:
        UserError: the loss became NaN, or the batch does not fit into memory.
        Stopped: SIGTERM arrived; a checkpoint of the step at which it arrived is saved.
    """
    identity = identify(work)
    checkpoints.refuse_foreign(work)
    work.table.unlink(missing_ok=True)
    saved = resuming.find(identity, work)
    if saved and is_last(saved, work):
        logger.info("step %d is in %s: nothing is left to train", saved.step, saved.source)
        checkpoints.adopt(saved, identity, work, resuming.decisive(work))
        events_of(saved, work).close()
    else:
        with lost_machine_stops(is_cluster=work.settings.tf_config is not None):
            saved = train(saved, identity, work)
    best = saved.evaluations.best
    if best and work.is_chief and checkpoints.find_best(best.step, identity, work) is None:
        logger.warning("the checkpoint of step %d, the best one, is gone: the last one is used", best.step)
        best = None
    # In a cluster one machine writes the results. An evaluation of this run has written the table already.
    if saved.evaluations.rows and work.is_chief and not work.table.exists():
        evaluation.write_table(saved.evaluations, work)
    trained = Trained(saved.step, best.step if best else None, is_averaged=best is not None and best.is_averaged)
    documents.write(work.trained, trained)
    prefixes = {last_checkpoint(work), chosen_checkpoint(work)} if work.is_chief else {last_checkpoint(work)}
    weights = [checkpoints.load(prefix).files for prefix in sorted(prefixes)]
    return files.digest([identity, saved.last_step(length.most(work)), documents.to_plain(trained), weights])


def is_last(saved: checkpoints.Saved, work: Workspace) -> bool:
    """Returns whether nothing is left to train or to evaluate.

    In a cluster the chief must have or have published the checkpoint.
    """
    settings, found = work.settings, saved.evaluations
    last = saved.last_step(length.most(work))
    has_ended = saved.step == last or evaluation.ends_early(found, settings)
    is_waiting = evaluation.is_due(saved.step, last, found, settings) and evaluation.has_photos(work)
    return has_ended and not is_waiting and (work.is_chief or saved.source != work.checkpoints)


def events_of(saved: checkpoints.Saved, work: Workspace) -> Events:
    """Returns TensorBoard's scalars up to a checkpoint, to be continued."""
    return Events(work.events, [*saved.history, *(evaluation.scalars(row) for row in saved.evaluations.rows)])


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


def train(saved: checkpoints.Saved | None, identity: str, work: Workspace) -> checkpoints.Saved:
    """Trains from a checkpoint of this job or from the start checkpoint; returns the last checkpoint."""
    if saved is None:
        # What another training of the same settings has found is not about these weights.
        shutil.rmtree(work.evaluated, ignore_errors=True)
    engine, config = loading.load(work)
    began = time.monotonic()
    step, averages = (saved.step if saved else 0), evaluation.averages(work, length.most(work))
    trainer = engine.build(config, work.settings, step, repeats(work), averages=averages)
    preparation = time.monotonic() - began
    state = resume(trainer, saved, work)
    trainer.share(identity)
    events = events_of(state, work)
    try:
        training = Training(trainer, state, identity, events, work, preparation, resuming.decisive(work))
        state = training.to_end()
    finally:
        events.close()
    if training.is_stopped and state.step < state.last_step(length.most(work)):
        raise Stopped("another machine of the cluster was stopped")
    return state


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
    settings = work.settings
    # With MAX_MINUTES the learning rate depends on the time. Without it, NUM_STEPS is part of `pipeline`.
    limits = [settings.max_minutes, length.most(work)] if settings.max_minutes else []
    # `none` is left out, so that a training of an older release goes on.
    frozen = [settings.freeze] if settings.freeze != "none" else []
    return files.digest([settings.seed, settings.precision, settings.oversample, *before, *limits, *frozen])


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    if not work.trained.exists():
        return [work.trained]
    prefixes = {last_checkpoint(work), chosen_checkpoint(work)}
    return [
        work.trained,
        *(checkpoints.manifest_of(prefix) for prefix in prefixes),
        *(Path(f"{prefix}.{end}") for prefix in prefixes for end in ("index", "data-00000-of-00001")),
    ]


def load(work: Workspace) -> Trained:
    """Returns the steps with which the training ended."""
    return documents.read(Trained, workspace.existing(work.trained, "train"))


def last_checkpoint(work: Workspace) -> Path:
    """Returns the prefix of the checkpoint with which the training ended."""
    return work.checkpoints / f"ckpt-{load(work).step}"


def chosen_checkpoint(work: Workspace) -> Path:
    """Returns the prefix of the checkpoint to evaluate and to export, as KEEP says."""
    trained = load(work)
    is_the_last = trained.best == trained.step and not trained.is_averaged
    if work.settings.keep == "last" or trained.best is None or is_the_last:
        return last_checkpoint(work)
    return checkpoints.best_prefix(trained.best, work)


def resume(trainer: Trainer, saved: checkpoints.Saved | None, work: Workspace) -> checkpoints.Saved:
    """Loads the weights of this job's own checkpoint, or of the start checkpoint; returns what was trained so far."""
    if saved:
        trainer.restore(saved.prefix)
        logger.info("resumed at step %d from %s", trainer.step, saved.source)
        return saved
    start = start_checkpoint.load(work)
    if start:
        trainer.start_from(start.prefix, known_labels.find(start, records.load(work).labels))
    return checkpoints.Saved(Path(), 0)


class Training:
    """A training on its way to the last step: the model, its losses, its evaluations, and its last checkpoint."""

    def __init__(
        self,
        trainer: Trainer,
        state: checkpoints.Saved,
        identity: str,
        events: Events,
        work: Workspace,
        preparation: float = 0.0,
        settings: dict[str, str] | None = None,
    ) -> None:
        """`preparation` is the time that it took to build the model, in seconds.

        `settings` is what decides the training, in words.
        """
        self.trainer = trainer
        self.state = state
        self.history = state.history
        self.fit = state.fit
        self.evaluator = Evaluator(trainer, state.evaluations, state.last_step(length.most(work)), identity, work)
        # A restart costs time that is not counted.
        self.budget = Budget(
            work.settings, time.monotonic() if state.step else work.began, state.seconds, length.most(work)
        )
        self.budget.preparation = preparation
        self.identity = identity
        self.settings = settings
        self.events = events
        self.work = work
        self.pace = Pace()
        self.saved_at = time.monotonic()
        planned = plan.load(work)
        self.peak = planned.learning_rate
        self.scheduled = planned.num_steps
        self.batch = planned.batch_size
        self.progress = Progress(state.step, planned.batch_size)
        self.is_warned = False  # that the loss explodes
        self.first = state.step  # of this run
        self.is_profiled = False
        self.is_stopped = False  # a machine of the cluster was asked to stop

    def to_end(self) -> checkpoints.Saved:
        """Trains to the last step or until SIGTERM; checks the losses, the clock and the signals every few seconds.

        Saves a checkpoint every CHECKPOINT_SECONDS, for each evaluation and at the end. Returns the last checkpoint.
        """
        with signals.deferred(), self.progress.shown():
            # In a cluster all machines begin with what the chief begins with.
            if self.fit:
                self.follow(self.fit)
            steps, is_saved = self.agree(is_asked=False)
            if steps and not is_saved:
                self.first_step()
            while self.train_or_save():
                pass
            if self.state.step != self.trainer.step:
                self.save()
            if self.work.settings.profile and not self.is_profiled:
                logger.warning("--profile: there were too few steps, or several machines: no profile was made")
            # No machine ends before the chief has published the checkpoint from which a new machine would continue.
            self.trainer.agree(False, [0])
        return self.state

    def first_step(self) -> None:
        """Trains a step, which compiles the model. Nothing is lost if a signal interrupts it."""
        began = time.monotonic()
        with signals.at_once():
            logger.info("the first step compiles the model, which takes some seconds to minutes")
            points = advance(self.trainer, 1, self.work)
        self.budget.preparation += time.monotonic() - began
        self.tell(points)

    def agree(self, *, is_asked: bool) -> tuple[int, bool]:
        """Returns how many steps all machines train now, and whether they save a checkpoint before.

        No steps mean that the training has ended, early or not.
        """
        is_old = time.monotonic() - self.saved_at >= self.work.settings.checkpoint_seconds
        is_new = self.state.step != self.trainer.step
        is_saved = self.evaluator.is_due() or (is_new and (is_old or self.is_to_be_fitted()))
        steps = min(self.pace.steps, self.evaluator.steps_to_next())
        fit = self.fit or Fit(0)
        mine = [steps, int(is_saved), fit.last, fit.first, fit.position]
        self.is_stopped, (steps, saves, *chosen) = self.trainer.agree(is_asked, mine)
        fit = Fit(*chosen)
        if fit.last and fit != self.fit:
            self.follow(fit)
        elif self.fit and not fit.last:
            # The chief began with another checkpoint than this machine.
            self.fit, self.evaluator.last = None, length.most(self.work)
            self.trainer.follow(0, 0, 1.0)
        return steps, bool(saves)

    def train_or_save(self) -> bool:
        """Trains some steps or saves a checkpoint, as all machines agree; returns False at the end."""
        steps, is_saved = self.agree(is_asked=signals.requested())
        if self.is_stopped or not (steps or is_saved):
            return False
        if is_saved:
            self.save()
            return True
        if self.is_to_be_profiled():
            self.profile()
            return True
        began = time.monotonic()
        self.tell(advance(self.trainer, steps, self.work))
        seconds = time.monotonic() - began
        self.pace.measure(steps, seconds)
        self.budget.time_steps(steps, seconds)
        return True

    def is_to_be_profiled(self) -> bool:
        """Returns whether --profile is set, the first steps have passed, and the next evaluation is not too near."""
        is_next = self.work.settings.profile and not self.is_profiled
        is_warm = self.trainer.step - self.first >= profiling.WARM_UP
        # The machines of a cluster would have to agree on it.
        is_alone = self.work.settings.tf_config is None
        return is_next and is_warm and is_alone and self.evaluator.steps_to_next() >= profiling.STEPS

    def profile(self) -> None:
        """Trains some steps to see where their time goes, and tells it."""
        self.is_profiled = True
        train = functools.partial(advance, self.trainer, work=self.work)
        points = profiling.run(train, self.trainer, self.batch, self.pace.seconds_per_step, self.work.events)
        self.tell(points)

    def costs(self) -> Costs:
        """Returns how long the parts of the job take, as far as this is known."""
        return self.budget.costs(self.batch, self.evaluator.validation.photos, self.evaluator.seconds)

    def is_to_be_fitted(self) -> bool:
        """Returns whether enough is known to decide on the last step. The others of a cluster learn it from the chief.

        A checkpoint is saved then, which keeps what was decided.
        """
        is_limited = self.work.settings.max_minutes is not None and self.work.is_chief
        return is_limited and self.fit is None and self.budget.is_timed()

    def fit_to_time(self) -> None:
        """Decides on the last step if it is time to, or on an earlier one if the job is slower than expected."""
        if self.is_to_be_fitted():
            self.follow(self.budget.fit(self.trainer.step, self.costs()))
        elif self.fit and self.work.is_chief and self.budget.is_timed() and self.trainer.step < self.fit.last:
            fit = self.budget.refit(self.trainer.step, self.fit, self.costs(), self.scheduled)
            if fit != self.fit:
                self.follow(fit)

    def follow(self, fit: Fit) -> None:
        """Ends the training at another step, and stretches the schedule of the learning rate to it."""
        self.fit = fit
        self.evaluator.last = fit.last
        self.trainer.follow(fit.first, fit.position, fit.pace(self.scheduled))

    def tell(self, points: list[dict[str, float]]) -> None:
        """Logs the last of some steps, writes TensorBoard's scalars, and adds the steps to the history."""
        self.events.write(points)
        # Until the last step is decided on, the schedule's stands for it in the history.
        last = self.fit.last if self.fit else self.scheduled
        shown = last if self.fit or self.work.settings.max_minutes is None else None
        self.progress.tell(points[-1], shown, self.pace.seconds_per_step, self.evaluator.evaluations)
        self.history = thin(self.history + points, last)
        if not self.is_warned and (words := describe_explosion(self.history, self.peak)):
            logger.warning("%s", words)
            self.is_warned = True

    def save(self) -> None:
        """Saves and publishes a checkpoint of the present step, evaluated if it is due and nobody asks to stop."""
        began = time.monotonic()
        saved = checkpoints.write(self.trainer, self.history, self.work)
        written = time.monotonic() - began
        # Until a checkpoint was published, publishing takes as long as writing.
        self.budget.checkpoint = self.budget.checkpoint or 2 * written
        if self.evaluator.is_due() and not signals.requested():
            row = self.evaluator.run(saved.prefix, self.pace.seconds_per_step)
            if row:
                self.events.write([evaluation.scalars(row)])
                self.events.write_pictures(row.step, self.evaluator.drawn)
        self.fit_to_time()
        self.state = dataclasses.replace(
            saved,
            evaluations=self.evaluator.evaluations,
            source=self.work.checkpoints,
            fit=self.fit,
            seconds=round(self.budget.used, 3) if self.work.settings.max_minutes else 0.0,
            has_ended=self.evaluator.steps_to_next() == 0,
        )
        began = time.monotonic()
        checkpoints.adopt(self.state, self.identity, self.work, self.settings, self.evaluator.weights)
        self.saved_at = time.monotonic()
        self.budget.checkpoint = written + self.saved_at - began
        logger.info("checkpoint saved at step %d", saved.step)


def advance(trainer: Trainer, steps: int, work: Workspace) -> list[dict[str, float]]:
    """Trains some steps; returns step, losses and learning rate of each.

    Raises:
        UserError: memory does not suffice, the photos cannot form a batch, or the loss is not finite.
    """
    import tensorflow as tf

    first = trainer.step
    try:
        rows = trainer.train(steps)
    except tf.errors.OpError as error:
        if machine.is_out_of_memory(error):
            raise UserError(describe_lack_of_memory(first + 1, error.message, work)) from None
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
                f"set LEARNING_RATE={peak / 10:.2g}, a tenth of its peak, and RESUME=never to start over. The last "
                "checkpoint is kept"
            )
    return points


def describe_lack_of_memory(step: int, message: str, work: Workspace) -> str:
    """Returns what a user can do about a batch that does not fit."""
    batch, settings = plan.load(work).batch_size, work.settings
    auto = "" if settings.batch_size == "auto" or settings.tf_config else "BATCH_SIZE=auto, which tries what fits, or "
    first = message.splitlines()[0] if message else "TensorFlow does not say what for"
    return (
        f"out of memory at step {step} with batches of {batch}: {first}. Set {auto}BATCH_SIZE={max(1, batch // 2)}, "
        "or take a smaller MODEL, and RESUME=never to start over"
    )


def describe_explosion(history: list[dict[str, float]], peak: float) -> str | None:
    """Returns a warning if the loss explodes in the first steps, else None; `peak` is the peak learning rate."""
    lowest = math.inf
    for point in history:
        if point["step"] > FIRST_STEPS:
            return None
        if point[LOSS] > EXPLODED * lowest:
            return (
                f"the loss rose from {lowest:.3g} to {point[LOSS]:.3g} at step {point['step']}, learning rate "
                f"{point['learning_rate']:.3g}: the training diverges; set LEARNING_RATE={peak / 10:.2g}, a tenth of "
                "its peak, and RESUME=never to start over"
            )
        lowest = min(lowest, point[LOSS])
    return None


def thin(history: list[dict[str, float]], total: int) -> list[dict[str, float]]:
    """Returns at most HISTORY_POINTS of the steps, evenly spaced, and always the last step."""
    stride = math.ceil(total / HISTORY_POINTS)
    return [point for point in history if point["step"] % stride == 0 or point is history[-1]]


class Pace:
    """The number of steps to train in a row, so that a check comes every few seconds."""

    def __init__(self) -> None:
        self.steps = 1
        self.seconds_per_step = 0.0

    def measure(self, steps: int, seconds: float) -> None:
        """Fits the number of steps to the time that the last steps took."""
        self.seconds_per_step = seconds / steps
        fitting = int(SECONDS_BETWEEN_LOOKS / max(self.seconds_per_step, 1e-6))
        self.steps = min(max(1, fitting), 2 * max(steps, self.steps // 2), MAX_STEPS_BETWEEN_LOOKS)
