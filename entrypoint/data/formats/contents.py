"""What lies in a bucket whose annotations are in no format that the job reads, and what is lacking."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from entrypoint.data.boxes import number
from entrypoint.data.formats.source import Files

SHOWN = 5  # kinds of files
MOST_BYTES = 1 << 20  # of a file that is looked at
CONVERT = "convert them to a format above"
LIST = (
    "put the labels into classes.txt, one on each line, in the order of their numbers, or take the numbers as labels "
    "with DATA_FORMAT=yolo"
)
# A tool that writes JSON -> the keys of its documents.
TOOLS = {"Supervisely": {"objects", "size"}, "V7": {"item", "annotations"}, "Labelbox": {"data_row", "projects"}}


def describe(files: Files) -> str:
    """Returns sentences about the files of a bucket, for a message about annotations that were not found."""
    count = Counter(PurePosixPath(key).suffix.lower() or "no ending" for key in files.keys if key not in files.photos)
    others = ", ".join(f"{number} {suffix}" for suffix, number in count.most_common(SHOWN))
    found = f"The bucket has {len(files.photos)} photos and {sum(count.values())} other files"
    return ". ".join([f"{found} ({others})" if others else found, *near_misses(files)])


def near_misses(files: Files) -> Iterator[str]:
    """Yields what each kind of file looks like, and how it can be read."""
    lines = [key for key in files.with_suffix(".txt") if PurePosixPath(key).stem in files.by_stem]
    if lines and is_yolo(files, lines[0]):
        yield f"{len(lines)} text files such as {lines[0]} are in YOLO's form, and no file lists the labels: {LIST}"
    if tables := files.with_suffix(".csv"):
        yield f"{tables[0]} is a table without the columns that this job reads: {CONVERT}"
    for key in files.with_suffix(".json")[:1]:
        if tool := tool_of(files, key):
            yield f"{key} is from {tool}, whose own JSON this job does not read: {CONVERT}, such as COCO"


def is_yolo(files: Files, key: str) -> bool:
    """Returns whether the first line of a text file has a class and four numbers."""
    words = files.read(key, MOST_BYTES).decode("latin-1").split("\n")[0].replace(",", " ").split()
    return len(words) >= 5 and None not in map(number, words)


def tool_of(files: Files, key: str) -> str | None:
    """Returns the tool that wrote a JSON document in its own form, or None if it is not known."""
    try:
        document: Any = json.loads(files.read(key, MOST_BYTES))
    except (ValueError, RecursionError):
        return None
    first = document[0] if isinstance(document, list) and document else document
    keys = first.keys() if isinstance(first, dict) else set()
    return next((tool for tool, wanted in TOOLS.items() if wanted <= keys), None)
