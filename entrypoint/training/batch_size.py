"""BATCH_SIZE=auto: the largest batch that fits into memory.

Each size is tried by a training of a few steps in a process of its own: TensorFlow gives memory back only when its
process ends, and the kernel may end a process that takes too much.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.data import records
from entrypoint.engines import machine
from entrypoint.settings.schema import Settings
from entrypoint.system import child, documents, files
from entrypoint.system.errors import JobError, UserError
from entrypoint.training import checkpoints, identity, schedule
from entrypoint.training.changes import Changes
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

logger = logging.getLogger("job")

# Writes a batch size into a config that is ready to train but for that.
FitConfig = Callable[[Any, "int | None", Changes], None]

# The most photos on one device: the time to compile the model grows with the batch, and hardly any GPU gains from more.
MOST = 128
# The least number of steps in an epoch: fewer are a waste of time on a small bucket.
STEPS_OF_EPOCH = 4
# A training of hours needs a little more memory than a trial. Of what just fits, one part in so many is left out.
MARGIN = 8
# The exit code of a trial that had not enough memory.
TOO_LARGE = 3
# A trial compiles the model, which takes minutes at most. Several GPUs can wait for each other for ever if one of them
# has no memory left.
LONGEST_SECONDS = 1800


@dataclass(frozen=True)
class Trial:
    """What the training of some steps has shown."""

    bytes: int = 0  # the most memory in use: of one GPU, or of the process if there is none
    seconds_per_step: float = 0.0
    error: str = ""  # why there is no result


def find(config: Any, fit_config: FitConfig, work: Workspace) -> int:
    """Returns the largest batch that fits, the same share for each device: at most MOST, and a quarter of the photos.

    Raises:
        UserError: TF_CONFIG is set, or not even one photo on each device fits.
        JobError: the training fails for another reason than memory.
    """
    refuse_cluster(work.settings)
    is_tf2 = pipeline_config.generation_of(config, work.pipeline) == "tf2"
    devices = max(1, len(gpus(work.settings))) if is_tf2 else 1
    known = of_checkpoint(config, fit_config, devices, work)
    if known:
        logger.info("BATCH_SIZE=auto: %d photos, as in the checkpoint that is there", known)
        return known
    most = max(1, min(MOST, records.load(work).train.photos // STEPS_OF_EPOCH // devices))

    def fits(share: int) -> bool:
        return try_batch(fitted(config, fit_config, share * devices), work) is not None

    first = min(most, schedule.LARGEST_BATCH, max(1, config.train_config.batch_size // devices))
    share = largest(fits, first, most)
    if not share:
        raise UserError(
            "BATCH_SIZE=auto: not even one photo on each device fits into memory: take a smaller MODEL, "
            "FREEZE=backbone or a machine with more memory"
        )
    logger.info("BATCH_SIZE=auto: %d photos", share * devices)
    return share * devices


def gpus(settings: Settings) -> tuple[str, ...]:
    """Returns the names of the GPUs that the job uses."""
    return () if settings.device == "cpu" else machine.find_gpus().names


def decisive(settings: Settings) -> list[Any]:
    """Returns the settings that decide how much memory a batch needs, and the GPUs of this machine."""
    return [settings.freeze, settings.precision, settings.ema, settings.resume, settings.evaluate_every, gpus(settings)]


def fitted(config: Any, fit_config: FitConfig, size: int) -> Any:
    """Returns a copy of a config with that batch size."""
    copy = type(config)()
    copy.CopyFrom(config)
    fit_config(copy, size, Changes())
    return copy


def refuse_cluster(settings: Settings) -> None:
    """Raises UserError if BATCH_SIZE=auto is set for a cluster, whose machines would have to try in turn."""
    if settings.batch_size == "auto" and settings.tf_config:
        raise UserError(
            "BATCH_SIZE=auto is for one machine: find the batch size of one of them with a job of its own, and set "
            "BATCH_SIZE to that number times the number of machines"
        )


def largest(fits: Callable[[int], bool], first: int, most: int) -> int:
    """Returns the largest size that fits, less a margin; 0 if not even 1 fits. Nothing above `most` is tried.

    From the first size it is doubled or halved until one size fits and the next does not. Sizes between are tried then,
    until they differ by an eighth. If `most` itself fits, it needs no margin.
    """
    size = first
    if fits(size):
        good, bad = size, 0
        while good < most and not bad:
            size = min(most, 2 * good)
            good, bad = (size, 0) if fits(size) else (good, size)
    else:
        good, bad = 0, size
        while bad > 1 and not good:
            size = bad // 2
            good, bad = (size, bad) if fits(size) else (0, size)
    while good and bad - good > max(1, good // MARGIN):
        size = (good + bad) // 2
        good, bad = (size, bad) if fits(size) else (good, size)
    return good - good // MARGIN if bad else good


def try_batch(config: Any, work: Workspace) -> Trial | None:
    """Trains a few steps in a process of its own; returns None if the memory does not suffice.

    Raises:
        UserError, JobError: the training fails for another reason.
    """
    size = config.train_config.batch_size
    shutil.rmtree(work.trial, ignore_errors=True)
    path = work.trial / "pipeline.config"
    files.write_text(path, pipeline_config.write(config))
    # The settings can hold passwords: other users of the machine can read a command line.
    given = json.dumps(work.settings.model_dump(mode="json", include=work.settings.model_fields_set))
    try:
        result = child.run_module("entrypoint.training.trial", str(path), given=given, seconds=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        raise JobError(f"BATCH_SIZE=auto: a training with {size} photos a step does not get on") from None
    finally:
        # A trial that was killed leaves what it was writing.
        shutil.rmtree(work.trial, ignore_errors=True)
    trial = read(result)
    if not result.returncode:
        shown = (size, trial.bytes / (1 << 30), trial.seconds_per_step)
        logger.info("BATCH_SIZE=auto: %d photos fit: %.1f GiB, %.2f s a step", *shown)
        return trial
    # The kernel and TensorFlow's own allocators end a process that takes too much memory.
    if result.returncode in (TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT):
        logger.info("BATCH_SIZE=auto: %d photos do not fit: %s", size, trial.error)
        return None
    kind = UserError if result.returncode == UserError.exit_code else JobError
    raise kind(f"BATCH_SIZE=auto: a training with {size} photos a step fails: {trial.error}")


def read(result: subprocess.CompletedProcess[str]) -> Trial:
    """Returns what a trial has printed last. If it has printed nothing, the error is the last line of its log."""
    printed = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if printed:
        return documents.parse(Trial, printed[-1].encode(), Path("the result of a trial"))
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    return Trial(error=lines[-1] if lines else f"exit status {result.returncode}")


def of_checkpoint(config: Any, fit_config: FitConfig, devices: int, work: Workspace) -> int | None:
    """Returns the batch that an earlier run of this training has found, if these devices can share it evenly.

    The training must go on with it on any machine, also with more steps.
    """
    if work.settings.resume == "never":
        return None
    found = [
        manifest
        for folder in checkpoints.folders(work)
        for path in checkpoints.manifests_in(folder)
        if (manifest := checkpoints.read_manifest(path))
    ]
    for manifest in sorted(found, key=lambda each: -each.step):
        number = re.fullmatch(rf"(\d{{1,6}}){identity.FOUND}", manifest.settings.get(identity.BATCH, ""))
        size = int(number.group(1)) if number else 0
        if not 1 <= size <= MOST * devices or size % devices:
            continue
        copy = fitted(config, fit_config, size)
        rate = schedule.peak_of_optimizer(copy.train_config.optimizer)
        now = identity.words(work, size, rate, copy)
        if set(identity.differing(manifest.settings, now)) <= {identity.LENGTH}:
            return size
    return None
