"""The pipeline.config of this job: the model's own config, or the user's, with the values of this job."""

from __future__ import annotations

import difflib
import glob
import logging
import re
from pathlib import Path
from typing import Any

from entrypoint.data import records, shards
from entrypoint.engines import loading
from entrypoint.engines.engine import refuse_cluster
from entrypoint.settings.schema import MOST_STEPS, Settings
from entrypoint.system import documents, files
from entrypoint.system.errors import UserError
from entrypoint.system.printable import Lines
from entrypoint.training import anchors, augmentation, batch_size, identity, length, schedule, start_checkpoint
from entrypoint.training.changes import Changes, shown
from entrypoint.training.plan import Plan
from entrypoint.training.start_checkpoint import Start
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue, pipeline_config

logger = logging.getLogger("job")

# The score threshold of those configs of upstream that keep all detections.
LEAST_SCORE = 1e-8
# The fields of a reader that control how records are read. All other fields describe records of another data set.
READING = {
    "shuffle",
    "shuffle_buffer_size",
    "filenames_shuffle_buffer_size",
    "num_parallel_batches",
    "num_prefetch_batches",
    "queue_capacity",
    "min_after_dequeue",
    "read_block_length",
    "prefetch_size",
    "num_parallel_map_calls",
    "drop_remainder",
}
INJECTED = {"label_map_path", "tf_record_input_reader", "num_readers", "max_number_of_boxes", "num_epochs"}


def run(work: Workspace) -> str:
    """Writes pipeline.config and the plan; returns a digest of the config that does not depend on WORK_DIR.

    Raises:
        UserError: the config is not upstream's, or asks for something that this job does not train.
    """
    path = source(work)
    is_published = find(work.settings) is None
    config = pipeline_config.read_published(path) if is_published else pipeline_config.read(path)
    generation = pipeline_config.generation_of(config, path)
    refuse_unknown_model(config, generation, path)
    changes = Changes()
    inject_data(config, work, changes)
    start = start_checkpoint.load(work)
    refuse_frozen_random(work.settings, has_start=start is not None)
    inject_start(config, generation, start, changes)
    inject_threshold(config, changes)
    inject_precision(config, changes)
    train = config.train_config
    augmentation.inject(train, work.settings.augment, records.load(work).labels, changes)
    anchors.inject(config, work, changes)
    archive = catalogue.find(work.settings.model).archive if is_published else None
    inject_schedule(config, archive, work, changes, has_start=start is not None)
    log_changes(path, changes)
    files.write_text(work.pipeline, pipeline_config.write(config))
    plan = Plan(
        source=str(path),
        generation=generation,
        num_steps=train.num_steps,
        batch_size=train.batch_size,
        learning_rate=schedule.peak_of_optimizer(train.optimizer),
        changes=tuple(changes.rows),
    )
    documents.write(work.plan, plan)
    log_epochs(plan, records.load(work).train.photos, work.settings, has_start=start is not None)
    return identity.of_config(config)


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.pipeline, work.plan]


def fingerprint(work: Workspace) -> str:
    """Returns a digest of the config that the job starts from, and of WORK_DIR, which is written into the config.

    With BATCH_SIZE=auto, what decides how much memory a batch needs is part of it, and which devices there are.
    """
    found = batch_size.decisive(work.settings) if work.settings.batch_size == "auto" else []
    return files.digest([pipeline_config.text_of(source(work)), str(work.root), *found])


def find(settings: Settings) -> Path | None:
    """Returns the config to start from, or None if it is in the archive, which may not be downloaded yet.

    Raises:
        UserError: PIPELINE_CONFIG is missing, the model finds more than boxes, or there is no config for it.
    """
    if settings.pipeline_config:
        if not settings.pipeline_config.is_file():
            raise UserError(f"PIPELINE_CONFIG={settings.pipeline_config} is not a file")
        return settings.pipeline_config
    model = catalogue.find(settings.model)
    catalogue.refuse_beyond_boxes(model)
    if model.pipeline is None and settings.checkpoint == "none":
        tuned = ", ".join(each.name for each in catalogue.load().values() if each.pipeline)
        raise UserError(
            f"MODEL={model.name} is described by the pipeline.config in its archive, which CHECKPOINT=none leaves out: "
            f"choose a model with a pipeline of ours ({tuned}), or give a pipeline.config with PIPELINE_CONFIG"
        )
    return model.pipeline


