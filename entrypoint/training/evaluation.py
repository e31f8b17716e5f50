"""Evaluation during the training: when it runs, which of the evaluated checkpoints is best, and when training ends.

All of it is decided by the steps of the evaluations and their mAP, which every checkpoint keeps. So a job that was
killed decides the same.
"""

from __future__ import annotations

import csv
import functools
import io
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from entrypoint.data import records
from entrypoint.data.annotations import Dataset
from entrypoint.data.annotations import load as load_dataset
from entrypoint.data.records import Split
from entrypoint.engines.engine import Detections, Trainer
from entrypoint.settings import services
from entrypoint.settings.schema import Settings
from entrypoint.system import copying, display, documents, files, signals
from entrypoint.system.errors import UserError
from entrypoint.training import coco, length
from entrypoint.training.metrics import Evaluated, Evaluations, Metrics
from entrypoint.training.pictures import Pictures
from entrypoint.training.stored import DetectionsDocument
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

# With EVALUATE_EVERY=auto, evaluations take at most this share of the time of the training, but there are at least
# FEWEST of them, and at most MOST.
SHARE = 0.1
FEWEST, MOST = 3, 10
# With EVALUATE_EVERY=auto, a training of fewer steps is evaluated once, when it has ended.
SHORT = 100
# The columns of metrics.csv for evaluations of both kinds of weights.
WEIGHTS = ("mAP raw weights", "mAP averaged weights")


def ends_early(evaluations: Evaluations, settings: Settings) -> bool:
    """Returns whether so many evaluations in a row were no better than the best before them as EARLY_STOPPING says."""
    best = evaluations.best
    if settings.early_stopping == "off" or best is None:
        return False
    return sum(row.step > best.step for row in evaluations.rows) >= settings.early_stopping


def interval(last: int, evaluations: Evaluations, settings: Settings) -> int:
    """Returns how many steps lie between two evaluations; 0 if there are none during the training.

    `last` is the last step of the training.
    """
    if settings.evaluate_every != "auto":
        return settings.evaluate_every
    if evaluations.every:
        return evaluations.every
    return math.ceil(last / MOST) if last >= SHORT else 0


def is_due(step: int, last: int, evaluations: Evaluations, settings: Settings) -> bool:
    """Returns whether the weights of a step are to be evaluated and are not yet."""
    every = interval(last, evaluations, settings)
    is_planned = every > 0 and step > 0 and (step % every == 0 or step == last)
    return is_planned and all(row.step != step for row in evaluations.rows)


