"""A random dataset in every format and in the variants that tools write, read back: the same boxes or a named doubt.

`make test-properties` tries 80 datasets for each writer, and `make test` 10. VARIANTS says another number.
"""

import csv
import functools
import io
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image

from entrypoint.data import annotations
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import FIRST_ON_ITS_SIDE, Box
from entrypoint.data.units import SIDES, Unit
from entrypoint.system.errors import UserError
from tests.awkward import encode
from tests.conftest import make_settings

LABELS = ("cat", "dog", "Grün", "猫", "a & b")
SAME = 0.95  # the intersection over union of two boxes that are the same
# With so many photos, chance does not put all boxes into a part of each.
MANY = 30
BACK = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # the orientation that undoes another one
PARTS: dict[str | None, str] = {"train": "train", "validation": "valid", None: "photos"}

Corners = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax
Declared = Literal["photo", "none", "stored", "double", "half", "cut"]


@dataclass(frozen=True)
class Photo:
    """A photo as a person saw it: boxes are fractions of the upright photo."""

    name: str
    part: str | None
    size: tuple[int, int]  # upright
    orientation: int
    boxes: tuple[Box, ...]

    @property
    def key(self) -> str:
        return f"{PARTS[self.part]}/{self.name}"

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def stored(self) -> tuple[int, int]:
        return self.size[::-1] if self.orientation >= FIRST_ON_ITS_SIDE else self.size


@dataclass(frozen=True)
class Variant:
    """How a tool writes the same boxes."""

    unit: Unit | None  # None for that of the format
    declared: Declared  # which size it writes
    on_stored: bool  # it draws on photos as they are stored, and writes their size
    path: Literal["name", "key", "absolute", "windows"]
    mark: bool  # a byte order mark
    lines: str  # what ends a line


def size_in(photo: Photo, variant: Variant) -> tuple[int, int] | None:
    """The size that the tool writes."""
    width, height = photo.stored if variant.on_stored or variant.declared == "stored" else photo.size
    factor = {"double": 2.0, "half": 0.5, "cut": 3.0}.get(variant.declared, 1.0)
    return None if variant.declared == "none" else (round(width * factor), round(height * factor))


def corners_in(photo: Photo, variant: Variant, own: Unit) -> Iterator[tuple[str, Corners]]:
    """The labels and corners that the tool writes."""
    unit = variant.unit or own
    for box in photo.boxes:
        drawn = box.turned(BACK[photo.orientation]) if variant.on_stored else box
        width, height = (SIDES[unit],) * 2 if unit in SIDES else photo.stored if variant.on_stored else photo.size
        if unit is Unit.PIXELS and variant.declared in ("double", "half"):
            width, height = size_in(photo, variant) or (width, height)
        yield box.label, (drawn.xmin * width, drawn.ymin * height, drawn.xmax * width, drawn.ymax * height)


def path_in(photo: Photo, variant: Variant) -> str:
    """How the tool names the photo."""
    windows = "C:\\data\\" + photo.key.replace("/", "\\")
    return {"name": photo.name, "key": photo.key, "absolute": f"/mnt/data/{photo.key}", "windows": windows}[
        variant.path
    ]


