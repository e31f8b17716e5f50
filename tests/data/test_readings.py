"""Annotations that can be read in two ways: evidence in the data decides, or the photos are lost by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from entrypoint.data import annotations, losses, sizes
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.data.formats import coco, source, yolo
from entrypoint.system.errors import UserError
from tests.conftest import make_settings

WIDTH, HEIGHT = 200, 100


def read(folder: Path, **settings: Any) -> Dataset:
    values = make_settings(folder.parent, data_dir=folder, **settings)
    return annotations.read_bucket(values, exclude=folder / "results")


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def draw(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> None:
    """Writes a grey photo of that stored size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, (90, 90, 90)).save(path, exif=exif)


def boxes_of(dataset: Dataset, key: str) -> list[Box]:
    return next(list(image.boxes) for image in dataset.images if image.key == key)


def approximately(box: Box, *corners: float) -> bool:
    return (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(corners, abs=0.002)


VOC = "<annotation><filename>{0}</filename><size><width>{1}</width><height>{2}</height></size>{3}</annotation>"
OBJECT = "<object><name>cat</name>{}</object>"
BNDBOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def write_voc(folder: Path, number: int, size: tuple[int, int], *boxes: str) -> None:
    objects = "".join(OBJECT.format(box) for box in boxes)
    write(folder / f"{number}.xml", VOC.format(f"{number}.jpg", *size, objects))


@pytest.mark.parametrize(
    "box",
    [
        BNDBOX.format(80, 40, 120, 60)
        + "<attributes><attribute><name>rotation</name><value>90.0</value></attribute></attributes>",
        "<robndbox><cx>100</cx><cy>50</cy><w>40</w><h>20</h><angle>1.570796</angle></robndbox>",
    ],
    ids=["CVAT", "roLabelImg"],
)
def test_rotated_box_becomes_its_hull(tmp_path: Path, box: str) -> None:
    draw(tmp_path / "b" / "0.jpg")
    write_voc(tmp_path / "b", 0, (WIDTH, HEIGHT), box)
    (found,) = boxes_of(read(tmp_path / "b"), "0.jpg")
    assert approximately(found, 0.45, 0.3, 0.55, 0.7)


def coco_of(boxes: list[list[float]], **image: Any) -> dict[str, Any]:
    """A COCO document with a box on each photo."""
    size = {"width": WIDTH, "height": HEIGHT}
    count = range(len(boxes))
    return {
        "images": [{"id": number, "file_name": f"{number}.jpg", **size, **image} for number in count],
        "annotations": [{"image_id": number, "category_id": 1, "bbox": boxes[number]} for number in count],
        "categories": [{"id": 1, "name": "cat"}],
    }


def write_coco(folder: Path, document: dict[str, Any]) -> None:
    write(folder / "labels.json", json.dumps(document))


def test_boxes_of_coco_can_be_two_corners(tmp_path: Path) -> None:
    for number in range(6):
        draw(tmp_path / "b" / f"{number}.jpg")
    write_coco(tmp_path / "b", coco_of([[100, 50, 190, 90]] * 6))
    dataset = read(tmp_path / "b")
    assert approximately(boxes_of(dataset, "0.jpg")[0], 0.5, 0.5, 0.95, 0.9)
    assert dataset.findings.kinds == {coco.CORNERS: ["labels.json"]}


def test_category_with_two_names_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "0.jpg")
    document = coco_of([[10, 10, 20, 20]])
    document["categories"].append({"id": 1, "name": "dog"})
    write_coco(tmp_path / "b", document)
    with pytest.raises(UserError, match="two names for category 1, 'cat' and 'dog'"):
        read(tmp_path / "b")


def test_photo_that_is_listed_twice_gets_the_boxes_of_neither(tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path / "b" / f"{number}.jpg")
    document = coco_of([[10, 10, 20, 20], [30, 30, 20, 20], [50, 50, 20, 20]])
    document["images"][1]["file_name"] = "0.jpg"
    write_coco(tmp_path / "b", document)
    dataset = read(tmp_path / "b")
    assert [image.key for image in dataset.images] == ["2.jpg"]
    assert dataset.findings.kinds == {losses.REPEATED: ["0.jpg: 2 entries"]}


# Corners of boxes in pixels of a picture of 400 x 200, of which the photo is 200 x 100.
INSIDE, BEYOND = (20, 10, 60, 40), (220, 110, 260, 140)


