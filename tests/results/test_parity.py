from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from entrypoint import workspace
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.engines.engine import Detections
from entrypoint.results import parity
from entrypoint.results.parity import Difference, Parity, ParityDocument
from entrypoint.settings.choices import Quantize
from entrypoint.system import documents
from entrypoint.system.errors import JobError
from entrypoint.workspace import Mark, Workspace
from tests.conftest import make_settings

FIRST, SECOND = (0.1, 0.1, 0.3, 0.3), (0.5, 0.5, 0.9, 0.9)


def found(*objects: tuple[tuple[float, float, float, float], int, float]) -> Detections:
    boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    classes = np.array([label for _, label, _ in objects], np.int64)
    return Detections("a.jpg", 100, 100, boxes, classes, np.array([score for *_, score in objects], np.float32))


def test_order_decides_nothing() -> None:
    one = found((FIRST, 1, 0.80), (SECOND, 1, 0.79))
    other = found((SECOND, 1, 0.79), (FIRST, 1, 0.80))
    difference = parity.differ([one], [other])
    assert (difference.matched, difference.unmatched) == (2, 0)
    assert difference.greatest_score == pytest.approx(0, abs=1e-6)
    assert not parity.judge(0.5, 0.5, difference)


def test_differences_are_those_of_the_same_objects() -> None:
    moved = (0.1, 0.1, 0.3, 0.31)
    difference = parity.differ([found((FIRST, 1, 0.8), (SECOND, 2, 0.5))], [found((moved, 1, 0.7), (SECOND, 2, 0.52))])
    assert difference.greatest_score == pytest.approx(0.1, abs=1e-6)
    assert difference.mean_score == pytest.approx(0.06, abs=1e-6)
    assert difference.greatest_corner == pytest.approx(0.01, abs=1e-6)
    assert difference.mean_corner == pytest.approx(0.005, abs=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        found(),
        found((SECOND, 1, 0.8)),  # elsewhere
        found((FIRST, 2, 0.8)),  # another label
        found((FIRST, 1, 0.8), (SECOND, 1, 0.5)),  # one more
    ],
)
def test_what_has_no_partner_is_counted(other: Detections) -> None:
    difference = parity.differ([found((FIRST, 1, 0.8))], [other])
    assert difference.unmatched == abs(len(other.scores) - 1) or difference.unmatched == 2
    assert difference.unmatched >= 1


def test_detections_with_low_scores_need_no_partner_but_can_be_one() -> None:
    difference = parity.differ([found((FIRST, 1, 0.101), (SECOND, 1, 0.05))], [found((FIRST, 1, 0.099))])
    assert (difference.matched, difference.unmatched) == (1, 0)


def test_boxes_without_area_need_no_partner() -> None:
    # CenterNet finds boxes in the padding, which are cut to the photo's edge.
    edge, almost, thin = (1.0, 0.1, 1.0, 0.3), (0.99999994, 0.4, 1.0, 0.6), (0.998, 0.4, 1.0, 0.6)
    difference = parity.differ([found((edge, 1, 0.2), (FIRST, 1, 0.8))], [found((FIRST, 1, 0.8), (almost, 1, 0.2))])
    assert (difference.matched, difference.unmatched) == (1, 0)
    difference = parity.differ([found((thin, 1, 0.2))], [found((edge, 1, 0.2))])
    assert (difference.matched, difference.unmatched) == (0, 1)


def row(scores: list[float]) -> Detections:
    """Boxes beside each other, one for each score that is not zero."""
    places = ((index / 40, 0.0, (index + 0.9) / 40, 0.1) for index in range(len(scores)))
    return found(*((box, 1, score) for box, score in zip(places, scores, strict=True) if score))


def test_detections_at_the_end_of_a_list_that_was_cut_need_no_partner() -> None:
    model = row([0.5] * 20)
    assert parity.differ([model], [row([0.0] * 5 + [0.5] * 10)]).unmatched == 0
    assert parity.differ([row([0.9] + [0.5] * 19)], [row([0.0] * 5 + [0.5] * 10)]).unmatched == 1
    # A short list was not cut.
    assert parity.differ([model], [row([0.5] * 5)]).unmatched == 15


def make_difference(matched: int = 100, unmatched: int = 0, score: float = 0.001, returned: int = 100) -> Difference:
    return Difference(matched, unmatched, score, 0.0, 0.0, 0.0, expected=100, returned=returned)