def put(path: Path, content: str, variant: Variant) -> None:
    """Writes a file of annotations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = "\ufeff" if variant.mark else ""
    path.write_bytes((mark + content.replace("\n", variant.lines)).encode())


def by_part(photos: list[Photo]) -> Iterator[tuple[str, list[Photo]]]:
    """The photos of each folder."""
    for part, name in PARTS.items():
        if some := [photo for photo in photos if photo.part == part]:
            yield name, some


def cloud_annotations(folder: Path, photos: list[Photo], variant: Variant) -> None:
    drawn = {
        photo.key: [
            {"label": label, "x": x, "y": y, "x2": x2, "y2": y2}
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.FRACTIONS)
        ]
        or [{"label": "Negative"}]
        for photo in photos
    }
    document = {"type": "localization", "labels": list(LABELS), "annotations": drawn}
    put(folder / "_annotations.json", json.dumps(document), variant)


def coco(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for name, some in by_part(photos):
        images, boxes = [], []
        for index, photo in enumerate(some):
            size = size_in(photo, variant)
            extent = {"width": size[0], "height": size[1]} if size else {}
            images.append({"id": index, "file_name": path_in(photo, variant), **extent})
            boxes += [
                {"image_id": index, "category_id": LABELS.index(label) + 1, "bbox": [x, y, x2 - x, y2 - y]}
                for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.PIXELS)
            ]
        categories = [{"id": number, "name": label} for number, label in enumerate(LABELS, 1)]
        document = {"images": images, "annotations": boxes, "categories": categories}
        put(folder / name / "_annotations.coco.json", json.dumps(document), variant)


def pascal_voc(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for photo in photos:
        objects = "\n".join(
            f"<object><name>{escape(label)}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>"
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.PIXELS)
        )
        size = size_in(photo, variant)
        extent = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
        name = f"<filename>{escape(path_in(photo, variant))}</filename>"
        document = f"<annotation>{name}{extent}{objects}</annotation>"
        put((folder / photo.key).with_suffix(".xml"), document, variant)


def yolo(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for photo in photos:
        lines = [
            f"{LABELS.index(label)} {(x + x2) / 2} {(y + y2) / 2} {x2 - x} {y2 - y}"
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.FRACTIONS)
        ]
        put((folder / photo.key).with_suffix(".txt"), "\n".join(lines), variant)
    put(folder / "classes.txt", "\n".join(LABELS), variant)


def yolo_corners(folder: Path, photos: list[Photo], variant: Variant) -> None:
    """The corners of rectangles, as polygons and rotated boxes are written."""
    for photo in photos:
        lines = [
            f"{LABELS.index(label)} {x} {y} {x2} {y} {x2} {y2} {x} {y2}"
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.FRACTIONS)
        ]
        put((folder / photo.key).with_suffix(".txt"), "\n".join(lines), variant)
    put(folder / "data.yaml", f"names: {json.dumps(LABELS, ensure_ascii=False)}", variant)


def create_ml(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for name, some in by_part(photos):
        document = [
            {
                "image": path_in(photo, variant),
                "annotations": [
                    {
                        "label": label,
                        "coordinates": {"x": (x + x2) / 2, "y": (y + y2) / 2, "width": x2 - x, "height": y2 - y},
                    }
                    for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.PIXELS)
                ],
            }
            for photo in some
        ]
        put(folder / name / "boxes.json", json.dumps(document), variant)


def table(rows: list[list[Any]], delimiter: str = ",") -> str:
    """The rows as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def csv_rows(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for name, some in by_part(photos):
        rows: list[list[Any]] = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
        for photo in some:
            head = [path_in(photo, variant), *(size_in(photo, variant) or ("", ""))]
            boxes = [[label, *corners] for label, corners in corners_in(photo, variant, Unit.PIXELS)]
            rows += [head + box for box in boxes or [[""] * 5]]
        put(folder / name / "boxes.csv", table(rows, ";" if variant.lines == "\r\n" else ","), variant)


def labelme(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for photo in photos:
        size = size_in(photo, variant) or (None, None)
        shapes = [
            {"label": label, "shape_type": "rectangle", "points": [[x, y], [x2, y2]]}
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.PIXELS)
        ]
        document = {"imagePath": photo.name, "imageWidth": size[0], "imageHeight": size[1], "shapes": shapes}
        put((folder / photo.key).with_suffix(".json"), json.dumps(document), variant)


def via(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for name, some in by_part(photos):
        document = {}
        for photo in some:
            regions = [
                {
                    "shape_attributes": {"name": "rect", "x": x, "y": y, "width": x2 - x, "height": y2 - y},
                    "region_attributes": {"label": label},
                }
                for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.PIXELS)
            ]
            document[photo.name] = {"filename": photo.name, "size": -1, "regions": regions}
        put(folder / name / "via.json", json.dumps({"_via_img_metadata": document}), variant)


def label_studio(folder: Path, photos: list[Photo], variant: Variant) -> None:
    """Boxes are in percent, and of the upright photo, whatever size is written."""
    for name, some in by_part(photos):
        tasks = []
        for photo in some:
            width, height = size_in(photo, variant) or photo.size
            rows = [
                {
                    "type": "rectanglelabels",
                    "original_width": width,
                    "original_height": height,
                    "value": {
                        "x": 100 * box.xmin,
                        "y": 100 * box.ymin,
                        "width": 100 * (box.xmax - box.xmin),
                        "height": 100 * (box.ymax - box.ymin),
                        "rectanglelabels": [box.label],
                    },
                }
                for box in photo.boxes
            ]
            address = f"/data/local-files/?d={quote(photo.key)}"
            tasks.append({"data": {"image": address}, "annotations": [{"result": rows}]})
        put(folder / name / "tasks.json", json.dumps(tasks), variant)


def dota(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for photo in photos:
        lines = ["imagesource:x", "gsd:1"] + [
            f"{x} {y} {x2} {y} {x2} {y2} {x} {y2} {label.replace(' ', '_')} 0"
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.PIXELS)
        ]
        put((folder / photo.key).with_suffix(".txt"), "\n".join(lines), variant)


def open_images(folder: Path, photos: list[Photo], variant: Variant) -> None:
    for name, some in by_part(photos):
        rows: list[list[Any]] = [["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"]]
        rows += [
            [photo.stem, f"/m/{LABELS.index(label)}", x, x2, y, y2]
            for photo in some
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.FRACTIONS)
        ]
        put(folder / f"{name}-annotations-bbox.csv", table(rows), variant)
    names = [[f"/m/{number}", label] for number, label in enumerate(LABELS)]
    put(folder / "class-descriptions-boxable.csv", table(names), variant)