@pytest.mark.parametrize(
    ("corners", "count", "told", "expected"),
    [
        (BEYOND, 1, sizes.SCALED, (0.55, 0.55, 0.65, 0.7)),
        (INSIDE, 12, sizes.CROPPED, (0.1, 0.1, 0.3, 0.4)),
        (INSIDE, 2, losses.SIZE, None),
    ],
    ids=["a box beyond the photo", "many boxes within the photo", "few boxes"],
)
def test_boxes_show_whether_a_photo_was_scaled_or_cut_out(
    tmp_path: Path, corners: tuple[int, ...], count: int, told: str, expected: tuple[float, ...] | None
) -> None:
    for number in range(count):
        draw(tmp_path / "b" / f"{number}.jpg")
        write_voc(tmp_path / "b", number, (400, 200), BNDBOX.format(*corners))
    draw(tmp_path / "b" / "99.jpg")
    write_voc(tmp_path / "b", 99, (WIDTH, HEIGHT), BNDBOX.format(*INSIDE))
    dataset = read(tmp_path / "b")
    assert len(dataset.findings.kinds[told]) == count
    if expected is None:
        assert [image.key for image in dataset.images] == ["99.jpg"]
    else:
        assert approximately(boxes_of(dataset, "0.jpg")[0], *expected)


@pytest.mark.parametrize(
    ("size", "corners", "told"),
    [
        ((100, 50), (20, 10, 60, 40), sizes.SCALED),
        ((HEIGHT, WIDTH), (120, 10, 180, 40), sizes.CROPPED),
        ((HEIGHT, WIDTH), (20, 10, 60, 40), losses.SIZE),
        ((150, 400), (20, 10, 60, 40), losses.SIZE),
    ],
    ids=["photo made larger", "swapped, with a box beyond", "swapped", "of another shape"],
)
def test_size_that_no_cut_and_no_scale_explains_is_doubted(
    tmp_path: Path, size: tuple[int, int], corners: tuple[int, ...], told: str
) -> None:
    for number in range(12):
        draw(tmp_path / "b" / f"{number}.jpg")
        write_voc(tmp_path / "b", number, size, BNDBOX.format(*corners))
    draw(tmp_path / "b" / "99.jpg")
    write_voc(tmp_path / "b", 99, (WIDTH, HEIGHT), BNDBOX.format(*INSIDE))
    assert len(read(tmp_path / "b").findings.kinds[told]) == 12


def test_list_of_labels_of_another_format_is_not_read(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "0.jpg")
    write_voc(tmp_path / "b", 0, (WIDTH, HEIGHT), BNDBOX.format(*INSIDE))
    write(tmp_path / "b" / "classes.txt", b"gr\xfcn")
    assert read(tmp_path / "b").labels == ["cat"]


def test_labels_txt_counts_only_without_another_list(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", "1 0.5 0.5 0.2 0.2")
    write(tmp_path / "b" / "labels.txt", "other\nlist\n")
    assert read(tmp_path / "b").labels == ["dog"]


# The photo is 100 x 200 when it is upright, and 200 x 100 as it is stored.
@pytest.mark.parametrize(
    ("corners", "tool", "told", "expected"),
    [
        ((120, 10, 180, 40), "CVAT", sizes.TURNED, (0.6, 0.6, 0.9, 0.9)),
        ((10, 120, 40, 180), "CVAT", sizes.UPRIGHT, (0.1, 0.6, 0.4, 0.9)),
        ((10, 10, 40, 40), "Label Studio", sizes.UPRIGHT, (0.1, 0.05, 0.4, 0.2)),
        ((10, 10, 40, 40), "CVAT", losses.TURNED, None),
    ],
)
def test_boxes_show_whether_they_were_drawn_before_a_photo_was_turned(
    tmp_path: Path, corners: tuple[int, ...], tool: str, told: str, expected: tuple[float, ...] | None
) -> None:
    draw(tmp_path / "b" / "0.jpg", orientation=6)
    draw(tmp_path / "b" / "1.jpg")
    x, y, x2, y2 = corners
    document = coco_of([[x, y, x2 - x, y2 - y], [10, 10, 20, 20]])
    write_coco(tmp_path / "b", document | {"info": {"contributor": tool}})
    dataset = read(tmp_path / "b")
    assert len(dataset.findings.kinds[told]) == 1
    if expected is None:
        assert [image.key for image in dataset.images] == ["1.jpg"]
    else:
        assert approximately(boxes_of(dataset, "0.jpg")[0], *expected)


def write_yolo(folder: Path, *lines: str, names: str = "names: [cat, dog]") -> None:
    for number, line in enumerate(lines):
        draw(folder / "images" / f"{number}.jpg")
        write(folder / "labels" / f"{number}.txt", line)
    write(folder / "data.yaml", names)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,0.5,0.5,0.2,0.2", yolo.COMMAS),
        ("1, 0.5, 0.5, 0.2, 0.2", yolo.COMMAS),
        ("1 0,5 0,5 0,2 0,2", yolo.DECIMALS),
        ("1 0.5 0.5 0.2 0.2 0.93 17", yolo.TRACKS),
    ],
)
def test_line_that_can_be_read_in_one_way_only_is_read(tmp_path: Path, line: str, told: str) -> None:
    write_yolo(tmp_path / "b", line, line)
    dataset = read(tmp_path / "b")
    (box,) = boxes_of(dataset, "images/0.jpg")
    assert box.label == "dog"
    assert approximately(box, 0.4, 0.4, 0.6, 0.6)
    assert dataset.findings.kinds[told] == ["labels/0.txt", "labels/1.txt"]


