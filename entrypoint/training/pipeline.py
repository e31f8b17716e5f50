"""pipeline.config with this job's values in it, in the text format of upstream's TrainEvalPipelineConfig."""

from __future__ import annotations

import difflib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint import workspace
from entrypoint.data import tf_record
from entrypoint.engines import engine
from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.training import start_checkpoint
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue

logger = logging.getLogger("job")

# Of one device where BATCH_SIZE is not set: published ones reach 256 for COCO's 118,000 photos, more than many buckets
# hold and many GPUs have memory for.
LARGEST_BATCH = 32
# As upstream's own configs have it where they mean all of them.
LEAST_SCORE = 1e-8
FIELD = re.compile(r"([A-Za-z_]\w*|\[[A-Za-z][\w./]*\])\s*[:{<]")
STRING_OR_COMMENT = re.compile(r"""\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#.*""")
# Fields of SSD's feature extractor that published configs have, ssd_mobilenet_v2_coco_2018_03_29's for one, and that
# upstream has no more. A user's own config may have them; any other that there is not is a slip of the pen there.
REMOVED = {"batch_norm_trainable"}
META_ARCHITECTURES = ("ssd", "faster_rcnn", "center_net")
# What a config asks for beyond boxes; the records hold none of it.
BEYOND_BOXES = (
    "load_instance_masks",
    "num_keypoints",
    "keypoint_estimation_task",
    "mask_estimation_task",
    "densepose_estimation_task",
    "predict_instance_masks",
    "load_dense_pose",
    "context_config",
)
# What a config says of how records are read. All else that it says of a reader is of records that are not the job's.
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


@dataclass
class Changes:
    """What this job writes into a config, field by field, as it was and as it is."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def set(self, message: Any, path: str, name: str, value: Any) -> None:
        """Sets a field and notes the change; a list replaces a repeated field."""
        before = getattr(message, name)
        if isinstance(value, list):
            before = list(before)
            message.ClearField(name)
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
        if before != value:
            self.rows.append((f"{path}.{name}", shown(before), shown(value)))


def run(work: Workspace) -> str:
    """Writes pipeline.config; returns a digest of it that does not depend on where WORK_DIR is.

    Raises:
        UserError: the config is not upstream's, or asks for what this job does not train.
    """
    path = source(work)
    is_published = find(work.settings) is None
    config = read_published(path) if is_published else read(path)
    generation = generation_of(config, path)
    refuse_unknown_model(config, generation, path)
    exports = choose_exports(config, work.settings)
    changes = Changes()
    inject_data(config, work, changes)
    inject_start(config, generation, start_checkpoint.load(work), changes)
    inject_threshold(config, changes)
    inject_precision(config, changes)
    train = config.train_config
    batch = published_batch(train, catalogue.find(work.settings.model).archive) if is_published else train.batch_size
    inject_schedule(train, work.settings, batch, changes)
    inject_padding(config, changes)
    log_changes(path, changes)
    workspace.write_text(work.pipeline, write(config))
    facts = {"generation": generation, "exports": exports, "rows": changes.rows, **summarise(train)}
    workspace.write_json(work.changes, {"source": str(path), **facts})
    return identify(config)


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    return [work.pipeline, work.changes]


def fingerprint(work: Workspace) -> str:
    """The bytes of the config that the job starts from, and where WORK_DIR is, which is written into it."""
    return workspace.digest([source(work).read_text(encoding="utf-8"), str(work.root)])


def find(settings: Settings) -> Path | None:
    """The config to start from, as far as it is known before anything is fetched; None for the archive's own.

    Raises:
        UserError: the model finds more than boxes, or there can be no config for it.
    """
    if settings.pipeline_config:
        if not settings.pipeline_config.is_file():
            raise UserError(f"PIPELINE_CONFIG={settings.pipeline_config} is no file")
        return settings.pipeline_config
    model = catalogue.find(settings.model)
    catalogue.refuse_beyond_boxes(model)
    if model.pipeline is None and settings.checkpoint == "none":
        tuned = ", ".join(each.name for each in catalogue.load().values() if each.pipeline)
        raise UserError(
            f"MODEL={model.name} is described by the pipeline.config in its archive, which CHECKPOINT=none leaves out: "
            f"take one that has a pipeline of ours ({tuned}), or give a pipeline.config with PIPELINE_CONFIG"
        )
    return model.pipeline


def refuse_early(settings: Settings) -> None:
    """Raises, before the bucket is read or anything fetched, what is known to be wrong with model or config by then."""
    path = find(settings)
    if settings.pipeline_config and settings.checkpoint == "zoo" and "model" not in settings.model_fields_set:
        raise UserError(
            f"PIPELINE_CONFIG={path} says nothing of where to start from: name the checkpoint of its model with "
            "CHECKPOINT, or the model of the zoo that it belongs to with MODEL, or set CHECKPOINT=none"
        )
    if path and (settings.pipeline_config or "exports" in settings.model_fields_set):
        config = read(path)
        generation = generation_of(config, path)
        refuse_unknown_model(config, generation, path)
        choose_exports(config, settings)
    else:
        generation = catalogue.find(settings.model).generation
    engine.refuse_cluster(generation, settings)


def source(work: Workspace) -> Path:
    """The config to start from; UserError where the checkpoint should have brought it and did not."""
    path = find(work.settings)
    if path:
        return path
    start = start_checkpoint.load(work)
    prefix = Path(start["prefix"]) if start else work.zoo
    for folder in (prefix.parent, prefix.parent.parent):
        if (folder / "pipeline.config").is_file():
            return folder / "pipeline.config"
    raise UserError(
        f"no pipeline.config lies beside the checkpoint {prefix}, and MODEL={work.settings.model} has none of ours: "
        "give one with PIPELINE_CONFIG"
    )


def read(path: Path) -> Any:
    """The TrainEvalPipelineConfig in a user's file; UserError with the line that cannot be read."""
    from google.protobuf import text_format

    try:
        return parse(text_of(path))
    except text_format.ParseError as error:
        if not is_as_published(text_of(path)):
            raise refused(path, error) from None
    return read_published(path)


