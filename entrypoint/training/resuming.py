"""From which checkpoint a training goes on: its own, that of the same training with fewer steps, or none.

Every checkpoint keeps what decided its training, in words. If that has changed and the other training has not ended,
the job stops and shows the difference, because it would replace the checkpoints of the other training.
"""

from __future__ import annotations

import logging

from entrypoint import workspace
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.training import checkpoints, pipeline, plan, schedule
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
    found = newest_other(identity, work)
    if found is None:
        return None
    path, other = found
    changed = differences(other.settings, decisive(work))
    if set(changed) <= {LENGTH} and work.settings.max_minutes is None and other.step < work.settings.num_steps:
        return lengthen(path, other, identity, work)
    # Nothing is replaced in a CHECKPOINT_DIR that others use too, and older releases wrote no settings.
    if other.has_ended or not other.settings or path.parent == work.settings.checkpoint_dir:
        return None
    shown = "; ".join(f"{name} {before} there, {now} here" for name, (before, now) in changed.items())
    raise UserError(
        f"{path.parent} has step {other.step} of a training that has not ended and was made with other settings, and "
        f"this job would replace it: {shown}. Set RESUME=never to start over, or the settings as they were to go on, "
        "or name another RESULT_DIR"
    )


def newest_other(identity: str, work: Workspace) -> tuple[Place, Manifest] | None:
    """Returns the newest checkpoint of another job in this job's places, with the path of its manifest."""
    paths = [path for folder in checkpoints.folders(work) for path in checkpoints.manifests_in(folder)]
    found = [(path, manifest) for path in paths if (manifest := checkpoints.read_manifest(path))]
    others = [(path, manifest) for path, manifest in found if manifest.job != identity]
    return max(others, key=lambda pair: pair[1].step, default=None)


def lengthen(path: Place, other: Manifest, identity: str, work: Workspace) -> Saved | None:
    """Makes the checkpoints of the same training with fewer steps those of this job, and returns the newest."""
    saved = checkpoints.read(path, other.job, work.checkpoints)
    if saved is None:
        return None
    best = saved.evaluations.best
    kept = checkpoints.find_best(best.step, other.job, work) if best else None
    logger.info(
        "step %d of a training of %s steps is in %s: it goes on to %d",
        saved.step,
        other.settings[LENGTH],
        path.parent,
        work.settings.num_steps,
    )
    for each in filter(None, (kept, saved)):
        checkpoints.write_manifest(each, identity, decisive(work))
        checkpoints.publish_checkpoint(each, identity, work)
    return saved


def decisive(work: Workspace) -> dict[str, str]:
    """Returns what decides a training, in words. Two trainings with the same words are the same."""
    settings, planned = work.settings, plan.load(work)
    found = {
        "MODEL": settings.model,
        LENGTH: settings.num_steps,
        "MAX_MINUTES": settings.max_minutes,
        "BATCH_SIZE": planned.batch_size,
        "LEARNING_RATE": f"{planned.learning_rate:.6g}",
        "AUGMENT": settings.augment,
        "OVERSAMPLE": settings.oversample,
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
