from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.engines.engine import Detections
from entrypoint.results.analysis import Analysis, analyse, bootstrap, matching
from entrypoint.results.analysis.analysis import errors, evaluate
from entrypoint.results.analysis.document import (
    Bootstrap,
    ErrorCounts,
    Interval,
    OperatingPoint,
    RepairGains,
    Suspect,
)
from entrypoint.results.metrics_document import MetricsDocument
from entrypoint.system import documents
from entrypoint.training import coco
from entrypoint.training.metrics import LabelMetrics, Metrics, Summary
from tests.conftest import ROOT
from tests.results.analysed import LABELS, every_kind, part, random_set, square, validation
from tests.training.test_coco import by_pycocotools

NONE = ErrorCounts(right=0, missed=0, ghost=0, wrong_label=0, poor_box=0, both=0, duplicate=0)


def near(value: Any, within: float | None = None) -> Any:
    """A value but for rounding, for fields of any type."""
    return pytest.approx(value, abs=within)


def of(**counts: int) -> ErrorCounts:
    return dataclasses.replace(NONE, **counts)


def test_recommended_threshold_has_the_best_f1_over_all_labels() -> None:
    analysis = analyse(*every_kind())
    assert analysis.recommended == OperatingPoint(0.5, 21 / 26, 21 / 25, near(42 / 51))
    assert analysis.threshold == 0.5


def test_each_label_has_a_threshold_of_its_own() -> None:
    """Each label has two boxes. The cat: F1 is 2/3 at 0.9 and 2/4 at 0.8. The dog: 2/3 at 0.6 and 4/4 at 0.2."""
    cats, dogs = [("cat", square(0)), ("cat", square(1))], [("dog", square(2)), ("dog", square(3))]
    found = [("cat", 0.9, square(0)), ("cat", 0.8, square(0, 3)), ("dog", 0.6, square(2)), ("dog", 0.2, square(3))]
    analysis = analyse(*validation(([*cats, *dogs], found)))
    assert analysis.per_label["cat"].best == OperatingPoint(near(0.9), 1, 0.5, near(2 / 3))
    assert analysis.per_label["dog"].best == OperatingPoint(near(0.2), 1, 1, 1)


def test_equal_scores_are_counted_together() -> None:
    """F1 is 2/3 at 0.9. At 0.5 it would be 1 if the right one of three were counted alone; with all three it is 4/6."""
    true = [("cat", square(0)), ("cat", square(1))]
    equal = [("cat", 0.5, square(column, row)) for column, row in ((1, 0), (3, 3), (4, 3))]
    analysis = analyse(*validation((true, [("cat", 0.9, square(0)), *equal])))
    assert analysis.recommended == OperatingPoint(near(0.9), 1, 0.5, near(2 / 3))


def test_curve_and_average_precision_of_a_label() -> None:
    """Four boxes; right, wrong, right. Precision is 1 up to a recall of 1/4, 2/3 up to 2/4, and 0 from there on.

    Of the recalls 0, 0.01 to 1, 26 are up to 0.25, and 25 more up to 0.5.
    """
    true = [("cat", square(column)) for column in range(4)]
    found = [("cat", 0.9, square(0)), ("cat", 0.8, square(0, 3)), ("cat", 0.7, square(1))]
    cat = analyse(*validation((true, found))).per_label["cat"]
    assert [point.recall for point in cat.curve] == near([number / 100 for number in range(51)])
    assert [point.precision for point in cat.curve] == near([1] * 26 + [2 / 3] * 25)
    assert [point.score for point in cat.curve] == near([0.9] * 26 + [0.7] * 25)
    assert cat.ap50 == near((26 + 25 * 2 / 3) / 101)
    assert (cat.ap, cat.boxes) == (near(cat.ap50), 4)


