"""The analysis of a model's detections on the validation photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from entrypoint.data.annotations import Dataset
from entrypoint.engines.engine import Detections
from entrypoint.results.analysis import bootstrap, curves, matching, suspects
from entrypoint.results.analysis.document import (
    Analysis,
    Confusion,
    Errors,
    JudgedDetection,
    LabelAnalysis,
    PhotoAnalysis,
    RepairGains,
    SizeClass,
    Sizes,
)
from entrypoint.results.analysis.matching import RIGHT, Matches
from entrypoint.training import coco

WITHOUT_RECOMMENDATION = 0.5  # the threshold if no detection is right
COCO_SIZES = (("small", 0.0, 32.0**2), ("medium", 32.0**2, 96.0**2), ("large", 96.0**2, None))
LARGEST = 1e10  # pixels, COCO's


def analyse(dataset: Dataset, found: Sequence[Detections]) -> Analysis:
    """Returns where a model fails on the validation photos.

    Detections with a score of 0 are left out, and those beyond the best 100 of a label on a photo, as COCO does.

    Args:
        dataset: the labels, and the boxes of at least the validation photos.
        found: the detections on every validation photo; a photo without detections has empty arrays.

    Raises:
        KeyError: the dataset lacks a photo of `found`.
    """
    matches = matching.match(dataset, found)
    evaluation = evaluate(dataset, found, matches)
    is_right = matches.kind == RIGHT
    recommended = curves.best_f1(matches.found.score, is_right, len(matches.true))
    threshold = recommended.threshold if recommended else WITHOUT_RECOMMENDATION
    precision = evaluation.precision[:, :, :, 0]
    return Analysis(
        photos=len(found),
        boxes=len(matches.true),
        map=coco.average(precision),
        map50=coco.average(precision[0]),
        bootstrap=bootstrap.bootstrap(matches, len(found), len(dataset.labels)),
        recommended=recommended,
        threshold=threshold,
        per_label=labels(dataset, matches, evaluation, threshold),
        confusion=confusion(dataset, matches, evaluation, threshold),
        errors=errors(dataset, matches, evaluation, threshold),
        sizes=sizes(matches, evaluation, threshold),
        calibration=curves.calibration(matches),
        suspects=suspects.suspects(dataset, found, matches, threshold),
        per_photo=photos(dataset, found, matches, threshold),
    )


@dataclass(frozen=True)
class Evaluation:
    """hotcoco's evaluation."""

    precision: Any  # float [IoU thresholds, recalls, labels, 1 + size classes], -1 if undefined
    scores: Any  # of the same shape
    recalls: Any  # float [101]
    size_classes: tuple[tuple[str, float, float | None], ...]  # name, least area, area that is too large
    coco: Any  # hotcoco's COCOeval


def evaluate(dataset: Dataset, found: Sequence[Detections], matches: Matches) -> Evaluation:
    """Evaluates boxes of all sizes, of COCO's size classes, and of quarters if they are needed."""
    size_classes = (*COCO_SIZES, *quarters(matches.true.area))
    truth, boxes = hotcoco.COCO(coco.ground_truth(dataset, list(found))), matches.found
    # hotcoco's columns: photo, left, top, width, height, score, label.
    table = np.column_stack([boxes.photo + 1, boxes.pixels, boxes.score, boxes.label + 1])
    evaluation = hotcoco.COCOeval(truth, truth.load_res(table), "bbox")
    ranges = {"all": [0.0, LARGEST]} | {name: area_range(least, limit) for name, least, limit in size_classes}
    evaluation.params.area_rng, evaluation.params.area_rng_lbl = list(ranges.values()), list(ranges)
    evaluation.evaluate()
    evaluation.accumulate()
    arrays: Any = evaluation.eval
    precision, scores = (np.asarray(arrays[name])[..., -1] for name in ("precision", "scores"))
    return Evaluation(precision, scores, np.asarray(evaluation.params.rec_thrs), size_classes, evaluation)


def area_range(least: float, limit: float | None) -> list[float]:
    """Returns the least and the greatest area of a size class. COCO counts boxes at its limits, 32² and 96², twice."""
    if limit is None:
        return [least, LARGEST]
    return [least, limit if limit in (32.0**2, 96.0**2) else float(np.nextafter(limit, 0.0))]


def quarters(areas: Any) -> list[tuple[str, float, float | None]]:
    """Returns the quarters of the boxes by area if all boxes have one of COCO's sizes, else an empty list.

    Boxes of equal areas belong to one class. There are fewer classes than four if many areas are equal, and none if all
    are.
    """
    if not len(areas) or len(np.unique(np.digitize(areas, [32.0**2, 96.0**2]))) > 1:
        return []
    # Limits between whole numbers of pixels: equal boxes have areas that differ by a rounding.
    edges = np.unique(np.round(np.quantile(areas, [0.25, 0.5, 0.75], method="higher")) - 0.5)
    limits = [float(edge) for edge in edges if edge > areas.min()]
    names = [f"{number} of {len(limits) + 1}" for number in range(1, len(limits) + 2)]
    return list(zip(names, [0.0, *limits], [*limits, None], strict=True)) if limits else []


