"""Random documents, valid and broken: a dataset or a named error, boxes in the photo, stable ids.

`make test-properties` tries nine hundred documents of each of twelve formats, and `make test` a tenth of that.
"""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from entrypoint.data import annotations
from entrypoint.data.annotations import Dataset
from entrypoint.settings.schema import Settings
from entrypoint.system import files
from entrypoint.system.errors import UserError
from tests.conftest import make_settings

PHOTOS = ("a.png", "b & c.png", "train/d.png", "valid/d.png")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
odd = st.floats() | st.integers() | st.sampled_from(["0.5", "1e400", "x", "", None, True, 10**400])
numbers = st.one_of(*[st.floats(-0.1, 1.1)] * 5, odd)
pixels = st.one_of(*[st.integers(-10, 80)] * 5, odd)
names = st.sampled_from([*PHOTOS * 3, "gone.png", "../a.png", "/etc/passwd", r"C:\x\a.png", "b &amp; c.png", ""])
labels = st.sampled_from(["cat", "bird", "cat", "Cat", " cat ", "dog", "", "Negative", "\ud83d", '"\n'])
# Hypothesis likes small numbers.
broken = st.integers(0, 19).map(lambda number: number == 19)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is expected, and one time out of twenty anything."""
    return broken.flatmap(lambda is_broken: anything if is_broken else usual)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object of which a field can be missing."""
    lacking = broken.flatmap(lambda is_broken: st.sampled_from(sorted(fields)) if is_broken else st.none())
    whole = st.fixed_dictionaries({name: mostly(value) for name, value in fields.items()})
    return st.tuples(lacking, whole).map(lambda pair: {key: pair[1][key] for key in pair[1] if key != pair[0]})


def several(items: st.SearchStrategy[Any], *good: Any) -> st.SearchStrategy[Any]:
    """Some of the items and what is good, without which most documents were refused for having no box."""
    return mostly(st.lists(items, max_size=4).map(lambda found: [*found, *good]))


def by_key(keys: st.SearchStrategy[str], values: st.SearchStrategy[Any], **good: Any) -> st.SearchStrategy[Any]:
    """The same by key."""
    return mostly(st.dictionaries(keys, values, max_size=4).map(lambda found: {**found, **good}))


