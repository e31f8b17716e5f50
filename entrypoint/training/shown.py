"""detections.json: the confident detections on the validation photos, for the report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from entrypoint.engines.engine import Detections

# The report shows detections from this score on. COCO's metrics are of all detections.
SHOWN_SCORE = 0.3


@dataclass(frozen=True)
class ShownDetections:
    """The confident detections on a validation photo, for the report."""

    key: str
    boxes: tuple[tuple[float, float, float, float], ...]  # ymin, xmin, ymax, xmax as fractions of the photo
    classes: tuple[int, ...]  # ids of the label map
    scores: tuple[float, ...]


@dataclass(frozen=True)
class DetectionsDocument:
    """The content of detections.json."""

    photos: tuple[ShownDetections, ...]

    @classmethod
    def of(cls, found: Iterable[Detections]) -> DetectionsDocument:
        """Returns the document of these detections."""
        return cls(tuple(map(shown, found)))


def shown(found: Detections) -> ShownDetections:
    """Returns a photo's confident detections."""
    chosen = [index for index, score in enumerate(found.scores) if score >= SHOWN_SCORE]
    corners = ([round(float(value), 5) for value in found.boxes[index]] for index in chosen)
    return ShownDetections(
        key=found.key,
        boxes=tuple((ymin, xmin, ymax, xmax) for ymin, xmin, ymax, xmax in corners),
        classes=tuple(int(found.classes[index]) for index in chosen),
        scores=tuple(round(float(found.scores[index]), 4) for index in chosen),
    )
