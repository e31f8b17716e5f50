"""What a format of annotations declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from entrypoint.data.formats.source import Files, Source


@dataclass(frozen=True)
class AnnotationFormat:
    """A format of annotations; its module has it as FORMAT."""

    name: str  # in DATA_FORMAT
    wanted: str  # which files the format needs, for messages
    read: Callable[[Files], Source | None]  # None if the bucket has no files of the format
    comes_first: bool = False  # its files decide, even if the bucket has files of other formats
    comes_last: bool = False  # its files count only if the bucket has no files of another format