ids = st.sampled_from(["1", "2", "3"])
box = record(label=labels, x=numbers, y=numbers, x2=numbers, y2=numbers)
GOOD_BOX = {"label": "cat", "x": 0.1, "y": 0.1, "x2": 0.2, "y2": 0.2}
GOOD_TARGETS = {"label": "1", "targets": [{"x": 0.1, "y": 0.1}, {"x": 0.2, "y": 0.2}]}
drawn = by_key(names, several(box), **{"a.png": [GOOD_BOX]})
version_1 = st.fixed_dictionaries({"annotations": drawn, "labels": several(labels)})
version_2 = st.fixed_dictionaries(
    {
        "labels": by_key(ids, record(id=ids, name=labels), **{"1": {"id": "1", "name": "cat"}}),
        "images": by_key(names, record(id=names, status=st.just("success"), annotations=several(ids, "9"))),
        "annotations": by_key(
            ids, record(label=ids, targets=several(record(x=numbers, y=numbers))), **{"9": GOOD_TARGETS}
        ),
    }
)
pixels_of_box = st.lists(pixels, min_size=4, max_size=4)
coco = st.fixed_dictionaries(
    {
        "images": several(
            record(id=ids, file_name=names, width=pixels, height=pixels), {"id": 9, "file_name": "a.png"}
        ),
        "categories": several(record(id=ids, name=labels), {"id": 9, "name": "cat"}),
        "annotations": several(
            record(image_id=ids, category_id=ids, bbox=mostly(pixels_of_box), iscrowd=st.sampled_from([0, 0, 1])),
            {"image_id": 9, "category_id": 9, "bbox": [1, 1, 9, 9]},
        ),
    }
)
coordinates = record(x=pixels, y=pixels, width=pixels, height=pixels)
GOOD_COORDINATES = {"x": 5, "y": 5, "width": 8, "height": 8}
create_ml = several(
    record(image=names, annotations=several(record(label=labels, coordinates=coordinates))),
    {"image": "a.png", "annotations": [{"label": "cat", "coordinates": GOOD_COORDINATES}]},
)
line = st.tuples(st.integers(-1, 3), numbers, numbers, numbers, numbers) | st.lists(numbers, max_size=9)
GOOD_LINE = "0 0.5 0.5 0.2 0.2"
yolo = st.lists(line, max_size=4).map(lambda lines: "\n".join(" ".join(map(str, line)) for line in lines))
corner = st.one_of(*[st.integers(-10, 80)] * 5, st.text("0.9eINFnan-<&", max_size=4))
corners = st.tuples(corner, corner, corner, corner).map(
    lambda values: "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>".format(*values)
)
voc_object = st.tuples(labels, corners).map(
    lambda parts: "<object><name>{}</name><bndbox>{}</bndbox></object>".format(*parts)
)
pascal_voc = st.tuples(names, st.lists(voc_object, max_size=3), st.sampled_from([*[""] * 4, "<size/>", "</x>"])).map(
    lambda parts: f"<annotation><filename>{parts[0]}</filename>{parts[2]}{''.join(parts[1])}</annotation>"
)
points = mostly(st.lists(mostly(st.lists(pixels, min_size=2, max_size=2)), max_size=4))
shape_types = st.sampled_from(["rectangle", "polygon", "circle", "point"])
labelme = record(
    imagePath=names,
    imageWidth=pixels,
    imageHeight=pixels,
    shapes=several(
        record(label=labels, points=points, shape_type=shape_types), {"label": "cat", "points": [[1, 1], [9, 9]]}
    ),
)
GOOD_RECT = {
    "shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 8, "height": 8},
    "region_attributes": {"a": "cat"},
}
rect = record(name=st.sampled_from(["rect", "circle", "polygon"]), x=pixels, y=pixels, width=pixels, height=pixels)
attributes = mostly(st.dictionaries(st.sampled_from(["label", "a", "b"]), labels | anything, max_size=2))
via = by_key(
    names,
    record(
        filename=names, regions=several(record(shape_attributes=mostly(rect), region_attributes=attributes), GOOD_RECT)
    ),
    **{"a.png1": {"filename": "a.png", "regions": [GOOD_RECT]}},
)
percent = st.one_of(*[st.floats(-10, 110)] * 5, odd)
value = record(
    x=percent,
    y=percent,
    width=percent,
    height=percent,
    rotation=percent,
    rectanglelabels=mostly(st.lists(labels, max_size=2)),
)
GOOD_VALUE = {"x": 10, "y": 10, "width": 20, "height": 20, "rectanglelabels": ["cat"]}
region = record(
    type=st.sampled_from(["rectanglelabels", "choices"]),
    original_width=pixels,
    original_height=pixels,
    value=mostly(value),
)
GOOD_REGION = {"type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": GOOD_VALUE}
task = record(data=st.fixed_dictionaries({"image": mostly(names)}), annotations=several(record(result=several(region))))
GOOD_TASK = {"data": {"image": "a.png"}, "annotations": [{"result": [GOOD_REGION]}]}
label_studio = several(task, GOOD_TASK)
cell = st.sampled_from([*PHOTOS, "gone.png", "cat", "", "1", "9", "40", "64", "nan", "-3", '"', "ü"])
table = st.lists(st.lists(cell, max_size=9).map(",".join), max_size=6).map("\n".join)
GOOD_TABLE = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,64,48,cat,1,1,9,9\n"
open_images = st.lists(st.lists(cell, max_size=14).map(",".join), max_size=6).map("\n".join)
GOOD_OPEN_IMAGES = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/01,0.1,0.4,0.1,0.5,0\n"
vertex_ai = st.lists(st.lists(cell | st.just("gs://b/a.png"), max_size=11).map(",".join), max_size=6).map("\n".join)
GOOD_VERTEX_AI = "TRAINING,gs://b/a.png,cat,0.1,0.1,,,0.5,0.5,,\n"
vertex_box = record(displayName=labels, xMin=numbers, yMin=numbers, xMax=numbers, yMax=numbers)
vertex_lines = st.lists(record(imageGcsUri=names, boundingBoxAnnotations=several(vertex_box)) | anything, max_size=3)
GOOD_VERTEX_LINE = {
    "imageGcsUri": "gs://b/a.png",
    "boundingBoxAnnotations": [{"displayName": "cat", "xMin": 0.1, "yMin": 0.1, "xMax": 0.2, "yMax": 0.2}],
}
dota = st.lists(st.lists(cell, max_size=11).map(" ".join), max_size=6).map("\n".join)
GOOD_DOTA = "imagesource:x\ngsd:1\n1 1 9 1 9 9 1 9 cat 0\n"
GOOD_OBJECT = (
    "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
)
GOOD_FILE = f"<annotation>{GOOD_OBJECT}</annotation>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket of four photos, of which one is turned by its Exif orientation."""
    folder = tmp_path_factory.mktemp("bucket")
    exif = Image.Exif()
    exif[0x0112] = 6
    for index, key in enumerate(PHOTOS):
        (folder / key).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(folder / key, exif=exif if index else None)
    return folder


@functools.cache
def settings_of(folder: Path, name: str) -> Settings:
    return make_settings(folder, data_dir=folder, data_format=name, workers=2)


def read(folder: Path, name: str) -> Dataset | None:
    """The dataset, or None where a named error says that there is none."""
    try:
        return annotations.read_bucket(settings_of(folder, name), exclude=folder / "results")
    except UserError:
        return None


