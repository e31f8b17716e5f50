"""Which labels of a training the checkpoint that it starts from was trained for: their outputs are kept.

Labels are compared by their names. The names of a checkpoint are those of the label map beside it, which every job
writes, or those of COCO if the pipeline.config beside it has as many classes as COCO has ids.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from entrypoint.engines.shared.class_outputs import Known
from entrypoint.system import foreign
from entrypoint.system.errors import UserError
from entrypoint.training.start_checkpoint import Start
from entrypoint.zoo import coco_labels, pipeline_config

logger = logging.getLogger("job")

CLASSES = re.compile(r"\bnum_classes\s*:\s*(\d+)")


def find(start: Start, labels: Sequence[str]) -> Known | None:
    """Returns which labels the checkpoint knows; None if its labels are not known, or if it knows none of these."""
    count, names = labels_of(start)
    ids = {folded(name): number for number, name in names.items()}
    places = {index: ids[folded(label)] - 1 for index, label in enumerate(labels) if folded(label) in ids}
    return Known(count, places, tuple(labels[index] for index in places)) if places else None


def labels_of(start: Start) -> tuple[int, dict[int, str]]:
    """Returns the number of labels of a checkpoint, and those of its labels that have a name, by id."""
    # A checkpoint of the zoo lies beside its pipeline.config or in a folder beside it, and so does a job's beside the
    # label map.
    folder = Path(start.prefix).parent
    for place in (folder, folder.parent):
        if (place / "label_map.pbtxt").is_file():
            names = read_label_map(place / "label_map.pbtxt")
            return max(names, default=0), names
    for place in (folder, folder.parent):
        if (place / "pipeline.config").is_file():
            text = (place / "pipeline.config").read_text(encoding="utf-8", errors="replace")
            found = CLASSES.search(pipeline_config.without_comments(text))
            count = int(found[1]) if found else 0
            return count, coco_labels.NAMES if count == coco_labels.IDS else {}
    return 0, {}


def read_label_map(path: Path) -> dict[int, str]:
    """Returns the labels of upstream's StringIntLabelMap in text format by their ids, without the background.

    A training can do without them, so a file that is no label map has none.
    """
    from google.protobuf import text_format
    from object_detection.protos import string_int_label_map_pb2

    found = string_int_label_map_pb2.StringIntLabelMap()
    try:
        with foreign.parsing(str(path), "the outputs for labels begin with random values"):
            text_format.Parse(path.read_text(encoding="utf-8"), found)
    except UserError as error:
        logger.warning("%s", error)
        return {}
    # In upstream's map of COCO, `name` is an identifier.
    return {item.id: item.display_name or item.name for item in found.item if item.id > 0}


def folded(label: str) -> str:
    """Returns a label without the differences that do not matter: case, and what separates its words."""
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
