"""detections.json: all detections on the validation photos, for the report, for other tools and for comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from entrypoint.engines.engine import Detections

# The report and TensorBoard show detections from this score on. COCO's metrics are of all detections.
SHOWN_SCORE = 0.3
DIGITS = 6  # of corners and scores: float32 has seven


@dataclass(frozen=True)
class StoredDetections:
    """The detections on a validation photo, with the highest score first."""

    key: str
    height: int  # of the photo in the bucket, upright, in pixels
    width: int
    boxes: tuple[tuple[float, float, float, float], ...]  # ymin, xmin, ymax, xmax as fractions of the photo
    classes: tuple[int, ...]  # ids of the label map
    scores: tuple[float, ...]

    @classmethod
    def of(cls, found: Detections) -> StoredDetections:
        """Returns a photo's detections without the empty ones that fill upstream's outputs."""
        chosen = [index for index, score in enumerate(found.scores) if score > 0]
        corners = ([round(float(value), DIGITS) for value in found.boxes[index]] for index in chosen)
        return cls(
            key=found.key,
            height=found.height,
            width=found.width,
            boxes=tuple((ymin, xmin, ymax, xmax) for ymin, xmin, ymax, xmax in corners),
            classes=tuple(int(found.classes[index]) for index in chosen),
            scores=tuple(round(float(found.scores[index]), DIGITS) for index in chosen),
        )

    def to_detections(self) -> Detections:
        """Returns them as an engine does."""
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        classes, scores = np.asarray(self.classes, np.int64), np.asarray(self.scores, np.float32)
        return Detections(self.key, self.height, self.width, boxes, classes, scores)


@dataclass(frozen=True)
class DetectionsDocument:
    """The content of detections.json."""

    photos: tuple[StoredDetections, ...]

    @classmethod
    def of(cls, found: Iterable[Detections]) -> DetectionsDocument:
        """Returns the document of these detections."""
        return cls(tuple(map(StoredDetections.of, found)))
