"""The CSV of Open Images (storage.googleapis.com/openimages, "Data formats"): a row for each box.

ImageID is the name of a photo without its ending, and LabelName the identifier of a class, such as /m/0199g. XMin,
XMax, YMin and YMax are fractions of the photo. class-descriptions-boxable.csv has the names of the classes.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from entrypoint.data.boxes import Drawn, NoBox, number
from entrypoint.data.formats import tables
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.encoding import decode
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_file
from entrypoint.data.formats.tables import Row

WANTED = "CSV files with the columns ImageID, LabelName, XMin, XMax, YMin and YMax"
COLUMNS = {"imageid", "labelname", "xmin", "xmax", "ymin", "ymax"}
DESCRIPTIONS = "class-descriptions"
NO_DESCRIPTION = "identifier of a class without a name in class-descriptions-boxable.csv, taken as the label"


def read(files: Files) -> Source | None:
    """Reads the boxes of all tables whose columns have these names.

    Raises:
        UserError: a table is not UTF-8.
    """
    found = tables.find(files, is_table, ".csv")
    if not found:
        return None
    names = read_names(files)
    source = Source(files.root / min(found), [])
    for key, table in found.items():
        rows: dict[str, list[Row]] = defaultdict(list)
        for row in tables.named_rows_of(table):
            rows[row.get("imageid", "")].append(row)
        for name, boxes in rows.items():
            add_photo(source, files, key, name, [read_row(row, names) for row in boxes])
        for label in sorted({row.get("labelname", "") for each in rows.values() for row in each} - names.keys()):
            source.tell(NO_DESCRIPTION, label)
    return source


def is_table(cells: list[str]) -> bool:
    """Returns whether the first row of a table has the names of the columns."""
    return {cell.strip().lower() for cell in cells} >= COLUMNS


def read_names(files: Files) -> dict[str, str]:
    """Returns the names of the classes by their identifiers."""
    keys = [key for key in files.with_suffix(".csv") if PurePosixPath(key).name.startswith(DESCRIPTIONS)]
    found = [decode(content, files.root / key) for key, content in files.read_all(keys)]
    return {row[0]: row[1] for table in found for row in tables.rows_of(table) if len(row) == 2}


def add_photo(source: Source, files: Files, key: str, name: str, drawn: list[Annotation]) -> None:
    """Adds the photo of that name with its boxes."""
    part = part_of_file(key)
    candidates = files.by_stem.of(name).of_split(part, ())
    photo = candidates.nearest((), part) if name else None
    if photo is None:
        source.lose_photo(name or f"{key}: a row without a name", candidates.keys if name else [])
        return
    source.add(photo, Labelled(drawn, part=part, file=key))


def read_row(row: Row, names: dict[str, str]) -> Drawn | NoBox:
    """Returns the box of a row; NoBox.CROWD for a box around a group of more than five objects."""
    if row.get("isgroupof") == "1":
        return NoBox.CROWD
    label = row.get("labelname", "")
    return Drawn(names.get(label, label), *(number(row.get(name)) for name in ("xmin", "ymin", "xmax", "ymax")))


FORMAT = AnnotationFormat("open_images", WANTED, read, comes_last=True)
