"""Reads the JSON documents of a bucket, for the formats that are recognised by the content of their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from entrypoint.data.boxes import Drawn
from entrypoint.data.formats.source import Files, Source
from entrypoint.system.errors import UserError

# The first FIRST files from the root down are read, and the LARGEST largest of the rest. If no file among them is of a
# known kind, no more files are read, because a bucket can have a file of another kind for each photo.
FIRST, LARGEST = 40, 10
COCO, CREATE_ML, LABELME, VIA, LABEL_STUDIO = "coco", "create_ml", "labelme", "via", "label_studio"
DAMAGED = "damaged"
# The job does not use these fields, which are many times as large as the boxes.
HEAVY = ("segmentation", "keypoints", "caption", "imageData")
COCO_LISTS = ("images", "annotations", "categories")
# The older names come from Turi Create and from programs that export for it.
IMAGE = ("image", "imagefilename", "imageURL", "filename")
ANNOTATIONS = ("annotations", "annotation")


def of_kind(files: Files, kind: str) -> dict[str, Any]:
    """Returns the bucket's documents of that kind, by their keys.

    Raises:
        UserError: there are documents of that kind, and another document is damaged.
    """
    if files.documents is None:
        files.documents = dict(read_known(files))
        files.damaged += [key for key, (name, _) in files.documents.items() if name == DAMAGED]
    found = {key: document for key, (name, document) in files.documents.items() if name == kind}
    damaged = [key for key, (name, _) in files.documents.items() if name == DAMAGED]
    if found and damaged:
        places = ", ".join(str(files.root / key) for key in damaged)
        raise UserError(f"{places}: cut off or damaged; export the annotations again, or remove what is not needed")
    return found


def read_each(files: Files, kind: str, add: Callable[[Source, Files, str, Any], None]) -> Source | None:
    """Returns what the documents of a kind hold, or None if there are none. `add` adds a document by its key."""
    found = of_kind(files, kind)
    if not found:
        return None
    source = Source(files.root / min(found), [])
    for key, document in sorted(found.items()):
        add(source, files, key, document)
    return source


def read_known(files: Files) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Yields (key, (kind, document)) of each document of a known kind, damaged ones too; parses them one by one."""
    keys = files.with_suffix(".json")
    largest = sorted(keys[FIRST:], key=lambda key: -files.entries[key].size)[:LARGEST]
    sample = [*keys[:FIRST], *largest]
    is_known = False
    for some in (sample, sorted(set(keys) - set(sample))):
        for key, content in files.read_all(some):
            kind, document = classify(content)
            if kind:
                is_known = True
                yield key, (kind, document)
        if not is_known:
            return


def classify(content: bytes) -> tuple[str, Any]:
    """Returns the kind of a document, or an empty string if it is unknown, and the parsed document."""
    try:
        document = json.loads(content.decode("utf-8-sig"), object_hook=without_heavy)
    except (ValueError, RecursionError):
        return DAMAGED if b'"annotation' in content else "", None
    tests = (
        (COCO, is_coco),
        (CREATE_ML, is_create_ml),
        (LABELME, is_labelme),
        (VIA, is_via),
        (LABEL_STUDIO, are_tasks),
    )
    return next(((kind, document) for kind, is_kind in tests if is_kind(document)), ("", None))


def without_heavy(item: dict[str, Any]) -> dict[str, Any]:
    """Returns an object of a document without the fields that the job does not use.

    A polygon becomes the box around it if there is no box.
    """
    polygons = item.get("segmentation")
    if isinstance(polygons, list) and not isinstance(item.get("bbox"), list):
        item["bbox"] = hull_of(polygons)
    for name in HEAVY:
        item.pop(name, None)
    return item


def hull_of(polygons: list[Any]) -> list[float] | None:
    """Returns x, y, width and height of the box around polygons, or None if there are no numbers.

    A polygon is a list of x1, y1, x2, y2, ...
    """
    flat = [value for each in polygons for value in (each if isinstance(each, list) else [each])]
    box = Drawn.from_points(None, flat[::2], flat[1::2])
    if box.x is None or box.y is None or box.x2 is None or box.y2 is None:
        return None
    return [box.x, box.y, box.x2 - box.x, box.y2 - box.y]


def is_coco(document: Any) -> bool:
    """Returns whether a document holds boxes: captions and panoptic segments have annotations of another form."""
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list | dict) for name in COCO_LISTS):
        return False
    boxes = [each for each in rows_of(document, "annotations") if isinstance(each, dict)]
    return not boxes or any(isinstance(each.get("bbox"), list) for each in boxes)


def rows_of(document: dict[str, Any], name: str) -> list[Any]:
    """Returns a list of COCO. Some scripts write it as an object by the ids."""
    rows = document[name]
    return list(rows.values()) if isinstance(rows, dict) else rows


def is_create_ml(document: Any) -> bool:
    """Returns whether a document is a list with photos in it."""
    return isinstance(document, list) and any(is_entry(entry) for entry in document)


def is_labelme(document: Any) -> bool:
    """Returns whether a document has the shapes on a photo."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("shapes"), list)
        and isinstance(document.get("imagePath"), str)
    )


def is_via(document: Any) -> bool:
    """Returns whether a document has photos with regions, by any keys."""
    if not isinstance(document, dict):
        return False
    photos = document.get("_via_img_metadata", document)
    return isinstance(photos, dict) and any(is_via_entry(entry) for entry in photos.values())


def is_via_entry(entry: Any) -> bool:
    """Returns whether an item of the VGG Image Annotator is a photo."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("filename"), str)
        and isinstance(entry.get("regions"), list | dict)
    )


def are_tasks(document: Any) -> bool:
    """Returns whether a document is a list with tasks of Label Studio in it."""
    return isinstance(document, list) and any(is_task(task) for task in document)


def is_task(task: Any) -> bool:
    """Returns whether an item of Label Studio's list is a task."""
    return isinstance(task, dict) and isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list)


def is_entry(entry: Any) -> bool:
    """Returns whether an item of CreateML's list is a photo."""
    return (
        isinstance(entry, dict) and isinstance(first(entry, IMAGE), str) and isinstance(first(entry, ANNOTATIONS), list)
    )


def first(entry: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Returns the value of the first of the names that the entry has, or None."""
    return next((entry[name] for name in names if name in entry), None)
