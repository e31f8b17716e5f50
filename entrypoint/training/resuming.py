"""From which checkpoint a training goes on: its own, that of the same training with fewer steps, or none.

Every checkpoint keeps what decided its training, in words. If that has changed and the other training has not ended,
the job stops and shows the difference, because it would replace the checkpoints of the other training.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.training import checkpoints, identity, length, plan
from entrypoint.training.checkpoints import Manifest, Saved
from entrypoint.training.identity import CONFIG, LENGTH
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

logger = logging.getLogger("job")

NOT_SET = "not set"


def find(job: str, work: Workspace) -> Saved | None:
    """Returns the checkpoint to go on from, brought to WORK_DIR; None to begin.

    Raises:
        UserError: a training with other settings or photos has not ended, and its checkpoints would be replaced.
    """
    if work.settings.resume == "never":
        logger.info("RESUME=never: the training starts over")
        return None
    saved = checkpoints.newest(job, work)
    # In a cluster one machine keeps the checkpoints.
    if saved or not work.is_chief:
        return saved
    now = decisive(work)
    shorter = [each for _, each in others(checkpoints.folders(work), job) if is_shorter(each, now)]
    for other in sorted(shorter, key=lambda each: -each.step):
        if saved := checkpoints.newest(other.job, work):
            return lengthen(saved, other, job, now, work)
    refuse_replacing(job, now, work)
    return None


def others(folders: Iterable[Place], job: str) -> list[tuple[Place, Manifest]]:
    """Returns the manifests of the checkpoints of other jobs in some folders, each with its path."""
    paths = [path for folder in folders for path in checkpoints.manifests_in(folder)]
    found = [(path, manifest) for path in paths if (manifest := checkpoints.read_manifest(path))]
    return [(path, manifest) for path, manifest in found if manifest.job != job]


def is_shorter(other: Manifest, now: dict[str, str]) -> bool:
    """Returns whether a checkpoint is of the same training with fewer steps. MAX_MINUTES has a schedule of its own."""
    lengths = [each.get(LENGTH, "") for each in (other.settings, now)]
    if not all(each.isdigit() for each in lengths) or other.fit or "MAX_MINUTES" in now:
        return False
    return set(differences(other.settings, now)) == {LENGTH} and int(lengths[0]) < int(lengths[1])


def lengthen(saved: Saved, other: Manifest, job: str, now: dict[str, str], work: Workspace) -> Saved:
    """Makes the checkpoints of the same training with fewer steps those of this job, and returns the newest."""
    if work.settings.evaluate_every == "auto":
        # The first evaluation of the longer training decides anew how many there are.
        saved = dataclasses.replace(saved, evaluations=dataclasses.replace(saved.evaluations, every=0))
    saved.has_ended = False
    best = saved.evaluations.best
    kept = checkpoints.find_best(best.step, other.job, work) if best else None
    logger.info(
        "step %d of a training of %s steps is in %s: it goes on to %d",
        saved.step,
        other.settings[LENGTH],
        saved.source,
        length.scheduled(work),
    )
    for each in filter(None, (kept, saved)):
        checkpoints.write_manifest(each, job, now)
        checkpoints.publish_checkpoint(each, job, work)
    return saved


def refuse_replacing(job: str, now: dict[str, str], work: Workspace) -> None:
    """Raises UserError if a training in RESULT_DIR has not ended, whose checkpoints this job would remove.

    In CHECKPOINT_DIR, which jobs can share, a job removes only its own. Older releases wrote no settings.
    """
    found = [each for _, each in others([work.published_checkpoints], job) if each.settings]
    newest = max(found, key=lambda each: each.step, default=None)
    if newest is None or newest.has_ended:
        return
    changed = differences(newest.settings, now)
    shown = "; ".join(f"{name} {before} there, {here} here" for name, (before, here) in changed.items())
    raise UserError(
        f"{work.published_checkpoints} has step {newest.step} of a training that has not ended and was made with other "
        f"settings, and this job would replace it: {shown}. Set RESUME=never to start over, or the settings as they "
        "were to go on, or name another RESULT_DIR"
    )


def decisive(work: Workspace) -> dict[str, str]:
    """Returns what decides this training, in words."""
    planned = plan.load(work)
    return identity.words(work, planned.batch_size, planned.learning_rate, pipeline_config.read(work.pipeline))


def differences(before: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Returns what differs, with both values. The pipeline.config counts only if nothing else explains it."""
    names = identity.differing(before, now)
    named = [name for name in names if name != CONFIG] or names
    return {name: (before.get(name, NOT_SET), now.get(name, NOT_SET)) for name in named}
