"""Thresholds with the best F1, precision-recall curves, and calibration."""

from __future__ import annotations

from typing import Any

import hotcoco
import numpy as np

from entrypoint.results.analysis.document import Calibration, CalibrationBin, CurvePoint, OperatingPoint
from entrypoint.results.analysis.matching import RIGHT, Matches

# Detectors give a hundred detections a photo, nearly all with scores close to 0. They would be nearly all of a
# calibration, and of a list.
LOWEST_SCORE = 0.05


def best_f1(scores: Any, is_right: Any, boxes: int) -> OperatingPoint | None:
    """Returns the threshold with the highest F1 = 2 PR / (P + R); None if no detection is right.

    Detections with equal scores are all counted, or none of them. Of equally good thresholds, the highest is returned.

    Args:
        scores: float [detections].
        is_right: bool [detections].
        boxes: the number of true boxes.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, right = scores[order], np.cumsum(is_right[order])
    if not boxes or not len(ordered) or not right[-1]:
        return None
    last_of_equal = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    right, counted = right[last_of_equal], last_of_equal + 1
    f1 = 2 * right / (counted + boxes)
    best = int(np.argmax(f1))
    return OperatingPoint(
        threshold=float(ordered[last_of_equal[best]]),
        precision=float(right[best] / counted[best]),
        recall=float(right[best] / boxes),
        f1=float(f1[best]),
    )


def curve(recalls: Any, precisions: Any, scores: Any) -> tuple[CurvePoint, ...]:
    """Returns the points of a label's precision-recall curve up to the highest recall that is reached.

    Args:
        recalls: float [101], COCO's.
        precisions: float [101], 0 if the recall is not reached, -1 if the label has no box.
        scores: float [101].
    """
    reached = precisions > 0
    return tuple(
        CurvePoint(round(float(recall), 2), float(precision), float(score))
        for recall, precision, score in zip(recalls[reached], precisions[reached], scores[reached], strict=True)
    )


def calibration(matches: Matches) -> Calibration:
    """Returns how far scores are from the shares of right detections, at IoU 0.5."""
    counted = matches.found.score >= LOWEST_SCORE
    scores, is_right = matches.found.score[counted], matches.kind[counted] == RIGHT
    error, _ = hotcoco.metrics.calibration_error(scores, is_right, n_bins=10)
    bins = tuple(
        CalibrationBin(
            score_from=round(each["bin_lower"], 1),
            score_to=round(each["bin_upper"], 1),
            mean_score=each["avg_confidence"] if each["count"] else None,
            right=each["avg_accuracy"] if each["count"] else None,
            count=each["count"],
        )
        for each in hotcoco.metrics.calibration_curve(scores, is_right, n_bins=10)
    )
    return Calibration(LOWEST_SCORE, error if counted.any() else None, bins)
