"""COCO's JSON (cocodataset.org, "Data format", object detection): one file, or one per split.

`images` with file_name, width and height; `annotations` with bbox as [x, y, width, height] in pixels from the upper
left corner; `categories` with id and name.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from entrypoint.formats import documents
from entrypoint.formats.source import CROWD, Files, Labelled, Source, box_of_size, number, part_of_file, size_of

WANTED = "JSON files with `images`, `annotations` and `categories`"


def read(files: Files) -> Source | None:
    """The boxes of all of COCO's files in the bucket; of those named `instances...` alone where there are such.

    The published data sets have the same photos once more under `person_keypoints...`.
    """
    found = {key: document for key, document in documents.all_in(files).items() if is_coco(document)}
    instances = {key: each for key, each in found.items() if PurePosixPath(key).name.startswith("instances")}
    found = instances or found
    if not found:
        return None
    source = Source(files.root / min(found), labels_of(list(found.values())))
    for key, document in sorted(found.items()):
        read_file(source, files, key, document)
    return source


def is_coco(document: Any) -> bool:
    """Whether a document is one of boxes; captions and panoptic segments have other annotations."""
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in lists):
        return False
    boxes = [each for each in document["annotations"] if isinstance(each, dict)]
    return not boxes or any("bbox" in each for each in boxes)


def labels_of(found: list[dict[str, Any]]) -> list[str]:
    """The names of the categories in the order of their ids; each name once."""
    categories = [
        (number(each.get("id")) or 0.0, each["name"])
        for document in found
        for each in document["categories"]
        if isinstance(each, dict) and isinstance(each.get("name"), str)
    ]
    return list(dict.fromkeys(name for _, name in sorted(categories, key=lambda pair: pair[0])))


def read_file(source: Source, files: Files, key: str, document: dict[str, Any]) -> None:
    """Adds the photos of one file and what is drawn on them."""
    names = {str(each.get("id")): each.get("name") for each in document["categories"] if isinstance(each, dict)}
    drawn: dict[str, list[Any]] = defaultdict(list)
    for each in document["annotations"]:
        if isinstance(each, dict):
            drawn[str(each.get("image_id"))].append(read_annotation(each, names))
    for image in document["images"]:
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name:
            continue
        photo = files.named(name, key)
        if photo is None:
            source.missing.append(name)
            continue
        size = size_of(image.get("width"), image.get("height"))
        labelled = Labelled([], in_pixels=True, size=size, part=part_of_file(key))
        source.images.setdefault(photo, labelled).annotations += drawn[str(image.get("id"))]


def read_annotation(annotation: dict[str, Any], names: dict[str, Any]) -> Any:
    """The box; a crowd's, which stands for objects that nobody parted, says so instead of being one object."""
    bbox = annotation.get("bbox")
    if annotation.get("iscrowd") in (1, True):
        return CROWD
    values = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None] * 4
    return box_of_size(names.get(str(annotation.get("category_id"))), *map(number, values))
