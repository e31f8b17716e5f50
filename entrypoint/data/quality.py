"""Finds problems of photos and boxes that should be fixed before a training is paid for.

`check` and the report show them.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from numpy.typing import NDArray

from entrypoint.data import images
from entrypoint.data.annotations import LabelledImage
from entrypoint.data.examples import Converted
from entrypoint.zoo.input_size import InputSize

SMALL = 8  # pixels of the model's input; the finest features of most models of the zoo are 8 pixels apart
FEW = 50  # boxes to train a label on
UNEVEN = 10  # times as many photos with one label as with another
# Photos are nearly the same if their hashes of 128 bits differ in at most this many bits. In buckets of 200 raccoons
# and of 364 blood smears, photos of one scene differ in 0 to 18 bits, and other photos in at least 27.
NEAR = 12
BLOCK, KNOWN_BLOCK = 256, 1 << 14  # validation photos and training photos that are compared at a time
COMPARED = 10_000  # at most so many validation photos are compared; their order is random


@dataclass
class Seen:
    """The results of reading the photos, by key."""

    skipped: dict[str, str] = field(default_factory=dict)  # photo -> why it was skipped
    facts: dict[str, images.Facts] = field(default_factory=dict)

    def add(self, converted: Converted) -> None:
        """Adds the result of one photo."""
        if converted.photo is None:
            self.skipped[converted.key] = str(converted.skipped)
        else:
            self.facts[converted.key] = converted.photo

    def changed(self) -> dict[str, tuple[str, ...]]:
        """Returns what was done to photos, for those that were changed."""
        return {key: facts.changes for key, facts in sorted(self.facts.items()) if facts.changes}

    def kinds(self) -> dict[str, list[str]]:
        """Returns the photos that were skipped or changed, by the reason or the change."""
        return kinds_of(self.skipped, self.changed())


def kinds_of(skipped: Mapping[str, str], changed: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns the photos that were skipped or changed, by the reason or the change."""
    found: dict[str, list[str]] = {}
    for key, reason in skipped.items():
        found.setdefault(f"photo skipped: {reason}", []).append(key)
    for key, changes in changed.items():
        for change in changes:
            found.setdefault(f"photo {change}", []).append(key)
    return {kind: sorted(keys) for kind, keys in sorted(found.items())}


@dataclass(frozen=True)
class PhotoSizes:
    """Widths and heights of photos in pixels, ranked by area."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class BoxSizes:
    """Sizes of boxes: the square root of the area.

    The unit is a pixel of the model's input, or of the photo if the input is not known.
    """

    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class DataQuality:
    """Facts and problems of the photos that can be read, of both splits."""

    photo_sizes: PhotoSizes | None
    box_sizes: BoxSizes | None
    input_size: tuple[int, int] | None  # width and height of the model's input, if it is known
    duplicates: tuple[tuple[str, str], ...]  # validation photo, training photo that looks like it
    is_sample: bool  # whether only COMPARED validation photos were compared
    small_boxes: dict[str, int]  # photo -> its boxes with a side under SMALL pixels at the model's input, if it has any
    few_boxes: dict[str, int]  # label -> its boxes to train on, if there are fewer than FEW
    uneven: tuple[str, str] | None  # the labels on the most and on the fewest photos, if they are UNEVEN times apart


def assess(parts: dict[str, list[LabelledImage]], labels: list[str], seen: Seen, size: InputSize | None) -> DataQuality:
    """Assesses the photos of both splits that can be read; `size` is the model's input, if it is known."""
    photos = [image for part in parts.values() for image in part if image.key in seen.facts]
    trained = [image for image in parts["train"] if image.key in seen.facts]
    boxes = Counter(box.label for image in trained for box in image.boxes)
    shown = Counter(label for image in trained for label in {box.label for box in image.boxes})
    return DataQuality(
        photo_sizes=spread([(facts.width, facts.height) for image in photos if (facts := seen.facts[image.key])]),
        box_sizes=spread_of_boxes(photos, seen, size),
        input_size=(size.width, size.height) if size else None,
        duplicates=find_duplicates(parts, seen),
        is_sample=len(parts["validation"]) > COMPARED,
        small_boxes=count_small(photos, seen, size) if size else {},
        few_boxes={label: boxes[label] for label in labels if boxes[label] < FEW},
        uneven=uneven({label: shown[label] for label in labels}),
    )