def is_as_published(text: str) -> bool:
    """Whether nothing but fields that published configs have keeps a text from being a pipeline.config."""
    from google.protobuf import text_format

    try:
        config = parse(text, tolerant=True)
    except text_format.ParseError:
        return False
    return all(name.split()[0] in REMOVED for name in removed_fields(text, config))


def parse(text: str, *, tolerant: bool = False) -> Any:
    """A TrainEvalPipelineConfig in text format; `tolerant` passes over fields that there are not.

    Raises:
        text_format.ParseError: it is none.
    """
    from google.protobuf import text_format
    from object_detection.protos import pipeline_pb2

    config = pipeline_pb2.TrainEvalPipelineConfig()
    return text_format.Parse(text, config, allow_unknown_field=tolerant, allow_unknown_extension=tolerant)


def text_of(path: Path) -> str:
    """The content of a config; UserError where it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 (byte {error.start})") from None


def refused(path: Path, error: Exception) -> UserError:
    """What to say of a config that cannot be parsed; the parser's own words begin with line and column."""
    return UserError(
        f"{path}:{error}: not a field of the Object Detection API's pipeline.config, or not its syntax: mend it"
    )


def read_published(path: Path) -> Any:
    """The config of an archive of the zoo; fields that upstream has removed since are left out, and named in the log.

    Raises:
        UserError: with the line of what is no config at all.
    """
    from google.protobuf import text_format

    text = text_of(path)
    try:
        config = parse(text, tolerant=True)
    except text_format.ParseError as error:
        raise refused(path, error) from None
    if removed := removed_fields(text, config):
        logger.warning("%s: upstream has removed %s since; left out", path, ", ".join(removed))
    return config


