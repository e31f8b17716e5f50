"""Boxes in another unit than that of their format are read in their own unit, or they stop the job."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from entrypoint.data import annotations, units
from entrypoint.data.annotations import Dataset
from entrypoint.data.units import Unit
from entrypoint.system.errors import UserError
from tests.conftest import make_settings

Corners = tuple[float, float, float, float]  # x, y, x2, y2
SIZE = (1600, 1200)  # pixels
# Fractions of the photo. Together, they reach to its edges.
BOXES: list[Corners] = [(0.0, 0.1, 0.4, 0.5), (0.3, 0.2, 0.75, 0.99), (0.55, 0.35, 0.995, 0.8)]
COUNT = 30


def draw(folder: Path, count: int = COUNT, size: tuple[int, int] = SIZE) -> None:
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size).save(folder / "images" / f"{number}.jpg")


def coco(folder: Path, boxes: Sequence[Corners]) -> None:
    count = range(len(boxes))
    document = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in count],
        "annotations": [
            {"image_id": number, "category_id": 1, "bbox": [x, y, x2 - x, y2 - y]}
            for number, (x, y, x2, y2) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "labels.json").write_text(json.dumps(document))


def create_ml(folder: Path, boxes: Sequence[Corners]) -> None:
    rows = [
        {
            "image": f"{number}.jpg",
            "annotations": [
                {
                    "label": "cat",
                    "coordinates": {"x": (x + x2) / 2, "y": (y + y2) / 2, "width": x2 - x, "height": y2 - y},
                }
            ],
        }
        for number, (x, y, x2, y2) in enumerate(boxes)
    ]
    (folder / "labels.json").write_text(json.dumps(rows))


def csv_rows(folder: Path, boxes: Sequence[Corners]) -> None:
    rows = [f"{number}.jpg,cat,{','.join(map(str, corners))}" for number, corners in enumerate(boxes)]
    (folder / "labels.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows]))


def pascal_voc(folder: Path, boxes: Sequence[Corners]) -> None:
    for number, corners in enumerate(boxes):
        box = "".join(
            f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        )
        (folder / "images" / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.jpg</filename><size><width>{SIZE[0]}</width><height>{SIZE[1]}</height>"
            f"</size><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        )


def yolo(folder: Path, boxes: Sequence[Corners]) -> None:
    for number, (x, y, x2, y2) in enumerate(boxes):
        (folder / "images" / f"{number}.txt").write_text(f"0 {(x + x2) / 2} {(y + y2) / 2} {x2 - x} {y2 - y}")
    (folder / "classes.txt").write_text("cat")


def cloud_annotations(folder: Path, boxes: Sequence[Corners]) -> None:
    document = {
        "type": "localization",
        "labels": ["cat"],
        "annotations": {
            f"images/{number}.jpg": [{"label": "cat", **dict(zip(("x", "y", "x2", "y2"), corners, strict=True))}]
            for number, corners in enumerate(boxes)
        },
    }
    (folder / "_annotations.json").write_text(json.dumps(document))


def in_unit(unit: Unit, size: tuple[int, int] = SIZE, count: int = COUNT) -> list[Corners]:
    """A box for each photo."""
    width, height = size if unit is Unit.PIXELS else (units.SIDES[unit],) * 2
    found = [BOXES[number % len(BOXES)] for number in range(count)]
    return [(x * width, y * height, x2 * width, y2 * height) for x, y, x2, y2 in found]


def read(folder: Path) -> Dataset:
    values = make_settings(folder.parent, data_dir=folder)
    return annotations.read_bucket(values, exclude=folder / "results")


def check(dataset: Dataset, count: int = COUNT) -> None:
    """Every photo has its box."""
    assert len(dataset.images) == count
    for image in dataset.images:
        (box,) = image.boxes
        expected = BOXES[int(Path(image.key).stem) % len(BOXES)]
        assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(expected, abs=1e-3)


Writer = Callable[[Path, Sequence[Corners]], None]
IN_PIXELS: list[Writer] = [coco, create_ml, csv_rows, pascal_voc]
IN_FRACTIONS: list[Writer] = [yolo, cloud_annotations]
ALL = [(write, Unit.PIXELS) for write in IN_PIXELS] + [(write, Unit.FRACTIONS) for write in IN_FRACTIONS]


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize(("write", "own"), ALL, ids=[write.__name__ for write, _ in ALL])
def test_boxes_in_any_unit_are_read(tmp_path: Path, write: Writer, own: Unit, unit: Unit) -> None:
    draw(tmp_path)
    write(tmp_path, in_unit(unit))
    dataset = read(tmp_path)
    check(dataset)
    told = [] if unit is own else [units.told(unit)]
    assert list(dataset.findings.kinds) == told
    assert all(len(dataset.findings.kinds[kind]) == COUNT for kind in told)


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (4000, 3000)])
def test_pixels_of_yolo_are_told_from_thousandths_by_the_sizes_of_photos(tmp_path: Path, size: tuple[int, int]) -> None:
    draw(tmp_path, size=size)
    yolo(tmp_path, in_unit(Unit.PIXELS, size))
    check(read(tmp_path))


def test_boxes_that_fit_in_two_units_stop_the_job(tmp_path: Path) -> None:
    """Photos of 1000 x 1000 pixels look the same in pixels and in thousandths."""
    draw(tmp_path, size=(1010, 1010))
    yolo(tmp_path, in_unit(Unit.THOUSANDTHS))
    with pytest.raises(UserError, match="30 of 30 boxes reach out of their photos"):
        read(tmp_path)


@pytest.mark.parametrize("write", IN_PIXELS, ids=[write.__name__ for write in IN_PIXELS])
def test_small_objects_in_a_corner_stay_in_pixels(tmp_path: Path, write: Writer) -> None:
    draw(tmp_path)
    write(tmp_path, [(10, 10, 60 + number, 80) for number in range(COUNT)])
    dataset = read(tmp_path)
    assert not dataset.findings.kinds
    assert dataset.images[0].boxes[0].xmax == pytest.approx(60 / SIZE[0])


def test_files_of_two_units_are_decided_one_by_one(tmp_path: Path) -> None:
    draw(tmp_path, count=2 * COUNT)
    pixels, fractions = in_unit(Unit.PIXELS), in_unit(Unit.FRACTIONS)
    csv_rows(tmp_path, [*pixels, *fractions])
    head, *rows = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([head, *rows[:COUNT]]))
    (tmp_path / "more.csv").write_text("\n".join([head, *rows[COUNT:]]))
    dataset = read(tmp_path)
    check(dataset, 2 * COUNT)
    assert len(dataset.findings.kinds[units.told(Unit.FRACTIONS)]) == COUNT


def test_fractions_beside_pixels_in_one_file_stop_the_job(tmp_path: Path) -> None:
    draw(tmp_path, count=2 * COUNT)
    yolo(tmp_path, [*in_unit(Unit.PIXELS), *in_unit(Unit.FRACTIONS)])
    with pytest.raises(UserError, match="30 of 60 boxes reach out of their photos"):
        read(tmp_path)
