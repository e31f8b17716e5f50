"""Boxes in another unit than that of their format are read in their own unit, or they stop the job."""

from pathlib import Path

import pytest

from entrypoint.data import annotations, units
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.data.units import Unit
from entrypoint.system.errors import UserError
from tests.conftest import make_settings
from tests.data.writers import (
    LABELS,
    Corners,
    Declared,
    Photo,
    Variant,
    Writer,
    cloud_annotations,
    coco,
    create_ml,
    csv_rows,
    draw_photos,
    pascal_voc,
    yolo,
)

SIZE = (1600, 1200)  # pixels
# Fractions of the photo. Together, they reach to its edges.
BOXES: list[Corners] = [(0.0, 0.1, 0.4, 0.5), (0.3, 0.2, 0.75, 0.99), (0.55, 0.35, 0.995, 0.8)]
COUNT = 30


def draw(
    folder: Path, first: int = 0, size: tuple[int, int] = SIZE, part: str | None = None, boxes: list[Corners] = BOXES
) -> list[Photo]:
    """Draws photos with numbers as names, and returns them with a box on each; every label is used."""
    numbers = range(first, first + COUNT)
    chosen = {number: Box(LABELS[number % len(LABELS)], *boxes[number % len(boxes)]) for number in numbers}
    photos = [Photo(f"{number}.jpg", part, size, 1, (box,)) for number, box in chosen.items()]
    draw_photos(folder, photos)
    return photos


def write_in(unit: Unit, write: Writer, folder: Path, photos: list[Photo]) -> None:
    """Writes the annotations in that unit. Only Pascal VOC has the sizes of the photos beside them."""
    declared: Declared = "photo" if write is pascal_voc else "none"
    write(folder, photos, Variant(unit, declared, on_stored=False, path="name", mark=False, lines="\n"))


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


IN_PIXELS: list[Writer] = [coco, create_ml, csv_rows, pascal_voc]
IN_FRACTIONS: list[Writer] = [yolo, cloud_annotations]
ALL = [(write, Unit.PIXELS) for write in IN_PIXELS] + [(write, Unit.FRACTIONS) for write in IN_FRACTIONS]


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize(("write", "own"), ALL, ids=[write.__name__ for write, _ in ALL])
def test_boxes_in_any_unit_are_read(tmp_path: Path, write: Writer, own: Unit, unit: Unit) -> None:
    write_in(unit, write, tmp_path, draw(tmp_path))
    dataset = read(tmp_path)
    check(dataset)
    told = [] if unit is own else [units.told(unit)]
    assert list(dataset.findings.kinds) == told
    assert all(len(dataset.findings.kinds[kind]) == COUNT for kind in told)


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (4000, 3000)])
def test_pixels_of_yolo_are_told_from_thousandths_by_the_sizes_of_photos(tmp_path: Path, size: tuple[int, int]) -> None:
    write_in(Unit.PIXELS, yolo, tmp_path, draw(tmp_path, size=size))
    check(read(tmp_path))


def test_boxes_that_fit_in_two_units_stop_the_job(tmp_path: Path) -> None:
    """Photos of 1000 x 1000 pixels look the same in pixels and in thousandths."""
    write_in(Unit.THOUSANDTHS, yolo, tmp_path, draw(tmp_path, size=(1010, 1010)))
    with pytest.raises(UserError, match="30 of 30 boxes reach out of their photos"):
        read(tmp_path)


@pytest.mark.parametrize("write", IN_PIXELS, ids=[write.__name__ for write in IN_PIXELS])
def test_small_objects_in_a_corner_stay_in_pixels(tmp_path: Path, write: Writer) -> None:
    corner = [(10 / SIZE[0], 10 / SIZE[1], (60 + number) / SIZE[0], 80 / SIZE[1]) for number in range(COUNT)]
    write_in(Unit.PIXELS, write, tmp_path, draw(tmp_path, boxes=corner))
    dataset = read(tmp_path)
    assert not dataset.findings.kinds
    assert dataset.images[0].boxes[0].xmax == pytest.approx(60 / SIZE[0])


def test_files_of_two_units_are_decided_one_by_one(tmp_path: Path) -> None:
    write_in(Unit.PIXELS, csv_rows, tmp_path, draw(tmp_path, part="train"))
    write_in(Unit.FRACTIONS, csv_rows, tmp_path, draw(tmp_path, first=COUNT, part="validation"))
    assert len(list(tmp_path.rglob("*.csv"))) == 2
    dataset = read(tmp_path)
    check(dataset, 2 * COUNT)
    assert len(dataset.findings.kinds[units.told(Unit.FRACTIONS)]) == COUNT


def test_fractions_beside_pixels_in_one_file_stop_the_job(tmp_path: Path) -> None:
    write_in(Unit.PIXELS, yolo, tmp_path, draw(tmp_path))
    write_in(Unit.FRACTIONS, yolo, tmp_path, draw(tmp_path, first=COUNT))
    with pytest.raises(UserError, match="30 of 60 boxes reach out of their photos"):
        read(tmp_path)
