"""How a pipeline.config is read: upstream's TrainEvalPipelineConfig in text format, the zoo's or a user's own."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

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
