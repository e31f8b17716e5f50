"""Reads `_annotations.json` in the bucket's root, as Cloud Annotations 1.0 and v2 write it."""

from __future__ import annotations

import json
from typing import Any

from entrypoint.data.boxes import Drawn, NoBox, number
from entrypoint.data.formats import documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_folders
from entrypoint.system import foreign
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

FILE = "_annotations.json"
WANTED = f"{FILE} in the root"
# The label that the page writes for "mark as negative".
NEGATIVE = "Negative"
CORNERS = ("x", "y", "x2", "y2")


def read(files: Files) -> Source | None:
    """Reads the boxes of the file by the keys in it, which need not be keys of photos in the bucket.

    Raises:
        UserError: the file is damaged, or does not hold photos with boxes.
    """
    if FILE not in files.keys:
        return None
    content = files.read(FILE)
    if b'"categories"' in content and documents.classify(content)[0] == documents.COCO:
        return None
    document = read_document(files.root / FILE, content)
    drawn = read_v2(document) if isinstance(document.get("images"), dict) else read_v1(document)
    images = {key: Labelled(boxes, part=part_of_folders(key)) for key, boxes in drawn.items()}
    return Source(files.root / FILE, declared_labels(document), images)


def read_document(path: Place, content: bytes) -> dict[str, Any]:
    """Returns the JSON object in the file; raises UserError if the file has none, or holds no photos with boxes."""
    with foreign.parsing(str(path), "it is not JSON in UTF-8, or it is cut off: export the annotations again"):
        document = json.loads(content.decode("utf-8-sig"))
    if not isinstance(document, dict):
        raise UserError(f"{path} holds a JSON {type(document).__name__}, but an object is expected")
    if (document.get("type") or "localization") != "localization":
        raise UserError(
            f"{path} has type {document['type']!r}: a detector needs boxes; label the photos in a localization project"
        )
    if not isinstance(document.get("annotations"), dict):
        raise UserError(f"{path} has no `annotations` object: it is not a file of Cloud Annotations 1.0 or v2")
    return document


def read_v1(document: dict[str, Any]) -> dict[str, list[Annotation]]:
    """Returns the annotations of version 1.0 by the photo's key; each has x, y, x2, y2 and label."""
    entries = {key: value if isinstance(value, list) else [value] for key, value in document["annotations"].items()}
    return {key: [read_annotation(each) for each in value] for key, value in entries.items()}


def read_annotation(annotation: Any) -> Drawn | NoBox:
    """Returns an annotation of version 1.0. The page writes "mark as negative" as a label without corners."""
    if not isinstance(annotation, dict):
        return NoBox.UNKNOWN
    if annotation.get("label") == NEGATIVE and not any(corner in annotation for corner in CORNERS):
        return NoBox.NEGATIVE
    x, y, x2, y2 = (number(annotation.get(corner)) for corner in CORNERS)
    return Drawn(annotation.get("label"), x, y, x2, y2)


def read_v2(document: dict[str, Any]) -> dict[str, list[Annotation]]:
    """Returns the annotations of version v2, whose document has images, labels and annotations by id."""
    labels = document.get("labels")
    entries = labels if isinstance(labels, dict) else {}
    names = {key: entry.get("name") for key, entry in entries.items() if isinstance(entry, dict)}
    found: dict[str, list[Annotation]] = {}
    for key, entry in sorted(document["images"].items()):
        image = entry if isinstance(entry, dict) else {}
        ids = image["annotations"] if isinstance(image.get("annotations"), list) else []
        if not ids and image.get("status") in (None, "unlabeled", "unlabelled"):
            continue
        found.setdefault(str(image.get("id", key)), []).extend(
            hull(document["annotations"].get(str(each)), names) for each in ids
        )
    return found


def hull(annotation: Any, names: dict[str, Any]) -> Drawn | NoBox:
    """Returns the box of a v2 annotation: the hull of its four targets. Without targets, the corners are None."""
    if not isinstance(annotation, dict):
        return NoBox.UNKNOWN
    label, targets = names.get(str(annotation.get("label"))), annotation.get("targets")
    if not isinstance(targets, list) or not targets or not all(isinstance(target, dict) for target in targets):
        return NoBox.NEGATIVE if label == NEGATIVE else Drawn(label, None, None, None, None)
    return Drawn.from_points(label, *([target.get(axis) for target in targets] for axis in ("x", "y")))


def declared_labels(document: dict[str, Any]) -> list[str]:
    """Returns the labels that the file lists, in the same order."""
    labels = document.get("labels")
    if isinstance(labels, dict):
        labels = [entry.get("name") for entry in labels.values() if isinstance(entry, dict)]
    return [label.strip() for label in labels if isinstance(label, str)] if isinstance(labels, list) else []


FORMAT = AnnotationFormat("cloud_annotations", WANTED, read, comes_first=True)
