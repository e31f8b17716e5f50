"""Small validation sets, and random ones, for the tests of the analysis and of the advice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.engines.engine import Detections

SIDE = 1000  # of every photo, in pixels
LABELS = ["cat", "dog"]
Corners = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax in pixels
Labelled = tuple[str, Corners]
Found = tuple[str, float, Corners]


def square(column: int, row: int = 0, side: float = 100) -> Corners:
    """A square of that side; columns and rows are 200 pixels apart."""
    return 200 * column, 200 * row, 200 * column + side, 200 * row + side


def part(corners: Corners, share: float) -> Corners:
    """The left part of a box: its IoU with the box is the share."""
    xmin, ymin, xmax, ymax = corners
    return xmin, ymin, xmin + share * (xmax - xmin), ymax


def validation(
    *photos: tuple[Sequence[Labelled], Sequence[Found]], labels: Sequence[str] = LABELS
) -> tuple[Dataset, list[Detections]]:
    """The photos a.jpg, b.jpg and so on, each with its true boxes and its detections."""
    names = list(labels)
    images, found = [], []
    for index, (true, detections) in enumerate(photos):
        key = f"{chr(ord('a') + index)}.jpg"
        boxes = tuple(Box(label, *(value / SIDE for value in corners)) for label, corners in true)
        images.append(LabelledImage(key, boxes))
        ordered = sorted(detections, key=lambda each: -each[1])
        corners = [(ymin, xmin, ymax, xmax) for _, _, (xmin, ymin, xmax, ymax) in ordered]
        found.append(
            Detections(
                key,
                SIDE,
                SIDE,
                (np.array(corners) / SIDE).astype(np.float32).reshape(-1, 4),
                np.array([names.index(label) + 1 for label, _, _ in ordered], int),
                np.array([score for _, score, _ in ordered], np.float32),
            )
        )
    return Dataset(names, images), found


def every_kind() -> tuple[Dataset, list[Detections]]:
    """One detection of each kind on a.jpg, and 20 right ones with a lower score on b.jpg; boxes of 100 x 100 pixels.

    At the score 0.5, 21 of 26 detections are right, and 21 of 25 boxes are found: F1 = 42 / 51. At 0.95, the next score
    that ends with a right detection, F1 = 2 / 26.
    """
    true = [(label, square(column)) for column, label in enumerate(["cat", "dog", "cat", "cat", "dog"])]
    found = [
        ("cat", 0.95, square(0)),  # right
        ("cat", 0.90, part(square(0), 0.9)),  # a duplicate of it
        ("cat", 0.85, square(1)),  # a wrong label
        ("cat", 0.80, part(square(2), 0.3)),  # a poor box
        ("cat", 0.75, part(square(4), 0.3)),  # a poor box with a wrong label; so the dog is missed, as is the third cat
        ("dog", 0.70, square(0, 3)),  # a ghost
        ("dog", 0.04, square(2, 3)),  # a ghost that is too weak to be listed
    ]
    cats = [square(column, row) for column in range(5) for row in range(4)]
    return validation((true, found), ([("cat", each) for each in cats], [("cat", 0.5, each) for each in cats]))


def random_set(seed: int, photos: int = 20, most: int = 30) -> tuple[Dataset, list[Detections]]:
    """Boxes of all sizes; detections near them and elsewhere, with equal scores, and labels only true or only found."""
    random = np.random.default_rng(seed)
    labels = ["a", "b", "c", "d"]
    images, found = [], []
    for index in range(photos):
        width, height = 640, 480
        number = random.integers(0, 9)
        upper_left = random.uniform(0, 0.6, (number, 2))
        true = np.hstack([upper_left, upper_left + random.choice([0.02, 0.1, 0.35], (number, 2))])
        boxes = tuple(Box(labels[random.integers(0, 3)], *(float(value) for value in corners)) for corners in true)
        images.append(LabelledImage(f"{index}.jpg", boxes))
        near = true[random.integers(0, number, most // 2)] if number else np.zeros((0, 4))
        near = near + random.normal(0, 0.01, near.shape)
        elsewhere = random.uniform(0, 0.5, (most // 2, 2))
        corners = np.vstack([near, np.hstack([elsewhere, elsewhere + 0.2])])
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 0.005)
        scores = np.sort(random.choice([0.1, 0.5, 0.5, *random.uniform(0, 1, 6)], len(corners)))[::-1]
        found.append(
            Detections(
                f"{index}.jpg",
                height,
                width,
                corners[:, [1, 0, 3, 2]].astype(np.float32),
                random.integers(2, 5, len(corners)),
                scores.astype(np.float32),
            )
        )
    return Dataset(labels, images), found
