import itertools
import re
from pathlib import Path

import pytest
from PIL import Image

from entrypoint.data import annotations, label_map, tf_record
from entrypoint.engines.engine import LOSS, Detections
from entrypoint.results import report
from entrypoint.results.parity import Difference, Parity, ParityDocument
from entrypoint.system import documents
from entrypoint.training import checkpoints, coco, train
from entrypoint.training.plan import Plan
from entrypoint.training.stored import DetectionsDocument, StoredDetections
from entrypoint.workspace import Workspace
from tests.conftest import BOX, make_settings, write_bucket

EVIL = '<script>alert("1")</script>'


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The report of a job whose label and photo carry markup, and which had something to repair."""
    (tmp_path / "work").mkdir()
    work = Workspace(make_settings(tmp_path, model="smoke", zoo_url="https://user:secret@host/", num_steps=3))
    names = [f"{index} &lt;b&gt;.png" for index in range(6)]
    boxes = [{**BOX, "label": EVIL}]
    write_bucket(work.settings.data_dir, dict.fromkeys(names, boxes), tuple(names))
    Image.new("CMYK", (64, 48)).save(work.settings.data_dir / "cmyk.jpg")
    document = dict.fromkeys(names, boxes) | {"cmyk.jpg": [{**BOX, "x": -1, "label": EVIL}]}
    write_bucket(work.settings.data_dir, document)
    annotations.run(work)
    label_map.run(work)
    tf_record.run(work)
    write_results(work)
    report.run(work)
    return work.report.read_text()


def write_results(work: Workspace) -> None:
    """What training and evaluation leave behind."""
    dataset = annotations.load(work)
    documents.write(work.plan, Plan("x.config", "tf2", 3, 16, 0.003, (("a", "1", EVIL),)))
    history: list[dict[str, int | float]] = [{"step": step, LOSS: 1 / step, "learning_rate": 0.1} for step in (1, 2, 3)]
    manifest = checkpoints.Manifest(3, "job", {}, history)
    documents.write(work.trained, train.Trained(3, None))
    documents.write(checkpoints.manifest_of(train.last_checkpoint(work)), manifest)
    documents.write(work.metrics, coco.measure(dataset, [], step=3))
    found = Detections(dataset.images[0].key, 30, 40, [[0.1, 0.2, 0.3, 0.4]], [1], [0.87])
    documents.write(work.detections, DetectionsDocument.of([found]))
    difference = Difference(3, 0, 0.00012, 0.0, 0.0, 0.0)
    equal = Parity("equal", "", 4_300_000, 7, 0.5, 0.5, difference, 12.5)
    documents.write(work.parity, ParityDocument({"saved_model": equal, "onnx": Parity("failed", EVIL)}))


def test_page_is_self_contained(page: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(http" not in page


def test_labels_and_names_from_outside_are_escaped(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;" in page


def test_page_shows_boxes_curves_and_repairs(page: str) -> None:
    assert page.count("<rect") >= 2
    assert "0.87" in page
    assert "total loss" in page
    assert "box reaching out of the photo, cut to it" in page
    assert "photo colours converted from CMYK" in page
    assert "x.config" in page


def test_exports_are_shown_with_what_they_find(page: str) -> None:
    assert "equals the model on 7 photos" in page
    assert "4.3 MB" in page
    assert "0.00012" in page
    assert "failed: &lt;script&gt;" in page


def test_credentials_are_not_on_the_page(page: str) -> None:
    assert "secret" not in page


def test_undefined_metrics_are_told_rather_than_shown_as_zero(page: str) -> None:
    assert "nothing could be measured" in page


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (12, 12), (23, 12), (1000, 12)])
def test_validation_photos_are_shown_evenly_out_of_all(work: Workspace, count: int, shown: int) -> None:
    photos = tuple(StoredDetections(f"{index}", 30, 40, (), (), ()) for index in range(count))
    documents.write(work.detections, DetectionsDocument(photos))
    chosen = [int(each.key) for each in report.choose_validation(work)]
    assert len(chosen) == shown
    gaps = [later - earlier for earlier, later in itertools.pairwise(chosen)]
    # The last one shown is as near to the end as the others are to each other.
    assert not gaps or max([*gaps, count - chosen[-1]]) - min(gaps) <= 1