def removed_fields(text: str, config: Any) -> list[str]:
    """The fields that stand in a text and not in the config read from it, with their lines where those tell."""
    left = Counter(name for name, _ in field_names(write(config)))
    known = set(left)
    removed = []
    for name, line in field_names(text):
        left[name] -= 1
        if left[name] < 0:
            removed.append(name if name in known else f"{name} (line {line})")
    return removed


def field_names(text: str) -> Iterator[tuple[str, int]]:
    """The names of fields in text format, and of extensions in brackets, with their lines."""
    for number, line in enumerate(text.splitlines(), start=1):
        for name in FIELD.findall(STRING_OR_COMMENT.sub("", line)):
            yield name, number


def write(config: Any) -> str:
    """The config in text format."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def generation_of(config: Any, path: Path) -> str:
    """The zoo's generation that the model is of, which names its engine.

    Upstream's names tell: feature extractors of Keras end in `_keras`, and CenterNet came with TF2.

    Raises:
        UserError: with the line of what this job cannot train: anything but boxes, or a model that is not there.
    """
    architecture = config.model.WhichOneof("model")
    if architecture not in META_ARCHITECTURES:
        raise UserError(
            f"{path}:{line_of(path, str(architecture))}: the model is {architecture or 'missing'}; "
            f"this job trains {', '.join(META_ARCHITECTURES)}"
        )
    refuse_beyond_boxes(config, path)
    extractor = getattr(config.model, architecture).feature_extractor.type
    return "tf2" if architecture == "center_net" or extractor.endswith("_keras") else "tf1"


def refuse_beyond_boxes(config: Any, path: Path) -> None:
    """UserError, with the line, for a config that asks for more than boxes with labels, or for less."""
    text = text_of(path)
    for name in BEYOND_BOXES:
        if re.search(rf"^[^#\n]*\b{name}\s*[:{{](?!\s*(?i:false|f\b|0\b))", text, re.MULTILINE):
            raise UserError(f"{path}:{line_of(path, name)}: {name}: this job trains boxes alone; remove it")
    if config.model.faster_rcnn.number_of_stages == 1:
        raise UserError(
            f"{path}:{line_of(path, 'number_of_stages')}: a model of one stage finds boxes without labels; remove "
            "number_of_stages"
        )


def refuse_unknown_model(config: Any, generation: str, path: Path) -> None:
    """UserError, with the nearest names, for a feature extractor that upstream does not have."""
    architecture = config.model.WhichOneof("model")
    extractor = getattr(config.model, architecture).feature_extractor.type
    known = engine.of(generation).extractors()
    if extractor not in known:
        near = ", ".join(difflib.get_close_matches(extractor, known, n=3, cutoff=0.3))
        raise UserError(
            f"{path}:{line_of(path, extractor)}: feature_extractor.type {extractor!r} is no model of the Object "
            f"Detection API; the nearest are {near or 'none'}"
        )


def choose_exports(config: Any, settings: Settings) -> list[str]:
    """The formats to export to; without EXPORTS those that the model can be exported to.

    Raises:
        UserError: before any training, where EXPORTS names one that is not possible.
    """
    if "tflite" not in settings.exports or input_size(config):
        return list(settings.exports)
    rest: list[str] = [name for name in settings.exports if name != "tflite"]
    if "exports" in settings.model_fields_set:
        raise UserError(
            "EXPORTS=tflite: SSD models alone, of an input that is one size, are exported to TensorFlow Lite; "
            f"set EXPORTS={','.join(rest) or 'saved_model'}"
        )
    logger.info("exports: %s; SSD models alone are exported to TensorFlow Lite", ", ".join(rest))
    return rest


def input_size(config: Any) -> tuple[int, int] | None:
    """Height and width of an SSD's input, where all photos get one size; None where they do not, or for another model.

    Photos that keep their shapes and are padded to a square are of one size too.
    """
    resizer = config.model.ssd.image_resizer
    if resizer.HasField("fixed_shape_resizer"):
        return resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    padded = resizer.keep_aspect_ratio_resizer
    if padded.pad_to_max_dimension and padded.min_dimension == padded.max_dimension:
        return padded.max_dimension, padded.max_dimension
    return None


def line_of(path: Path, text: str) -> int:
    """The number of the first line that holds the text, 1 where none does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, start=1) if text in line.partition("#")[0]), 1)


