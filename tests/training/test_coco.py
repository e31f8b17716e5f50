from __future__ import annotations

import contextlib
import io
import random
from typing import Any

import numpy as np
import pytest

from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.engines.engine import Detections
from entrypoint.system import documents
from entrypoint.training import coco


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
    metrics = coco.measure(dataset(CAT, DOG), detections(FOUND_CAT, FOUND_DOG), step=1)
    assert metrics.summary.map == pytest.approx(1)
    dog = metrics.per_label["dog"]
    assert [dog.ap, dog.ap50, dog.boxes] == pytest.approx([1, 1, 1])
    assert [value for _, value in metrics.per_iou] == pytest.approx([1] * 10)


def test_summary_has_the_twelve_figures_of_coco() -> None:
    """The cat's box has 120 x 40 = 4,800 pixels, the dog's 60 x 30 = 1,800: both are medium."""
    summary = documents.to_plain(coco.measure(dataset(CAT, DOG), detections(FOUND_CAT), step=1).summary)
    sizes = {"small": None, "medium": 0.5, "large": None}
    assert len(summary) == 12
    assert {size: summary[f"mAP {size}"] for size in sizes} == pytest.approx(sizes)
    assert {size: summary[f"recall@100 {size}"] for size in sizes} == pytest.approx(sizes)


def test_label_that_is_not_found_has_ap_of_zero() -> None:
    metrics = coco.measure(dataset(CAT, DOG), detections(FOUND_CAT), step=1)
    assert metrics.per_label["dog"].ap == 0
    assert metrics.summary.map == pytest.approx(0.5)


def test_loose_box_counts_at_low_iou_alone() -> None:
    # Of a width of 0.4 it has 0.3: an IoU of 0.75 but for rounding.
    metrics = coco.measure(dataset(CAT), detections((1, 0.9, (0.2, 0.1, 0.8, 0.405))), step=1)
    assert metrics.summary.map50 == pytest.approx(1)
    assert metrics.summary.map == pytest.approx(0.6)


def test_confident_false_positive_costs_precision() -> None:
    metrics = coco.measure(dataset(CAT), detections((1, 0.95, (0.0, 0.7, 0.1, 0.8)), FOUND_CAT), step=1)
    assert metrics.summary.map50 == pytest.approx(0.5)


def test_label_without_validation_boxes_is_undefined_and_not_zero() -> None:
    metrics = coco.measure(dataset(CAT), detections(FOUND_CAT), step=1)
    assert metrics.per_label["dog"].ap is None
    assert metrics.summary.map == pytest.approx(1)


@pytest.mark.parametrize("found", [detections(), []])
def test_nothing_found_or_nothing_to_find_is_no_error(found: list[Detections]) -> None:
    metrics = coco.measure(dataset(CAT), found, step=1)
    assert metrics.summary.map == (0 if found else None)


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> Any:
    """The evaluation of the program that defines COCO's metrics."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        oracle = COCO()
        oracle.dataset = truth
        oracle.createIndex()
        evaluation = COCOeval(oracle, oracle.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(25))
def test_numbers_are_those_of_pycocotools(seed: int) -> None:
    """On random boxes of all sizes with crowds, equal scores, and labels that are only true or only found."""
    rng = random.Random(seed)

    def box() -> list[float]:
        return [rng.uniform(0, 300), rng.uniform(0, 300), rng.choice([9.0, 50.0, 200.0]), rng.uniform(5, 200)]

    photos, labels = range(1, 21), range(1, 5)
    true = [(photo, box()) for photo in photos for _ in range(rng.randint(0, 9))]
    truth = {
        "images": [{"id": photo} for photo in photos],
        "categories": [{"id": label, "name": str(label)} for label in labels],
        "annotations": [
            {
                "id": number,
                "image_id": photo,
                "category_id": rng.choice(labels[:3]),
                "bbox": corners,
                "area": corners[2] * corners[3],
                "iscrowd": int(rng.random() < 0.1),
            }
            for number, (photo, corners) in enumerate(true, 1)
        ],
    }
    near = [(photo, [value + rng.gauss(0, 8) for value in corners]) for photo, corners in true]
    results = [
        {
            "image_id": photo,
            "category_id": rng.choice(labels[1:]),
            "bbox": [*corners[:2], max(1.0, corners[2]), max(1.0, corners[3])],
            "score": rng.choice([0.1, 0.5, 0.5, rng.random()]),
        }
        for photo, corners in near + [(rng.choice(photos), box()) for _ in range(60)]
    ]
    found, expected = coco.evaluate_coco(truth, results), by_pycocotools(truth, results)
    np.testing.assert_array_equal(found.eval["precision"], expected.eval["precision"])
    assert list(found.stats) == pytest.approx(list(expected.stats), abs=1e-12)
