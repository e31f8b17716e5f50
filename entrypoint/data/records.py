"""The manifest of the TFRecords: which files there are, how many photos and boxes, and what was found about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from entrypoint import workspace
from entrypoint.data.annotations import LabelledImage
from entrypoint.data.quality import DataQuality, kinds_of
from entrypoint.data.split import SPLITS
from entrypoint.system import documents, files
from entrypoint.system.bucket import Place
from entrypoint.workspace import Workspace

# Only such names are read: a manifest in RECORDS_DIR can be anybody's, and any other name could lie anywhere.
SHARD_NAME = rf"^(?:{'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}\.tfrecord$"


@dataclass(frozen=True)
class Shard:
    """A file of records, with its SHA-256."""

    name: Annotated[str, Field(pattern=SHARD_NAME)]
    sha256: str = ""


@dataclass(frozen=True)
class Split:
    """The photos of one split that are in the records; `empty` ones show no object."""

    photos: int
    empty: int
    boxes: int
    boxes_per_label: dict[str, int]
    photos_per_label: dict[str, int]
    shards: tuple[Shard, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the shards."""
        return [shard.name for shard in self.shards]

    def paths(self, folder: Path) -> list[str]:
        """Returns the paths of the shards in a folder, in the form that TensorFlow takes."""
        return [str(folder / name) for name in self.names]


@dataclass(frozen=True)
class RecordsManifest:
    """What the step `tf_record` leaves beside the shards; its digest identifies the records."""

    labels: tuple[str, ...]  # in the order of their ids, from 1
    splits: dict[str, Split]
    skipped: dict[str, str]  # photo -> why it is not in the records
    changed: dict[str, tuple[str, ...]]  # photo -> what was done to it
    # The key in JSON is that of the first version, so that the digests of records stay what they were.
    quality: Annotated[DataQuality, Field(alias="advice")]
    stored_for: str  # how small photos are stored, see `input_size.Storage`
    max_boxes: int  # on one photo

    def __post_init__(self) -> None:
        if self.splits.keys() != set(SPLITS):
            raise ValueError(f"splits must be {' and '.join(SPLITS)}")

    @property
    def train(self) -> Split:
        """The photos to train on."""
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        """The photos for validation."""
        return self.splits["validation"]

    @property
    def shards(self) -> Iterator[Shard]:
        """The shards of both splits."""
        for name in SPLITS:
            yield from self.splits[name].shards

    def kinds(self) -> dict[str, list[str]]:
        """Returns the photos that were skipped or changed, by what was wrong with them or done to them."""
        return kinds_of(self.skipped, self.changed)

    def digest(self) -> str:
        """Returns a digest of the manifest, the SHA-256 of each shard included."""
        return files.digest(documents.to_plain(self))


def count(photos: list[LabelledImage], labels: list[str]) -> Split:
    """Counts photos, those without a box, boxes, and boxes and photos by label."""
    boxes = Counter(box.label for image in photos for box in image.boxes)
    shown = Counter(label for image in photos for label in {box.label for box in image.boxes})
    return Split(
        photos=len(photos),
        empty=sum(not image.boxes for image in photos),
        boxes=boxes.total(),
        boxes_per_label={label: boxes[label] for label in labels},
        photos_per_label={label: shown[label] for label in labels},
    )


def load(work: Workspace) -> RecordsManifest:
    """Returns the manifest that the step `tf_record` wrote."""
    return documents.read(RecordsManifest, workspace.existing(manifest_in(work.records), "tf_record"))


def manifest_in(folder: Place) -> Place:
    """Returns where the manifest of a folder of records lies."""
    return folder / "manifest.json"