def test_triangle_is_no_track(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", "0 0.1 0.1 0.5 0.1 0.1 0.9", "0 0.1 0.1 0.5 0.1 0.5 1")
    assert approximately(boxes_of(read(tmp_path / "b"), "images/0.jpg")[0], 0.1, 0.1, 0.5, 0.9)


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        ("7 0.5 0.5 0.2 0.2", losses.CLASS, "labels/0.txt line 2: class 7, and data.yaml has 0 to 1"),
        ("0 0.5 0.5 0.2", losses.WORDS, "labels/0.txt line 2: 4 words"),
        ("0 0.5 0.5 0.2 x", losses.NUMBERS, "labels/0.txt line 2: 0 0.5 0.5 0.2 x"),
        ("0 0.5 0.5 0.2 0.2 1.57", losses.NO_SCORE, "labels/0.txt line 2: 1.57"),
    ],
)
def test_line_that_cannot_be_read_is_named_and_its_photo_lost(
    tmp_path: Path, line: str, reason: str, words: str
) -> None:
    write_yolo(tmp_path / "b", f"0 0.5 0.5 0.2 0.2\n{line}\n", "0 0.5 0.5 0.2 0.2")
    dataset = read(tmp_path / "b")
    assert [image.key for image in dataset.images] == ["images/1.jpg"]
    assert dataset.findings.kinds[reason] == [words]
    assert dataset.lost == [words]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.json", json.dumps({"categories": [{"id": "0", "name": "dog"}, {"id": "1", "name": "cat"}]})),
        ("classes.txt", "dog\ncat\n"),
    ],
)
def test_lists_of_labels_that_disagree_stop(tmp_path: Path, name: str, content: str) -> None:
    write_yolo(tmp_path / "b", "0 0.5 0.5 0.2 0.2")
    write(tmp_path / "b" / name, content)
    with pytest.raises(UserError, match=f"data.yaml and .*{name} list different labels"):
        read(tmp_path / "b")


