"""Which labels of a training the checkpoint that it starts from was trained for: their outputs are kept.

Labels are compared by their names. The names of a checkpoint are those of the label map beside it, which every job
writes, or those of COCO if the pipeline.config beside it has as many classes as COCO has ids.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
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
    exact = {name: number for number, name in names.items()}
    alike = unique(names)
    # Labels that differ in case alone are different labels if both are there.
    own = unique(dict(enumerate(labels)))
    found = {
        index: exact.get(label) or (alike.get(folded(label)) if own.get(folded(label)) == index else None)
        for index, label in enumerate(labels)
    }
    places = {index: number - 1 for index, number in found.items() if number}
    if not places:
        return None
    known, fresh = (tuple(label for i, label in enumerate(labels) if (i in places) == is_in) for is_in in (True, False))
    return Known(count, places, known, fresh)


def unique(names: dict[int, str]) -> dict[str, int]:
    """Returns numbers by their folded names, without names that several have, and without empty ones."""
    counts = Counter(folded(name) for name in names.values())
    return {folded(name): number for number, name in names.items() if folded(name) and counts[folded(name)] == 1}


def labels_of(start: Start) -> tuple[int, dict[int, str]]:
    """Returns the number of labels of a checkpoint, and those of its labels that have a name, by id."""
    # A checkpoint of the zoo lies beside its pipeline.config or in a folder beside it, and so does a job's beside the
    # label map.
    folder = Path(start.prefix).parent
    for place in (folder, folder.parent):
        count = classes_of(place / "pipeline.config")
        names = read_label_map(place / "label_map.pbtxt")
        if names and max(names) <= (count or max(names)):
            return count or max(names), names
        if count is not None:
            return count, coco_labels.NAMES if count == coco_labels.IDS else {}
    return 0, {}


def classes_of(path: Path) -> int | None:
    """Returns the number of labels in a pipeline.config; None if there is no such file, or no such number in it."""
    if not path.is_file():
        return None
    found = CLASSES.search(pipeline_config.without_comments(path.read_text(encoding="utf-8", errors="replace")))
    return int(found[1]) if found else None


def read_label_map(path: Path) -> dict[int, str]:
    """Returns the labels of upstream's StringIntLabelMap in text format by their ids, without the background.

    A training can do without them, so a file that is no label map has none.
    """
    from google.protobuf import text_format
    from object_detection.protos import string_int_label_map_pb2

    found = string_int_label_map_pb2.StringIntLabelMap()
    if not path.is_file():
        return {}
    try:
        with foreign.parsing(str(path), "its labels are not known"):
            text_format.Parse(path.read_text(encoding="utf-8-sig"), found)
    except (UserError, OSError) as error:
        logger.warning("%s", error)
        return {}
    # In upstream's map of COCO, `name` is an identifier.
    return {item.id: item.display_name or item.name for item in found.item if item.id > 0}


def folded(label: str) -> str:
    """Returns a label without the differences that do not matter: case, and what separates its words."""
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())
