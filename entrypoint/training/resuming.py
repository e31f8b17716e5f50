"""From which checkpoint a training goes on: its own, that of the same training with fewer steps, or none.

Every checkpoint keeps what decided its training, in words. If that has changed and the other training has not ended,
the job stops and shows the difference, because it would replace the checkpoints of the other training.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from entrypoint import workspace
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.training import batch_size, checkpoints, pipeline, plan, schedule
from entrypoint.training.checkpoints import Manifest, Saved
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

logger = logging.getLogger("job")

# What decides a training and is no setting, with the words for a difference.
PHOTOS, START, CONFIG = "photos, boxes or their split", "checkpoint to start from", "pipeline.config"
LENGTH = "NUM_STEPS"


def find(identity: str, work: Workspace) -> Saved | None:
    """Returns the checkpoint to go on from, brought to WORK_DIR; None to begin.

    Raises:
        UserError: a training with other settings or photos has not ended, and its checkpoints would be replaced.
    """
    if work.settings.resume == "never":
        logger.info("RESUME=never: the training starts over")
        return None
    saved = checkpoints.newest(identity, work)
    # In a cluster one machine keeps the checkpoints.
    if saved or not work.is_chief:
        return saved
    now = decisive(work)
    shorter = [each for _, each in others(checkpoints.folders(work), identity) if is_shorter(each, now)]
    for other in sorted(shorter, key=lambda each: -each.step):
        if saved := checkpoints.newest(other.job, work):
            return lengthen(saved, other, identity, now, work)
    refuse_replacing(identity, now, work)
    return None


def others(folders: Iterable[Place], identity: str) -> list[tuple[Place, Manifest]]:
    """Returns the manifests of the checkpoints of other jobs in some folders, each with its path."""
    paths = [path for folder in folders for path in checkpoints.manifests_in(folder)]
    found = [(path, manifest) for path in paths if (manifest := checkpoints.read_manifest(path))]
    return [(path, manifest) for path, manifest in found if manifest.job != identity]


def is_shorter(other: Manifest, now: dict[str, str]) -> bool:
    """Returns whether a checkpoint is of the same training with fewer steps. MAX_MINUTES has a schedule of its own."""
    lengths = [each.get(LENGTH, "") for each in (other.settings, now)]
    if not all(each.isdigit() for each in lengths) or other.fit or "MAX_MINUTES" in now:
        return False
    return set(differences(other.settings, now)) == {LENGTH} and int(lengths[0]) < int(lengths[1])


def lengthen(saved: Saved, other: Manifest, identity: str, now: dict[str, str], work: Workspace) -> Saved:
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
        work.settings.num_steps,
    )
    for each in filter(None, (kept, saved)):
        checkpoints.write_manifest(each, identity, now)
        checkpoints.publish_checkpoint(each, identity, work)
    return saved


def refuse_replacing(identity: str, now: dict[str, str], work: Workspace) -> None:
    """Raises UserError if a training in RESULT_DIR has not ended, whose checkpoints this job would remove.

    In CHECKPOINT_DIR, which jobs can share, a job removes only its own. Older releases wrote no settings.
    """
    found = [each for _, each in others([work.published_checkpoints], identity) if each.settings]
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
    """Returns what decides a training, in words. Two trainings with the same words are the same."""
    settings, planned = work.settings, plan.load(work)
    found = {
        "MODEL": settings.model,
        LENGTH: settings.num_steps if settings.most_steps == settings.num_steps else "as many as fit",
        "MAX_MINUTES": settings.max_minutes,
        "BATCH_SIZE": f"{planned.batch_size}{batch_size.FOUND if settings.batch_size == 'auto' else ''}",
        "LEARNING_RATE": f"{planned.learning_rate:.6g}",
        "AUGMENT": settings.augment,
        "OVERSAMPLE": settings.oversample,
        "FREEZE": None if settings.freeze == "none" else settings.freeze,
        "PRECISION": settings.precision,
        "SEED": settings.seed,
        PHOTOS: (workspace.output_of("tf_record", work) or "")[:12],
        START: (workspace.output_of("checkpoint", work) or "")[:12],
        CONFIG: digest_without_length(work)[:12],
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def digest_without_length(work: Workspace) -> str:
    """Returns a digest of the pipeline.config without what follows from the number of steps, and without paths."""
    config = pipeline_config.read(work.pipeline)
    schedule.clear_length(config.train_config)
    return pipeline.identify(config)


def differences(before: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Returns what differs, with both values. The pipeline.config counts only if nothing else explains it."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    named = [name for name in names if name != CONFIG] or names
    return {name: (before.get(name, "not set"), now.get(name, "not set")) for name in named}
