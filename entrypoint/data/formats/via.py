"""The JSON of the VGG Image Annotator, version 2 (www.robots.ox.ac.uk/~vgg/software/via): photos with regions.

A region has `shape_attributes`, a shape in pixels, and `region_attributes`, of which one is the label.
"""

from __future__ import annotations

from typing import Any

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, Unread, number
from entrypoint.data.formats import documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_file, text

WANTED = "JSON files with `_via_img_metadata`, or with `filename` and `regions` for each photo"
# The attribute that is the label if a region has several.
LABELS = ("label", "class", "name", "type")


def read(files: Files) -> Source | None:
    """Reads the boxes of all files of the VGG Image Annotator in the bucket."""
    return documents.read_each(files, documents.VIA, read_document)


def read_document(source: Source, files: Files, key: str, document: Any) -> None:
    """Adds the photos of a file of the VGG Image Annotator."""
    for entry in document.get("_via_img_metadata", document).values():
        if documents.is_via_entry(entry):
            read_entry(source, files, key, entry)


def read_entry(source: Source, files: Files, key: str, entry: dict[str, Any]) -> None:
    """Adds a photo with its regions."""
    name = entry["filename"]
    photo = source.photo_named(files, name, key)
    if photo is None:
        return
    regions = entry["regions"]
    rows = list(regions.values()) if isinstance(regions, dict) else regions
    drawn = [read_region(region, photo) for region in rows]
    source.add(photo, Labelled(drawn, in_pixels=True, part=part_of_file(key)))


def read_region(region: Any, photo: str) -> Annotation:
    """Returns the box around a region."""
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        return Unread(losses.NO_BOX, photo)
    label = label_of(region.get("region_attributes"))
    kind = shape.get("name")
    if kind == "rect":
        return Drawn.from_size(label, *(shape.get(name) for name in ("x", "y", "width", "height")))
    if kind in ("circle", "ellipse"):
        radii = (number(shape.get(name, shape.get("r"))) for name in ("rx", "ry"))
        sizes = (2 * radius if radius is not None else None for radius in radii)
        return Drawn.from_centre(label, shape.get("cx"), shape.get("cy"), *sizes)
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list):
        return Unread(losses.NO_BOX, photo)
    return Drawn.from_points(label, xs, ys)


def label_of(attributes: Any) -> str | None:
    """Returns the label among the attributes of a region; a choice of several is an object with the chosen ones."""
    if not isinstance(attributes, dict):
        return None
    known = [name for name in LABELS if name in attributes] or (list(attributes) if len(attributes) == 1 else [])
    value = attributes[known[0]] if known else None
    if isinstance(value, dict):
        chosen = [name for name, is_chosen in value.items() if is_chosen]
        value = chosen[0] if len(chosen) == 1 else None
    return text(value)


FORMAT = AnnotationFormat("via", WANTED, read, comes_last=True)