def spread(sizes: list[tuple[int, int]]) -> PhotoSizes | None:
    """Returns the smallest, the median and the largest photo, by area."""
    ranked = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return PhotoSizes(ranked[0], ranked[len(ranked) // 2], ranked[-1]) if ranked else None


def spread_of_boxes(photos: list[LabelledImage], seen: Seen, size: InputSize | None) -> BoxSizes | None:
    """Returns the smallest, the median and the largest box, as the square root of the area."""
    roots = [(width * height) ** 0.5 for image in photos for width, height in sides(image, seen.facts[image.key], size)]
    return BoxSizes(*(round(value, 1) for value in (min(roots), median(roots), max(roots)))) if roots else None


def sides(image: LabelledImage, facts: images.Facts, size: InputSize | None) -> Iterable[tuple[float, float]]:
    """Yields width and height of a photo's boxes.

    The unit is a pixel of the model's input, or of the photo if the input is not known.
    """
    across, down = size.scale(facts.width, facts.height) if size else (1.0, 1.0)
    for box in image.boxes:
        yield (box.xmax - box.xmin) * facts.width * across, (box.ymax - box.ymin) * facts.height * down


def count_small(photos: list[LabelledImage], seen: Seen, size: InputSize) -> dict[str, int]:
    """Returns how many boxes are too small for the model, by the photo's key. Photos without small boxes are absent."""
    counts = {
        image.key: sum(min(width, height) < SMALL for width, height in sides(image, seen.facts[image.key], size))
        for image in photos
    }
    return {key: count for key, count in counts.items() if count}


def uneven(counts: dict[str, int]) -> tuple[str, str] | None:
    """Returns the labels on the most and on the fewest photos, or None if they differ less than UNEVEN times."""
    if not counts:
        return None
    most, fewest = (choose(counts, key=lambda label: counts[label]) for choose in (max, min))
    return (most, fewest) if counts[most] >= UNEVEN * max(1, counts[fewest]) else None


def find_duplicates(parts: dict[str, list[LabelledImage]], seen: Seen) -> tuple[tuple[str, str], ...]:
    """Returns validation photos that look like a training photo, each with the most similar training photo.

    At most COMPARED validation photos are compared, so that the time grows no faster than the number of photos.
    """
    keys = {name: [each.key for each in part if has_look(each.key, seen)] for name, part in parts.items()}
    asked, known = keys["validation"][:COMPARED], keys["train"]
    best, likeness = np.zeros(len(asked), np.int64), np.full(len(asked), -np.inf)
    for start in range(0, len(known), KNOWN_BLOCK):
        signs_known = signs(known[start : start + KNOWN_BLOCK], seen).T
        for first in range(0, len(asked), BLOCK):
            here = slice(first, first + BLOCK)
            # The product of two rows of n signs is n - 2 d if they differ in d signs.
            alike = signs(asked[here], seen) @ signs_known
            highest = alike.max(axis=1)
            is_better = highest > likeness[here]
            best[here] = np.where(is_better, start + alike.argmax(axis=1), best[here])
            likeness[here] = np.where(is_better, highest, likeness[here])
    found = np.flatnonzero(likeness >= images.LOOK_BITS - 2 * NEAR)
    return tuple(sorted((asked[index], known[best[index]]) for index in found))


def has_look(key: str, seen: Seen) -> bool:
    """Returns whether the photo can be compared with other photos."""
    return key in seen.facts and seen.facts[key].look != 0


def signs(keys: list[str], seen: Seen) -> NDArray[np.float32]:
    """Returns the bits of the photos' hashes as -1 and 1: [photos, bits]."""
    length = images.LOOK_BITS // 8
    rows = b"".join(seen.facts[key].look.to_bytes(length, "big") for key in keys)
    bits = np.unpackbits(np.frombuffer(rows, np.uint8).reshape(-1, length), axis=1)
    return bits.astype(np.float32) * 2 - 1


def describe_sizes(quality: DataQuality) -> list[str]:
    """Returns sentences about how large photos and boxes are."""
    said = []
    if photos := quality.photo_sizes:
        smallest, middle, largest = (f"{width} x {height}" for width, height in dataclasses.astuple(photos))
        sizes = f"photos are {smallest} to {largest} pixels, half of them at most {middle}"
        said.append(f"all photos are {smallest} pixels" if smallest == largest else sizes)
    if boxes := quality.box_sizes:
        size = quality.input_size
        where = f" at the model's input of {size[0]} x {size[1]}" if size else ""
        smallest, middle, largest = (f"{side:g}" for side in dataclasses.astuple(boxes))
        sizes = f"boxes are as large as squares of {smallest} to {largest} pixels{where}, half of them at most {middle}"
        said.append(f"all boxes are as large as squares of {smallest} pixels{where}" if smallest == largest else sizes)
    return said


def describe_problems(quality: DataQuality) -> list[str]:
    """Returns a sentence for each problem of the data that somebody should fix."""
    said = []
    if pairs := quality.duplicates:
        among = f" among {COMPARED:,}" if quality.is_sample else ""
        said.append(
            f"validation photos that are nearly the same as a training photo, which makes the metrics look better than "
            f"they are: {len(pairs)}{among} ({listed(f'{one} is like {other}' for one, other in pairs)})"
        )
    if (small := quality.small_boxes) and quality.input_size:
        width, height = quality.input_size
        said.append(
            f"boxes under {SMALL} pixels at the model's input of {width} x {height}, which the model hardly detects: "
            f"{sum(small.values())} ({listed(sorted(small, key=lambda key: (-small[key], key)))}); use a model with a "
            "larger input, or cut the photos into parts"
        )
    if few := quality.few_boxes:
        names = listed(f"{label} ({count})" for label, count in sorted(few.items(), key=lambda item: item[1]))
        said.append(f"fewer than {FEW} boxes to train on: {names}; label more photos of these labels first")
    if quality.uneven:
        most, fewest = quality.uneven
        said.append(
            f"{most} is on at least {UNEVEN} times as many photos as {fewest}: label more photos of {fewest}, or show "
            "rare labels more often with OVERSAMPLE=sqrt"
        )
    return said


def listed(names: Iterable[str], shown: int = 5) -> str:
    """Returns the first few names, each with its count if it occurs several times, and how many more there are."""
    counts = Counter(names)
    said = [name if count == 1 else f"{name} ({count} times)" for name, count in counts.items()]
    return ", ".join(said[:shown]) + (f" and {len(said) - shown} more" if len(said) > shown else "")