@pytest.mark.parametrize(
    ("after", "difference", "words"),
    [
        (0.4, make_difference(), "its mAP over the detections that both have is 0.4000, that of the model 0.5000"),
        (0.501, make_difference(), ""),
        (0.5, make_difference(score=0.02), "scores differ by up to 0.0200"),
        (0.5, make_difference(unmatched=3), ""),
        (0.5, make_difference(unmatched=5), "5 detections have no partner"),
        (0.5, make_difference(returned=92), ""),
        (0.5, make_difference(returned=80), "it returns 80 detections, the model 100"),
        (0.5, make_difference(returned=120), "it returns 120 detections, the model 100"),
        (None, make_difference(matched=0), ""),
    ],
)
def test_export_that_is_not_the_model_is_told_by_what_differs(
    after: float | None, difference: Difference, words: str
) -> None:
    judged = parity.judge(None if after is None else 0.5, after, difference)
    assert words in judged
    assert bool(words) == bool(judged)


@pytest.fixture
def one_disc() -> Dataset:
    return Dataset(["disc"], [LabelledImage("a.jpg", (Box.from_detection("disc", FIRST),))])


def test_another_box_among_duplicates_does_not_change_the_compared_map(one_disc: Dataset) -> None:
    # The removal of duplicates keeps one of two boxes with equal scores, and IoU with the true box is 0.45 or 0.55.
    near, far = (0.1, 0.1, 0.3, 0.21), (0.1, 0.1, 0.3, 0.19)
    model, export = found((near, 1, 0.5), (SECOND, 1, 0.4)), found((far, 1, 0.5), (SECOND, 1, 0.4))
    assert parity.map_of(one_disc, [model]) != parity.map_of(one_disc, [export])
    one, other = parity.shared([model], [export], 1e-4)
    assert [len(each.scores) for each in (*one, *other)] == [1, 1]
    assert parity.map_of(one_disc, one) == parity.map_of(one_disc, other) == 0
    assert parity.differ([model], [export]).unmatched == 2


@pytest.mark.parametrize(("difference", "is_equal"), [(1e-5, True), (1e-2, False)])
def test_order_of_nearly_equal_scores_does_not_change_the_compared_map(
    one_disc: Dataset, difference: float, is_equal: bool
) -> None:
    model = found((FIRST, 1, 0.5), (SECOND, 1, 0.5 - difference / 2))
    export = found((SECOND, 1, 0.5 + difference / 2), (FIRST, 1, 0.5))
    assert parity.map_of(one_disc, [model]) == pytest.approx(1.0)
    assert parity.map_of(one_disc, [export]) == pytest.approx(0.5)
    one, other = parity.shared([model], [export], 1e-4)
    assert (parity.map_of(one_disc, one) == parity.map_of(one_disc, other)) == is_equal


def test_boxes_that_are_a_little_off_change_the_compared_map(one_disc: Dataset) -> None:
    off = (0.1, 0.1, 0.3, 0.315)  # IoU 0.93: the same box, and not found at the highest threshold of IoU
    one, other = parity.shared([found((FIRST, 1, 0.5))], [found((off, 1, 0.5))], 1e-4)
    before, after = parity.map_of(one_disc, one), parity.map_of(one_disc, other)
    assert before == pytest.approx(1.0)
    assert after == pytest.approx(0.9)
    assert parity.judge(before, after, parity.differ(one, other))


def test_failed_exports_end_the_job_by_their_names(tmp_path: Path) -> None:
    work = Workspace(make_settings(tmp_path))
    work.root.mkdir(exist_ok=True)
    documents.write(work.parity, ParityDocument({"saved_model": Parity("equal"), "tflite": Parity("not run here")}))
    parity.refuse_failed(work)
    bad = {"saved_model": Parity("equal"), "onnx": Parity("failed", "tf2onnx ended with -6: abort")}
    documents.write(work.parity, ParityDocument(bad))
    for step in ("evaluate", "export", "parity"):
        workspace.write_mark(step, Mark("", "", 0.0, 0.0), work)
    with pytest.raises(
        JobError, match=r"EXPORTS=onnx: not published: onnx: tf2onnx ended with -6: abort\. The trained"
    ):
        parity.refuse_failed(work)
    # The next start makes and compares the exports once more.
    marks = {step: workspace.read_mark(step, work) is not None for step in ("evaluate", "export", "parity")}
    assert marks == {"evaluate": True, "export": False, "parity": False}


@pytest.mark.parametrize(
    ("name", "quantize", "greatest"),
    [
        ("saved_model", "int8", 0.002),
        ("onnx", "none", 0.002),
        ("openvino", "float16", 0.005),
        ("tflite", "float16", 0.002),
        ("tflite", "int8", 0.1),
        ("onnx", "dynamic", 0.002),
    ],
)
def test_bounds_are_those_of_what_the_setting_does_to_a_format(name: str, quantize: Quantize, greatest: float) -> None:
    assert parity.bounds_of(name, quantize).map == greatest