def test_labels_can_be_the_numbers_of_classes_if_nothing_lists_them(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", "3 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.2 0.2")
    (tmp_path / "b" / "data.yaml").unlink()
    with pytest.raises(UserError, match="take the numbers as labels with DATA_FORMAT=yolo"):
        read(tmp_path / "b")
    dataset = read(tmp_path / "b", data_format="yolo")
    assert dataset.labels == ["1", "3"]
    assert dataset.findings.kinds == {yolo.BY_NUMBER: ["labels/0.txt", "labels/1.txt"]}


def test_rotated_box_of_yolo_and_of_dota_becomes_its_hull(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo", "1 0.5 0.2 0.6 0.5 0.5 0.8 0.4 0.5")
    draw(tmp_path / "dota" / "0.jpg")
    write(tmp_path / "dota" / "0.txt", "100 20 120 50 100 80 80 50 dog 1")
    for name, key in (("yolo", "images/0.jpg"), ("dota", "0.jpg")):
        assert approximately(boxes_of(read(tmp_path / name), key)[0], 0.4, 0.2, 0.6, 0.8)


def test_list_of_labels_in_another_encoding_is_named_with_its_byte(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", "0 0.5 0.5 0.2 0.2", names="")
    write(tmp_path / "b" / "classes.txt", "cat\ngr\u00fcn\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"classes.txt is not UTF-8 \(line 2, byte 6: 0xfc\): save it"):
        read(tmp_path / "b")
    write(tmp_path / "b" / "classes.txt", "gr\u00fcn\n".encode("utf-16"))
    assert read(tmp_path / "b").labels == ["gr\u00fcn"]


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("Training Set", "train"),
        ("train_images", "train"),
        ("images_train", "train"),
        ("val2017", "validation"),
        ("train_station", None),
        ("test-data", "test"),
    ],
)
def test_split_is_in_the_name_of_a_folder(folder: str, part: str | None) -> None:
    assert source.part_of_folders(f"{folder}/a.jpg") == part


def test_photo_in_two_splits_is_refused(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", *["0 0.5 0.5 0.2 0.2"] * 3, names="names: [cat]\ntrain: train.txt\nval: val.txt\n")
    write(tmp_path / "b" / "train.txt", "images/0.jpg\nimages/1.jpg\n")
    write(tmp_path / "b" / "val.txt", "images/1.jpg\nimages/2.jpg\n")
    with pytest.raises(UserError, match=r"1 photos in two splits, the first is images/1.jpg for train and validation"):
        read(tmp_path / "b")


def test_split_that_is_there_and_not_understood_is_no_random_one(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", *["0 0.5 0.5 0.2 0.2"] * 3, names="names: [cat]\ntrain: train.txt\ntest: gone.txt\n")
    write(tmp_path / "b" / "train.txt", "images/0.jpg\nimages/1.jpg\n")
    with pytest.raises(
        UserError, match=r"not in the bucket \(test: gone.txt\), and 1 annotated photos are in no split"
    ):
        read(tmp_path / "b")


def test_list_of_pascal_voc_that_fits_no_photo_is_refused(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "0.jpg")
    write_voc(tmp_path / "b", 0, (WIDTH, HEIGHT), BNDBOX.format(10, 10, 50, 50))
    write(tmp_path / "b" / "ImageSets" / "Main" / "train.txt", "photo_17\n")
    with pytest.raises(UserError, match=r"train.txt lists 'photo_17' and others, and none of them is a photo"):
        read(tmp_path / "b")


@pytest.mark.parametrize(
    "name",
    ["my%20photo.jpg", "/data/local-files/?d=photos%2Fmy%20photo.jpg", "https://example.com/x/my%20photo.jpg?v=1"],
)
def test_photo_is_found_by_an_address(tmp_path: Path, name: str) -> None:
    draw(tmp_path / "b" / "photos" / "my photo.jpg")
    write_coco(tmp_path / "b", coco_of([[10, 10, 20, 20]], file_name=name))
    assert [image.key for image in read(tmp_path / "b").images] == ["photos/my photo.jpg"]


def test_percent_sign_in_the_name_of_a_file_is_one(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "50%25.jpg")
    write_coco(tmp_path / "b", coco_of([[10, 10, 20, 20]], file_name="50%25.jpg"))
    assert [image.key for image in read(tmp_path / "b").images] == ["50%25.jpg"]


@pytest.mark.parametrize(
    ("line", "words"),
    [("0 50 50 20 20", "12 of 24 boxes reach out of their photos"), ("0 0.5 0.5 0 0.2", "12 of 24 boxes have no area")],
)
def test_repair_of_most_boxes_stops(tmp_path: Path, line: str, words: str) -> None:
    write_yolo(tmp_path / "b", *[f"{line}\n0 0.5 0.5 0.2 0.2"] * 12)
    with pytest.raises(UserError, match=f"{words}, the first on images/0.jpg, more than MAX_REPAIRED=0.1 allows"):
        read(tmp_path / "b")
    assert len(read(tmp_path / "b", max_repaired=0.6).images) == 12


def test_boxes_that_are_a_rounding_over_the_edge_are_cut(tmp_path: Path) -> None:
    write_yolo(tmp_path / "b", *["0 0.5 0.5 1.004 1.004"] * 12)
    assert approximately(boxes_of(read(tmp_path / "b"), "images/0.jpg")[0], 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"0.txt": "0 0.5 0.5 0.2 0.2", "1.txt": ""},
            "2 text files such as 0.txt are in YOLO's form, and no file lists",
        ),
        ({"a.csv": "filename,width"}, "a.csv is a table without the columns that this job reads"),
        ({"0.jpg.json": json.dumps({"objects": [], "size": {}})}, "0.jpg.json is from Supervisely"),
        ({"notes.md": ""}, r"The bucket has 2 photos and 1 other files \(1 .md\)"),
    ],
)
def test_message_lists_what_lies_there_and_what_is_lacking(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for number in range(2):
        draw(tmp_path / "b" / f"{number}.jpg")
    for name, content in files.items():
        write(tmp_path / "b" / name, content)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "b")


def write_task(folder: Path, kind: str, value: dict[str, Any], **task: Any) -> None:
    """Writes an export of Label Studio with one region on a photo."""
    region = {"type": kind, "original_width": WIDTH, "original_height": HEIGHT, "value": {kind: ["cat"], **value}}
    annotations = task.pop("annotations", [{"result": [region]}])
    draw(folder / "0.jpg")
    draw(folder / "1.jpg")
    other = {"data": {"image": "1.jpg"}, "annotations": [{"result": [region]}]}
    write(folder / "tasks.json", json.dumps([{"data": {"image": "0.jpg"}, "annotations": annotations, **task}, other]))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("rectanglelabels", {"x": 50, "y": 20, "width": 20, "height": 40, "rotation": 90}, (0.3, 0.2, 0.5, 0.6)),
        ("polygonlabels", {"points": [[10, 20], [30, 25], [20, 60]]}, (0.1, 0.2, 0.3, 0.6)),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}, (0.4, 0.3, 0.6, 0.7)),
    ],
)
def test_shapes_of_label_studio_become_boxes(
    tmp_path: Path, kind: str, value: dict[str, Any], expected: tuple[float, ...]
) -> None:
    write_task(tmp_path / "b", kind, value)
    assert approximately(boxes_of(read(tmp_path / "b"), "0.jpg")[0], *expected)