def refuse_early(settings: Settings) -> None:
    """Fails fast on errors of model or config that can be detected before anything is read or downloaded."""
    path = find(settings)
    refuse_frozen_random(settings, has_start=settings.checkpoint != "none")
    batch_size.refuse_cluster(settings)
    if settings.pipeline_config and settings.checkpoint == "zoo" and "model" not in settings.model_fields_set:
        raise UserError(
            f"PIPELINE_CONFIG={path} does not determine the checkpoint to start from: set CHECKPOINT to a checkpoint "
            "of its model, or MODEL to the model of the zoo that it belongs to, or set CHECKPOINT=none"
        )
    if settings.pipeline_config is None or path is None:
        model = catalogue.find(settings.model)
        refuse_cluster(model.generation, settings)
        anchors.refuse_early(settings, None)
        if settings.checkpoint == "none" and model.archive:
            logger.warning(
                "CHECKPOINT=none: the pipeline of %s is for fine-tuning, and from random weights it hardly learns in a "
                "few thousand steps; MODEL=scratch is made to learn from random weights",
                model.name,
            )
        return
    config = pipeline_config.read(path)
    generation = pipeline_config.generation_of(config, path)
    refuse_unknown_model(config, generation, path)
    refuse_cluster(generation, settings)
    # A slip in the config is reported now, and not after hours of conversion.
    pipeline_config.refuse_empty_input(config, path)
    anchors.refuse_early(settings, config)
    given = None if settings.batch_size == "auto" else settings.batch_size
    # How many photos there are is not known yet, and makes no difference to what is refused.
    steps = MOST_STEPS if settings.num_steps == "auto" else settings.num_steps
    schedule.inject(config.train_config, settings, lambda _: steps, given, None, Changes())
    loading.engine_of(generation).rehearse(config)


def refuse_frozen_random(settings: Settings, *, has_start: bool) -> None:
    """Raises UserError if a backbone with random weights would stay as it is."""
    if settings.freeze != "none" and not has_start:
        raise UserError(
            f"FREEZE={settings.freeze} keeps the weights of a checkpoint, and this training starts from none: set "
            "CHECKPOINT to one, or FREEZE=none"
        )


def source(work: Workspace) -> Path:
    """Returns the config to start from; raises UserError if it should be next to the checkpoint and is missing."""
    path = find(work.settings)
    if path:
        return path
    start = start_checkpoint.load(work)
    prefix = Path(start.prefix) if start else work.zoo
    for folder in (prefix.parent, prefix.parent.parent):
        if (folder / "pipeline.config").is_file():
            return folder / "pipeline.config"
    raise UserError(
        f"no pipeline.config is next to the checkpoint {prefix}, and MODEL={work.settings.model} has no pipeline of "
        "ours: give a pipeline.config with PIPELINE_CONFIG"
    )


def refuse_unknown_model(config: Any, generation: str, path: Path) -> None:
    """Raises UserError, with the nearest names, for a feature extractor that upstream does not have."""
    architecture = config.model.WhichOneof("model")
    extractor = getattr(config.model, architecture).feature_extractor.type
    known = loading.engine_of(generation).extractors()
    if extractor not in known:
        near = ", ".join(difflib.get_close_matches(extractor, known, n=3, cutoff=0.3))
        line = pipeline_config.line_of(path, extractor)
        raise UserError(
            f"{path}:{line}: feature_extractor.type {extractor!r} is not in the Object Detection API; the nearest "
            f"are {near or 'none'}"
        )


def inject_data(config: Any, work: Workspace, changes: Changes) -> None:
    """Writes the number of labels, the records, the label map and the largest number of boxes on a photo."""
    manifest = records.load(work)
    architecture = config.model.WhichOneof("model")
    changes.set(getattr(config.model, architecture), f"model.{architecture}", "num_classes", len(manifest.labels))
    del config.eval_input_reader[1:]
    readers = (
        ("train_input_reader", config.train_input_reader, "train"),
        (
            "eval_input_reader",
            config.eval_input_reader[0] if config.eval_input_reader else config.eval_input_reader.add(),
            "validation",
        ),
    )
    for path, reader, split in readers:
        clear_foreign(reader, path, changes)
        changes.set(reader, path, "label_map_path", str(work.label_map))
        # WORK_DIR can have characters that TensorFlow would match as a pattern.
        pattern = f"{glob.escape(str(work.records))}/{split}-?????-of-?????.tfrecord"
        changes.set(reader.tf_record_input_reader, f"{path}.tf_record_input_reader", "input_path", [pattern])
        changes.set(reader, path, "num_readers", shards.READERS)
        # Upstream pads every photo's boxes to this number, and drops the boxes beyond it.
        changes.set(reader, path, "max_number_of_boxes", max(1, manifest.max_boxes))
    # 0 repeats the records as often as the steps need them.
    changes.set(config.train_input_reader, "train_input_reader", "num_epochs", 0)
    evaluation = config.eval_input_reader[0]
    changes.set(evaluation, "eval_input_reader", "shuffle", False)
    changes.set(evaluation, "eval_input_reader", "num_epochs", 1)
    train = config.train_config
    changes.set(train, "train_config", "max_number_of_boxes", max(1, manifest.max_boxes))


def clear_foreign(reader: Any, path: str, changes: Changes) -> None:
    """Clears the fields that describe records of another data set: their sampling, and contents other than boxes."""
    for each, value in reader.ListFields():
        if each.name not in READING | INJECTED:
            changes.rows.append((f"{path}.{each.name}", shown(value), ""))
            reader.ClearField(each.name)