def inject_data(config: Any, work: Workspace, changes: Changes) -> None:
    """Labels, records and label map; as many boxes per photo as the data has."""
    manifest = tf_record.load_manifest(work)
    architecture = config.model.WhichOneof("model")
    changes.set(getattr(config.model, architecture), f"model.{architecture}", "num_classes", len(manifest["labels"]))
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
        pattern = str(work.records / f"{split}-?????-of-?????.tfrecord")
        changes.set(reader.tf_record_input_reader, f"{path}.tf_record_input_reader", "input_path", [pattern])
        changes.set(reader, path, "num_readers", tf_record.READERS)
        # Upstream pads every photo's boxes to this number, and drops what is above it.
        changes.set(reader, path, "max_number_of_boxes", max(1, manifest["max_boxes"]))
    # As often as the steps need them.
    changes.set(config.train_input_reader, "train_input_reader", "num_epochs", 0)
    evaluation = config.eval_input_reader[0]
    changes.set(evaluation, "eval_input_reader", "shuffle", False)
    changes.set(evaluation, "eval_input_reader", "num_epochs", 1)
    train = config.train_config
    changes.set(train, "train_config", "max_number_of_boxes", max(1, manifest["max_boxes"]))


def clear_foreign(reader: Any, path: str, changes: Changes) -> None:
    """Clears what a config says of records other than the job's: how they are sampled, what they hold beyond boxes."""
    for each, value in reader.ListFields():
        if each.name not in READING | INJECTED:
            changes.rows.append((f"{path}.{each.name}", shown(value), ""))
            reader.ClearField(each.name)


def inject_start(config: Any, generation: str, start: dict[str, str] | None, changes: Changes) -> None:
    """The checkpoint that training starts from, of which the weights up to the heads fit any labels."""
    from object_detection.protos import train_pb2

    train = config.train_config
    if start and start["layout"] != generation:
        layout, wanted = start["layout"].upper(), generation.upper()
        raise UserError(
            f"{start['prefix']} is a {layout} checkpoint, which a {wanted} model cannot start from: name a {wanted} "
            "model's, or set CHECKPOINT=none"
        )
    changes.set(train, "train_config", "fine_tune_checkpoint", start["prefix"] if start else "")
    two_stages = config.model.faster_rcnn if config.model.HasField("faster_rcnn") else None
    if two_stages and not start and not two_stages.feature_extractor.batch_norm_trainable:
        logger.warning(
            "CHECKPOINT=none: batch norm stays as no checkpoint has left it, and the model will hardly learn; start "
            "from a checkpoint, or set batch_norm_trainable in a PIPELINE_CONFIG of your own"
        )
    if start:
        changes.set(train, "train_config", "fine_tune_checkpoint_type", start_type(start["prefix"]))
        version = {"tf1": train_pb2.CheckpointVersion.V1, "tf2": train_pb2.CheckpointVersion.V2}[generation]
        changes.set(train, "train_config", "fine_tune_checkpoint_version", version)


def start_type(prefix: str) -> str:
    """What the checkpoint is one of by its variables' names: `detection` or `classification`.

    Configs do not tell: those of the zoo say what its authors started from, a classifier as a rule, and not what lies
    beside them, and older ones say nothing. A detector's variables are below `model/` in TF2, and have FeatureExtractor
    in their names in TF1.
    """
    import tensorflow as tf

    names = [name for name, _ in tf.train.list_variables(prefix)]
    return "detection" if any(re.search("^model/|FeatureExtractor/", name) for name in names) else "classification"