def test_task_that_two_people_did_differently_is_lost(tmp_path: Path) -> None:
    box = {"x": 10, "y": 10, "width": 20, "height": 20}
    write_task(tmp_path / "b", "rectanglelabels", box, annotations=[{"result": []}, {"result": [{"type": "x"}]}])
    assert [len(image.boxes) for image in read(tmp_path / "b").images] == [0, 1]
    region = {"type": "rectanglelabels", "original_width": WIDTH, "original_height": HEIGHT}
    region |= {"value": {**box, "rectanglelabels": ["cat"]}}
    write_task(tmp_path / "b", "rectanglelabels", box, annotations=[{"result": []}, {"result": [region]}])
    assert read(tmp_path / "b").findings.kinds == {losses.REPEATED: ["0.jpg: 2 entries"]}


def test_circle_of_labelme_becomes_a_box(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "0.jpg")
    shape = {"label": "cat", "shape_type": "circle", "points": [[100, 50], [100, 70]]}
    write(tmp_path / "b" / "0.json", json.dumps({"imagePath": "0.jpg", "shapes": [shape]}))
    assert approximately(boxes_of(read(tmp_path / "b"), "0.jpg")[0], 0.4, 0.3, 0.6, 0.7)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_table_with_another_delimiter_is_read(tmp_path: Path, separator: str) -> None:
    draw(tmp_path / "b" / "0.jpg")
    rows = ["Filename,Class,xmin,ymin,xmax,ymax", "0.jpg,cat,20,10,60,40"]
    write(tmp_path / "b" / "boxes.csv", "\r\n".join(rows).replace(",", separator))
    assert approximately(boxes_of(read(tmp_path / "b"), "0.jpg")[0], 0.1, 0.1, 0.3, 0.4)


def test_attribute_of_via_that_is_no_choice_is_no_label(tmp_path: Path) -> None:
    draw(tmp_path / "b" / "0.jpg")
    draw(tmp_path / "b" / "1.jpg")
    rect = {"name": "rect", "x": 20, "y": 10, "width": 40, "height": 30}
    photos = {
        name: {"filename": name, "regions": [{"shape_attributes": rect, "region_attributes": attributes}]}
        for name, attributes in (
            ("0.jpg", {"colour": "red", "size": "big"}),
            ("1.jpg", {"colour": "red", "class": "cat"}),
        )
    }
    write(tmp_path / "b" / "via.json", json.dumps(photos))
    dataset = read(tmp_path / "b")
    assert dataset.labels == ["cat"]
    assert dataset.findings.kinds == {losses.LABEL: ["0.jpg"]}
