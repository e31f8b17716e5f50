"""BATCH_SIZE=auto: the largest batch that fits into memory.

Each size is tried by a training of a few steps in a process of its own: TensorFlow gives memory back only when its
process ends, and the kernel may end a process that takes too much.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from entrypoint.data import records
from entrypoint.engines import machine
from entrypoint.settings.schema import Settings
from entrypoint.system import child, documents, files
from entrypoint.system.errors import JobError, UserError
from entrypoint.training import checkpoints, schedule
from entrypoint.training.changes import Changes
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

logger = logging.getLogger("job")

# The most photos on one device: the time to compile the model grows with the batch, and hardly any GPU gains from more.
MOST = 128
# The least number of steps in an epoch: fewer are a waste of time on a small bucket.
STEPS_OF_EPOCH = 4
# How a checkpoint notes the batch that was found, after its number.
FOUND = ", the largest that fits"
# A checkpoint with the same values of these was trained with a batch that fits.
SAME = ("MODEL", "PRECISION", "FREEZE")
# The exit code of a trial that had not enough memory.
TOO_LARGE = 3


@dataclass(frozen=True)
class Trial:
    """What the training of some steps has shown."""

    bytes: int  # the most memory in use: of one GPU, or of the process if there is none
    seconds_per_step: float


def find(config: Any, fit_config: Callable[[Any, int | None, Changes], None], work: Workspace) -> int:
    """Returns the largest batch that fits, the same share for each device: at most MOST, and a quarter of the photos.

    `fit_config` writes a batch size into the config, which is ready to train but for that.

    Raises:
        UserError: TF_CONFIG is set, or not even one photo on each device fits.
        JobError: the training fails for another reason than memory.
    """
    refuse_cluster(work.settings)
    known = of_checkpoint(work)
    if known:
        logger.info("BATCH_SIZE=auto: %d photos, as in the checkpoint that is there", known)
        return known
    generation = pipeline_config.generation_of(config, work.pipeline)
    devices = max(1, len(machine.find_gpus().names)) if generation == "tf2" and work.settings.device != "cpu" else 1
    photos = records.load(work).train.photos
    most = max(1, min(MOST, photos // STEPS_OF_EPOCH // devices))

    def fits(share: int) -> bool:
        copy = type(config)()
        copy.CopyFrom(config)
        fit_config(copy, share * devices, Changes())
        return try_batch(copy, work) is not None

    first = min(most, schedule.LARGEST_BATCH, max(1, config.train_config.batch_size // devices))
    share = largest(fits, first, most)
    if not share:
        raise UserError(
            "BATCH_SIZE=auto: not even one photo on each device fits into memory: take a smaller MODEL, "
            "FREEZE=backbone or a machine with more memory"
        )
    logger.info("BATCH_SIZE=auto: %d photos", share * devices)
    return share * devices


def refuse_cluster(settings: Settings) -> None:
    """Raises UserError if BATCH_SIZE=auto is set for a cluster, whose machines would have to try in turn."""
    if settings.batch_size == "auto" and settings.tf_config:
        raise UserError(
            "BATCH_SIZE=auto is for one machine: find the batch size of one of them with a job of its own, and set "
            "BATCH_SIZE to that number times the number of machines"
        )


def largest(fits: Callable[[int], bool], first: int, most: int) -> int:
    """Returns the largest size that fits, to within an eighth; 0 if not even 1 fits. Nothing above `most` is tried.

    From the first size it is doubled or halved until one size fits and the next does not. Sizes between are tried then.
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
    while good and bad - good > max(1, good // 8):
        size = (good + bad) // 2
        good, bad = (size, bad) if fits(size) else (good, size)
    return good


def try_batch(config: Any, work: Workspace) -> Trial | None:
    """Trains a few steps in a process of its own; returns None if the memory does not suffice.

    Raises:
        UserError, JobError: the training fails for another reason.
    """
    size = config.train_config.batch_size
    path = work.root / "trial.config"
    files.write_text(path, pipeline_config.write(config))
    try:
        result = child.run_module("entrypoint.training.trial", str(path), given(work.settings))
    finally:
        path.unlink(missing_ok=True)
    if not result.returncode:
        trial = documents.parse(Trial, result.stdout.splitlines()[-1].encode(), path)
        shown = (size, trial.bytes / (1 << 30), trial.seconds_per_step)
        logger.info("BATCH_SIZE=auto: %d photos fit: %.1f GiB, %.2f s a step", *shown)
        return trial
    # The kernel and TensorFlow's own allocators end a process that takes too much memory.
    if result.returncode in (TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT):
        logger.info("BATCH_SIZE=auto: %d photos do not fit", size)
        return None
    kind = UserError if result.returncode == UserError.exit_code else JobError
    raise kind(f"BATCH_SIZE=auto: a training with {size} photos a step fails: {last_line(result)}")


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    """Returns the last line that a process has written, or its exit status."""
    lines = [line for line in f"{result.stdout}\n{result.stderr}".splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {result.returncode}"


def given(settings: Settings) -> str:
    """Returns the settings that were given, as JSON, for a process with the same environment."""
    return json.dumps(settings.model_dump(mode="json", include=settings.model_fields_set))


def of_checkpoint(work: Workspace) -> int | None:
    """Returns the batch that an earlier run of this training has found; it must go on with it on any machine."""
    settings = work.settings
    if settings.resume == "never":
        return None
    now = {name: str(getattr(settings, name.lower())) for name in SAME}
    manifests = [
        manifest
        for folder in checkpoints.folders(work)
        for path in checkpoints.manifests_in(folder)
        if (manifest := checkpoints.read_manifest(path))
    ]
    for manifest in sorted(manifests, key=lambda each: -each.step):
        words = manifest.settings
        found = re.fullmatch(rf"(\d+){FOUND}", words.get("BATCH_SIZE", ""))
        if found and all(words.get(name, "none") == now[name] for name in SAME):
            return int(found.group(1))
    return None
