"""The document of `check --json`. docs/check.schema.json is its JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from entrypoint.data.annotations import Origin
from entrypoint.data.quality import DataQuality

# Raised by one if a field is removed or means something else.
Version = Literal[1]


@dataclass(frozen=True)
class PhotoCounts:
    """Numbers of photos; `train`, `validation` and `empty` are those that can be used."""

    labelled: int
    empty: int  # they show no object
    train: int
    validation: int
    without_annotation: Annotated[int, Field(alias="without annotation")]


@dataclass(frozen=True)
class LabelBoxes:
    """Numbers of boxes of a label."""

    train: int
    validation: int


@dataclass(frozen=True)
class CheckReport:
    """What the job would find in the bucket."""

    annotations: Origin
    split: str  # where the split comes from, in words
    photos: PhotoCounts
    labels: dict[str, LabelBoxes]  # in the order of their ids
    found: dict[str, list[str]]  # finding -> the photos, files or labels that it is about
    quality: DataQuality
    stops: list[str]  # why the job would stop; empty if it can start
    length: str | None = None  # how often the training would show each photo, in words, if this is known
    page: str | None = None  # where check.html lies
    version: Version = 1


@dataclass(frozen=True)
class CheckFailure:
    """The job would stop before it has read all photos, or `check` cannot read the bucket."""

    error: str
    stops: list[str] = field(default_factory=list)  # the error
    version: Version = 1
