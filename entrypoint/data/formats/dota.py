"""DOTA's text files (captain-whu.github.io/DOTA, "Annotation format"): one per photo, with corners of rotated boxes.

A line is `x1 y1 x2 y2 x3 y3 x4 y4 class difficulty` in pixels, and the box is the smallest one around the corners. The
lines `imagesource:` and `gsd:` come before the boxes. An empty file means a photo without objects.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, Unread, number
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Annotation, Files, Labelled, Source, part_of_folders

WANTED = "one text file per photo in DOTA's form, with eight numbers and a class on each line"
FOLDER = "labelTxt"  # the folder of the text files in the published data set
HEADS = ("imagesource:", "gsd:")
NUMBERS = 8
WORDS = (NUMBERS + 1, NUMBERS + 2)  # with or without the difficulty
TRIED = 20  # files, of which one can be empty


def read(files: Files) -> Source | None:
    """Reads all text files that belong to photos if the first of them have lines of this form."""
    keys = [key for key in files.with_suffix(".txt") if is_of_photo(files, key)]
    if not any(has_boxes(content) for _, content in files.read_all(keys[:TRIED])):
        return None
    source = Source(files.root, [])
    claims = []
    for key, content in files.read_all(keys):
        photo = source.photo_beside(files, key)
        lines = source.lines_of(key, content) if photo else None
        if photo is None or lines is None:
            continue
        drawn = [read_line(line, f"{key} line {row}") for row, line in enumerate(lines, 1) if is_box(line)]
        claims.append((photo, key, Labelled(drawn, in_pixels=True, part=part_of_folders(photo))))
    source.add_files(claims)
    return source


def is_of_photo(files: Files, key: str) -> bool:
    """Returns whether a text file can belong to a photo."""
    path = PurePosixPath(key)
    return path.stem in files.by_stem or FOLDER in path.parts[:-1]


def has_boxes(content: bytes) -> bool:
    """Returns whether the first box of a file is of this form."""
    first = next(filter(is_box, content.decode("latin-1").splitlines()), "")
    return isinstance(read_line(first, ""), Drawn)


def is_box(line: str) -> bool:
    """Returns whether a line has a box: it is neither blank nor about the photo."""
    return bool(line.strip()) and not line.startswith(HEADS)


def read_line(line: str, where: str) -> Annotation:
    """Returns the smallest box around the corners of a line."""
    words = line.split()
    if len(words) not in WORDS:
        return Unread(losses.WORDS, f"{where}: {len(words)} words")
    corners = words[:NUMBERS]
    if None in map(number, corners) or number(words[NUMBERS]) is not None:
        return Unread(losses.NUMBERS, f"{where}: {line.strip()[:40]}")
    return Drawn.from_points(words[NUMBERS], corners[::2], corners[1::2])


FORMAT = AnnotationFormat("dota", WANTED, read, comes_last=True)
