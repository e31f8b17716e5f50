"""The CSV of the TFRecord tutorials: a row for each box, with filename, class, xmin, ymin, xmax and ymax in pixels.

`width` and `height` of the photo may stand beside them. Columns are found by their names in the first row.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from entrypoint.data.boxes import Drawn, number
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.encoding import decode
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_file, size_of

WANTED = "CSV files with the columns filename, class, xmin, ymin, xmax and ymax"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
# The first of these names that is there.
NAMES, LABELS = ("filename", "image", "image_name", "file_name", "image_path"), ("class", "label", "name")
DELIMITERS = (",", ";", "\t")
HEAD = 1 << 12  # bytes in which the first row ends

Row = dict[str, str]


def read(files: Files) -> Source | None:
    """Reads the boxes of all tables whose columns have these names.

    Raises:
        UserError: a table is not UTF-8.
    """
    tables = {key: table for key, table in files.read_all(files.with_suffix(".csv", ".tsv")) if is_table(table[:HEAD])}
    if not tables:
        return None
    source = Source(files.root / min(tables), [])
    for key, table in sorted(tables.items()):
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in rows_of(decode(table, files.root / key)):
            rows[value_of(row, NAMES)].append(row)
        for name, boxes in rows.items():
            add_photo(source, files, key, name, boxes)
    return source


def is_table(head: bytes) -> bool:
    """Returns whether the first row of a file has the names of the columns."""
    first = head.decode("latin-1").lower().split("\n")[0]
    words = set(first.removeprefix("\xef\xbb\xbf").replace('"', "").strip().split(delimiter_of(first)))
    return words.issuperset(CORNERS) and bool(words.intersection(NAMES)) and bool(words.intersection(LABELS))


def delimiter_of(line: str) -> str:
    """Returns the delimiter that a line has most of."""
    return max(DELIMITERS, key=line.count)


def rows_of(table: str) -> Iterator[Row]:
    """Yields the rows of a table by the lower-case names of its columns."""
    lines = table.splitlines()
    reader = csv.reader(lines, delimiter=delimiter_of(lines[0]))
    columns = [name.strip().lower() for name in next(reader)]
    for values in reader:
        if any(value.strip() for value in values):
            yield dict(zip(columns, (value.strip() for value in values), strict=False))


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
