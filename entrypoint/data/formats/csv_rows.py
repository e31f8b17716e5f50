"""The CSV of the TFRecord tutorials: a row for each box, with filename, class, xmin, ymin, xmax and ymax in pixels.

`width` and `height` of the photo may stand beside them. Columns are found by their names in the first row.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from entrypoint.data.boxes import Drawn, number
from entrypoint.data.formats import tables
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_file, size_of
from entrypoint.data.formats.tables import Row

WANTED = "CSV files with the columns filename, class, xmin, ymin, xmax and ymax"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
# The first of these names that is there.
NAMES, LABELS = ("filename", "image", "image_name", "file_name", "image_path"), ("class", "label", "name")


def read(files: Files) -> Source | None:
    """Reads the boxes of all tables whose columns have these names.

    Raises:
        UserError: a table is not UTF-8.
    """
    found = tables.find(files, is_table, ".csv", ".tsv")
    if not found:
        return None
    source = Source(files.root / min(found), [])
    for key, table in found.items():
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in tables.named_rows_of(table):
            rows[value_of(row, NAMES)].append(row)
        for name, boxes in rows.items():
            add_photo(source, files, key, name, boxes)
    return source


def is_table(cells: list[str]) -> bool:
    """Returns whether the first row of a table has the names of the columns."""
    words = {cell.strip().lower() for cell in cells}
    return words.issuperset(CORNERS) and bool(words.intersection(NAMES)) and bool(words.intersection(LABELS))


def value_of(row: Row, names: tuple[str, ...]) -> str:
    """Returns the value in the first of the columns that a row has."""
    return next((row[name] for name in names if name in row), "")


def add_photo(source: Source, files: Files, key: str, name: str, rows: list[Row]) -> None:
    """Adds a photo with the boxes of its rows. A row without corners and class says that the photo shows no object."""
    if not PurePosixPath(name).name:
        source.lose_photo(f"{key}: a row without a name", [])
        return
    photo = source.photo_named(files, name, key)
    if photo is None:
        return
    boxes = [row for row in rows if value_of(row, LABELS) or any(row.get(corner) for corner in CORNERS)]
    drawn: list[Annotation] = [
        Drawn(value_of(row, LABELS), *(number(row.get(corner)) for corner in CORNERS)) for row in boxes
    ]
    size = size_of(rows[0].get("width"), rows[0].get("height"))
    source.add(photo, Labelled(drawn, in_pixels=True, size=size, part=part_of_file(key), file=key))


FORMAT = AnnotationFormat("csv_rows", WANTED, read, comes_last=True)
