"""Matches detections with true boxes as COCO does, and says what kind of error each detection is as TIDE does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from entrypoint.data.annotations import Dataset
from entrypoint.engines.engine import Detections
from entrypoint.results.analysis.document import ErrorCounts, Kind
from entrypoint.training import coco

IOUS = np.linspace(0.5, 0.95, 10)  # COCO's
BACKGROUND = 0.1  # TIDE's IoU up to which a detection and a box have nothing to do with each other
KINDS: tuple[Kind, ...] = ("right", "poor_box", "wrong_label", "duplicate", "ghost", "both")
RIGHT, POOR_BOX, WRONG_LABEL, DUPLICATE, GHOST, BOTH = range(6)
MOST = 100  # detections of a label on a photo, as COCO counts them


@dataclass(frozen=True)
class Boxes:
    """True boxes or detections of all photos; detections of a photo by falling score."""

    photo: Any  # int [n]: index of the photo
    label: Any  # int [n]: index of the label
    corners: Any  # float64 [n, 4]: ymin, xmin, ymax, xmax as fractions
    pixels: Any  # float64 [n, 4]: left, top, width, height
    score: Any  # float64 [n]; 1 for true boxes

    @property
    def area(self) -> Any:
        """The areas in pixels, float64 [n]."""
        return self.pixels[:, 2] * self.pixels[:, 3]

    def __len__(self) -> int:
        return len(self.photo)


@dataclass(frozen=True)
class Matches:
    """Which detection is which true box, and what is wrong with the others."""

    true: Boxes
    found: Boxes
    matched: Any  # int [10, n]: for each IoU threshold the true box of each detection, or -1
    kind: Any  # int [n]: index in KINDS, at IoU 0.5
    blamed: Any  # int [n]: the true box that a `poor_box` or `wrong_label` is about, or -1
    nearest: Any  # float64 [true boxes]: the highest IoU with a detection of any label and score

    def is_found(self, threshold: float) -> Any:
        """Returns which true boxes are matched at IoU 0.5 with a detection of at least that score, bool."""
        return self.true_boxes_in(self.matched[0], threshold)

    def is_missed(self, threshold: float) -> Any:
        """Returns which true boxes are neither found, nor the box that a poor box or a wrong label is about, bool."""
        return ~(self.is_found(threshold) | self.true_boxes_in(self.blamed, threshold))

    def true_boxes_in(self, indices: Any, threshold: float) -> Any:
        """Returns which true boxes occur among the indices of detections with at least that score, bool."""
        is_there = np.zeros(len(self.true), bool)
        is_there[indices[(indices >= 0) & (self.found.score >= threshold)]] = True
        return is_there


def match(dataset: Dataset, found: Sequence[Detections]) -> Matches:
    """Returns the matches of the detections with the boxes of their photos.

    Raises:
        KeyError: the dataset lacks a photo with detections.
    """
    true, detected = true_boxes(dataset, found), detections(found)
    matched = np.full((len(IOUS), len(detected)), -1)
    kind, blamed = np.full(len(detected), GHOST), np.full(len(detected), -1)
    nearest = np.zeros(len(true))
    for index in range(len(found)):
        ours = slice(*np.searchsorted(detected.photo, (index, index + 1)))
        theirs = slice(*np.searchsorted(true.photo, (index, index + 1)))
        if ours.start == ours.stop or theirs.start == theirs.stop:
            continue
        crowds = [False] * (theirs.stop - theirs.start)
        iou = np.asarray(hotcoco.mask.bbox_iou(detected.pixels[ours], true.pixels[theirs], crowds))
        same = detected.label[ours][:, None] == true.label[theirs][None]
        local = match_photo(iou, same)
        kind[ours], about = judge(iou, same, local[0])
        matched[:, ours] = np.where(local >= 0, local + theirs.start, -1)
        blamed[ours] = np.where(about >= 0, about + theirs.start, -1)
        nearest[theirs] = iou.max(axis=0)
    return Matches(true, detected, matched, kind, blamed, nearest)


def true_boxes(dataset: Dataset, found: Sequence[Detections]) -> Boxes:
    """Returns the boxes of the validation photos, in the order of the photos."""
    truth = coco.ground_truth(dataset, list(found))["annotations"]
    photo = np.array([each["image_id"] - 1 for each in truth], int)
    pixels = np.array([each["bbox"] for each in truth], float).reshape(-1, 4)
    sizes = np.array([(each.height, each.width) for each in found], float).reshape(-1, 2)[photo]
    upper_left = pixels[:, 1::-1] / sizes
    lower_right = upper_left + pixels[:, :1:-1] / sizes
    label = np.array([each["category_id"] - 1 for each in truth], int)
    return Boxes(photo, label, np.hstack([upper_left, lower_right]), pixels, np.ones(len(truth)))


def detections(found: Sequence[Detections]) -> Boxes:
    """Returns the detections that COCO counts, in the order of the photos, those of a photo by falling score."""
    photos, labels, corners, pixels, scores = [], [], [], [], []
    for index, photo in enumerate(found):
        score, label = np.asarray(photo.scores, float), np.asarray(photo.classes, int) - 1
        order = counted(score, label)
        box = np.asarray(photo.boxes, float).reshape(-1, 4)[order]
        photos.append(np.full(len(order), index))
        labels.append(label[order])
        scores.append(score[order])
        corners.append(box)
        size = [photo.width, photo.height]
        pixels.append(np.hstack([box[:, 1::-1] * size, (box[:, 3:1:-1] - box[:, 1::-1]) * size]))
    if not photos:
        return Boxes(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0))
    return Boxes(*map(np.concatenate, (photos, labels, corners, pixels, scores)))


def counted(score: Any, label: Any) -> Any:
    """Returns the indices of a photo's detections by falling score: those with a score, 100 at most of a label."""
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > 0]
    if len(order) <= MOST:
        return order
    rank = np.zeros(len(order), int)
    for each in np.unique(label[order]):
        of_label = label[order] == each
        rank[of_label] = np.arange(of_label.sum())
    return order[rank < MOST]