def test_confusion_matrix_has_a_background() -> None:
    """A cat is found twice: once it is right. The dog is found as a cat. The poor boxes find nothing."""
    confusion = analyse(*every_kind()).confusion
    assert confusion.labels == ("cat", "dog")
    assert confusion.counts == (
        (21, 0, 2),  # the cats of the poor box and the missed one are background
        (1, 0, 1),
        (3, 1, 0),  # the duplicate and two poor boxes; the ghost of a dog
    )


def test_each_detection_has_its_kind_and_missed_boxes_are_counted() -> None:
    analysis = analyse(*every_kind())
    one_each = of(missed=2, ghost=1, wrong_label=1, poor_box=1, both=1, duplicate=1)
    assert analysis.errors.counts == dataclasses.replace(one_each, right=21)
    assert analysis.errors.counts.errors == 7
    assert analysis.errors.per_label == {
        "cat": dataclasses.replace(one_each, right=21, missed=1, ghost=0),
        "dog": of(missed=1, ghost=1),
    }
    first, second = analysis.per_photo
    assert (first.key, first.counts) == ("a.jpg", dataclasses.replace(one_each, right=1))
    assert (second.key, second.counts) == ("b.jpg", of(right=20))
    assert [(each.label, round(each.score, 2), each.kind) for each in first.detections] == [
        ("cat", 0.95, "right"),
        ("cat", 0.9, "duplicate"),
        ("cat", 0.85, "wrong_label"),
        ("cat", 0.8, "poor_box"),
        ("cat", 0.75, "both"),
        ("dog", 0.7, "ghost"),
    ]
    assert first.detections[-1].corners == (0.6, 0.0, 0.7, 0.1)


def test_gains_are_what_repairs_add_to_map() -> None:
    """The cat has 23 boxes: right, four errors, 20 right. mAP@0.5 is the mean of the cat's AP and the dog's, 0.

    1/23 reaches five of the 101 recalls at precision 1, and 21/23 the next 87 at 21/25. The wrong ones gone, one by
    one, it is 21/24. The poor box repaired, 22/23 reaches 91 at 22/25. Without the missed cat, 21/22 reaches 91.
    The wrong label repaired, the dog's first detection finds one of its two boxes: 51 recalls at precision 1.
    """
    base = 5 + 87 * 21 / 25
    without_one = 87 * (21 / 24 - 21 / 25) / 101 / 2
    analysis = analyse(*every_kind())
    assert analysis.per_label["cat"].ap50 == near(base / 101)
    assert (analysis.map, analysis.map50) == (near(base / 101 / 2), near(base / 101 / 2))
    assert analysis.errors.gains == RepairGains(
        missed=near((5 + 91 * 21 / 25 - base) / 101 / 2),
        ghost=0,
        wrong_label=near(without_one + 51 / 101 / 2),
        poor_box=near((5 + 91 * 22 / 25 - base) / 101 / 2),
        both=near(without_one),
        duplicate=near(without_one),
    )


def test_sizes_are_those_of_coco_in_pixels_of_the_photo() -> None:
    """Sides of 20, 50 and 100 pixels: one of two, two of two, none of one is found, with a tight box.

    Half of the boxes reaches 51 of the 101 recalls.
    """
    small, medium, large = [square(0, 0, 20), square(1, 0, 20)], [square(2, 0, 50), square(3, 0, 50)], square(4)
    true = [("cat", corners) for corners in (*small, *medium, large)]
    found = [("cat", 0.9, corners) for corners in (small[0], *medium)]
    sizes = analyse(*validation((true, found))).sizes
    assert [(each.name, each.boxes, each.recall) for each in sizes.coco] == [
        ("small", 2, 0.5),
        ("medium", 2, 1),
        ("large", 1, 0),
    ]
    assert [each.ap for each in sizes.coco] == near([51 / 101, 1, 0])
    assert [(each.area_from, each.area_below) for each in sizes.coco] == [(0, 1024), (1024, 9216), (9216, None)]
    assert sizes.quarters == ()


