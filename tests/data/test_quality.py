from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from entrypoint.data import images, quality
from entrypoint.data.annotations import LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.data.quality import BoxSizes, PhotoSizes, Seen
from entrypoint.zoo.input_size import InputSize

SIZE = InputSize(100, 100)


def facts_of(photos: dict[str, tuple[int, int]], looks: dict[str, int] | None = None) -> Seen:
    return Seen(facts={key: images.Facts(*size, (looks or {}).get(key, 0)) for key, size in photos.items()})


def labelled(key: str, *boxes: tuple[str, float]) -> LabelledImage:
    """A photo with square boxes of a label and a side, as a fraction of the photo's sides."""
    return LabelledImage(key, tuple(Box(label, 0, 0, side, side) for label, side in boxes))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def scenes(demo_bucket: Path) -> list[Path]:
    """Photos of different scenes."""
    return sorted(demo_bucket.glob("*.jpg"))


def test_copies_across_the_split_are_found(scenes: list[Path]) -> None:
    names = scenes[:20]
    photos = {path.name: path.read_bytes() for path in names}
    with Image.open(names[3]) as image:
        photos["smaller.jpg"] = jpeg(image.resize((image.width // 2, image.height // 2)), quality=60)
    with Image.open(names[8]) as image:
        photos["brighter.jpg"] = jpeg(ImageEnhance.Brightness(image.convert("RGB")).enhance(1.2))
    with Image.open(names[5]) as image:
        photos["mirrored.jpg"] = jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    seen = Seen(facts={key: images.load(content).facts for key, content in photos.items()})
    parts = {
        "train": [labelled(path.name) for path in names],
        "validation": [labelled(key) for key in ("smaller.jpg", "brighter.jpg", "mirrored.jpg")],
    }
    pairs = quality.find_duplicates(parts, seen)
    assert pairs == (("brighter.jpg", names[8].name), ("smaller.jpg", names[3].name))


def test_photos_of_one_colour_are_no_copies_of_each_other() -> None:
    photos = {f"{grey}.jpg": jpeg(Image.new("L", (50, 50), grey)) for grey in (10, 200)}
    seen = Seen(facts={key: images.load(content).facts for key, content in photos.items()})
    assert quality.find_duplicates({"train": [labelled("10.jpg")], "validation": [labelled("200.jpg")]}, seen) == ()


def test_many_photos_are_compared_block_by_block() -> None:
    keys = [f"{number}" for number in range(2 * quality.BLOCK + 3)]
    looks = {key: hash_of(int(key)) for key in keys} | {"train": hash_of(quality.BLOCK + 7) ^ 0b111}
    seen = facts_of(dict.fromkeys([*keys, "train"], (9, 9)), looks)
    parts = {"train": [labelled("train")], "validation": [labelled(key) for key in keys]}
    assert quality.find_duplicates(parts, seen) == ((str(quality.BLOCK + 7), "train"),)


def hash_of(number: int) -> int:
    """Any hash, far from those of other numbers."""
    return int.from_bytes(hashlib.sha256(str(number).encode()).digest()[:16], "big")


def test_boxes_under_eight_pixels_of_the_input_are_counted() -> None:
    photos = [labelled("a", ("cat", 0.07), ("cat", 0.09), ("cat", 0.01)), labelled("b", ("cat", 0.5))]
    seen = facts_of({"a": (4000, 3000), "b": (40, 30)})
    facts = quality.assess({"train": photos, "validation": []}, ["cat"], seen, SIZE)
    assert facts.small_boxes == {"a": 2}
    assert facts.box_sizes == BoxSizes(smallest=1.0, median=8.0, largest=50.0)
    assert facts.photo_sizes == PhotoSizes((40, 30), (4000, 3000), (4000, 3000))
    assert (
        quality.describe_sizes(facts)[0] == "photos are 40 x 30 to 4000 x 3000 pixels, half of them at most 4000 x 3000"
    )
    alike = dataclasses.replace(facts, photo_sizes=PhotoSizes((4, 3), (4, 3), (4, 3)), box_sizes=BoxSizes(2, 2, 2))
    said = quality.describe_sizes(alike)
    assert said[0] == "all photos are 4 x 3 pixels"
    assert said[1].startswith("all boxes are as large as squares of 2 pixels")
    assert "boxes under 8 pixels at the model's input of 100 x 100, which the model hardly detects: 2 (a);" in " ".join(
        quality.describe_problems(facts)
    )


def test_small_boxes_of_a_model_that_keeps_shapes_are_judged_by_the_photo_s_shape() -> None:
    photo = labelled("a", ("cat", 0.1))
    # 1000 x 100 becomes 200 x 20: the box is 20 x 2 pixels.
    seen = facts_of({"a": (1000, 100)})
    assert quality.count_small([photo], seen, InputSize(60, 200, keeps_shape=True)) == {"a": 1}
    assert quality.count_small([photo], facts_of({"a": (200, 100)}), InputSize(100, 200, keeps_shape=True)) == {}


def test_rare_labels_are_named() -> None:
    photos = [labelled(f"{number}", ("cat", 0.5)) for number in range(60)] + [labelled("x", ("dog", 0.5), ("dog", 0.4))]
    seen = facts_of({image.key: (100, 100) for image in photos})
    facts = quality.assess({"train": photos, "validation": []}, ["cat", "dog", "owl"], seen, None)
    assert facts.few_boxes == {"dog": 2, "owl": 0}
    assert facts.uneven == ("cat", "owl")
    said = " ".join(quality.describe_problems(facts))
    assert "fewer than 50 boxes to train on: owl (0), dog (2)" in said
    assert "OVERSAMPLE=sqrt" in said


def test_photos_that_cannot_be_read_count_for_nothing() -> None:
    parts = {"train": [labelled("gone", ("cat", 0.5))], "validation": []}
    facts = quality.assess(parts, ["cat"], Seen(skipped={"gone": "file is empty"}), SIZE)
    assert facts.photo_sizes is None
    assert facts.box_sizes is None
    assert facts.few_boxes == {"cat": 0}
    assert quality.describe_sizes(facts) == []


def test_different_photos_are_no_copies(scenes: list[Path]) -> None:
    seen = Seen(facts={path.name: images.load(path.read_bytes()).facts for path in scenes})
    parts = {
        "train": [labelled(path.name) for path in scenes[::2]],
        "validation": [labelled(path.name) for path in scenes[1::2]],
    }
    assert quality.find_duplicates(parts, seen) == ()