def steps_to_next(step: int, last: int, evaluations: Evaluations, settings: Settings) -> int:
    """Returns the number of steps to the next evaluation, or to the end; 0 if the training has ended."""
    if ends_early(evaluations, settings):
        return 0
    every = interval(last, evaluations, settings)
    return max(0, min(last, (step // every + 1) * every if every else last) - step)


def fitted_interval(total: int, seconds_per_step: float, seconds: float) -> int:
    """Returns how many steps lie between two evaluations of that length, so that they take SHARE of the training."""
    affordable = SHARE * total * seconds_per_step / max(seconds, 1e-6)
    return math.ceil(total / min(MOST, max(FEWEST, math.floor(affordable))))


@dataclass(frozen=True)
class Known:
    """What an evaluation during the training found, so that the checkpoint need not be evaluated again."""

    job: str  # the identity of the job
    metrics: Metrics
    detections: DetectionsDocument
    is_averaged: bool = False  # whether these are the averaged weights


def known(step: int, job: str, work: Workspace, *, is_averaged: bool = False) -> Known | None:
    """Returns what this job found at a step; None if nothing is there, such as on another machine."""
    try:
        found = documents.read(Known, work.evaluated / f"{step}.json")
    except (FileNotFoundError, UserError):
        return None
    is_same = (found.job, found.metrics.step, found.is_averaged) == (job, step, is_averaged)
    return found if is_same else None


def averages(work: Workspace, most: int) -> bool:
    """Returns whether a training of `most` steps averages its weights, which it does only if it can compare them.

    A cluster does not: one machine alone cannot write the checkpoint of the averaged weights.
    """
    settings = work.settings
    is_evaluated = interval(most, Evaluations(), settings) > 0 and has_photos(work)
    return settings.ema == "auto" and settings.tf_config is None and is_evaluated


class Evaluator:
    """Evaluates a model in training on the validation photos."""

    def __init__(self, trainer: Trainer, evaluations: Evaluations, last: int, job: str, work: Workspace) -> None:
        """`last` is the last step of the training, which may change."""
        self.trainer = trainer
        self.last = last
        self.seconds: float | None = None  # that an evaluation takes, without compiling the model
        self.evaluations = evaluations
        self.weights: Path | None = None  # the averaged weights, if they were the better ones of the last evaluation
        self.averages = averages(work, length.most(work))
        self.drawn: list[bytes] = []  # photos with the boxes of the last evaluation, as JPEGs
        self.job = job
        self.work = work

    @functools.cached_property
    def validation(self) -> Split:
        """The validation photos."""
        return records.load(self.work).validation

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The photos with their boxes."""
        return load_dataset(self.work)

    @property
    def records(self) -> list[str]:
        """The paths of the records of the validation photos."""
        return self.validation.paths(self.work.records)

    @functools.cached_property
    def pictures(self) -> Pictures:
        """The photos that are shown with their boxes."""
        return Pictures(self.records, self.dataset)

    def is_due(self) -> bool:
        """Returns whether the present weights are to be evaluated. Only the chief of a cluster evaluates."""
        is_planned = is_due(self.trainer.step, self.last, self.evaluations, self.work.settings)
        return is_planned and self.work.is_chief and has_photos(self.work)

    def steps_to_next(self) -> int:
        """Returns the number of steps to the next evaluation, or to the end; 0 if the training has ended."""
        return steps_to_next(self.trainer.step, self.last, self.evaluations, self.work.settings)

    def run(self, prefix: Path, seconds_per_step: float) -> Evaluated | None:
        """Evaluates the present weights, which were saved to `prefix`, adds the result to the evaluations, returns it.

        In the second half of the training the averaged weights are evaluated, too, and the better result is added. If
        the job is asked to stop meanwhile, there is no result: the next run evaluates the checkpoint.
        """
        began = time.monotonic()
        raw = self.detect(prefix)
        averaged = self.detect_averaged() if raw and self.averages and 2 * self.trainer.step >= self.last else None
        if raw is None or signals.requested():
            logger.info("the evaluation of step %d is put off", self.trainer.step)
            return None
        results = [(coco.measure(self.dataset, each, self.trainer.step), each) for each in (raw, averaged) if each]
        # Of equal ones the first, the weights as they are.
        metrics, found = max(results, key=lambda result: result[0].summary.map or 0.0)
        self.drawn = self.pictures.draw(found)
        both = [result.summary.map for result, _ in results] if averaged else [None, None]
        row = evaluated(metrics, round(time.monotonic() - began, 3), *both)
        self.weights = self.work.averaged if row.is_averaged else None
        self.add(row, seconds_per_step)
        if self.trainer.is_exact:
            self.remember(Known(self.job, metrics, DetectionsDocument.of(found), row.is_averaged))
        return row

    def detect(self, prefix: Path) -> list[Detections] | None:
        """Returns the detections of the present weights, or None if the job is asked to stop meanwhile."""
        timer = Timer(self.trainer.detect(prefix, self.records))
        found = []
        for each in display.progress(timer, self.validation.photos, "evaluation"):
            found.append(each)
            if signals.requested():
                return None
        # Half of the evaluations are of averaged weights too.
        self.seconds = timer.steady_seconds(len(found)) * (1.5 if self.averages else 1)
        return found

    def detect_averaged(self) -> list[Detections] | None:
        """Returns the detections of the averaged weights, and leaves them as files in WORK_DIR."""
        self.work.averaged.parent.mkdir(exist_ok=True)
        with self.trainer.averaged():
            self.trainer.save(self.work.averaged)
            return self.detect(self.work.averaged)

    def add(self, row: Evaluated, seconds_per_step: float) -> None:
        """Adds an evaluation to the others, and tells whoever wants to know it."""
        settings = self.work.settings
        every = interval(self.last, self.evaluations, settings)
        if settings.evaluate_every == "auto" and not self.evaluations.every:
            every = fitted_interval(self.last, seconds_per_step, self.seconds or 0.0)
        self.evaluations = Evaluations(every, (*self.evaluations.rows, row))
        log(row, self.evaluations)
        write_table(self.evaluations, self.work)
        services.tell_metric("mAP", row.map or 0.0, row.step)

    def remember(self, found: Known) -> None:
        """Leaves what was found in WORK_DIR, and removes what is neither of the best nor of the last evaluation."""
        self.work.evaluated.mkdir(exist_ok=True)
        documents.write(self.work.evaluated / f"{found.metrics.step}.json", found)
        best = self.evaluations.best
        kept = {f"{step}.json" for step in (found.metrics.step, best.step if best else None)}
        for path in self.work.evaluated.iterdir():
            if path.name not in kept:
                path.unlink()


def evaluated(metrics: Metrics, seconds: float, raw: float | None, averaged: float | None) -> Evaluated:
    """Returns the row of an evaluation; `raw` and `averaged` are mAP of both kinds of weights."""
    per_label = {label: each.ap for label, each in metrics.per_label.items()}
    return Evaluated(metrics.step, metrics.summary.map, metrics.summary.map50, per_label, seconds, raw, averaged)


def has_photos(work: Workspace) -> bool:
    """Returns whether there are validation photos."""
    return bool(records.load(work).validation.photos)


class Timer:
    """Passes detections on, and measures how long they take without the first, which compiles the model."""

    def __init__(self, found: Iterator[Detections]) -> None:
        self.found = found
        self.first = self.last = 0.0

    def __iter__(self) -> Iterator[Detections]:
        for each in self.found:
            self.last = time.monotonic()
            self.first = self.first or self.last
            yield each

    def steady_seconds(self, count: int) -> float:
        """Returns the seconds that so many detections take once the model is compiled."""
        return (self.last - self.first) * count / max(1, count - 1)


def log(row: Evaluated, evaluations: Evaluations) -> None:
    """Logs an evaluation in one line, whose form jobs/sagemaker.json reads."""
    best = evaluations.best
    words = "the best so far" if best == row else f"the best is that of step {best.step}" if best else "no box to find"
    if row.is_averaged:
        words = f"{words}, averaged weights: mAP = {row.raw or 0.0:.4f} without"
    logger.info(
        "evaluation: step = %d, mAP = %.4f, mAP@0.5 = %.4f, %s (%.1f s)",
        row.step,
        row.map or 0.0,
        row.map50 or 0.0,
        words,
        row.seconds,
    )


def scalars(row: Evaluated) -> dict[str, float]:
    """Returns TensorBoard's scalars of an evaluation, with its step."""
    values = {"validation/mAP": row.map, "validation/mAP@0.5": row.map50}
    values |= {"validation/mAP raw weights": row.raw, "validation/mAP averaged weights": row.averaged}
    values |= {f"validation/AP {label}": value for label, value in row.per_label.items()}
    return {"step": row.step, **{name: value for name, value in values.items() if value is not None}}


def write_table(evaluations: Evaluations, work: Workspace) -> None:
    """Writes metrics.csv, a row for each evaluation, and publishes it."""
    labels = list(dict.fromkeys(label for row in evaluations.rows for label in row.per_label))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["step", "mAP", "mAP@0.5", *(f"AP {label}" for label in labels), "seconds", *WEIGHTS])
    for row in evaluations.rows:
        values = (row.per_label.get(label) for label in labels)
        writer.writerow([row.step, row.map, row.map50, *values, row.seconds, row.raw, row.averaged])
    files.write_text(work.table, buffer.getvalue())
    copying.copy_file(work.table, work.results / work.table.name)