def inject_padding(config: Any, changes: Changes) -> None:
    """Pads photos that keep their shapes to one size where a batch holds several of them."""
    architecture = config.model.WhichOneof("model")
    resizer = getattr(config.model, architecture).image_resizer
    if config.train_config.batch_size > 1 and resizer.HasField("keep_aspect_ratio_resizer"):
        path = f"model.{architecture}.image_resizer.keep_aspect_ratio_resizer"
        changes.set(resizer.keep_aspect_ratio_resizer, path, "pad_to_max_dimension", True)


def inject_threshold(config: Any, changes: Changes) -> None:
    """Lets unsure detections through: COCO's metrics are averages over all scores, and clients cut where they like."""
    architecture = config.model.WhichOneof("model")
    field = {"ssd": "post_processing", "faster_rcnn": "second_stage_post_processing"}.get(architecture)
    if field:
        suppression = getattr(getattr(config.model, architecture), field).batch_non_max_suppression
        if suppression.score_threshold > LEAST_SCORE:
            path = f"model.{architecture}.{field}.batch_non_max_suppression"
            changes.set(suppression, path, "score_threshold", LEAST_SCORE)


def inject_precision(config: Any, changes: Changes) -> None:
    """Weights as they are trained, in the precision of this job's own setting: neither averaged nor quantised.

    A quantised model of the zoo is an ordinary one with operations that imitate integers put around its layers, by a
    part of TensorFlow that left with contrib; its checkpoint holds the weights themselves.
    """
    train = config.train_config
    if config.HasField("graph_rewriter"):
        changes.rows.append(("graph_rewriter", "quantization", "trained in float32"))
        config.ClearField("graph_rewriter")
    changes.set(train, "train_config", "use_bfloat16", False)
    changes.set(train.optimizer, "train_config.optimizer", "use_moving_average", False)
    changes.set(config.eval_config, "eval_config", "use_moving_averages", False)


