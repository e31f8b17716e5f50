"""The annotations of a bucket are read in the format that they have, or in the one that DATA_FORMAT names."""

from __future__ import annotations

import importlib
from typing import get_args

from entrypoint.data.formats import contents
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import Files, Source
from entrypoint.settings.choices import DataFormat
from entrypoint.system.errors import UserError

NAMES = tuple(name for name in get_args(DataFormat) if name != "auto")


def format_of(name: str) -> AnnotationFormat:
    """Returns the format of that name."""
    found: AnnotationFormat = importlib.import_module(f"entrypoint.data.formats.{name}").FORMAT
    return found


def read(files: Files, name: str) -> Source:
    """Returns the annotations in the format of that name; `auto` recognises the format.

    Raises:
        UserError: there are no annotations, there are annotations of several formats, or they cannot be read.
    """
    if name == "auto":
        return recognise(files)
    files.is_format_named = True
    chosen = format_of(name)
    source = read_format(chosen, files)
    if source is None:
        raise UserError(
            f"{files.root} has no annotations of DATA_FORMAT={name}, which are {chosen.wanted}{about_damaged(files)}"
        )
    return source


def read_format(chosen: AnnotationFormat, files: Files) -> Source | None:
    """Returns the annotations in that format with its name, or None if the bucket has no files of it."""
    source = chosen.read(files)
    if source is not None:
        source.format = chosen.name
    return source


def recognise(files: Files) -> Source:
    """Returns the annotations of the one format that the bucket has; the project's own format comes first."""
    formats = [format_of(name) for name in NAMES]
    own = [each for each in formats if each.comes_first]
    others = [each for each in formats if not each.comes_first]
    for each in own:
        if (source := read_format(each, files)) is not None:
            return source
    for some in ([each for each in others if not each.comes_last], [each for each in others if each.comes_last]):
        found = {each.name: source for each in some if (source := read_format(each, files)) is not None}
        if len(found) > 1:
            names = "|".join(found)
            raise UserError(f"{files.root} has annotations of several formats: say which to take, DATA_FORMAT={names}")
        for source in found.values():
            return source
    wanted = "; ".join(f"{each.name}: {each.wanted}" for each in others)
    raise UserError(
        f"{files.root / '_annotations.json'} is missing: DATA_DIR must name the bucket's root, where it lies, "
        f"or annotations of another format ({wanted}){about_damaged(files)}. {contents.describe(files)}"
    )


def about_damaged(files: Files) -> str:
    """Returns a sentence about files that could hold the annotations and are not whole; empty if there are none."""
    places = ", ".join(files.damaged)
    return f". These are cut off or damaged, export them again: {places}" if places else ""
