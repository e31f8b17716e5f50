"""The plan of the job: its steps in their order, and what makes a step unnecessary."""

import functools
import importlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations
from entrypoint.engines import machine
from entrypoint.results import publish
from entrypoint.results.export import formats
from entrypoint.settings.schema import Settings
from entrypoint.system import copying, files, lease, parallel, signals, version
from entrypoint.system.errors import UserError
from entrypoint.training import last_job, pipeline, start_checkpoint
from entrypoint.workspace import Mark, Workspace

logger = logging.getLogger("job")


@dataclass(frozen=True)
class Step:
    """A step is a module: run(workspace) does the work and returns a digest of its output."""

    name: str
    module: str  # below `entrypoint`, imported when the step is needed: some modules import TensorFlow
    reads: tuple[str, ...] = ()  # the settings that decide its output
    after: tuple[str, ...] = ()  # the steps whose output it works on
    background: bool = False  # starts with the job, which waits for it where the plan names it
    always: bool = False  # runs every time: it costs little, and its input can change unseen
    chief: bool = False  # one machine of a cluster does it for all


START = ("model", "checkpoint", "checkpoint_sha256", "zoo_url")
RECORDS = ("validation_fraction", "seed", "max_skipped", "records_dir")
CONFIG = ("model", "pipeline_config", "num_steps", "batch_size", "learning_rate", "augment", "anchors")
LENGTH = ("evaluate_every", "early_stopping", "max_minutes")
TRAINING = ("seed", "precision", "oversample", "ema", "freeze", "resume", *LENGTH)
TRAINED = ("tf_record", "checkpoint", "pipeline")

PLAN = (
    Step("annotations", "data.annotations", always=True),
    Step("label_map", "data.label_map", after=("annotations",)),
    Step("tf_record", "data.tf_record", reads=RECORDS, after=("annotations", "label_map")),
    Step("checkpoint", "training.start_checkpoint", reads=START, background=True),
    Step("pipeline", "training.pipeline", reads=CONFIG, after=("label_map", "tf_record", "checkpoint")),
    Step("exports", "results.export.formats", reads=("exports",), after=("pipeline",)),
    Step("train", "training.train", reads=TRAINING, after=TRAINED),
    Step("evaluate", "results.evaluate", reads=("keep",), after=("train",), chief=True),
    Step(
        "export",
        "results.export.export",
        reads=("keep", "quantize"),
        after=("train", "evaluate", "label_map", "exports"),
        chief=True,
    ),
    Step("parity", "results.parity", reads=("quantize",), after=("evaluate", "export"), chief=True),
    Step("report", "results.report", after=("evaluate", "parity"), always=True, chief=True),
    Step("publish", "results.publish", after=("report",), always=True, chief=True),
)
STEP_NAMES = tuple(step.name for step in PLAN)


def run(settings: Settings, name: str | None = None) -> None:
    """Runs every step that is not done yet; with a name, that step and the steps that it needs."""
    pipeline.find(settings)
    with claimed(settings) as work:
        refuse_early(settings)
        steps = [step for step in (steps_for(name) if name else PLAN) if work.is_chief or not step.chief]
        waiting = {step.name: start(step, work) for step in steps if step.background}
        for step in steps:
            signals.raise_if_requested()
            # A download that failed for good is reported at once, not after the conversion.
            for future in waiting.values():
                if future.done():
                    future.result()
            if step.name in waiting:
                waiting[step.name].result()
            elif step.name == name:
                run_and_mark(step, input_digest(step, work), work)
            else:
                run_unless_done(step, work)


def run_alone(name: str, settings: Settings) -> None:
    """Runs one step on the files that earlier steps left in WORK_DIR.

    Raises:
        UserError: an earlier step is not done, or was done with other settings or data.
    """
    with claimed(settings) as work:
        step = find(name)
        for needed in steps_for(name)[:-1]:
            if not needed.always and not is_done(needed, input_digest(needed, work), work):
                raise UserError(
                    f"--only {name}: the step `{needed.name}` is not done with these settings: run `{name}` without "
                    "--only, or with the settings of before"
                )
        run_and_mark(step, input_digest(step, work), work)


def refuse_early(settings: Settings) -> None:
    """Fails fast on errors that can be detected before anything is read or downloaded."""
    pipeline.refuse_early(settings)
    formats.refuse_early(settings)
    start_checkpoint.refuse_missing(settings)


