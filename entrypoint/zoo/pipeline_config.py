"""Reads a pipeline.config of the zoo or of a user: upstream's TrainEvalPipelineConfig in text format."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

FIELD = re.compile(r"([A-Za-z_]\w*|\[[A-Za-z][\w./]*\])\s*[:{<]")
STRING_OR_COMMENT = re.compile(r"""\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|#.*""")
# Fields of SSD's feature extractor that upstream has removed, and that published configs still have, for example
# that of ssd_mobilenet_v2_coco_2018_03_29. A user's config may have them too. Any other unknown field in a user's
# config is an error.
REMOVED = {"batch_norm_trainable"}
META_ARCHITECTURES = ("ssd", "faster_rcnn", "center_net")
# Fields that ask for more than boxes. The records hold only boxes.
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


def read(path: Path) -> Any:
    """Reads the TrainEvalPipelineConfig in a user's file; raises UserError with the line that cannot be read."""
    from google.protobuf import text_format

    try:
        return parse(text_of(path))
    except text_format.ParseError as error:
        if not is_as_published(text_of(path)):
            raise refused(path, error) from None
    return read_published(path)


def is_as_published(text: str) -> bool:
    """Returns whether a text is a pipeline.config whose only unknown fields are in REMOVED."""
    from google.protobuf import text_format

    try:
        config = parse(text, tolerant=True)
    except text_format.ParseError:
        return False
    return all(name.split()[0] in REMOVED for name in removed_fields(text, config))


def parse(text: str, *, tolerant: bool = False) -> Any:
    """Parses a TrainEvalPipelineConfig in text format; `tolerant` ignores unknown fields.

    Raises:
        text_format.ParseError: the text is not a TrainEvalPipelineConfig.
    """
    from google.protobuf import text_format
    from object_detection.protos import pipeline_pb2

    config = pipeline_pb2.TrainEvalPipelineConfig()
    try:
        return text_format.Parse(text, config, allow_unknown_field=tolerant, allow_unknown_extension=tolerant)
    except RecursionError:
        raise text_format.ParseError("the messages are nested too deeply") from None


def text_of(path: Path) -> str:
    """Returns the content of a config; raises UserError if it is not text."""
    try:
        # Editors on Windows begin a text with a byte order mark.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 (byte {error.start})") from None


def without_comments(text: str) -> str:
    """Returns a config without its comments. It is for searching: a string that has a # in it is cut."""
    return re.sub(r"#[^\n]*", "", text)


def refused(path: Path, error: Exception) -> UserError:
    """Returns the error for a config that cannot be parsed. The parser's own message begins with line and column."""
    return UserError(
        f"{path}:{error}: unknown field or wrong syntax for the Object Detection API's pipeline.config: correct it"
    )


def read_published(path: Path) -> Any:
    """Reads the config of an archive of the zoo. Fields that upstream has removed are left out, and the log names them.

    Raises:
        UserError: the file is not a pipeline.config; the message names the line.
    """
    from google.protobuf import text_format

    text = text_of(path)
    try:
        config = parse(text, tolerant=True)
    except text_format.ParseError as error:
        raise refused(path, error) from None
    if removed := removed_fields(text, config):
        logger.warning("%s: upstream has removed %s; the job leaves them out", path, ", ".join(removed))
    return config


def removed_fields(text: str, config: Any) -> list[str]:
    """Returns the fields of a text that are not in the config that was read from it, with their lines.

    A name that the config also has elsewhere is returned without a line, because the counts of the names do not show
    which line was left out.
    """
    left = Counter(name for name, _ in field_names(write(config)))
    known = set(left)
    removed = []
    for name, line in field_names(text):
        left[name] -= 1
        if left[name] < 0:
            removed.append(name if name in known else f"{name} (line {line})")
    return removed


def field_names(text: str) -> Iterator[tuple[str, int]]:
    """Yields the names of fields in text format, and of extensions in brackets, with their lines."""
    for number, line in enumerate(text.splitlines(), start=1):
        for name in FIELD.findall(STRING_OR_COMMENT.sub("", line)):
            yield name, number


