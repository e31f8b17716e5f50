"""Label Studio's own JSON (labelstud.io, "Export Annotations", JSON): a list of tasks.

A task has the address of its photo in `data`, and `annotations` with a `result` each. A region of the result has its
corners in percent of the upright photo, `original_width` and `original_height`, and may be rotated about its upper left
corner, clockwise in degrees.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Any

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, Unread, number
from entrypoint.data.formats import documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import (
    PHOTO_SUFFIXES,
    Annotation,
    Files,
    Labelled,
    Source,
    part_of_file,
    path_of,
    readings,
    size_of,
    text,
)

WANTED = "JSON files with a list of tasks of Label Studio"
# The names of uploaded files begin with eight digits that Label Studio adds.
ADDED = re.compile(r"^[0-9a-f]{8}-")
SHAPES = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "keypointlabels")


def read(files: Files) -> Source | None:
    """Reads the boxes of all tasks in the bucket's files of Label Studio."""
    return documents.read_each(files, documents.LABEL_STUDIO, read_document)


def read_document(source: Source, files: Files, key: str, document: Any) -> None:
    """Adds the photos of a file of Label Studio."""
    for task in filter(documents.is_task, document):
        read_task(source, files, key, task)


def read_task(source: Source, files: Files, key: str, task: dict[str, Any]) -> None:
    """Adds the photo of a task with each of its annotations. A task without an annotation was never labelled."""
    done = [each for each in task["annotations"] if isinstance(each, dict) and not each.get("was_cancelled")]
    name = name_of(task)
    if not done or name is None:
        return
    photo = files.named(name, key) or files.named(ADDED.sub("", path_of(name).name), key)
    if photo is None:
        source.lose_photo(name, files.named_alike(name))
        return
    for annotation in done:
        rows = annotation.get("result")
        regions = [row for row in rows if is_region(row)] if isinstance(rows, list) else []
        sizes = {size_of(row.get("original_width"), row.get("original_height")) for row in regions}
        drawn = [read_region(row, photo) for row in regions]
        size = sizes.pop() if len(sizes) == 1 else None
        source.add(photo, Labelled(drawn, in_pixels=True, size=size, part=part_of_file(key), is_upright=True))


def name_of(task: dict[str, Any]) -> str | None:
    """Returns the address of the photo of a task."""
    values = [*task["data"].values(), task.get("file_upload")]
    return next((each for each in values if isinstance(each, str) and is_photo(each)), None)


def is_photo(address: str) -> bool:
    """Returns whether an address ends like a photo."""
    return any(PurePosixPath(path_of(each)).suffix.lower() in PHOTO_SUFFIXES for each in readings(address))


def is_region(row: Any) -> bool:
    """Returns whether a row of a result is a shape with a label; other rows are choices, texts and relations."""
    return isinstance(row, dict) and row.get("type") in SHAPES and isinstance(row.get("value"), dict)


def read_region(row: dict[str, Any], photo: str) -> Annotation:
    """Returns the box around a region in pixels of the photo."""
    value, size = row["value"], size_of(row.get("original_width"), row.get("original_height"))
    labels = value.get(row["type"])
    if not isinstance(labels, list) or len(labels) != 1:
        return Unread(losses.LABEL, photo)
    points = points_of(row["type"], value)
    if size is None or points is None:
        return Unread(losses.NO_BOX, photo)
    pixels = [(x * size[0] / 100, y * size[1] / 100) for x, y in points]
    turned = rotated(pixels, number(value.get("rotation")) or 0.0)
    return Drawn.from_points(text(labels[0]), [x for x, _ in turned], [y for _, y in turned])


def points_of(kind: str, value: dict[str, Any]) -> list[tuple[float, float]] | None:
    """Returns the corners of a region in percent, the point that it was rotated about first; None for other shapes."""
    if kind == "polygonlabels":
        rows = value.get("points")
        pairs = [tuple(map(number, row)) for row in rows if isinstance(row, list)] if isinstance(rows, list) else []
        found = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and None not in pair]
        return [(x or 0.0, y or 0.0) for x, y in found] or None
    names = ("x", "y", "radiusX", "radiusY") if kind == "ellipselabels" else ("x", "y", "width", "height")
    numbers = [number(value.get(name)) for name in names]
    if kind not in ("rectanglelabels", "ellipselabels") or None in numbers:
        return None
    x, y, width, height = (each or 0.0 for each in numbers)
    if kind == "ellipselabels":
        return [(x - width, y - height), (x + width, y - height), (x + width, y + height), (x - width, y + height)]
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def rotated(points: list[tuple[float, float]], degrees: float) -> list[tuple[float, float]]:
    """Returns points that are rotated clockwise about the first one."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0 = points[0]
    return [(x0 + (x - x0) * cosine - (y - y0) * sine, y0 + (x - x0) * sine + (y - y0) * cosine) for x, y in points]


FORMAT = AnnotationFormat("label_studio", WANTED, read, comes_last=True)