def inject_start(config: Any, generation: str, start: Start | None, changes: Changes) -> None:
    """Writes the checkpoint that training starts from. Its weights fit any labels, except those of the heads."""
    from object_detection.protos import train_pb2

    train = config.train_config
    if start and start.layout != generation:
        layout, wanted = start.layout.upper(), generation.upper()
        raise UserError(
            f"{start.prefix} is a {layout} checkpoint, which a {wanted} model cannot start from: name a checkpoint of "
            f"a {wanted} model, or set CHECKPOINT=none"
        )
    changes.set(train, "train_config", "fine_tune_checkpoint", start.prefix if start else "")
    two_stages = config.model.faster_rcnn if config.model.HasField("faster_rcnn") else None
    if two_stages and not start and not two_stages.feature_extractor.batch_norm_trainable:
        logger.warning(
            "CHECKPOINT=none: batch norm keeps its initial values, because this model does not train them, and the "
            "model will hardly learn; start from a checkpoint, or set batch_norm_trainable in your own PIPELINE_CONFIG"
        )
    if start:
        changes.set(train, "train_config", "fine_tune_checkpoint_type", start_type(start.prefix))
        version = {"tf1": train_pb2.CheckpointVersion.V1, "tf2": train_pb2.CheckpointVersion.V2}[generation]
        changes.set(train, "train_config", "fine_tune_checkpoint_version", version)


def start_type(prefix: str) -> str:
    """Returns the kind of a checkpoint by the names of its variables: `detection` or `classification`.

    The config does not have this fact: a config of the zoo names the kind that its authors started from, usually a
    classifier, and not the kind of the checkpoint next to it; older configs name no kind. A detector's variables are
    below `model/` in TF2, and have FeatureExtractor in their names in TF1.
    """
    import tensorflow as tf

    names = [name for name, _ in tf.train.list_variables(prefix)]
    return "detection" if any(re.search("^model/|FeatureExtractor/", name) for name in names) else "classification"


def inject_schedule(config: Any, archive: str | None, work: Workspace, changes: Changes, *, has_start: bool) -> None:
    """Writes number of steps, batch size and learning rate, and what a batch needs; see `schedule.inject`."""
    photos = records.load(work).train.photos

    def steps_for(batch: int) -> int:
        return length.decide(work.settings, photos, batch, has_start=has_start)

    def fit_config(fitted: Any, size: int | None, rows: Changes) -> None:
        schedule.inject(fitted.train_config, work.settings, steps_for, size, archive, rows)
        inject_padding(fitted, rows)

    given = work.settings.batch_size
    size = batch_size.find(config, fit_config, work) if given == "auto" else given
    fit_config(config, size, changes)


def inject_padding(config: Any, changes: Changes) -> None:
    """Pads photos that keep their shapes to one size, if a batch holds several photos."""
    architecture = config.model.WhichOneof("model")
    resizer = getattr(config.model, architecture).image_resizer
    if config.train_config.batch_size > 1 and resizer.HasField("keep_aspect_ratio_resizer"):
        path = f"model.{architecture}.image_resizer.keep_aspect_ratio_resizer"
        changes.set(resizer.keep_aspect_ratio_resizer, path, "pad_to_max_dimension", True)


def inject_threshold(config: Any, changes: Changes) -> None:
    """Keeps detections of low scores: COCO's metrics are averages over all scores, and clients choose a threshold."""
    architecture = config.model.WhichOneof("model")
    field = {"ssd": "post_processing", "faster_rcnn": "second_stage_post_processing"}.get(architecture)
    if field:
        suppression = getattr(getattr(config.model, architecture), field).batch_non_max_suppression
        if suppression.score_threshold > LEAST_SCORE:
            path = f"model.{architecture}.{field}.batch_non_max_suppression"
            changes.set(suppression, path, "score_threshold", LEAST_SCORE)


def inject_precision(config: Any, changes: Changes) -> None:
    """Sets the precision of this job's own setting, and turns averaged weights and quantisation off.

    A quantised model of the zoo is an ordinary model. A part of TensorFlow that was removed with contrib put operations
    around its layers that imitate integers. Its checkpoint holds the weights themselves.
    """
    train = config.train_config
    if config.HasField("graph_rewriter"):
        changes.rows.append(("graph_rewriter", "quantization", "trained in float32"))
        config.ClearField("graph_rewriter")
    changes.set(train, "train_config", "use_bfloat16", False)
    changes.set(train.optimizer, "train_config.optimizer", "use_moving_average", False)
    changes.set(config.eval_config, "eval_config", "use_moving_averages", False)


def log_epochs(plan: Plan, photos: int, settings: Settings, *, has_start: bool) -> None:
    """Logs how often the training shows each photo."""
    if length.is_open(settings):
        logger.info("as many steps of %d photos as MAX_MINUTES=%g allows", plan.batch_size, settings.max_minutes)
        return
    begin = "NUM_STEPS=auto: " if settings.num_steps == "auto" else ""
    logger.info("%s%s", begin, length.describe(plan.num_steps, plan.batch_size, photos, has_start=has_start))


def log_changes(path: Path, changes: Changes) -> None:
    """Logs the values that were written into the config as a table."""
    width = max((len(name) for name, _, _ in changes.rows), default=0)
    lines = [f"  {name.ljust(width)}  {before or '-'} -> {after or '-'}" for name, before, after in changes.rows]
    logger.info("pipeline.config from %s, with these values:\n%s", path, Lines(lines))