def write(config: Any) -> str:
    """Returns the config in text format."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def generation_of(config: Any, path: Path) -> str:
    """Returns the zoo's generation of the model, "tf1" or "tf2", which selects the engine.

    Upstream's names show it: names of Keras feature extractors end in `_keras`, and CenterNet came with TF2.

    Raises:
        UserError: the job cannot train the config, because it does not ask for boxes with labels, or has no model of
            META_ARCHITECTURES. The message names the line.
    """
    architecture = config.model.WhichOneof("model")
    if architecture not in META_ARCHITECTURES:
        raise UserError(
            f"{path}:{line_of(path, str(architecture))}: the model is {architecture or 'missing'}; "
            f"this job trains {', '.join(META_ARCHITECTURES)}"
        )
    refuse_beyond_boxes(config, path)
    refuse_infinite(config, path)
    extractor = getattr(config.model, architecture).feature_extractor.type
    return "tf2" if architecture == "center_net" or extractor.endswith("_keras") else "tf1"


def refuse_beyond_boxes(config: Any, path: Path) -> None:
    """Raises UserError, with the line, for a config that asks for more or for less than boxes with labels."""
    for name in names_set(config):
        if name in BEYOND_BOXES:
            raise UserError(f"{path}:{line_of(path, name)}: {name}: this job trains boxes only; remove it")
    if config.model.faster_rcnn.number_of_stages == 1:
        raise UserError(
            f"{path}:{line_of(path, 'number_of_stages')}: a model of one stage finds boxes without labels; remove "
            "number_of_stages"
        )


def refuse_infinite(config: Any, path: Path) -> None:
    """Raises UserError, with the line, for a number that is infinite or no number."""
    for name, value in numbers_in(config):
        if not math.isfinite(value):
            raise UserError(f"{path}:{line_of(path, name)}: {name} is {value}: give a finite number")


def numbers_in(message: Any) -> Iterator[tuple[str, float]]:
    """Yields name and value of every fraction in a message and in the messages in it."""
    for field, value in message.ListFields():
        for inner in value if isinstance(value, Sequence) else [value]:
            if field.message_type:
                yield from numbers_in(inner)
            elif isinstance(inner, float):
                yield field.name, inner


def names_set(message: Any) -> Iterator[str]:
    """Yields the names of all fields of a message, and of the messages in it, that are set to more than nothing."""
    for field, value in message.ListFields():
        if value or field.message_type:
            yield field.name
        if field.message_type:
            for inner in value if isinstance(value, Sequence) else [value]:
                yield from names_set(inner)


def architecture_of(config: Any) -> Any:
    """Returns the part of a config that describes the model: of an SSD, a two-stage model, or a CenterNet."""
    return getattr(config.model, config.model.WhichOneof("model"))


def input_size(config: Any) -> tuple[int, int] | None:
    """Returns height and width of a model's input if all photos get one size, and None otherwise.

    Photos that keep their shapes and are padded to a square have one size too.
    """
    resizer = architecture_of(config).image_resizer
    if resizer.HasField("fixed_shape_resizer"):
        return resizer.fixed_shape_resizer.height, resizer.fixed_shape_resizer.width
    padded = resizer.keep_aspect_ratio_resizer
    if padded.pad_to_max_dimension and padded.min_dimension == padded.max_dimension:
        return padded.max_dimension, padded.max_dimension
    return None


def refuse_empty_input(config: Any, path: Path) -> None:
    """Raises UserError, with the line, if the model's input has no size."""
    resizer = architecture_of(config).image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind is None:
        raise UserError(
            f"{path}:{line_of(path, 'image_resizer')}: image_resizer is missing: give the size of the input"
        )
    for name in ("height", "width", "min_dimension", "max_dimension"):
        size = getattr(getattr(resizer, kind), name, 1)
        if size < 1:
            raise UserError(f"{path}:{line_of(path, name)}: {name} is {size}: the model's input must have a size")


def line_of(path: Path, text: str) -> int:
    """Returns the number of the first line that holds the text outside of a comment; 1 if no line does."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return next((number for number, line in enumerate(lines, start=1) if text in line.partition("#")[0]), 1)
