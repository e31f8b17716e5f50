"""COCO's JSON (cocodataset.org, "Data format", object detection): one file, or one per split.

`images` have file_name, width and height. `annotations` have bbox as [x, y, width, height] in pixels from the upper
left corner. `categories` have id and name.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, NoBox, Unread, number
from entrypoint.data.formats import documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.documents import rows_of
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_file, size_of, text
from entrypoint.data.units import LEAST_BOXES, MOST_LEAVING
from entrypoint.system.errors import UserError

CORNERS = "boxes as two corners and not as a corner and a size, read as such"
# Label Studio draws on upright photos and writes the sizes of the stored ones.
UPRIGHT_TOOL = "label studio"
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
        for each in filter(is_object, rows_of(document, "categories"))
        if (name := text(each.get("name"))) is not None
    ]
    return list(dict.fromkeys(name for _, name in sorted(categories, key=lambda pair: pair[0])))


def read_file(source: Source, files: Files, key: str, document: dict[str, Any]) -> None:
    """Adds the photos of one file with their annotations."""
    names = names_of(files, key, document)
    images = list(filter(is_object, rows_of(document, "images")))
    units = dataclasses.replace(
        units_of(document, images), is_upright=UPRIGHT_TOOL in str(document.get("info")).lower()
    )
    if units.told:
        source.tell(units.told, key)
    drawn: dict[str, list[Annotation]] = defaultdict(list)
    for each in filter(is_object, rows_of(document, "annotations")):
        drawn[identity(each.get("image_id"))].append(read_annotation(each, names, units))
    uses = Counter(identity(each.get("id")) for each in images)
    for image in images:
        add_image(source, files, key, image, drawn, units, is_shared=uses[identity(image.get("id"))] > 1)
    for image_id in drawn.keys() - uses.keys():
        for _ in drawn[image_id]:
            source.tell("annotation of a photo that its file does not list, skipped", f"{key}: image_id {image_id}")


def add_image(
    source: Source,
    files: Files,
    key: str,
    image: dict[str, Any],
    drawn: dict[str, list[Annotation]],
    units: Units,
    *,
    is_shared: bool,
) -> None:
    """Adds a photo with its annotations. `is_shared` means that another photo has its id."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        return
    photo = source.photo_named(files, name, key)
    if photo is None:
        return
    boxes = drawn.get(identity(image.get("id")), [])
    if is_shared and boxes:
        boxes = [Unread(losses.SAME_ID, f"{photo}: image id {image.get('id')} in {key}")]
    size = size_of(image.get("width"), image.get("height"))
    part, is_upright = part_of_file(key), units.is_upright
    source.add(photo, Labelled(boxes, in_pixels=True, size=size, part=part, is_upright=is_upright, file=key))


def names_of(files: Files, key: str, document: dict[str, Any]) -> dict[str, str | None]:
    """Returns the name of each category by its id.

    Raises:
        UserError: an id has two names.
    """
    names: dict[str, str | None] = {}
    for each in filter(is_object, rows_of(document, "categories")):
        category, name = identity(each.get("id")), text(each.get("name"))
        if names.setdefault(category, name) != name:
            raise UserError(
                f"{files.root / key} has two names for category {category}, {names[category]!r} and {name!r}: nobody "
                "knows which of them a box has; export the annotations with an id for each category"
            )
    return names


@dataclass(frozen=True)
class Units:
    """How the four numbers of a file's boxes are meant. All boxes of a file decide together."""

    are_corners: bool = False  # x1, y1, x2, y2; otherwise x, y, width, height
    told: str = ""  # what was decided, if it is not what COCO describes
    is_upright: bool = False  # the tool draws on upright photos, whatever size it writes


def units_of(document: dict[str, Any], images: list[dict[str, Any]]) -> Units:
    """Returns how the boxes of a file are meant: in another way than COCO's only if none of them speaks against it."""
    sizes = {identity(each.get("id")): size_of(each.get("width"), each.get("height")) for each in images}
    boxes = []
    for each in filter(is_object, rows_of(document, "annotations")):
        values = [number(value) for value in each["bbox"]] if isinstance(each.get("bbox"), list) else []
        if len(values) == 4 and None not in values:
            boxes.append((sizes.get(identity(each.get("image_id"))), [value for value in values if value is not None]))
    if len(boxes) < LEAST_BOXES:
        return Units()
    if all(0 <= value <= 1 for _, values in boxes for value in values):
        boxes = [((1, 1), values) for _, values in boxes]
    sized = [(size, values) for size, values in boxes if size is not None]
    leaving = sum(Drawn.from_size("", *values).leaves(*size) for size, values in sized)
    are_corners = all(
        values[0] < values[2] and values[1] < values[3] and not Drawn("", *values).leaves(*size)
        for size, values in sized
    )
    if leaving > MOST_LEAVING * len(boxes) and are_corners:
        return Units(are_corners=True, told=CORNERS)
    return Units()


def is_object(item: Any) -> bool:
    """Returns whether an item of a list can be an image, an annotation or a category."""
    return isinstance(item, dict)


def identity(value: Any) -> str:
    """Returns an id as text to compare. 1, 1.0 and "1" are equal, because tools for tables write integers as floats."""
    value = number(value) if isinstance(value, float) else value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def read_annotation(annotation: dict[str, Any], names: dict[str, str | None], units: Units) -> Annotation:
    """Returns the box of an annotation.

    Returns NoBox.CROWD for a crowd: its box holds many objects that nobody separated.
    """
    bbox = annotation.get("bbox")
    if annotation.get("iscrowd") in (1, True):
        return NoBox.CROWD
    values = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None] * 4
    label = names.get(identity(annotation.get("category_id")))
    box = Drawn(label, *map(number, values)) if units.are_corners else Drawn.from_size(label, *values)
    # CVAT writes the box as it was before it was rotated.
    attributes = annotation.get("attributes")
    degrees = number(attributes.get("rotation")) if isinstance(attributes, dict) else None
    return box.rotated(degrees) if degrees else box


FORMAT = AnnotationFormat("coco", WANTED, read)
