"""Every format gives the same dataset, and its boxes lie on what was drawn."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, ImageDraw

from entrypoint.data import annotations, images, losses
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import FIRST_ON_ITS_SIDE, Box
from entrypoint.data.examples import read_photo
from entrypoint.data.formats import source
from entrypoint.data.formats.source import Files
from entrypoint.data.split import split
from entrypoint.settings import command_line
from entrypoint.system import bucket
from entrypoint.system.errors import UserError
from tests.awkward import STORED_BY
from tests.conftest import BOX, write_bucket

COLOURS = {"cat": (220, 30, 30), "dog": (30, 30, 220)}
SIZE = (160, 80)


@dataclass(frozen=True)
class Drawn:
    """A photo to be written: its folder's split, its name, and boxes as (label, x, y, x2, y2) in pixels."""

    part: str
    name: str
    boxes: tuple[tuple[str, int, int, int, int], ...]


PHOTOS = (
    Drawn("train", "a.jpg", (("dog", 16, 8, 64, 40), ("cat", 80, 20, 150, 70))),
    Drawn("train", "b ä.png", (("cat", 0, 0, 40, 80),)),
    Drawn("valid", "a.jpg", (("dog", 100, 10, 160, 80),)),
    Drawn("valid", "empty.jpg", ()),
)


