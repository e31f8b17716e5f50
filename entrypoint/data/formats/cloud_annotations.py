"""Cloud Annotations, versions 1.0 and v2, as its own programs write them: `_annotations.json` in the bucket's root."""

from __future__ import annotations

import json
from typing import Any

from entrypoint.data.formats.source import Files, Labelled, Source, number, part_of_folders
from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

FILE = "_annotations.json"
WANTED = f"{FILE} in the root"


def read(files: Files) -> Source | None:
    """The boxes of the file, by the keys that it uses: whether those are photos of the bucket is still to be seen.

    Raises:
        UserError: the file is damaged, or not of photos with boxes.
    """
    if FILE not in files.keys:
        return None
    document = read_document(files.root / FILE)
    drawn = read_v2(document) if isinstance(document.get("images"), dict) else read_v1(document)
    images = {key: Labelled(boxes, part=part_of_folders(key)) for key, boxes in drawn.items()}
    return Source(files.root / FILE, declared_labels(document), images)


def read_document(path: Place) -> dict[str, Any]:
    """The JSON object in the file; UserError where there is none, or it is not of photos with boxes."""
    try:
        document = json.loads(bucket.read(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: export the annotations again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({error}): it is cut off or damaged; export the annotations again"
        ) from None
    if not isinstance(document, dict):
        raise UserError(f"{path} holds a JSON {type(document).__name__} where an object is expected")
    if (document.get("type") or "localization") != "localization":
        raise UserError(
            f"{path} has type {document['type']!r}: a detector needs boxes; label the photos in a localization project"
        )
    if not isinstance(document.get("annotations"), dict):
        raise UserError(f"{path} has no `annotations` object: it is not a file of Cloud Annotations 1.0 or v2")
    return document


def read_v1(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Version 1.0: annotations by object key, each box with x, y, x2, y2 and label."""
    return {key: value if isinstance(value, list) else [value] for key, value in document["annotations"].items()}


def read_v2(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Version v2: images, labels and annotations by id; a box is the hull of its four targets."""
    labels = document.get("labels")
    entries = labels if isinstance(labels, dict) else {}
    names = {key: entry.get("name") for key, entry in entries.items() if isinstance(entry, dict)}
    raw: dict[str, list[Any]] = {}
    for key, entry in sorted(document["images"].items()):
        image = entry if isinstance(entry, dict) else {}
        ids = image["annotations"] if isinstance(image.get("annotations"), list) else []
        if not ids and image.get("status") in (None, "unlabeled", "unlabelled"):
            continue
        raw.setdefault(str(image.get("id", key)), []).extend(
            hull(document["annotations"].get(str(each)), names) for each in ids
        )
    return raw


def hull(annotation: Any, names: dict[str, Any]) -> Any:
    """A v2 annotation in the form of version 1.0; what it lacks stays missing, for read_box to find."""
    if not isinstance(annotation, dict):
        return None
    box: dict[str, Any] = {"label": names.get(str(annotation.get("label")))}
    targets = annotation.get("targets")
    if isinstance(targets, list) and targets and all(isinstance(target, dict) for target in targets):
        for axis in ("x", "y"):
            values = [number(target.get(axis)) for target in targets]
            box[axis] = min((value for value in values if value is not None), default=None)
            box[f"{axis}2"] = max((value for value in values if value is not None), default=None)
    return box


def declared_labels(document: dict[str, Any]) -> list[str]:
    """The labels that the file lists, in its order."""
    labels = document.get("labels")
    if isinstance(labels, dict):
        labels = [entry.get("name") for entry in labels.values() if isinstance(entry, dict)]
    return [label.strip() for label in labels if isinstance(label, str)] if isinstance(labels, list) else []
