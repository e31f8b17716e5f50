"""Places where the labels of the validation photos look wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from entrypoint.data.annotations import Dataset
from entrypoint.engines.engine import Detections
from entrypoint.results.analysis.document import Corners, Suspect
from entrypoint.results.analysis.matching import BACKGROUND, GHOST, WRONG_LABEL, Matches

MOST = 50
CONFIDENT = 0.5  # a detection with a lower score is no evidence against a person


def suspects(dataset: Dataset, found: Sequence[Detections], matches: Matches, threshold: float) -> tuple[Suspect, ...]:
    """Returns the places with the strongest evidence first, at most 50; see `Suspect`.

    Args:
        dataset: the labels.
        found: the validation photos.
        matches: the detections and boxes of these photos.
        threshold: the threshold of the analysis. Confident detections have at least this score, and at least 0.5.
    """
    keys = [photo.key for photo in found]
    confident = max(threshold, CONFIDENT)
    every = [
        *missing_boxes(dataset.labels, keys, matches, confident),
        *wrong_labels(dataset.labels, keys, matches, confident, threshold),
        *boxes_without_object(dataset.labels, keys, matches, threshold),
    ]
    return tuple(sorted(every, key=lambda each: -each.evidence)[:MOST])


def missing_boxes(labels: list[str], keys: list[str], matches: Matches, confident: float) -> Iterator[Suspect]:
    """Yields the confident ghosts."""
    found = matches.found
    for index in np.flatnonzero((matches.kind == GHOST) & (found.score >= confident)):
        score = float(found.score[index])
        corners, suggested = rounded(found.corners[index]), labels[found.label[index]]
        yield Suspect("missing box", keys[found.photo[index]], corners, None, suggested, score, score)


def wrong_labels(
    labels: list[str], keys: list[str], matches: Matches, confident: float, threshold: float
) -> Iterator[Suspect]:
    """Yields the true boxes that are found with another label alone, once each, with the most confident detection."""
    true, found = matches.true, matches.found
    is_found, seen = matches.is_found(threshold), set()
    is_candidate = (matches.kind == WRONG_LABEL) & (found.score >= confident)
    for index in sorted(np.flatnonzero(is_candidate), key=lambda index: -found.score[index]):
        box = int(matches.blamed[index])
        if is_found[box] or box in seen:
            continue
        seen.add(box)
        score = float(found.score[index])
        label, suggested = labels[true.label[box]], labels[found.label[index]]
        corners = rounded(true.corners[box])
        yield Suspect("wrong label", keys[true.photo[box]], corners, label, suggested, score, score)


def boxes_without_object(labels: list[str], keys: list[str], matches: Matches, threshold: float) -> Iterator[Suspect]:
    """Yields the true boxes that no detection comes near.

    They are the better evidence, the more of the other boxes of that label the model finds.
    """
    true, is_found = matches.true, matches.is_found(threshold)
    for index in np.flatnonzero(matches.nearest < BACKGROUND):
        label = true.label[index]
        share = float(is_found[true.label == label].mean())
        corners = rounded(true.corners[index])
        yield Suspect("box without object", keys[true.photo[index]], corners, labels[label], None, None, share)


def rounded(corners: Any) -> Corners:
    """Returns corners for a document: ymin, xmin, ymax, xmax as fractions."""
    ymin, xmin, ymax, xmax = (round(float(value), 5) for value in corners)
    return ymin, xmin, ymax, xmax