@contextmanager
def claimed(settings: Settings) -> Iterator[Workspace]:
    """Reserves WORK_DIR and RESULT_DIR for this job, after the bucket and the machine were found fit for it."""
    work = Workspace(settings)
    if settings.records_dir is None:
        annotations.refuse_missing_bucket(settings.data_dir)
    machine.check(settings)
    machine.watch_memory()
    with workspace.claim(work), ExitStack() as stack:
        # In a cluster one machine writes the results.
        if work.is_chief:
            reserve_places(work, stack)
        logger.info("detection training job %s", version.describe())
        yield work


def reserve_places(work: Workspace, stack: ExitStack) -> None:
    """Reserves RESULT_DIR and CHECKPOINT_DIR until the stack is closed, when all places were found fit to write to."""
    settings = work.settings
    names = ("result_dir", "checkpoint_dir", "tensorboard_dir")
    places = {name.upper(): place for name in names if (place := getattr(settings, name))}
    for name, place in places.items():
        lease.make_writable(name, place)
    copying.write_below(places.values())
    publish.refuse_links(work)
    # Two jobs would overwrite each other's results, or each other's checkpoint of the same step.
    stack.enter_context(lease.hold("RESULT_DIR", work.results))
    if settings.checkpoint_dir and settings.checkpoint_dir != work.results:
        stack.enter_context(lease.hold("CHECKPOINT_DIR", settings.checkpoint_dir))


def find(name: str) -> Step:
    """Returns the step of that name."""
    return next(step for step in PLAN if step.name == name)


def steps_for(name: str) -> Sequence[Step]:
    """Returns the step of that name and all steps that it needs, in the order of the plan."""
    needed = {name}
    for step in reversed(PLAN):
        if step.name in needed:
            needed.update(step.after)
    return [step for step in PLAN if step.name in needed]


def start(step: Step, work: Workspace) -> Future[None]:
    """Runs a step beside the others; its failure is raised when its result is asked for.

    A failure elsewhere ends the job without waiting for this step.
    """
    return parallel.in_background(functools.partial(run_unless_done, step, work), step.name)


def run_unless_done(step: Step, work: Workspace) -> None:
    """Runs the step, unless it ran on the same input and its output is still there."""
    digest = input_digest(step, work)
    if not step.always and is_done(step, digest, work):
        logger.info("%s: done already", step.name)
    else:
        run_and_mark(step, digest, work)


def is_done(step: Step, digest: str, work: Workspace) -> bool:
    """Returns whether the step has finished on that input, and every file that it leaves behind is there."""
    mark = workspace.read_mark(step.name, work)
    if mark is None or mark.input != digest:
        return False
    try:
        return all(path.exists() for path in module_of(step).outputs(work))
    except UserError:
        # A document of the step is damaged, or an older release wrote it in another form.
        return False


def run_and_mark(step: Step, digest: str, work: Workspace) -> None:
    """Runs the step. The mark is written last, with digests of input and output and the time it took."""
    logger.info("%s ...", step.name)
    began = time.time()
    if not step.always:
        # The output that the old mark describes is about to be replaced.
        workspace.remove_mark(step.name, work)
        if work.is_chief and not step.background:
            last_job.retract(work)
    output = module_of(step).run(work)
    if hasattr(module_of(step), "outputs"):
        files.flush_all(module_of(step).outputs(work))
    mark = Mark(digest, output, round(began, 3), round(max(0.0, time.time() - began), 3))
    workspace.write_mark(step.name, mark, work)
    logger.info("%s: %.1f s", step.name, mark.seconds)


def input_digest(step: Step, work: Workspace) -> str:
    """Returns a digest of the step's input: its settings, the outputs of the steps before it, and its fingerprint."""
    document: dict[str, Any] = {name: getattr(work.settings, name) for name in step.reads}
    document |= {f"output of {name}": workspace.output_of(name, work) for name in step.after}
    if hasattr(module_of(step), "fingerprint"):
        document["fingerprint"] = module_of(step).fingerprint(work)
    return files.digest(document)


def module_of(step: Step) -> Any:
    """Returns the step's module."""
    return importlib.import_module(f"entrypoint.{step.module}")
