"""The plan of the job: its steps in their order, and what makes one of them unnecessary."""

import importlib
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations
from entrypoint.engines import machine
from entrypoint.results import publish
from entrypoint.settings.schema import Settings
from entrypoint.system import signals
from entrypoint.training import pipeline
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")


@dataclass(frozen=True)
class Step:
    """A step is a module: run(workspace) does the work and returns what identifies its output."""

    name: str
    module: str  # below `entrypoint`, imported when the step is needed: some of them import TensorFlow
    reads: tuple[str, ...] = ()  # the settings that decide its output
    after: tuple[str, ...] = ()  # the steps whose output it works on
    background: bool = False  # starts with the job and is waited for where the plan names it
    always: bool = False  # costs little, and what it looks at can change unseen
    chief: bool = False  # one machine of a cluster does it for all


PLAN = (
    Step("annotations", "data.annotations", always=True),
    Step("label_map", "data.label_map", after=("annotations",)),
    Step(
        "tf_record",
        "data.tf_record",
        reads=("validation_fraction", "seed", "max_skipped", "records_dir"),
        after=("annotations", "label_map"),
    ),
    Step(
        "checkpoint",
        "training.start_checkpoint",
        reads=("model", "checkpoint", "checkpoint_sha256", "zoo_url"),
        background=True,
    ),
    Step(
        "pipeline",
        "training.pipeline",
        reads=("model", "pipeline_config", "num_steps", "batch_size", "learning_rate", "exports"),
        after=("label_map", "tf_record", "checkpoint"),
    ),
    Step(
        "train",
        "training.train",
        reads=("seed", "precision", "oversample"),
        after=("tf_record", "checkpoint", "pipeline"),
    ),
    Step("evaluate", "results.evaluate", after=("train",), chief=True),
    Step("export", "results.export", reads=("exports",), after=("train", "label_map"), chief=True),
    Step("report", "results.report", always=True, chief=True),
    Step("publish", "results.publish", always=True, chief=True),
)
STEP_NAMES = tuple(step.name for step in PLAN)


def run(settings: Settings) -> None:
    """Runs every step that is not done yet, with RESULT_DIR to itself; what cannot be trained is refused first."""
    pipeline.find(settings)
    with claimed(settings) as work:
        pipeline.refuse_early(settings)
        plan = [step for step in PLAN if work.is_chief or not step.chief]
        waiting = {step.name: start(step, work) for step in plan if step.background}
        for step in plan:
            signals.raise_if_requested()
            # A download that failed for good is told at once, not after the conversion.
            for future in waiting.values():
                if future.done():
                    future.result()
            if step.name in waiting:
                waiting[step.name].result()
            else:
                run_unless_done(step, work)


def run_alone(name: str, settings: Settings) -> None:
    """Runs one step on what earlier steps left in WORK_DIR."""
    with claimed(settings) as work:
        step = find(name)
        run_and_mark(step, input_digest(step, work), work)


@contextmanager
def claimed(settings: Settings) -> Iterator[Workspace]:
    """WORK_DIR, and RESULT_DIR, to this job alone, when bucket and machine were found fit for it."""
    work = Workspace(settings)
    if settings.records_dir is None:
        annotations.refuse_missing_bucket(settings.data_dir)
    machine.check(settings)
    machine.watch_memory()
    # Of a cluster's machines one writes the results.
    with workspace.claim(work), publish.lock(work) if work.is_chief else nullcontext():
        yield work


def find(name: str) -> Step:
    """The step of that name."""
    return next(step for step in PLAN if step.name == name)


def start(step: Step, work: Workspace) -> Future[None]:
    """Runs a step beside the others; its failure is raised where its result is waited for."""
    future: Future[None] = Future()

    def target() -> None:
        try:
            run_unless_done(step, work)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    # A daemon, so that a failure elsewhere ends the job without waiting for a download.
    threading.Thread(target=target, name=step.name, daemon=True).start()
    return future


def run_unless_done(step: Step, work: Workspace) -> None:
    """Runs the step, unless its mark says that it ran on the same input and its output is still there."""
    mark = workspace.read_mark(step.name, work)
    digest = input_digest(step, work)
    if mark and not step.always and mark["input"] == digest and is_whole(step, work):
        logger.info("%s: done already", step.name)
        return
    run_and_mark(step, digest, work)


def run_and_mark(step: Step, digest: str, work: Workspace) -> None:
    """Runs the step; the mark is written last and holds the input, the output and the time it took."""
    logger.info("%s ...", step.name)
    began = time.time()
    if not step.always:
        # The output that the old mark speaks of is about to be replaced.
        workspace.remove_mark(step.name, work)
        if work.is_chief and not step.background:
            publish.retract(work)
    mark: dict[str, Any] = {"input": digest, "output": module_of(step).run(work)}
    mark |= {"began": round(began, 3), "seconds": round(time.time() - began, 3)}
    workspace.write_json(work.marks / f"{step.name}.json", mark)
    logger.info("%s: %.1f s", step.name, mark["seconds"])


def input_digest(step: Step, work: Workspace) -> str:
    """Identifies what the step works on: its settings, the outputs of the steps before it, and what it asks for."""
    document: dict[str, Any] = {name: getattr(work.settings, name) for name in step.reads}
    document |= {f"output of {name}": workspace.output_of(name, work) for name in step.after}
    if hasattr(module_of(step), "fingerprint"):
        document["fingerprint"] = module_of(step).fingerprint(work)
    return workspace.digest(document)


def is_whole(step: Step, work: Workspace) -> bool:
    """Whether every file that the step leaves behind is there."""
    return all(path.exists() for path in module_of(step).outputs(work))


def module_of(step: Step) -> Any:
    """The step's module."""
    return importlib.import_module(f"entrypoint.{step.module}")