def test_boxes_of_one_size_of_coco_are_in_quarters_of_their_own() -> None:
    """Sides of 40, 50, 60 and 70 pixels are all medium. The smallest box is not found.

    The other three of four boxes reach 76 of the 101 recalls.
    """
    boxes = [square(column, 0, side) for column, side in enumerate((40, 50, 60, 70))]
    sizes = analyse(*validation(([("cat", box) for box in boxes], [("cat", 0.9, box) for box in boxes[1:]]))).sizes
    assert [(each.name, each.boxes, each.recall, each.ap) for each in sizes.quarters] == [
        ("1 of 4", 1, 0, 0),
        ("2 of 4", 1, 1, near(1)),
        ("3 of 4", 1, 1, near(1)),
        ("4 of 4", 1, 1, near(1)),
    ]
    assert [each.area_below for each in sizes.quarters[:3]] == [2499.5, 3599.5, 4899.5]
    assert [each.ap for each in sizes.coco] == [None, near(76 / 101), None]


def test_boxes_of_one_area_have_no_quarters() -> None:
    assert analyse(*every_kind()).sizes.quarters == ()


def test_calibration_is_the_gap_between_scores_and_right_detections() -> None:
    """Of two detections at 0.95 one is right: a gap of 0.45. The one at 0.15 is wrong. (2 x 0.45 + 0.15) / 3 = 0.35."""
    found = [("cat", 0.95, square(0)), ("cat", 0.95, square(0, 3)), ("cat", 0.15, square(1, 3))]
    calibration = analyse(*validation(([("cat", square(0))], [*found, ("cat", 0.04, square(2, 3))]))).calibration
    assert calibration.error == near(0.35)
    assert [each.count for each in calibration.bins] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (calibration.bins[9].mean_score, calibration.bins[9].right) == (near(0.95), 0.5)
    assert (calibration.bins[1].mean_score, calibration.bins[1].right) == (near(0.15), 0)
    assert (calibration.bins[0].mean_score, calibration.bins[0].right) == (None, None)
    assert [each.score_from for each in calibration.bins] == [number / 10 for number in range(10)]


def test_interval_is_that_of_drawn_photos() -> None:
    """The box of a.jpg is found, that of b.jpg is not.

    A quarter of the draws is a.jpg twice, with mAP 1; another is b.jpg twice, with mAP 0.
    """
    found = ([("cat", square(0))], [("cat", 0.9, square(0))])
    analysis = analyse(*validation(found, ([("cat", square(0))], [])))
    assert analysis.bootstrap == Bootstrap(map=Interval(0, 1), map50=Interval(0, 1), resamples=200, seed=0)
    assert analysis.map == near(51 / 101)


def test_interval_is_the_same_each_time_and_has_the_estimate_in_it() -> None:
    dataset, found = random_set(3, photos=60)
    analysis = analyse(dataset, found)
    assert analysis.bootstrap is not None
    assert analysis.map is not None
    assert analysis.map50 is not None
    assert analysis.bootstrap == analyse(dataset, found).bootstrap
    assert 0 < analysis.bootstrap.map.low < analysis.map < analysis.bootstrap.map.high
    assert analysis.bootstrap.map50.low < analysis.map50 < analysis.bootstrap.map50.high


@pytest.mark.parametrize("seed", range(5))
def test_photo_that_is_drawn_twice_counts_as_two_photos(seed: int) -> None:
    """The mAP of weights is COCO's mAP of a set with copies. Scores differ: COCO orders equal ones by photo."""
    dataset, found = random_set(seed)
    random = np.random.default_rng(seed)
    found = [dataclasses.replace(each, scores=np.sort(random.random(len(each.scores)))[::-1]) for each in found]
    weights = random.integers(0, 4, len(found))
    copies, images = [], []
    for photo, weight, image in zip(found, weights, dataset.images, strict=True):
        for number in range(weight):
            key = f"{number}-{photo.key}"
            copies.append(dataclasses.replace(photo, key=key))
            images.append(dataclasses.replace(image, key=key))
    expected = coco.measure(Dataset(dataset.labels, images), copies, 1).summary
    ranked = [bootstrap.rank(matching.match(dataset, found), label) for label in range(len(dataset.labels))]
    assert bootstrap.weighted_map(ranked, weights) == near((expected.map, expected.map50), within=1e-12)