def check(folder: Path, name: str, texts: dict[str, str | bytes]) -> Dataset | None:
    """Writes the annotations, reads them, and looks at every box."""
    for key, text in texts.items():
        (folder / key).write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    dataset = read(folder, name)
    if dataset is not None:
        used = set()
        for image in dataset.images:
            assert image.key in PHOTOS
            for each in image.boxes:
                assert 0 <= each.xmin < each.xmax <= 1
                assert 0 <= each.ymin < each.ymax <= 1
                used.add(each.label)
        assert sorted(dataset.labels) == sorted(used)
        files.write_json(folder.parent / "dataset.json", {"labels": dataset.labels, **dataset.findings.kinds})
    return dataset


def check_json(folder: Path, name: str, key: str, document: Any) -> None:
    """The same of a document, whose ids are as they are in whatever order its objects were written."""
    dataset = check(folder, name, {key: json.dumps(document)})
    again = check(folder, name, {key: json.dumps(backwards(document))})
    assert (dataset and (dataset.labels, dataset.images)) == (again and (again.labels, again.images))


def backwards(document: Any) -> Any:
    """The document with the keys of its objects in the opposite order, but for labels, whose order is their ids'."""
    if not isinstance(document, dict):
        return document
    return {key: value if key == "labels" else backwards(value) for key, value in reversed(document.items())}


def random_documents(strategy: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test on as many documents as the profile says, the same in every run."""
    options = hypothesis_settings(
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    return lambda test: options(given(document=strategy)(test))


@random_documents(version_1 | version_2 | anything)
def test_cloud_annotations(folder: Path, document: Any) -> None:
    check_json(folder, "cloud_annotations", "_annotations.json", document)
    (folder / "_annotations.json").unlink()


@random_documents(coco)
def test_coco(folder: Path, document: Any) -> None:
    check_json(folder, "coco", "coco.json", document)
    (folder / "coco.json").unlink()


@random_documents(create_ml)
def test_create_ml(folder: Path, document: Any) -> None:
    check_json(folder, "create_ml", "create_ml.json", document)
    (folder / "create_ml.json").unlink()


@random_documents(st.tuples(yolo, yolo))
def test_yolo(folder: Path, document: tuple[str, str]) -> None:
    (folder / "train" / "labels").mkdir(exist_ok=True)
    texts: dict[str, str | bytes] = {"a.txt": document[0], "train/labels/d.txt": document[1]}
    check(folder, "yolo", texts | {"b & c.txt": GOOD_LINE, "data.yaml": "names: {0: cat, 2: dog}"})
    shutil.rmtree(folder / "train" / "labels")
    (folder / "a.txt").unlink()
    (folder / "b & c.txt").unlink()
    (folder / "data.yaml").unlink()


@random_documents(st.tuples(pascal_voc, pascal_voc))
def test_pascal_voc(folder: Path, document: tuple[str, str]) -> None:
    check(folder, "pascal_voc", {"a.xml": document[0], "valid/d.xml": document[1], "b & c.xml": GOOD_FILE})
    (folder / "a.xml").unlink()
    (folder / "b & c.xml").unlink()
    (folder / "valid" / "d.xml").unlink()


@random_documents(st.tuples(labelme, labelme))
def test_labelme(folder: Path, document: tuple[Any, Any]) -> None:
    good = {"imagePath": "b & c.png", "shapes": [{"label": "cat", "points": [[1, 1], [9, 9]]}]}
    documents = {"a.json": document[0], "valid/d.json": document[1], "b & c.json": good}
    check(folder, "labelme", {key: json.dumps(each) for key, each in documents.items()})
    for key in documents:
        (folder / key).unlink()


@random_documents(via)
def test_via(folder: Path, document: Any) -> None:
    check_json(folder, "via", "via.json", {"_via_img_metadata": document})
    (folder / "via.json").unlink()


@random_documents(label_studio)
def test_label_studio(folder: Path, document: Any) -> None:
    check_json(folder, "label_studio", "tasks.json", document)
    (folder / "tasks.json").unlink()


@random_documents(table)
def test_csv_rows(folder: Path, document: str) -> None:
    check(folder, "csv_rows", {"a.csv": GOOD_TABLE + document})
    (folder / "a.csv").unlink()


@random_documents(open_images)
def test_open_images(folder: Path, document: str) -> None:
    check(folder, "open_images", {"a.csv": GOOD_OPEN_IMAGES + document, "class-descriptions.csv": "/m/01,cat\n"})
    (folder / "a.csv").unlink()
    (folder / "class-descriptions.csv").unlink()


@random_documents(st.tuples(vertex_ai, vertex_lines))
def test_vertex_ai(folder: Path, document: tuple[str, list[Any]]) -> None:
    lines = "\n".join(map(json.dumps, [GOOD_VERTEX_LINE, *document[1]]))
    check(folder, "vertex_ai", {"a.csv": GOOD_VERTEX_AI + document[0], "b.jsonl": lines})
    (folder / "a.csv").unlink()
    (folder / "b.jsonl").unlink()


@random_documents(st.tuples(dota, dota))
def test_dota(folder: Path, document: tuple[str, str]) -> None:
    check(folder, "dota", {"a.txt": GOOD_DOTA + document[0], "b & c.txt": document[1]})
    (folder / "a.txt").unlink()
    (folder / "b & c.txt").unlink()
