"""How far mAP depends on which photos were put aside for validation: a bootstrap over the photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from entrypoint.results.analysis.document import Bootstrap, Interval
from entrypoint.results.analysis.matching import Matches

SEED = 0
RESAMPLES = 200
FEWEST = 50  # for percentiles of any use
# Detections, and true boxes at ten IoU thresholds, that all resamples together add up: about four seconds on one core.
AFFORDABLE = 250_000_000
RECALLS = np.linspace(0, 1, 101)  # COCO's


@dataclass(frozen=True)
class Ranked:
    """The detections of one label, by falling score."""

    photo: Any  # int [n]
    right: tuple[Any, ...]  # for each of the IoU thresholds the positions of right detections, int
    true_photo: Any  # int [boxes]: the photos of the label's boxes


def bootstrap(matches: Matches, photos: int, labels: int) -> Bootstrap | None:
    """Returns 95 % intervals of mAP and mAP@0.5; None if fewer than two photos have boxes.

    Each resample draws as many validation photos as there are, with replacement. A photo that is drawn twice counts
    twice. Resamples without a box are left out.
    """
    if len(np.unique(matches.true.photo)) < 2:
        return None
    ranked = [rank(matches, label) for label in range(labels)]
    work = len(matches.found) + 10 * len(matches.true)
    resamples = min(RESAMPLES, max(FEWEST, AFFORDABLE // work))
    values = np.array(list(resampled(ranked, photos, resamples)))
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    overall, at_half = (Interval(float(low[index]), float(high[index])) for index in range(2))
    return Bootstrap(map=overall, map50=at_half, resamples=len(values), seed=SEED)


def rank(matches: Matches, label: int) -> Ranked:
    """Returns the detections of a label by falling score; of equal scores, in the order of the photos."""
    ours = np.flatnonzero(matches.found.label == label)
    ours = ours[np.argsort(-matches.found.score[ours], kind="stable")]
    right = tuple(np.flatnonzero(row[ours] >= 0) for row in matches.matched)
    return Ranked(matches.found.photo[ours], right, matches.true.photo[matches.true.label == label])


def resampled(ranked: list[Ranked], photos: int, resamples: int) -> Iterator[tuple[float, float]]:
    """Yields mAP and mAP@0.5 of each resample that has a box."""
    random = np.random.default_rng(SEED)
    for _ in range(resamples):
        weights = np.bincount(random.integers(photos, size=photos), minlength=photos)
        values = weighted_map(ranked, weights)
        if values is not None:
            yield values


def weighted_map(ranked: list[Ranked], weights: Any) -> tuple[float, float] | None:
    """Returns mAP and mAP@0.5 of photos that count as often as their weight; None if they have no box.

    The mean is over the labels that have boxes, as COCO's. With weights of 1 the numbers are COCO's.

    Args:
        ranked: the detections of each label.
        weights: int [photos].
    """
    values = []
    for label in ranked:
        boxes = int(weights[label.true_photo].sum())
        if boxes:
            each = weights[label.photo]
            counted = np.cumsum(each)
            values.append([average_precision(each, counted, right, boxes) for right in label.right])
    if not values:
        return None
    per_iou = np.mean(values, axis=0)
    return float(per_iou.mean()), float(per_iou[0])


def average_precision(weights: Any, counted: Any, right: Any, boxes: int) -> float:
    """Returns COCO's average precision: the mean of the precision at 101 recalls, each the best of that recall or more.

    The precision at a right detection is never below that of the wrong ones behind it, so right ones decide alone.

    Args:
        weights: int [detections], by falling score.
        counted: int [detections], the running sum of the weights.
        right: int [right detections], their positions.
        boxes: the number of true boxes, with their weights.
    """
    if not len(right):
        return 0.0
    found = np.cumsum(weights[right])
    # If the first photos of the ranking are not drawn, nothing is counted there yet.
    precision = found / np.maximum(counted[right], 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(found / boxes, RECALLS)].mean())