def test_large_sets_are_drawn_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, found = random_set(0)
    matches = matching.match(dataset, found)
    work = len(matches.found) + 10 * len(matches.true)
    monkeypatch.setattr(bootstrap, "AFFORDABLE", 60 * work)
    drawn = bootstrap.bootstrap(matches, len(found), len(dataset.labels))
    assert drawn is not None
    assert drawn.resamples == 60


def test_labels_that_look_wrong_are_ranked() -> None:
    """The recommended threshold is 0.6, with all right detections.

    The ghost at 0.9 is a missing box, the one at 0.4 is too weak to be one. The first dog is found as a cat. The second
    is found as both, so it is no suspect. Nothing comes near the last cat; of the four cats three are found.
    """
    cats = [square(0), square(1), square(0, 1), square(1, 1)]
    true = [*(("cat", each) for each in cats), ("dog", square(2)), ("dog", square(3)), ("dog", square(4))]
    found = [
        *(("cat", 0.6, each) for each in cats[:3]),
        ("dog", 0.6, square(4)),
        ("cat", 0.8, square(2)),
        ("cat", 0.95, square(3)),
        ("dog", 0.7, square(3)),
        ("dog", 0.9, square(0, 3)),
        ("dog", 0.4, square(1, 3)),
    ]
    analysis = analyse(*validation((true, found)))
    assert analysis.threshold == near(0.6)
    high, low = near(0.9), near(0.8)
    assert analysis.suspects == (
        Suspect("missing box", "a.jpg", (0.6, 0.0, 0.7, 0.1), None, "dog", high, high),
        Suspect("wrong label", "a.jpg", (0.0, 0.4, 0.1, 0.5), "dog", "cat", low, low),
        Suspect("box without object", "a.jpg", (0.2, 0.2, 0.3, 0.3), "cat", None, None, 0.75),
    )


def test_weak_detections_are_no_evidence_against_labels() -> None:
    """The recommended threshold is 0.2. A ghost at 0.4 is above it, but says little; one at 0.6 is a suspect."""
    weak = validation(([("cat", square(0))], [("cat", 0.2, square(0)), ("cat", 0.4, square(0, 3))]))
    strong = validation(([("cat", square(0))], [("cat", 0.2, square(0)), ("cat", 0.6, square(0, 3))]))
    assert [analyse(*each).threshold for each in (weak, strong)] == near([0.2, 0.2])
    assert [len(analyse(*each).suspects) for each in (weak, strong)] == [0, 1]