def published_batch(train: Any, archive: str) -> int:
    """One device's part of a published batch, which is for all the devices that the model was trained on; 32 at most.

    Some configs say how many replicas they aggregate, some archives on how many devices they were trained: `tpu-32`.
    """
    named = re.search(r"_[tg]pu-(\d+)", archive)
    devices = max(1, train.replicas_to_aggregate, int(named.group(1)) if named else 1)
    return int(min(LARGEST_BATCH, max(1, train.batch_size // devices)))


def inject_schedule(train: Any, settings: Settings, batch: int, changes: Changes) -> None:
    """Number of steps, batch size (`batch` without BATCH_SIZE) and learning rate, and the schedule stretched to them.

    A batch size other than the config's scales the learning rate: linearly for SGD with momentum (Goyal et al. 2017,
    arXiv:1706.02677), by the square root for Adam and RMSProp (Malladi et al. 2022, arXiv:2205.10287).
    LEARNING_RATE is taken as it is, and leaves the batch size alone.
    """
    kind = train.optimizer.WhichOneof("optimizer")
    if kind is None:
        raise UserError("the pipeline.config has no optimizer in train_config")
    optimizer = getattr(train.optimizer, kind)
    schedule = optimizer.learning_rate.WhichOneof("learning_rate")
    if schedule is None:
        raise UserError(f"the pipeline.config has no learning_rate in train_config.optimizer.{kind}")
    rate = getattr(optimizer.learning_rate, schedule)
    peak = peak_of(rate, schedule)
    if train.batch_size < 1 or peak <= 0:
        raise UserError(f"the pipeline.config trains on batches of {train.batch_size} at a rate of {peak:g}: set both")
    batch = settings.batch_size or batch
    ratio = batch / train.batch_size
    factor = ratio if kind == "momentum_optimizer" else math.sqrt(ratio)
    if settings.learning_rate:
        factor = settings.learning_rate / peak
    changes.set(train, "train_config", "batch_size", batch)
    path = f"train_config.optimizer.{kind}.learning_rate.{schedule}"
    stretch(rate, schedule, path, train.num_steps, settings.num_steps, changes)
    scale(rate, schedule, path, factor, changes)
    changes.set(train, "train_config", "num_steps", settings.num_steps)


def summarise(train: Any) -> dict[str, Any]:
    """Steps, batch size and peak learning rate that are used."""
    kind = train.optimizer.WhichOneof("optimizer")
    rate = getattr(train.optimizer, kind).learning_rate
    schedule = rate.WhichOneof("learning_rate")
    peak = peak_of(getattr(rate, schedule), schedule)
    return {"num_steps": train.num_steps, "batch_size": train.batch_size, "learning_rate": peak}


def peak_of(rate: Any, schedule: str) -> float:
    """The highest learning rate of a schedule; manual steps may climb from the one that they begin with."""
    steps = rate.schedule if schedule == "manual_step_learning_rate" else []
    return float(max([getattr(rate, PEAK_FIELDS[schedule]), *(step.learning_rate for step in steps)]))


PEAK_FIELDS = {
    "constant_learning_rate": "learning_rate",
    "exponential_decay_learning_rate": "initial_learning_rate",
    "manual_step_learning_rate": "initial_learning_rate",
    "cosine_decay_learning_rate": "learning_rate_base",
}
OTHER_RATES = {
    "exponential_decay_learning_rate": ("burnin_learning_rate", "min_learning_rate"),
    "cosine_decay_learning_rate": ("warmup_learning_rate",),
}
STEP_FIELDS = {
    "exponential_decay_learning_rate": ("decay_steps", "burnin_steps"),
    "cosine_decay_learning_rate": ("warmup_steps", "hold_base_rate_steps"),
}


def scale(rate: Any, schedule: str, path: str, factor: float, changes: Changes) -> None:
    """Multiplies every learning rate of a schedule."""
    if factor == 1:
        return
    for name in (PEAK_FIELDS[schedule], *OTHER_RATES.get(schedule, ())):
        changes.set(rate, path, name, to_float32(getattr(rate, name) * factor))
    if schedule == "manual_step_learning_rate":
        for index, entry in enumerate(rate.schedule):
            changes.set(entry, f"{path}.schedule[{index}]", "learning_rate", to_float32(entry.learning_rate * factor))


def stretch(rate: Any, schedule: str, path: str, before: int, after: int, changes: Changes) -> None:
    """Fits warm-up and decay, made for `before` steps, to `after` steps."""
    if schedule == "cosine_decay_learning_rate":
        before = rate.total_steps
        changes.set(rate, path, "total_steps", after)
    if not before:
        return
    for name in STEP_FIELDS.get(schedule, ()):
        steps = getattr(rate, name)
        least = 1 if name == "decay_steps" else 0
        changes.set(rate, path, name, max(least, steps * after // before))
    if schedule == "manual_step_learning_rate":
        last = 0
        for index, entry in enumerate(rate.schedule):
            last = max(last + 1, entry.step * after // before)
            changes.set(entry, f"{path}.schedule[{index}]", "step", last)


def to_float32(value: float) -> float:
    """The value as the config's fields hold it, so that an unchanged one does not count as a change."""
    import numpy as np

    return float(np.float32(value))


def shown(value: Any) -> str:
    """A field's value for the table."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def log_changes(path: Path, changes: Changes) -> None:
    """Logs what was injected as a table."""
    width = max((len(name) for name, _, _ in changes.rows), default=0)
    lines = [f"  {name.ljust(width)}  {before or '-'} -> {after or '-'}" for name, before, after in changes.rows]
    logger.info("pipeline.config from %s, with these values:\n%s", path, "\n".join(lines))


def identify(config: Any) -> str:
    """A digest of everything in the config but the paths."""
    copy = type(config)()
    copy.CopyFrom(config)
    copy.train_config.ClearField("fine_tune_checkpoint")
    for reader in (copy.train_input_reader, *copy.eval_input_reader):
        reader.ClearField("label_map_path")
        reader.tf_record_input_reader.ClearField("input_path")
    return workspace.digest(write(copy))
