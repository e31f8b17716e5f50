"""Writes a data set in every format of annotations, as tools write it."""

import csv
import functools
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

from PIL import Image

from entrypoint.data.boxes import FIRST_ON_ITS_SIDE, Box
from entrypoint.data.units import SIDES, Unit
from tests.awkward import encode

LABELS = ("cat", "dog", "Grün", "猫", "a & b")
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


def text_files(folder: Path, photos: list[Photo], variant: Variant, line: str) -> None:
    """A text file of YOLO for each photo; `line` has the form of a line."""
    for photo in photos:
        lines = [
            line.format(
                LABELS.index(label), x=x, y=y, x2=x2, y2=y2, cx=(x + x2) / 2, cy=(y + y2) / 2, w=x2 - x, h=y2 - y
            )
            for label, (x, y, x2, y2) in corners_in(photo, variant, Unit.FRACTIONS)
        ]
        put((folder / photo.key).with_suffix(".txt"), "\n".join(lines), variant)


def yolo(folder: Path, photos: list[Photo], variant: Variant) -> None:
    text_files(folder, photos, variant, "{} {cx} {cy} {w} {h}")
    put(folder / "classes.txt", "\n".join(LABELS), variant)


def yolo_corners(folder: Path, photos: list[Photo], variant: Variant) -> None:
    """The corners of rectangles, as polygons and rotated boxes are written."""
    text_files(folder, photos, variant, "{} {x} {y} {x2} {y} {x2} {y2} {x} {y2}")
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
# These have the size of the picture that was annotated.
SIZED = (coco, pascal_voc, csv_rows, labelme)
NO_EMPTY = (open_images, vertex_ai)  # these cannot say that a photo shows no object


@functools.cache
def encoded(size: tuple[int, int], orientation: int) -> bytes:
    """A grey photo of that stored size."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.new("L", size, 90), "JPEG", "L", {"exif": exif})


def draw_photos(folder: Path, photos: list[Photo]) -> None:
    """Writes the photos, which are grey."""
    for photo in photos:
        (folder / photo.key).parent.mkdir(parents=True, exist_ok=True)
        (folder / photo.key).write_bytes(encoded(photo.stored, photo.orientation))
