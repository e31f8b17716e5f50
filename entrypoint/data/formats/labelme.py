"""LabelMe's JSON (github.com/wkentaro/labelme): one file for each photo, with `imagePath` and `shapes`.

A shape has `label`, `shape_type` and `points` in pixels. A rectangle has two opposite corners, and a circle has its
middle and a point on its edge. The box of any other shape is the box around its points.
"""

from __future__ import annotations

import math
from typing import Any

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, Unread, number
from entrypoint.data.formats import documents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_folders, size_of, text

WANTED = "one JSON file per photo, with `imagePath` and `shapes`"
CIRCLE = "circle"


def read(files: Files) -> Source | None:
    """Reads the boxes of all LabelMe files in the bucket."""
    found = documents.of_kind(files, documents.LABELME)
    if not found:
        return None
    source = Source(files.root, [])
    claims = []
    for key, document in sorted(found.items()):
        # Photos are renamed together with their files, as with Pascal VOC.
        photo = files.beside(key) or files.named(document["imagePath"], key)
        if photo is None:
            source.lose_photo(document["imagePath"], files.all_beside(key))
            continue
        size = size_of(document.get("imageWidth"), document.get("imageHeight"))
        drawn = [read_shape(shape, key) for shape in document["shapes"]]
        claims.append((photo, key, Labelled(drawn, in_pixels=True, size=size, part=part_of_folders(photo))))
    source.add_files(claims)
    return source


def read_shape(shape: Any, key: str) -> Annotation:
    """Returns the box of a shape."""
    points = shape.get("points") if isinstance(shape, dict) else None
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) > 1 for point in points):
        return Unread(losses.NO_BOX, key)
    label = text(shape.get("label"))
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    if shape.get("shape_type") != CIRCLE:
        return Drawn.from_points(label, xs, ys)
    values = [number(value) for value in (*xs[:2], *ys[:2])]
    if len(values) < 4 or None in values:
        return Unread(losses.CORNERS, key)
    x, edge_x, y, edge_y = (value or 0.0 for value in values)
    diameter = 2 * math.hypot(edge_x - x, edge_y - y)
    return Drawn.from_centre(label, x, y, diameter, diameter)


FORMAT = AnnotationFormat("labelme", WANTED, read, comes_last=True)
