from __future__ import annotations

import numpy as np
import pytest

from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.engines.engine import Detections
from entrypoint.results import evaluate


def dataset(*boxes: Box) -> Dataset:
    return Dataset(["cat", "dog"], [LabelledImage("a.jpg", boxes)])


def detections(*found: tuple[int, float, tuple[float, float, float, float]]) -> list[Detections]:
    """Label id, score and ymin, xmin, ymax, xmax of each."""
    boxes = np.array([box for _, _, box in found], np.float32).reshape(-1, 4)
    return [
        Detections(
            "a.jpg",
            100,
            200,
            boxes,
            np.array([label for label, _, _ in found]),
            np.array([score for _, score, _ in found]),
        )
    ]


CAT, DOG = Box("cat", 0.1, 0.2, 0.5, 0.8), Box("dog", 0.6, 0.1, 0.9, 0.4)
FOUND_CAT, FOUND_DOG = (1, 0.9, (0.2, 0.1, 0.8, 0.5)), (2, 0.8, (0.1, 0.6, 0.4, 0.9))


def test_perfect_detections_have_ap_of_one() -> None:
    metrics = evaluate.measure(dataset(CAT, DOG), detections(FOUND_CAT, FOUND_DOG), step=1)
    assert metrics.summary.map == pytest.approx(1)
    dog = metrics.per_label["dog"]
    assert [dog.ap, dog.ap50, dog.boxes] == pytest.approx([1, 1, 1])
    assert [value for _, value in metrics.per_iou] == pytest.approx([1] * 10)


def test_label_that_is_not_found_has_ap_of_zero() -> None:
    metrics = evaluate.measure(dataset(CAT, DOG), detections(FOUND_CAT), step=1)
    assert metrics.per_label["dog"].ap == 0
    assert metrics.summary.map == pytest.approx(0.5)


def test_loose_box_counts_at_low_iou_alone() -> None:
    # Of a width of 0.4 it has 0.3: an IoU of 0.75 but for rounding.
    metrics = evaluate.measure(dataset(CAT), detections((1, 0.9, (0.2, 0.1, 0.8, 0.405))), step=1)
    assert metrics.summary.map50 == pytest.approx(1)
    assert metrics.summary.map == pytest.approx(0.6)


def test_confident_false_positive_costs_precision() -> None:
    metrics = evaluate.measure(dataset(CAT), detections((1, 0.95, (0.0, 0.7, 0.1, 0.8)), FOUND_CAT), step=1)
    assert metrics.summary.map50 == pytest.approx(0.5)


def test_label_without_validation_boxes_is_undefined_and_not_zero() -> None:
    metrics = evaluate.measure(dataset(CAT), detections(FOUND_CAT), step=1)
    assert metrics.per_label["dog"].ap is None
    assert metrics.summary.map == pytest.approx(1)


@pytest.mark.parametrize("found", [detections(), []])
def test_nothing_found_or_nothing_to_find_is_no_error(found: list[Detections]) -> None:
    metrics = evaluate.measure(dataset(CAT), found, step=1)
    assert metrics.summary.map == (0 if found else None)
