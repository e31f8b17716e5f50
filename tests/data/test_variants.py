"""A random dataset in every format and in the variants that tools write, read back: the same boxes or a named doubt.

`make test-properties` tries 80 datasets for each writer, and `make test` 10. VARIANTS says another number.
"""

import math
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from entrypoint.data import annotations
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.data.units import Unit
from entrypoint.system.errors import UserError
from tests.conftest import make_settings
from tests.data.writers import (
    LABELS,
    NO_EMPTY,
    SIZED,
    WRITERS,
    Declared,
    Photo,
    Variant,
    Writer,
    draw_photos,
    label_studio,
)

SAME = 0.95  # the intersection over union of two boxes that are the same
# With so many photos, chance does not put all boxes into a part of each.
MANY = 30


def draw(rng: random.Random, writer: Writer) -> tuple[list[Photo], Variant]:
    """A random dataset, and a variant that the format can have."""
    count = rng.choice([1, 3, 8, MANY, MANY])
    unit = rng.choice([None, None, *Unit]) if writer is not label_studio and count >= MANY else None
    can_turn = writer in SIZED and unit is None
    sizes: list[Declared] = ["photo", "photo", "none", "double", "half", "cut"]
    declared = rng.choice(sizes) if can_turn else "photo"
    on_stored = can_turn and declared == "photo" and rng.random() < 0.3
    # A tool that draws on the upright photo and writes the size of the stored one.
    if can_turn and declared == "photo" and not on_stored and rng.random() < 0.2:
        declared = "stored"
    split = rng.random() < 0.5
    photos = []
    for index in range(count):
        part = rng.choice(["train", "train", "validation"]) if split and index else "train" if split else None
        size = rng.choice([(640, 480), (1280, 720), (1400, 1800)])
        orientation = rng.choice([1, 1, 6, 8, 3]) if writer in (*SIZED, label_studio) else 1
        # Nothing shows that a photo upside down was annotated as it is stored, if no other photo was.
        orientation = 6 if on_stored and not index else orientation
        least = 1 if writer in NO_EMPTY or not index else 0
        boxes = tuple(draw_box(rng) for _ in range(rng.randint(least, 4)))
        photos.append(Photo(f"{index:03d} ü.jpg", part, size, orientation, boxes))
    path = rng.choice(["name", "key", "absolute", "windows"])
    lines = rng.choice(["\n", "\r\n"])
    return photos, Variant(unit, declared, on_stored, path, rng.random() < 0.3, lines)  # type: ignore[arg-type]


def draw_box(rng: random.Random) -> Box:
    """A box anywhere on a photo; some reach to an edge."""
    width, height = rng.uniform(0.05, 0.6), rng.uniform(0.05, 0.6)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    x, y = (rng.choice([value, value, 0.0, 1 - side]) for value, side in ((x, width), (y, height)))
    return Box(rng.choice(LABELS), x, y, min(1.0, x + width), min(1.0, y + height))


def overlap(one: Box, other: Box) -> float:
    """The intersection over union of two boxes; 0 if their labels differ."""
    if one.label.replace(" ", "_") != other.label.replace(" ", "_"):
        return 0.0
    width = min(one.xmax, other.xmax) - max(one.xmin, other.xmin)
    height = min(one.ymax, other.ymax) - max(one.ymin, other.ymin)
    inner = max(0.0, width) * max(0.0, height)
    areas = [(each.xmax - each.xmin) * (each.ymax - each.ymin) for each in (one, other)]
    return inner / (math.fsum(areas) - inner)


def check(photos: list[Photo], dataset: Dataset, variant: Variant) -> None:
    """Every photo that is there has the boxes that were drawn, and the others are counted as lost."""
    found: dict[str, LabelledImage] = {image.key: image for image in dataset.images}
    for photo in photos:
        if photo.key not in found:
            assert any(photo.key in where for where in dataset.lost)
            continue
        image = found.pop(photo.key)
        assert len(image.boxes) == len(set(photo.boxes))
        for box in photo.boxes:
            assert max(overlap(box, each) for each in image.boxes) >= SAME, (variant, photo, dataset.findings.kinds)
        parts = {each.part for each in photos}
        assert image.part == (photo.part if {"train", "validation"} <= parts else None) or "train" not in parts
    assert not found


@pytest.fixture(scope="module")
def right() -> Iterator[dict[str, list[bool]]]:
    """Which datasets of each writer were read and not refused. Most of them must be."""
    outcomes: dict[str, list[bool]] = {}
    yield outcomes
    for name, each in outcomes.items():
        assert sum(each) > 0.6 * len(each), f"{name}: only {sum(each)} of {len(each)} were read"


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_boxes_are_those_that_were_drawn_or_doubted(
    writer: Writer, tmp_path: Path, right: dict[str, list[bool]]
) -> None:
    bucket = tmp_path / "bucket"
    settings = make_settings(tmp_path, data_dir=bucket, workers=2, max_skipped=1.0)

    few, many = 10, 80
    usual = many if hypothesis_settings.get_current_profile_name() == "thorough" else few
    for seed in range(int(os.environ.get("VARIANTS", usual))):
        photos, variant = draw(random.Random(f"{writer.__name__} {seed}"), writer)
        shutil.rmtree(bucket, ignore_errors=True)
        draw_photos(bucket, photos)
        writer(bucket, photos, variant)
        try:
            dataset = annotations.read_bucket(settings, exclude=tmp_path / "results")
        except UserError:
            right.setdefault(writer.__name__, []).append(False)
            continue
        right.setdefault(writer.__name__, []).append(bool(dataset.images))
        check(photos, dataset, variant)