def match_photo(iou: Any, same: Any) -> Any:
    """Returns for each of COCO's IoU thresholds the true box of each detection, or -1: int [10, detections].

    As in pycocotools, the detection with the highest score takes the free box of its label with the highest IoU; of
    equal ones, the last.

    Args:
        iou: float [detections, true boxes], the detections by falling score.
        same: bool [detections, true boxes], whether their labels are equal.
    """
    boxes = iou.shape[1]
    reached = np.where(same, iou, -1.0)[None] >= IOUS[:, None, None]
    matched = np.full((len(IOUS), len(iou)), -1)
    free = np.ones((len(IOUS), boxes), bool)
    levels = np.arange(len(IOUS))
    for index in np.flatnonzero(reached[0].any(axis=1)):
        candidates = np.where(free & reached[:, index], iou[index], -1.0)
        best = boxes - 1 - candidates[:, ::-1].argmax(axis=1)
        hit = candidates[levels, best] >= 0
        matched[hit, index] = best[hit]
        free[levels[hit], best[hit]] = False
    return matched


def judge(iou: Any, same: Any, matched: Any) -> tuple[Any, Any]:
    """Returns the kind of each detection, and the true box that a `poor_box` or `wrong_label` is about, or -1.

    The rules are TIDE's, in the order of its program (tidecv): see `Kind`.

    Args:
        iou: float [detections, true boxes].
        same: bool [detections, true boxes], whether their labels are equal.
        matched: int [detections], the true box of each detection at IoU 0.5, or -1.
    """
    own, other = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    is_poor = (own.max(axis=1) >= BACKGROUND) & (own.max(axis=1) < IOUS[0])
    rules = [matched >= 0, is_poor, other.max(axis=1) >= IOUS[0], own.max(axis=1) >= IOUS[0]]
    is_ghost = iou.max(axis=1) <= BACKGROUND
    kind = np.select([*rules, is_ghost], [RIGHT, POOR_BOX, WRONG_LABEL, DUPLICATE, GHOST], BOTH)
    about = np.select([kind == POOR_BOX, kind == WRONG_LABEL], [own.argmax(axis=1), other.argmax(axis=1)], -1)
    return kind, about


def count_kinds(kinds: Any, missed: int) -> ErrorCounts:
    """Returns how often each kind occurs among detections, with a number of missed boxes."""
    numbers = np.bincount(kinds, minlength=len(KINDS))
    return ErrorCounts(missed=missed, **{name: int(numbers[index]) for index, name in enumerate(KINDS)})
