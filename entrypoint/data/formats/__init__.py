"""The formats of annotations: one module each, which recognises its files and reads them into a Source.

`read(files)` gives the Source, or None where nothing of the format lies in the bucket; WANTED says what would have to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from entrypoint.data.formats import cloud_annotations, coco, create_ml, pascal_voc, yolo
from entrypoint.data.formats.source import Files, Source
from entrypoint.system.errors import UserError

Name = Literal["auto", "cloud_annotations", "coco", "pascal_voc", "yolo", "create_ml"]
OTHERS: dict[str, Callable[[Files], Source | None]] = {
    "coco": coco.read,
    "pascal_voc": pascal_voc.read,
    "yolo": yolo.read,
    "create_ml": create_ml.read,
}
WANTED = {
    "cloud_annotations": cloud_annotations.WANTED,
    "coco": coco.WANTED,
    "pascal_voc": pascal_voc.WANTED,
    "yolo": yolo.WANTED,
    "create_ml": create_ml.WANTED,
}


def read(files: Files, name: str) -> Source:
    """The annotations in the format of that name, or, for `auto`, in the one that the bucket has.

    Raises:
        UserError: there are none, there are several, or they cannot be read.
    """
    if name == "auto":
        return recognise(files)
    source = {"cloud_annotations": cloud_annotations.read, **OTHERS}[name](files)
    if source is None:
        raise UserError(
            f"{files.root} has no annotations of DATA_FORMAT={name}, which are {WANTED[name]}{about_damaged(files)}"
        )
    return source


def recognise(files: Files) -> Source:
    """The annotations of the format that lies in the bucket; the project's own file comes before all others."""
    own = cloud_annotations.read(files)
    if own is not None:
        return own
    found = {name: source for name, read in OTHERS.items() if (source := read(files)) is not None}
    if len(found) > 1:
        names = "|".join(found)
        raise UserError(f"{files.root} has annotations of several formats: say which to take, DATA_FORMAT={names}")
    for source in found.values():
        return source
    others = "; ".join(f"{name}: {WANTED[name]}" for name in OTHERS)
    raise UserError(
        f"{files.root / cloud_annotations.FILE} is missing: DATA_DIR must name the bucket's root, where it lies, "
        f"or annotations of another format ({others}){about_damaged(files)}"
    )


def about_damaged(files: Files) -> str:
    """Which files may be what was looked for, and are not whole."""
    places = ", ".join(files.damaged)
    return f". These are cut off or damaged, export them again: {places}" if places else ""
