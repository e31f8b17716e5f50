"""COCO's JSON (cocodataset.org, "Data format", object detection): one file, or one per split.

`images` have file_name, width and height. `annotations` have bbox as [x, y, width, height] in pixels from the upper
left corner. `categories` have id and name.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from entrypoint.data.boxes import Drawn, NoBox, number
from entrypoint.data.formats import documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Files, Labelled, Source, part_of_file, size_of, text

WANTED = "JSON files with `images`, `annotations` and `categories`"


def read(files: Files) -> Source | None:
    """Reads the boxes of all COCO files in the bucket; if files are named `instances...`, reads only these.

    The published data sets contain the same photos again in `person_keypoints...`.
    """
    found = documents.of_kind(files, documents.COCO)
    instances = {key: each for key, each in found.items() if PurePosixPath(key).name.startswith("instances")}
    found = instances or found
    if not found:
        return None
    source = Source(files.root / min(found), labels_of(list(found.values())))
    for key, document in sorted(found.items()):
        read_file(source, files, key, document)
    return source


def labels_of(found: list[dict[str, Any]]) -> list[str]:
    """Returns the names of the categories in the order of their ids, each name once."""
    categories = [
        (number(each.get("id")) or 0.0, name)
        for document in found
        for each in document["categories"]
        if isinstance(each, dict) and (name := text(each.get("name"))) is not None
    ]
    return list(dict.fromkeys(name for _, name in sorted(categories, key=lambda pair: pair[0])))


def read_file(source: Source, files: Files, key: str, document: dict[str, Any]) -> None:
    """Adds the photos of one file with their annotations."""
    names = {identity(each.get("id")): text(each.get("name")) for each in document["categories"] if is_object(each)}
    drawn: dict[str, list[Drawn | NoBox]] = defaultdict(list)
    for each in filter(is_object, document["annotations"]):
        drawn[identity(each.get("image_id"))].append(read_annotation(each, names))
    for image in filter(is_object, document["images"]):
        boxes = drawn.pop(identity(image.get("id")), [])
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            continue
        photo = files.named(name, key)
        if photo is None:
            source.missing.append(name)
            continue
        size = size_of(image.get("width"), image.get("height"))
        source.add(photo, Labelled(boxes, in_pixels=True, size=size, part=part_of_file(key)))
    for image_id, boxes in drawn.items():
        for _ in boxes:
            source.tell("annotation of a photo that its file does not list, skipped", f"{key}: image_id {image_id}")


def is_object(item: Any) -> bool:
    """Returns whether an item of a list can be an image, an annotation or a category."""
    return isinstance(item, dict)


def identity(value: Any) -> str:
    """Returns an id as text to compare. 1, 1.0 and "1" are equal, because tools for tables write integers as floats."""
    value = number(value) if isinstance(value, float) else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_annotation(annotation: dict[str, Any], names: dict[str, str | None]) -> Drawn | NoBox:
    """Returns the box of an annotation.

    Returns NoBox.CROWD for a crowd: its box holds many objects that nobody separated.
    """
    bbox = annotation.get("bbox")
    if annotation.get("iscrowd") in (1, True):
        return NoBox.CROWD
    values = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None] * 4
    return Drawn.from_size(names.get(identity(annotation.get("category_id"))), *values)


FORMAT = AnnotationFormat("coco", WANTED, read)