def encode(photo: Drawn, orientation: int = 1) -> bytes:
    """The photo with its boxes filled, stored so that the orientation turns it upright."""
    image = Image.new("RGB", SIZE, (240, 240, 240))
    for label, x, y, x2, y2 in photo.boxes:
        ImageDraw.Draw(image).rectangle((x, y, x2 - 1, y2 - 1), fill=COLOURS[label])
    exif = Image.Exif()
    if orientation != 1:
        exif[images.ORIENTATION] = orientation
    method = STORED_BY[orientation]
    buffer = io.BytesIO()
    stored = image if method is None else image.transpose(method)
    stored.save(buffer, "PNG" if photo.name.endswith("png") else "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def cloud_annotations(folder: Path) -> None:
    document: dict[str, Any] = {"version": "1.0", "type": "localization", "labels": ["cat", "dog"], "annotations": {}}
    width, height = SIZE
    for photo in PHOTOS:
        write(folder / photo.part / photo.name, encode(photo))
        document["annotations"][f"{photo.part}/{photo.name}"] = [
            {"label": label, "x": x / width, "y": y / height, "x2": x2 / width, "y2": y2 / height}
            for label, x, y, x2, y2 in photo.boxes
        ] or [{"label": "Negative"}]
    write(folder / "_annotations.json", json.dumps(document))


def coco(folder: Path) -> None:
    """A file for each split in its own folder, whose ids are its own, as Roboflow exports it."""
    for part, ids in (("train", {"cat": 1, "dog": 2}), ("valid", {"dog": 7, "cat": 1})):
        photos = [photo for photo in PHOTOS if photo.part == part]
        document = {
            "images": [
                {"id": index, "file_name": photo.name, "width": SIZE[0], "height": SIZE[1]}
                for index, photo in enumerate(photos)
            ],
            "categories": [{"id": number, "name": label} for label, number in ids.items()],
            "annotations": [
                {"id": x, "image_id": index, "category_id": ids[label], "bbox": [x, y, x2 - x, y2 - y], "iscrowd": 0}
                for index, photo in enumerate(photos)
                for label, x, y, x2, y2 in photo.boxes
            ],
        }
        write(folder / part / "_annotations.coco.json", json.dumps(document))
        for photo in photos:
            write(folder / part / photo.name, encode(photo))


def coco_as_published(folder: Path) -> None:
    """annotations/instances_SPLIT.json beside folders of photos, and files of other tasks."""
    coco(folder)
    for part, name in (("train", "train2017"), ("valid", "val2017")):
        (folder / part / "_annotations.coco.json").rename(folder / f"instances_{name}.json")
        (folder / part).rename(folder / name)
        write(folder / "annotations" / f"instances_{name}.json", (folder / f"instances_{name}.json").read_bytes())
        (folder / f"instances_{name}.json").unlink()
        captions = {"images": [], "categories": [], "annotations": [{"image_id": 0, "caption": "a cat"}]}
        write(folder / "annotations" / f"captions_{name}.json", json.dumps(captions))


def pascal_voc(folder: Path) -> None:
    for photo in PHOTOS:
        write(folder / photo.part / photo.name, encode(photo))
        objects = "".join(
            f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for label, x, y, x2, y2 in photo.boxes
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{photo.name}</filename>{size}{objects}</annotation>"
        write((folder / photo.part / photo.name).with_suffix(".xml"), text)


def pascal_voc_as_published(folder: Path) -> None:
    """JPEGImages, Annotations and ImageSets; names are unique over the splits."""
    for photo in PHOTOS:
        pascal_voc(folder / "flat")
        stem = f"{photo.part} {Path(photo.name).stem}"
        source = folder / "flat" / photo.part / photo.name
        write(folder / "JPEGImages" / f"{stem}{source.suffix}", source.read_bytes())
        text = source.with_suffix(".xml").read_text().replace(photo.name, f"{stem}{source.suffix}")
        write(folder / "Annotations" / f"{stem}.xml", text)
    for part, name in (("train", "train"), ("valid", "val")):
        stems = [f"{photo.part} {Path(photo.name).stem}" for photo in PHOTOS if photo.part == part]
        write(folder / "ImageSets" / "Main" / f"{name}.txt", "\n".join(stems))
    for path in sorted((folder / "flat").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def yolo(folder: Path) -> None:
    """images and labels below each split, as Roboflow exports it."""
    for photo in PHOTOS:
        write(folder / photo.part / "images" / photo.name, encode(photo))
        write((folder / photo.part / "labels" / photo.name).with_suffix(".txt"), yolo_lines(photo))
    write(folder / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n")


def yolo_with_splits_by_name(folder: Path) -> None:
    """images/NAME and labels/NAME, whose names only data.yaml knows; polygons instead of boxes."""
    for photo in PHOTOS:
        name = {"train": "first", "valid": "second"}[photo.part]
        write(folder / "images" / name / photo.name, encode(photo))
        lines = []
        for label, *corners in photo.boxes:
            x, y, x2, y2 = (float(value) / side for value, side in zip(corners, SIZE * 2, strict=True))
            lines.append(f"{('cat', 'dog').index(label)} {x} {y} {x2} {y} {x2} {y2} {x} {y2}")
        write((folder / "labels" / name / photo.name).with_suffix(".txt"), "\n".join(lines))
    names = "names:\n  0: cat\n  1: dog\n"
    write(folder / "data.yaml", f"path: /content/data\ntrain: images/first\nval: images/second\n{names}")


def yolo_lines(photo: Drawn) -> str:
    width, height = SIZE
    return "".join(
        f"{('cat', 'dog').index(label)} {(x + x2) / 2 / width} {(y + y2) / 2 / height} "
        f"{(x2 - x) / width} {(y2 - y) / height}\n"
        for label, x, y, x2, y2 in photo.boxes
    )


def create_ml(folder: Path) -> None:
    for part in ("train", "valid"):
        document = []
        for photo in PHOTOS:
            if photo.part == part:
                write(folder / part / photo.name, encode(photo))
                boxes = [
                    {
                        "label": label,
                        "coordinates": {"x": (x + x2) / 2, "y": (y + y2) / 2, "width": x2 - x, "height": y2 - y},
                    }
                    for label, x, y, x2, y2 in photo.boxes
                ]
                document.append({"image": photo.name, "annotations": boxes})
        write(folder / part / "_annotations.createml.json", json.dumps(document))


def csv_rows(folder: Path) -> None:
    """A table for each split, as the tutorials of TFRecords write it; a photo without objects has a row of its own."""
    for part in ("train", "valid"):
        rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
        for photo in PHOTOS:
            if photo.part == part:
                write(folder / part / photo.name, encode(photo))
                size = f"{photo.name},{SIZE[0]},{SIZE[1]}"
                rows += [",".join((size, *map(str, box))) for box in photo.boxes] or [f"{size},,,,,"]
        write(folder / f"{part}_labels.csv", "\n".join(rows))


def labelme(folder: Path) -> None:
    """A file for each photo; one shape is a polygon."""
    for photo in PHOTOS:
        write(folder / photo.part / photo.name, encode(photo))
        shapes = [
            {"label": label, "shape_type": "rectangle", "points": [[x, y], [x2, y2]]}
            if label == "cat"
            else {"label": label, "shape_type": "polygon", "points": [[x, y], [x2, y], [x2, y2], [x, y2]]}
            for label, x, y, x2, y2 in photo.boxes
        ]
        document = {"imagePath": photo.name, "imageData": "x" * 100, "imageWidth": SIZE[0], "imageHeight": SIZE[1]}
        write((folder / photo.part / photo.name).with_suffix(".json"), json.dumps({**document, "shapes": shapes}))


def via(folder: Path) -> None:
    """A project for each split."""
    for part in ("train", "valid"):
        metadata = {}
        for photo in PHOTOS:
            if photo.part == part:
                write(folder / part / photo.name, encode(photo))
                regions = [
                    {
                        "shape_attributes": {"name": "rect", "x": x, "y": y, "width": x2 - x, "height": y2 - y},
                        "region_attributes": {"kind": label} if label == "cat" else {"kind": {label: True}},
                    }
                    for label, x, y, x2, y2 in photo.boxes
                ]
                metadata[f"{photo.name}123"] = {"filename": photo.name, "size": 123, "regions": regions}
        write(folder / part / "via_project.json", json.dumps({"_via_settings": {}, "_via_img_metadata": metadata}))


def label_studio(folder: Path) -> None:
    """An export for each split; the names of the photos are those before they were uploaded."""
    for part in ("train", "valid"):
        tasks: list[dict[str, Any]] = []
        for photo in PHOTOS:
            if photo.part == part:
                write(folder / part / photo.name, encode(photo))
                result = [
                    {
                        "type": "rectanglelabels",
                        "original_width": SIZE[0],
                        "original_height": SIZE[1],
                        "value": {
                            "x": 100 * x / SIZE[0],
                            "y": 100 * y / SIZE[1],
                            "width": 100 * (x2 - x) / SIZE[0],
                            "height": 100 * (y2 - y) / SIZE[1],
                            "rotation": 0,
                            "rectanglelabels": [label],
                        },
                    }
                    for label, x, y, x2, y2 in photo.boxes
                ]
                annotations = [{"was_cancelled": True, "result": []}, {"result": [*result, {"type": "choices"}]}]
                data = {"image": f"/data/upload/7/0a1b2c3d-{quote(photo.name)}"}
                tasks.append({"id": len(tasks), "data": data, "annotations": annotations})
        write(folder / part / "project.json", json.dumps(tasks))


def dota(folder: Path) -> None:
    """A text file for each photo in labelTxt, as it is published, with the corners of boxes in any order."""
    for photo in PHOTOS:
        write(folder / photo.part / "images" / photo.name, encode(photo))
        lines = [f"{x2} {y} {x2} {y2} {x} {y2} {x} {y} {label} 0" for label, x, y, x2, y2 in photo.boxes]
        head = ["imagesource:GoogleEarth", "gsd:0.5"] if photo.boxes else []
        write(folder / photo.part / "labelTxt" / f"{Path(photo.name).stem}.txt", "\n".join([*head, *lines]))


def open_images(folder: Path) -> None:
    """A table for each split and the names of the classes. It cannot say that a photo shows no object."""
    for part in ("train", "valid"):
        rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
        for photo in PHOTOS:
            if photo.part == part and photo.boxes:
                write(folder / part / photo.name, encode(photo))
                rows += [
                    f"{Path(photo.name).stem},xclick,/m/{label},1,{x / SIZE[0]},{x2 / SIZE[0]},{y / SIZE[1]},"
                    f"{y2 / SIZE[1]},0,0,0"
                    for label, x, y, x2, y2 in photo.boxes
                ]
        write(folder / f"{part}-annotations-bbox.csv", "\n".join(rows))
    write(folder / "class-descriptions-boxable.csv", "/m/cat,cat\n/m/dog,dog\n")


def vertex_ai(folder: Path) -> None:
    """A table with two corners of each box. It cannot say that a photo shows no object."""
    rows = []
    for photo in PHOTOS:
        write(folder / photo.part / photo.name, encode(photo))
        for label, x, y, x2, y2 in photo.boxes:
            use = {"train": "TRAINING", "valid": "VALIDATION"}[photo.part]
            left, top, right, bottom = x / SIZE[0], y / SIZE[1], x2 / SIZE[0], y2 / SIZE[1]
            rows.append(f"{use},gs://bucket/{photo.part}/{photo.name},{label},{left},{top},,,{right},{bottom},,")
    write(folder / "import.csv", "\n".join(rows))


def vertex_ai_lines(folder: Path) -> None:
    """The same as JSON Lines, as Vertex AI exports it."""
    lines = []
    for photo in PHOTOS:
        write(folder / photo.part / photo.name, encode(photo))
        boxes = [
            {"displayName": label, "xMin": x / SIZE[0], "yMin": y / SIZE[1], "xMax": x2 / SIZE[0], "yMax": y2 / SIZE[1]}
            for label, x, y, x2, y2 in photo.boxes
        ]
        use = {"train": "training", "valid": "validation"}[photo.part]
        document = {
            "imageGcsUri": f"gs://bucket/{photo.part}/{photo.name}",
            "boundingBoxAnnotations": boxes,
            "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use},
        }
        lines.append(json.dumps(document))
    write(folder / "data.jsonl", "\n".join(lines))


WITHOUT_EMPTY = (open_images, vertex_ai, vertex_ai_lines)
WRITERS: tuple[Callable[[Path], None], ...] = (
    cloud_annotations,
    coco,
    coco_as_published,
    pascal_voc,
    pascal_voc_as_published,
    yolo,
    yolo_with_splits_by_name,
    create_ml,
    csv_rows,
    labelme,
    via,
    label_studio,
    dota,
    *WITHOUT_EMPTY,
)


def read(folder: Path, **values: str) -> Dataset:
    flags = [f"--{name}={value}" for name, value in {"data_dir": str(folder), **values}.items()]
    return annotations.read_bucket(command_line.load(flags).settings, exclude=folder / "results")


def pixels(folder: Path, image: LabelledImage) -> Iterator[tuple[Box, Image.Image]]:
    """Each box with what the stored photo shows inside of it, but for the seam that JPEG blurs."""
    photo = read_photo(folder, image.key)
    with Image.open(io.BytesIO(photo.encoded)) as picture:
        for box in image.boxes:
            left, top = round(box.xmin * photo.width) + 2, round(box.ymin * photo.height) + 2
            right, bottom = round(box.xmax * photo.width) - 2, round(box.ymax * photo.height) - 2
            yield box, picture.convert("RGB").crop((left, top, right, bottom))


def is_filled(inside: Image.Image, colour: tuple[int, int, int]) -> bool:
    """Whether a picture shows one colour, as far as JPEG keeps it."""
    return bool((np.abs(np.asarray(inside, int) - colour) < 40).all())


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_boxes_lie_on_what_was_drawn_and_the_split_is_the_bucket_s_own(
    writer: Callable[[Path], None], tmp_path: Path
) -> None:
    writer(tmp_path)
    dataset = read(tmp_path)
    assert dataset.findings.kinds == {}
    assert sorted(dataset.labels) == ["cat", "dog"]
    shown = [(box.label, inside) for image in dataset.images for box, inside in pixels(tmp_path, image)]
    assert sorted(label for label, _ in shown) == ["cat", "cat", "dog", "dog"]
    assert all(is_filled(inside, COLOURS[label]) for label, inside in shown)
    areas = sorted(round((box.xmax - box.xmin) * (box.ymax - box.ymin), 4) for i in dataset.images for box in i.boxes)
    assert areas == sorted(
        round((x2 - x) * (y2 - y) / SIZE[0] / SIZE[1], 4) for photo in PHOTOS for _, x, y, x2, y2 in photo.boxes
    )
    parts = split(dataset.images, fraction=0.9, seed=1)
    if writer in WITHOUT_EMPTY:
        assert [len(parts["train"]), len(parts["validation"])] == [2, 1]
        return
    assert [len(parts["train"]), len(parts["validation"])] == [2, 2]
    assert {len(image.boxes) for image in parts["validation"]} == {0, 1}
    dropped = read(tmp_path, empty_photos="drop")
    assert len(dropped.images) == 3
    assert [len(where) for where in dropped.findings.kinds.values()] == [1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", ["upright", "stored", "missing"])
def test_boxes_in_pixels_are_turned_with_a_photo_that_they_were_drawn_on_unturned(
    orientation: int, size: str, tmp_path: Path
) -> None:
    drawn = PHOTOS[0]
    write(tmp_path / "a.jpg", encode(drawn, orientation))
    boxes = [(label, x, y, x2, y2) for label, x, y, x2, y2 in drawn.boxes]
    given: tuple[int, int] | None = {"upright": SIZE, "stored": SIZE, "missing": None}[size]
    if size == "stored" and orientation >= FIRST_ON_ITS_SIDE:
        # Where the boxes lie on the picture as it is stored, by the turn that stored it.
        given = SIZE[::-1]
        boxes = [(label, *stored_corners(orientation, x, y, x2, y2)) for label, x, y, x2, y2 in boxes]
    extent = {} if given is None else {"width": given[0], "height": given[1]}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", **extent}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 1 + (label == "dog"), "bbox": [x, y, x2 - x, y2 - y]}
            for label, x, y, x2, y2 in boxes
        ],
    }
    write(tmp_path / "labels.json", json.dumps(document))
    dataset = read(tmp_path)
    shown = [(box.label, inside) for box, inside in pixels(tmp_path, dataset.images[0])]
    assert [label for label, _ in shown] == ["dog", "cat"]
    assert all(is_filled(inside, COLOURS[label]) for label, inside in shown)
    turned = "boxes drawn on a photo before it was turned upright, turned with it" in dataset.findings.kinds
    assert turned == (size == "stored" and orientation >= FIRST_ON_ITS_SIDE)


def stored_corners(orientation: int, x: int, y: int, x2: int, y2: int) -> tuple[int, int, int, int]:
    """A box of the upright picture, found again by its pixels in the picture as it is stored."""
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).rectangle((x, y, x2 - 1, y2 - 1), fill=255)
    method = STORED_BY[orientation]
    found = (mask if method is None else mask.transpose(method)).getbbox()
    assert found is not None
    return found


def test_bucket_of_two_formats_is_refused_until_one_is_named(tmp_path: Path) -> None:
    pascal_voc(tmp_path)
    for photo in PHOTOS:
        write((tmp_path / photo.part / photo.name).with_suffix(".txt"), yolo_lines(photo))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    with pytest.raises(UserError, match=r"several formats.*DATA_FORMAT=pascal_voc\|yolo"):
        read(tmp_path)
    for name in ("pascal_voc", "yolo"):
        dataset = read(tmp_path, data_format=name)
        boxes = [(box.label, round(box.xmin * SIZE[0])) for image in dataset.images for box in image.boxes]
        assert boxes == [(label, x) for photo in PHOTOS for label, x, *_ in photo.boxes]


def test_table_that_was_made_from_other_files_is_left_aside(tmp_path: Path) -> None:
    """The tutorials of TFRecords make a CSV out of the XML files, and leave both in the folder."""
    pascal_voc(tmp_path)
    write(tmp_path / "train_labels.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,160,80,x,1,1,9,9\n")
    assert sorted(read(tmp_path).labels) == ["cat", "dog"]
    assert read(tmp_path, data_format="csv_rows").labels == ["x"]


def test_named_format_that_is_not_there_says_what_it_looks_for(tmp_path: Path) -> None:
    yolo(tmp_path)
    with pytest.raises(UserError, match="no annotations of DATA_FORMAT=coco, which are JSON files with `images`"):
        read(tmp_path, data_format="coco")


def test_photos_of_one_name_are_told_apart_by_their_folders_or_not_taken(tmp_path: Path) -> None:
    coco(tmp_path)
    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    document["images"][0]["file_name"] = r"C:\photos\train\a.jpg"
    write(tmp_path / "train" / "_annotations.coco.json", json.dumps(document))
    assert "train/a.jpg" in [image.key for image in read(tmp_path).images]
    (tmp_path / "train" / "_annotations.coco.json").rename(tmp_path / "all.json")
    document["images"][0]["file_name"] = "a.jpg"
    write(tmp_path / "all.json", json.dumps(document))
    (where,) = read(tmp_path).findings.kinds[losses.SEVERAL]
    assert where.startswith("a.jpg: ")


def test_photos_for_a_test_are_left_out_or_stand_in_for_those_of_validation(tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "test" / "images" / "t.jpg", encode(PHOTOS[0]))
    write(tmp_path / "test" / "labels" / "t.txt", yolo_lines(PHOTOS[0]))
    dataset = read(tmp_path)
    assert dataset.findings.kinds == {"photo of the bucket's test split, left out": ["test/images/t.jpg"]}
    for path in sorted((tmp_path / "valid").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    parts = split(read(tmp_path).images, fraction=0.2, seed=1)
    assert [image.key for image in parts["validation"]] == ["test/images/t.jpg"]


def test_photo_without_a_yolo_file_was_never_labelled(tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "train" / "images" / "new.jpg", encode(PHOTOS[0]))
    dataset = read(tmp_path)
    assert dataset.unlabelled == 1
    assert len(dataset.images) == len(PHOTOS)


BROKEN = {
    "yolo label of no number": (
        yolo,
        "train/labels/a.txt",
        "7 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n",
        losses.CLASS,
    ),
    "yolo words": (yolo, "train/labels/a.txt", "cat\n0 nan 0.5 1 1\n0 0.5 0.5 0.2 0.2", losses.NUMBERS),
    "voc cut off": (pascal_voc, "train/a.xml", "<annotation><object>", "file of annotations is damaged"),
    "voc with entities": (pascal_voc, "train/a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "is damaged"),
    "voc without corners": (
        pascal_voc,
        "train/a.xml",
        "<annotation><filename>a.jpg</filename><object><name>cat</name></object></annotation>",
        losses.CORNERS,
    ),
    "voc of a photo that is gone": (
        pascal_voc,
        "train/gone.xml",
        "<annotation><filename>gone.jpg</filename></annotation>",
        losses.MISSING,
    ),
    "create_ml without coordinates": (
        create_ml,
        "train/_annotations.createml.json",
        '[{"image": "a.jpg", "annotations": [7, {"label": "cat"}]}]',
        losses.NO_BOX,
    ),
    "coco with a crowd": (
        coco,
        "train/_annotations.coco.json",
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg"}, 7],
                "categories": [{"id": 1, "name": "cat"}, None],
                "annotations": [{"image_id": 1, "category_id": 1, "iscrowd": 1, "bbox": [1, 1, 9, 9]}, {"bbox": None}],
            }
        ),
        "region of a crowd, skipped",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_counted_and_the_rest_is_kept(case: str, tmp_path: Path) -> None:
    writer, key, content, kind = BROKEN[case]
    writer(tmp_path)
    write(tmp_path / key, content)
    dataset = read(tmp_path)
    assert any(kind in found for found in dataset.findings.kinds), dataset.findings
    assert any(image.key.startswith("valid/") and image.boxes for image in dataset.images)


def test_photo_of_another_shape_than_its_annotations_say_is_lost_without_evidence(tmp_path: Path) -> None:
    pascal_voc(tmp_path)
    path = tmp_path / "train" / "a.xml"
    path.write_text(path.read_text().replace(f"<height>{SIZE[1]}", "<height>160"))
    kinds = read(tmp_path).findings.kinds
    assert kinds == {losses.SIZE: ["train/a.jpg: 160 x 160 in the annotations, 160 x 80 in the photo"]}


def test_photo_whose_header_cannot_be_read_is_left_for_the_conversion_to_count(tmp_path: Path) -> None:
    create_ml(tmp_path)
    (tmp_path / "train" / "a.jpg").write_bytes(b"no photo")
    dataset = read(tmp_path, empty_photos="drop")
    assert LabelledImage("train/a.jpg", (), "train") in dataset.images
    with pytest.raises(images.UnusablePhotoError):
        read_photo(tmp_path, "train/a.jpg")


def test_annotations_of_a_photo_that_is_gone_are_not_those_of_its_namesake_in_another_split(tmp_path: Path) -> None:
    yolo(tmp_path / "yolo")
    pascal_voc(tmp_path / "voc")
    for folder in (tmp_path / "yolo", tmp_path / "voc"):
        (gone,) = folder.glob("valid/**/a.jpg")
        gone.unlink()
        dataset = read(folder)
        train = next(image for image in dataset.images if image.key.startswith("train/") and "a.jpg" in image.key)
        assert [box.label for box in train.boxes] == [label for label, *_ in PHOTOS[0].boxes]
        assert len(dataset.findings.kinds[losses.MISSING]) == 1


def test_of_two_files_for_a_photo_one_is_taken_and_the_other_counted(tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "train" / "images" / "a.txt", "")
    dataset = read(tmp_path)
    assert len(dataset.findings.kinds[source.OTHER_FILE]) == 1
    assert len(dataset.images) == len(PHOTOS)


def test_a_file_of_create_ml_per_photo_is_read_for_every_photo(tmp_path: Path) -> None:
    box = {"label": "cat", "coordinates": {"x": 20, "y": 20, "width": 10, "height": 10}}
    for number in range(80):
        write(tmp_path / f"{number}.jpg", encode(PHOTOS[0]))
        write(tmp_path / f"{number}.json", json.dumps([{"image": f"file:///x/{number}.jpg", "annotations": [box]}]))
    dataset = read(tmp_path)
    assert len(dataset.images) == 80
    assert dataset.unlabelled == 0


def test_coco_is_found_among_many_files_of_something_else(tmp_path: Path) -> None:
    coco(tmp_path)
    for number in range(100):
        write(tmp_path / f"{number}.json", "{}")
    assert len(read(tmp_path).images) == len(PHOTOS)


@pytest.mark.parametrize("writer", [coco, create_ml])
def test_damaged_document_is_a_named_error(writer: Callable[[Path], None], tmp_path: Path) -> None:
    writer(tmp_path)
    (path,) = (tmp_path / "valid").glob("*.json")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match=rf"{path.name}: cut off or damaged"):
        read(tmp_path)
    for other in (tmp_path / "train").glob("*.json"):
        other.unlink()
    with pytest.raises(UserError, match=rf"cut off or damaged, export them again: valid/{path.name}"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["names: [cat", "names: " + "[" * 5000, "names: {0: [cat, dog], 1: {}}"])
def test_damaged_list_of_labels_is_a_named_error(content: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "data.yaml", content)
    with pytest.raises(UserError, match="no annotations of DATA_FORMAT=yolo"):
        read(tmp_path, data_format="yolo")


def test_ids_of_coco_may_be_fractions_and_what_belongs_to_no_photo_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", encode(PHOTOS[0]))
    boxes = [{"image_id": each, "category_id": 3.0, "bbox": [1, 1, 20, 20]} for each in (1.0, 7)]
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": 3, "name": 17}],
        "annotations": boxes,
    }
    write(tmp_path / "labels.json", json.dumps(document))
    dataset = read(tmp_path)
    assert [[box.label for box in image.boxes] for image in dataset.images] == [["17"]]
    assert dataset.findings.kinds == {
        "annotation of a photo that its file does not list, skipped": ["labels.json: image_id 7"]
    }


def test_photo_outside_of_the_split_is_trained_on_and_the_split_kept(tmp_path: Path) -> None:
    yolo(tmp_path)
    write(tmp_path / "new" / "images" / "new.jpg", encode(PHOTOS[0]))
    write(tmp_path / "new" / "labels" / "new.txt", yolo_lines(PHOTOS[0]))
    dataset = read(tmp_path)
    assert dataset.findings.kinds == {annotations.UNLISTED: ["new/images/new.jpg"]}
    parts = split(dataset.images, fraction=0.5, seed=1)
    assert [len(parts["train"]), len(parts["validation"])] == [3, 2]
    for number in range(10):
        write(tmp_path / "new" / "images" / f"{number}.jpg", encode(PHOTOS[0]))
        write(tmp_path / "new" / "labels" / f"{number}.txt", yolo_lines(PHOTOS[0]))
    dataset = read(tmp_path)
    assert {image.part for image in dataset.images} == {None}
    assert len(dataset.findings.kinds[annotations.NOT_KEPT]) == len(PHOTOS)


def test_split_of_darknet_s_lists_is_kept(tmp_path: Path) -> None:
    for photo in PHOTOS:
        write(tmp_path / "obj_data" / name_of(photo), encode(photo))
        write((tmp_path / "obj_data" / name_of(photo)).with_suffix(".txt"), yolo_lines(photo))
    for part in ("train", "valid"):
        names = [f"data/obj_data/{name_of(photo)}\n" for photo in PHOTOS if photo.part == part]
        write(tmp_path / f"{part}.txt", "".join(names))
    write(tmp_path / "obj.names", "cat\ndog\n")
    write(tmp_path / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    dataset = read(tmp_path)
    assert dataset.findings.kinds == {}
    assert Counter(image.part for image in dataset.images) == {"train": 2, "validation": 2}


def name_of(photo: Drawn) -> str:
    return f"{photo.part}-{photo.name}"


def test_lists_of_labels_that_differ_are_refused(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    write(tmp_path / "train" / "classes.txt", "cat\ndog\n")
    write(tmp_path / "valid" / "classes.txt", "dog\ncat\n")
    with pytest.raises(UserError, match=r"train/classes.txt and .*valid/classes.txt list different labels"):
        read(tmp_path)
    write(tmp_path / "valid" / "classes.txt", "cat\ndog\n")
    assert read(tmp_path).labels == ["cat", "dog"]


def test_points_of_a_pose_are_no_polygon(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", encode(PHOTOS[0]))
    write(tmp_path / "a.txt", "0 0.5 0.5 0.2 0.2 0.9 0.9 2 0.1 0.1 2\n")
    write(tmp_path / "data.yaml", "kpt_shape: [2, 3]\nnames: [cat]\n")
    (image,) = read(tmp_path).images
    assert [round(value, 3) for value in (image.boxes[0].xmin, image.boxes[0].xmax)] == [0.4, 0.6]


def test_photo_that_was_renamed_with_its_file_is_known_by_the_file_s_name(tmp_path: Path) -> None:
    pascal_voc(tmp_path)
    for path in (tmp_path / "train").glob("*.xml"):
        path.write_text(re.sub("<filename>.*</filename>", "<filename>b.jpg</filename>", path.read_text()))
    dataset = read(tmp_path)
    boxes = {image.key: [box.label for box in image.boxes] for image in dataset.images}
    assert boxes == {f"{photo.part}/{photo.name}": [label for label, *_ in photo.boxes] for photo in PHOTOS}
    assert len(dataset.findings.kinds) == 1


@pytest.mark.parametrize(("stored", "named"), [("gro\u0308\u00dfe.jpg", "gr\u00f6\u00dfe.jpg"), ("A.JPG", "a.jpg")])
def test_photo_is_found_whatever_a_file_system_made_of_its_name(stored: str, named: str, tmp_path: Path) -> None:
    write(tmp_path / stored, encode(PHOTOS[0]))
    box = {"label": "cat", "x": 0.1, "y": 0.1, "x2": 0.2, "y2": 0.2}
    write(tmp_path / "_annotations.json", json.dumps({"annotations": {named: [box]}}))
    dataset = read(tmp_path)
    assert [image.key for image in dataset.images] == [stored]
    assert dataset.unlabelled == 0


def test_photos_numbered_anew_in_many_folders_are_each_found(tmp_path: Path) -> None:
    lines = {}
    for folder, photo in (("v1", PHOTOS[0]), ("v2", PHOTOS[1]), ("v3", PHOTOS[2])):
        write(tmp_path / "frames" / folder / "1.jpg", encode(photo))
        lines[f"frames/{folder}/1.jpg"] = [label for label, *_ in photo.boxes]
        write(tmp_path / "labels" / folder / "1.txt", yolo_lines(photo))
    write(tmp_path / "classes.txt", "cat\ndog\n")
    assert {image.key: [box.label for box in image.boxes] for image in read(tmp_path).images} == lines


def test_many_photos_of_one_name_are_told_apart_in_as_many_looks() -> None:
    """A search that compares all of them would need four hundred million comparisons here."""
    entries = {f"video/{number}/rgb/1.jpg": bucket.Entry(1, "1") for number in range(20_000)}
    files = Files(Path("bucket"), entries, workers=1)
    for number in range(20_000):
        assert files.named(f"video/{number}/rgb/1.jpg", "a.json") == f"video/{number}/rgb/1.jpg"
        # A folder that no photo lies in fits all of them alike.
        assert files.named(f"other/{number}/1.jpg", "a.json") is None
        assert files.spelt_like(f"video/{number}/RGB/1.jpg") == f"video/{number}/rgb/1.jpg"


VOC = "<annotation><filename>a.png</filename><object><name>cat</name>"
VOC += "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>{}</annotation>"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_document_type_is_refused_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    levels = [f'<!ENTITY e{level} "{f"&e{level - 1};" * 10 if level else "x"}">' for level in range(9)]
    evil = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE annotation [{"".join(levels)}]>{VOC.format("&e8;")}'
    folder = write_bucket(tmp_path / "b", {}, ("a.png", "good.png"))
    (folder / "_annotations.json").unlink()
    (folder / "a.xml").write_bytes(evil.encode(encoding))
    (folder / "good.xml").write_text(VOC.format("").replace("a.png", "good.png"))
    found = read(folder)
    assert found.findings.kinds["file of annotations is damaged, skipped"] == ["a.xml"]
    assert [image.key for image in found.images] == ["good.png"]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nnames: *b\n",
        "a: &a {x: 1}\nnames: {<<: *a, 0: cat}\n",
        "names: !!timestamp x\n",
        "names: !!python/object/apply:os.system [ls]\n",
        "names: [cat]\n" + "#" * (1 << 21),
    ],
    ids=["aliases", "merge", "timestamp", "python", "size"],
)
def test_yaml_that_means_harm_is_a_named_error(tmp_path: Path, text: str) -> None:
    folder = write_bucket(tmp_path / "b", {}, ("a.png",))
    (folder / "_annotations.json").unlink()
    (folder / "data.yaml").write_text(text)
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match=r"data\.yaml"):
        read(folder)


@pytest.mark.parametrize("name", ["_annotations.json", "classes.txt", "coco.json"])
def test_annotations_that_are_a_link_out_of_the_bucket_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = write_bucket(tmp_path / "b", {"a.png": [BOX]}, ("a.png",))
    if name != "_annotations.json":
        (folder / "_annotations.json").unlink()
    (folder / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "secret").write_text("root:x:0:0")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=rf"{name} cannot be read \(is a link out of the bucket\)"):
        read(folder)
