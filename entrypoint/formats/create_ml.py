"""CreateML's JSON (Apple's documentation, "Building an Object Detector Data Source"): photos with boxes.

A list of `{image, annotations: [{label, coordinates: {x, y, width, height}}]}`; pixels, x and y in the box's middle.
"""

from __future__ import annotations

from typing import Any

from entrypoint.formats import documents
from entrypoint.formats.source import Files, Labelled, Source, box_of_centre, number, part_of_file

WANTED = "JSON files with a list of `image` and `annotations`"
# The older names are those of Turi Create, and of what exports for it.
IMAGE = ("image", "imagefilename", "imageURL", "filename")
ANNOTATIONS = ("annotations", "annotation")


def read(files: Files) -> Source | None:
    """The boxes of all of CreateML's files in the bucket."""
    found = {key: document for key, document in documents.all_in(files).items() if is_create_ml(document)}
    if not found:
        return None
    source = Source(files.root / min(found), [])
    for key, document in sorted(found.items()):
        for entry in document:
            if is_entry(entry):
                read_entry(source, files, key, entry)
    return source


def is_create_ml(document: Any) -> bool:
    """Whether a document is a list with photos in it."""
    return isinstance(document, list) and any(is_entry(entry) for entry in document)


def is_entry(entry: Any) -> bool:
    """Whether an item of the list is a photo."""
    return (
        isinstance(entry, dict) and isinstance(first(entry, IMAGE), str) and isinstance(first(entry, ANNOTATIONS), list)
    )


def first(entry: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of the names that there is."""
    return next((entry[name] for name in names if name in entry), None)


def read_entry(source: Source, files: Files, key: str, entry: dict[str, Any]) -> None:
    """Adds a photo and what is drawn on it."""
    name = first(entry, IMAGE)
    photo = files.named(name, key)
    if photo is None:
        source.missing.append(name)
        return
    labelled = Labelled([], in_pixels=True, part=part_of_file(key))
    drawn = source.images.setdefault(photo, labelled).annotations
    drawn += [read_annotation(annotation) for annotation in first(entry, ANNOTATIONS)]


def read_annotation(annotation: Any) -> Any:
    """The box by its corners; what is no box stays as it is."""
    coordinates = annotation.get("coordinates") if isinstance(annotation, dict) else None
    if not isinstance(coordinates, dict):
        return annotation if isinstance(annotation, dict) else None
    values = (number(coordinates.get(name)) for name in ("x", "y", "width", "height"))
    return box_of_centre(annotation.get("label"), *values)