def vertex_ai(folder: Path, photos: list[Photo], variant: Variant) -> None:
    use = {"train": "TRAIN", "validation": "VALIDATE", None: "UNASSIGNED"}
    rows = [
        [use[photo.part], f"gs://b/{photo.key}", label, x, y, "", "", x2, y2, "", ""]
        for photo in photos
        for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.FRACTIONS)
    ]
    put(folder / "import.csv", table(rows), variant)


Writer = Callable[[Path, list[Photo], Variant], None]
WRITERS: tuple[Writer, ...] = (
    cloud_annotations,
    coco,
    pascal_voc,
    yolo,
    yolo_corners,
    create_ml,
    csv_rows,
    labelme,
    via,
    label_studio,
    dota,
    open_images,
    vertex_ai,
)
# These have boxes in pixels, so that the size counts that they are of.
IN_PIXELS = (coco, pascal_voc, create_ml, csv_rows, labelme, via, dota)
SIZED = (coco, pascal_voc, csv_rows, labelme)
NO_EMPTY = (open_images, vertex_ai)  # these cannot say that a photo shows no object


@functools.cache
def encoded(size: tuple[int, int], orientation: int) -> bytes:
    """A grey photo of that stored size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.new("L", size, 90), "JPEG", "L", {"exif": exif})


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
        for photo in photos:
            (bucket / photo.key).parent.mkdir(parents=True, exist_ok=True)
            (bucket / photo.key).write_bytes(encoded(photo.stored, photo.orientation))
        writer(bucket, photos, variant)
        try:
            dataset = annotations.read_bucket(settings, exclude=tmp_path / "results")
        except UserError:
            right.setdefault(writer.__name__, []).append(False)
            continue
        right.setdefault(writer.__name__, []).append(bool(dataset.images))
        check(photos, dataset, variant)
