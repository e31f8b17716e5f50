"""What decides a training: as a digest of its pipeline.config, and in words that can be shown if they differ."""

from __future__ import annotations

from typing import Any

from entrypoint import workspace
from entrypoint.system import files
from entrypoint.training import length, schedule
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config

# What decides a training and is no setting, with the words for a difference.
PHOTOS, START, CONFIG = "photos, boxes or their split", "checkpoint to start from", "pipeline.config"
LENGTH, BATCH = "NUM_STEPS", "BATCH_SIZE"
# What stands behind a batch that BATCH_SIZE=auto has found.
FOUND = ", the largest that fits"


def of_config(config: Any) -> str:
    """Returns a digest of everything in a config except the paths."""
    copy = type(config)()
    copy.CopyFrom(config)
    copy.train_config.ClearField("fine_tune_checkpoint")
    for reader in (copy.train_input_reader, *copy.eval_input_reader):
        reader.ClearField("label_map_path")
        reader.tf_record_input_reader.ClearField("input_path")
    return files.digest(pipeline_config.write(copy))


def without_length(config: Any) -> str:
    """Returns a digest of a config without what follows from the number of steps, and without paths."""
    copy = type(config)()
    copy.CopyFrom(config)
    schedule.clear_length(copy.train_config)
    return of_config(copy)


def words(work: Workspace, batch_size: int, learning_rate: float, config: Any) -> dict[str, str]:
    """Returns what decides a training, in words. Two trainings with the same words are the same.

    `config` is the pipeline.config that it is trained with.
    """
    settings = work.settings
    found = {
        "MODEL": settings.model,
        LENGTH: "as many as fit" if length.is_open(settings) else config.train_config.num_steps,
        "MAX_MINUTES": settings.max_minutes,
        BATCH: f"{batch_size}{FOUND if settings.batch_size == 'auto' else ''}",
        "LEARNING_RATE": f"{learning_rate:.6g}",
        "AUGMENT": settings.augment,
        "ANCHORS": settings.anchors,
        "OVERSAMPLE": settings.oversample,
        "FREEZE": None if settings.freeze == "none" else settings.freeze,
        "PRECISION": settings.precision,
        "SEED": settings.seed,
        PHOTOS: (workspace.output_of("tf_record", work) or "")[:12],
        START: (workspace.output_of("checkpoint", work) or "")[:12],
        CONFIG: without_length(config)[:12],
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def differing(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Returns the names of what differs. A batch that was found is the same as one that was given."""

    def value(words: dict[str, str], name: str) -> str:
        return words.get(name, "").removesuffix(FOUND)

    return [name for name in {**before, **now} if value(before, name) != value(now, name)]