def labels(dataset: Dataset, matches: Matches, evaluation: Evaluation, threshold: float) -> dict[str, LabelAnalysis]:
    """Returns the analysis of each label."""
    sides, is_missed = np.sqrt(matches.true.area), matches.is_missed(threshold)
    result = {}
    for index, label in enumerate(dataset.labels):
        ours, theirs = matches.found.label == index, matches.true.label == index
        precision, scores = evaluation.precision[:, :, index, 0], evaluation.scores[0, :, index, 0]
        result[label] = LabelAnalysis(
            ap=coco.average(precision),
            ap50=coco.average(precision[0]),
            boxes=int(theirs.sum()),
            best=curves.best_f1(matches.found.score[ours], matches.kind[ours] == RIGHT, int(theirs.sum())),
            curve=curves.curve(evaluation.recalls, precision[0], scores),
            median_side=median(sides[theirs]),
            median_side_missed=median(sides[theirs & is_missed]),
        )
    return result


def median(values: Any) -> float | None:
    """Returns the median, or None if there are no values."""
    return float(np.median(values)) if len(values) else None


def confusion(dataset: Dataset, matches: Matches, evaluation: Evaluation, threshold: float) -> Confusion:
    """Returns the confusion matrix at IoU 0.5 of the detections with at least that score."""
    most = max(1, len(matches.found))
    matrix = evaluation.coco.confusion_matrix(iou_thr=0.5, max_det=most, min_score=threshold)["matrix"]
    return Confusion(tuple(dataset.labels), tuple(tuple(int(count) for count in row) for row in matrix))


def errors(dataset: Dataset, matches: Matches, evaluation: Evaluation, threshold: float) -> Errors:
    """Returns the errors by kind, at that threshold, and what repairing them would gain, at any score."""
    shown, is_missed = matches.found.score >= threshold, matches.is_missed(threshold)
    per_label = {
        label: matching.count_kinds(
            matches.kind[shown & (matches.found.label == index)], int(is_missed[matches.true.label == index].sum())
        )
        for index, label in enumerate(dataset.labels)
    }
    gains = None
    if len(matches.true):
        gain = evaluation.coco.tide_errors(pos_thr=0.5, bg_thr=matching.BACKGROUND)["delta_ap"]
        gains = RepairGains(gain["Miss"], gain["Bkg"], gain["Cls"], gain["Loc"], gain["Both"], gain["Dupe"])
    return Errors(matching.count_kinds(matches.kind[shown], int(is_missed.sum())), per_label, gains)


def sizes(matches: Matches, evaluation: Evaluation, threshold: float) -> Sizes:
    """Returns how well boxes of each size class are found."""
    area, is_found = matches.true.area, matches.is_found(threshold)
    classes = []
    for index, (name, least, limit) in enumerate(evaluation.size_classes, start=1):
        ours = (area >= least) & (area < (np.inf if limit is None else limit))
        classes.append(
            SizeClass(
                name=name,
                area_from=least,
                area_below=limit,
                boxes=int(ours.sum()),
                recall=float(is_found[ours].mean()) if ours.any() else None,
                ap=coco.average(evaluation.precision[..., index]),
            )
        )
    return Sizes(tuple(classes[: len(COCO_SIZES)]), tuple(classes[len(COCO_SIZES) :]))


def photos(
    dataset: Dataset, found: Sequence[Detections], matches: Matches, threshold: float
) -> tuple[PhotoAnalysis, ...]:
    """Returns the errors on each photo at that threshold, and the kinds of its detections."""
    boxes, is_missed = matches.found, matches.is_missed(threshold)
    result = []
    for index, photo in enumerate(found):
        ours = slice(*np.searchsorted(boxes.photo, (index, index + 1)))
        theirs = slice(*np.searchsorted(matches.true.photo, (index, index + 1)))
        shown = boxes.score[ours] >= threshold
        counts = matching.count_kinds(matches.kind[ours][shown], int(is_missed[theirs].sum()))
        result.append(PhotoAnalysis(photo.key, counts, tuple(judged(dataset, matches, ours))))
    return tuple(result)


def judged(dataset: Dataset, matches: Matches, photo: slice) -> list[JudgedDetection]:
    """Returns the detections of a photo that have a score of at least 0.05, with their kinds."""
    boxes = matches.found
    return [
        JudgedDetection(
            corners=suspects.rounded(boxes.corners[index]),
            label=dataset.labels[boxes.label[index]],
            score=float(boxes.score[index]),
            kind=matching.KINDS[matches.kind[index]],
        )
        for index in range(photo.start, photo.stop)
        if boxes.score[index] >= curves.LOWEST_SCORE
    ]
