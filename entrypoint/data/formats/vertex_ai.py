"""The import files of Vertex AI and AutoML Vision (cloud.google.com/vertex-ai/docs, "Prepare image training data").

A row of the CSV has the part of the split, the address gs://... of the photo, the label, and two or four corners as x,
y in fractions of the photo: `TRAINING,gs://bucket/a.jpg,cat,0.1,0.2,,,0.5,0.6,,`. A line of the JSON Lines has
`imageGcsUri` and `boundingBoxAnnotations`. A photo without a label was never labelled.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from entrypoint.data.boxes import Drawn, number
from entrypoint.data.formats import tables
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.encoding import decode
from entrypoint.data.formats.source import PARTS, Annotation, Files, Labelled, Source, text
from entrypoint.system import foreign

WANTED = "CSV files with rows such as TRAINING,gs://bucket/a.jpg,cat,0.1,0.2,,,0.5,0.6,, or the same as JSON Lines"
SCHEME = "gs://"
ADDRESS, BOXES = "imageGcsUri", "boundingBoxAnnotations"
USE = "aiplatform.googleapis.com/ml_use"
CORNERS = ("xMin", "yMin", "xMax", "yMax")
MEND = "it is not one JSON object on each line: export the annotations again"


@dataclass(frozen=True)
class Entry:
    """A box on a photo."""

    address: str
    part: str | None
    box: Drawn


def read(files: Files) -> Source | None:
    """Reads the boxes of all import files in the bucket.

    Raises:
        UserError: a file is not UTF-8, or a line of it is damaged.
    """
    found = tables.find(files, lambda cells: any(cell.startswith(SCHEME) for cell in cells[:2]), ".csv")
    entries = {key: list(entries_of_table(table)) for key, table in found.items()}
    lines = tables.first_rows(files, files.with_suffix(".jsonl"))
    ours = [key for key, cells in lines.items() if any(ADDRESS in cell for cell in cells)]
    entries |= {key: list(entries_of_lines(files, key)) for key in ours}
    if not entries:
        return None
    source = Source(files.root / min(entries), [])
    for key, each in sorted(entries.items()):
        drawn: dict[tuple[str, str | None], list[Annotation]] = defaultdict(list)
        for entry in each:
            drawn[entry.address, entry.part].append(entry.box)
        for (address, part), boxes in drawn.items():
            if photo := source.photo_named(files, address, key):
                source.add(photo, Labelled(boxes, part=part, file=key))
    return source


def entries_of_table(table: str) -> Iterator[Entry]:
    """Yields the boxes of a CSV file. A row begins with the address of a photo, or with a part of the split before."""
    for cells in tables.rows_of(table):
        start = next((index for index, cell in enumerate(cells) if SCHEME in cell), None)
        if start is None:
            continue
        label, *corners = cells[start + 1 :] or [""]
        if label or any(corners):
            part = part_of(cells[0]) if start else None
            yield Entry(cells[start], part, Drawn.from_points(label, corners[::2], corners[1::2]))


def part_of(use: Any) -> str | None:
    """Returns the split that a use means: TRAIN, TRAINING, VALIDATE, VALIDATION or TEST; None for any other."""
    word = use.lower() if isinstance(use, str) else ""
    return PARTS.get("validation" if word == "validate" else word)


def entries_of_lines(files: Files, key: str) -> Iterator[Entry]:
    """Yields the boxes of a file of JSON Lines."""
    for row, line in enumerate(decode(files.read(key), files.root / key).splitlines(), 1):
        if not line.strip():
            continue
        with foreign.parsing(f"{files.root / key} line {row}", MEND):
            document = json.loads(line)
        if isinstance(document, dict) and isinstance(document.get(ADDRESS), str):
            yield from entries_of_photo(document)


def entries_of_photo(document: dict[str, Any]) -> Iterator[Entry]:
    """Yields the boxes of a photo."""
    uses, boxes = document.get("dataItemResourceLabels"), document.get(BOXES)
    part = part_of(uses.get(USE)) if isinstance(uses, dict) else None
    for each in boxes if isinstance(boxes, list) else []:
        values = each if isinstance(each, dict) else {}
        corners = (number(values.get(name, 0)) for name in CORNERS)
        yield Entry(document[ADDRESS], part, Drawn(text(values.get("displayName")), *corners))


FORMAT = AnnotationFormat("vertex_ai", WANTED, read, comes_last=True)
