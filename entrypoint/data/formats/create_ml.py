"""CreateML's JSON (Apple's documentation, "Building an Object Detector Data Source"): photos with boxes.

A file is a list of `{image, annotations: [{label, coordinates: {x, y, width, height}}]}`, in pixels. x and y are the
middle of the box.
"""

from __future__ import annotations

from typing import Any

from entrypoint.data.boxes import Drawn, NoBox
from entrypoint.data.formats import cloud_annotations, documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.documents import ANNOTATIONS, IMAGE, first
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_file, text

WANTED = "JSON files with a list of `image` and `annotations`"


def read(files: Files) -> Source | None:
    """Reads the boxes of all CreateML files in the bucket."""
    return documents.read_each(files, documents.CREATE_ML, read_document)


def read_document(source: Source, files: Files, key: str, document: Any) -> None:
    """Adds the photos of a CreateML file."""
    for entry in filter(documents.is_entry, document):
        read_entry(source, files, key, entry)


def read_entry(source: Source, files: Files, key: str, entry: dict[str, Any]) -> None:
    """Adds a photo with its annotations."""
    name = first(entry, IMAGE)
    photo = source.photo_named(files, name, key)
    if photo is None:
        return
    drawn: list[Annotation] = [read_annotation(annotation) for annotation in first(entry, ANNOTATIONS)]
    source.add(photo, Labelled(drawn, in_pixels=True, part=part_of_file(key), file=key))


def read_annotation(annotation: Any) -> Drawn | NoBox:
    """Returns the box of an annotation. Without `coordinates`, the annotation is read as Cloud Annotations has it."""
    coordinates = annotation.get("coordinates") if isinstance(annotation, dict) else None
    if not isinstance(coordinates, dict):
        return cloud_annotations.read_annotation(annotation)
    values = (coordinates.get(name) for name in ("x", "y", "width", "height"))
    return Drawn.from_centre(text(annotation.get("label")), *values)


FORMAT = AnnotationFormat("create_ml", WANTED, read)