def test_suspects_are_fifty_at_most() -> None:
    ghosts = [("cat", 0.5 + number / 200, square(number % 5, number // 5, 50)) for number in range(60)]
    suspects = analyse(*validation(([("cat", (0, 900, 50, 950))], ghosts))).suspects
    scores = [each.score or 0.0 for each in suspects]
    assert len(scores) == 50
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == near(0.5 + 59 / 200)


def test_sides_of_missed_boxes_are_known() -> None:
    """Sides of 40 and 60 pixels are missed, one of 100 is found."""
    true = [("cat", square(column, 0, side)) for column, side in enumerate((40, 60, 100))]
    cat = analyse(*validation((true, [("cat", 0.9, square(2))]))).per_label["cat"]
    assert (cat.median_side, cat.median_side_missed) == (near(60), near(50))


@pytest.mark.parametrize("seed", range(10))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    """Also with more than 100 detections of a label on a photo, of which COCO counts the best 100."""
    dataset, found = random_set(seed, photos=10 if seed == 0 else 20, most=900 if seed == 0 else 40)
    analysis = analyse(dataset, found)
    truth = coco.ground_truth(dataset, found)
    results = [result for index, each in enumerate(found, start=1) for result in coco.to_coco(index, each)]
    expected = by_pycocotools(truth, results)
    precision = expected.eval["precision"]
    for index, label in enumerate(dataset.labels):
        assert analysis.per_label[label].ap == coco.average(precision[:, :, index, 0, -1])
        assert analysis.per_label[label].ap50 == coco.average(precision[0, :, index, 0, -1])
    assert [analysis.map, analysis.map50] == near(list(expected.stats[:2]), within=1e-12)
    assert [each.ap for each in analysis.sizes.coco] == near(list(expected.stats[3:6]), within=1e-12)
    matches = matching.match(dataset, found)
    once = np.ones(len(found), int)
    ranked = [bootstrap.rank(matches, label) for label in range(len(dataset.labels))]
    assert bootstrap.weighted_map(ranked, once) == near(tuple(expected.stats[:2]), within=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_errors_of_all_scores_are_those_that_hotcoco_counts(seed: int) -> None:
    dataset, found = random_set(seed)
    matches = matching.match(dataset, found)
    evaluation = evaluate(dataset, found, matches)
    counts = errors(dataset, matches, evaluation, threshold=0.0).counts
    assert evaluation.coco.tide_errors(pos_thr=0.5, bg_thr=0.1)["counts"] == {
        "Bkg": counts.ghost,
        "Both": counts.both,
        "Cls": counts.wrong_label,
        "Dupe": counts.duplicate,
        "Loc": counts.poor_box,
        "Miss": counts.missed,
    }


CAT = ([("cat", square(0))], [("cat", 0.9, square(0))])
EDGES: dict[str, tuple[Dataset, list[Detections]]] = {
    "no photos": validation(),
    "no boxes": validation(([], [("cat", 0.9, square(0))]), ([], [])),
    "no boxes and no detections": validation(([], [])),
    "no detections": validation((CAT[0], []), (CAT[0], [])),
    "label without boxes": validation(CAT, CAT),
    "photo without boxes": validation(CAT, ([], [("dog", 0.9, square(0))])),
    "one label": validation(CAT, CAT, labels=["cat"]),
    "no right detection": validation((CAT[0], [("dog", 0.9, square(0))]), ([], [])),
    "equal scores": validation((CAT[0], [("cat", 0.5, square(0)), ("cat", 0.5, square(1))]), CAT),
    "score of zero": validation((CAT[0], [("cat", 0.0, square(0))])),
    "score of one": validation((CAT[0], [("cat", 1.0, square(0))])),
}


def undefined(value: Any) -> bool:
    """Whether a document has -1 for a number that is not defined."""
    if isinstance(value, dict):
        return any(map(undefined, value.values()))
    return any(map(undefined, value)) if isinstance(value, list | tuple) else value == -1


@pytest.mark.parametrize("edge", EDGES)
def test_document_of_an_edge_case_is_as_its_schema_says(edge: str, tmp_path: Path) -> None:
    analysis = analyse(*EDGES[edge])
    document = MetricsDocument.of(Metrics(Summary(), {}, (), photos=1, boxes=1, step=7), analysis)
    documents.write(tmp_path / "metrics.json", document)
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert not undefined(json.loads(text))
    jsonschema.validate(json.loads(text), json.loads((ROOT / "docs" / "metrics.schema.json").read_text()))
    assert documents.read(MetricsDocument, tmp_path / "metrics.json") == document
    # Programs that know nothing of the analysis read the metrics alone.
    assert documents.read(Metrics, tmp_path / "metrics.json").step == 7


def test_metrics_without_an_analysis_are_as_the_schema_says() -> None:
    schema = json.loads((ROOT / "docs" / "metrics.schema.json").read_text())
    metrics = Metrics(Summary(map=0.5), {"cat": LabelMetrics(0.5, None, 3)}, ((0.5, 0.7),), photos=1, boxes=3, step=7)
    for document in (metrics, MetricsDocument.of(metrics, None)):
        jsonschema.validate(json.loads(json.dumps(documents.to_plain(document))), schema)


def test_another_document_is_not_as_the_schema_says() -> None:
    schema = json.loads((ROOT / "docs" / "metrics.schema.json").read_text())
    metrics = MetricsDocument.of(Metrics(Summary(), {}, (), photos=1, boxes=1, step=7), analyse(*EDGES["one label"]))
    document = documents.to_plain(metrics)
    document["analysis"]["recommended"]["precision"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(document)), schema)


@pytest.mark.parametrize("edge", ["no photos", "no boxes", "no boxes and no detections"])
def test_without_boxes_nothing_is_defined(edge: str) -> None:
    analysis = analyse(*EDGES[edge])
    assert (analysis.map, analysis.map50, analysis.bootstrap, analysis.recommended) == (None, None, None, None)
    assert analysis.errors.gains is None
    assert [(each.boxes, each.recall, each.ap) for each in analysis.sizes.coco] == [(0, None, None)] * 3
    for label in LABELS:
        values = analysis.per_label[label]
        assert (values.ap, values.ap50, values.best, values.median_side) == (None, None, None, None)
        assert (values.boxes, values.curve) == (0, ())


def test_ghosts_on_photos_without_boxes_are_counted() -> None:
    analysis = analyse(*EDGES["no boxes"])
    assert (analysis.threshold, analysis.errors.counts) == (0.5, of(ghost=1))
    assert analysis.confusion.counts == ((0, 0, 0), (0, 0, 0), (1, 0, 0))
    assert [each.kind for each in analysis.suspects] == ["missing box"]


@pytest.mark.parametrize("edge", ["no detections", "score of zero"])
def test_without_detections_everything_is_missed(edge: str) -> None:
    dataset, found = EDGES[edge]
    analysis = analyse(dataset, found)
    assert (analysis.map, analysis.recommended, analysis.calibration.error) == (0, None, None)
    assert analysis.errors.counts == of(missed=len(found))
    assert {each.kind for each in analysis.suspects} == {"box without object"}


def test_without_a_right_detection_no_threshold_is_recommended() -> None:
    analysis = analyse(*EDGES["no right detection"])
    assert (analysis.recommended, analysis.threshold, analysis.map) == (None, 0.5, 0)
    assert analysis.errors.counts == of(wrong_label=1)


def test_label_without_boxes_is_undefined_and_costs_no_map() -> None:
    analysis = analyse(*EDGES["label without boxes"])
    assert (analysis.per_label["dog"].ap, analysis.per_label["dog"].best) == (None, None)
    assert analysis.map == near(1)


def test_one_photo_with_boxes_has_no_interval() -> None:
    assert analyse(*EDGES["photo without boxes"]).bootstrap is None
    assert analyse(*EDGES["one label"]).bootstrap is not None


def test_photos_that_are_not_validated_are_left_out() -> None:
    dataset, found = validation(CAT, CAT)
    other = LabelledImage("trained.jpg", dataset.images[0].boxes)
    more = Dataset(dataset.labels, [*dataset.images, other])
    assert analyse(more, found) == analyse(dataset, found)


def test_part_of_a_box_has_the_iou_of_its_share() -> None:
    """The hand-made sets rest on it."""
    dataset, found = validation(([("cat", square(2))], [("cat", 0.9, part(square(2), 0.3))]))
    assert list(matching.match(dataset, found).nearest) == near([0.3], within=1e-6)


def test_analysis_is_of_the_type_that_the_document_has() -> None:
    analysis: Analysis = analyse(*every_kind())
    assert documents.to_plain(analysis)["mAP@0.5"] == analysis.map50
