"""The types of an analysis, a part of metrics.json.

Metrics and shares are numbers from 0 to 1; a value is None if there is nothing to measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

# What a detection is, by TIDE (arXiv:2008.08115, section 2.2) with its IoU thresholds 0.5 and 0.1. The first rule that
# holds decides:
#   right        it is matched with a true box of its label at an IoU of at least 0.5, as COCO matches
#   poor_box     the nearest true box of its label has an IoU from 0.1 to below 0.5 (TIDE: localization error)
#   wrong_label  a true box of another label has an IoU of at least 0.5 (classification error)
#   duplicate    its true box is matched with a detection of a higher score
#   ghost        no true box has an IoU above 0.1 (background error)
#   both         anything else: a poor box with a wrong label
Kind = Literal["right", "poor_box", "wrong_label", "duplicate", "ghost", "both"]
Corners = tuple[float, float, float, float]  # ymin, xmin, ymax, xmax as fractions of the photo


@dataclass(frozen=True)
class OperatingPoint:
    """What the detections with at least a score give, at IoU 0.5. `threshold` is the score of the best F1."""

    threshold: float  # of equally good ones the highest
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class CurvePoint:
    """A point of the precision-recall curve: the best precision at that recall or a higher one, as COCO has it."""

    recall: float  # one of COCO's 101: 0, 0.01 to 1
    precision: float
    score: float  # of the detection with which that recall is reached


@dataclass(frozen=True)
class LabelAnalysis:
    """How well one label is found. A side is the square root of a box's area, in pixels of the bucket's photo."""

    ap: Annotated[float | None, Field(alias="AP")]
    ap50: Annotated[float | None, Field(alias="AP@0.5")]
    boxes: int
    best: OperatingPoint | None  # at this label's own threshold; None if no detection is right
    curve: tuple[CurvePoint, ...]  # at IoU 0.5, up to the highest recall that is reached
    median_side: float | None  # of the label's boxes
    median_side_missed: float | None  # of those that are missed at the threshold of the analysis


@dataclass(frozen=True)
class Confusion:
    """True boxes by row, detections by column, at IoU 0.5; the last row and the last column are the background.

    Detections are matched with boxes of any label, those with the highest score first.
    """

    labels: tuple[str, ...]  # of rows and columns, without the background
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ErrorCounts:
    """Numbers of detections of each kind, and of missed boxes.

    A box is missed if it is matched with no detection, and no `poor_box` or `wrong_label` is about it (TIDE).
    """

    right: int
    missed: int
    ghost: int
    wrong_label: int
    poor_box: int
    both: int
    duplicate: int

    @property
    def errors(self) -> int:
        """The number of all errors."""
        return self.missed + self.ghost + self.wrong_label + self.poor_box + self.both + self.duplicate


@dataclass(frozen=True)
class RepairGains:
    """What mAP@0.5 would gain if all errors of one kind were repaired (TIDE's dAP), of detections of any score."""

    missed: float
    ghost: float
    wrong_label: float
    poor_box: float
    both: float
    duplicate: float


@dataclass(frozen=True)
class Errors:
    """Errors by kind. A detection counts for the label that was found, a missed box for its own label."""

    counts: ErrorCounts
    per_label: dict[str, ErrorCounts]
    gains: RepairGains | None  # None if there are no boxes


@dataclass(frozen=True)
class SizeClass:
    """How well boxes of a size are found. The size is the area in pixels of the bucket's photo."""

    name: str
    area_from: float
    area_below: float | None  # None if there is no limit
    boxes: int
    recall: float | None  # at the threshold of the analysis, IoU 0.5
    ap: Annotated[float | None, Field(alias="AP")]  # COCO's: the mean over labels and IoU thresholds


@dataclass(frozen=True)
class Sizes:
    """Boxes by size."""

    coco: tuple[SizeClass, ...]  # small, medium, large
    # Up to four classes with as many boxes each as equal areas allow; empty unless all boxes have one of COCO's sizes.
    quarters: tuple[SizeClass, ...]


@dataclass(frozen=True)
class CalibrationBin:
    """Detections whose scores are in a tenth of the range from 0 to 1."""

    score_from: float
    score_to: float
    mean_score: float | None
    right: float | None  # share of right detections
    count: int


@dataclass(frozen=True)
class Calibration:
    """Whether scores are probabilities, of the detections with at least `lowest_score`.

    The error is the mean gap between score and share of right detections in a bin, weighted with the bin's detections
    (expected calibration error, arXiv:1706.04599).
    """

    lowest_score: float
    error: float | None
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class Interval:
    """The interval from the 2.5th to the 97.5th percentile."""

    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """95 % intervals over validation sets that are drawn from the validation photos, with replacement."""

    map: Annotated[Interval, Field(alias="mAP")]
    map50: Annotated[Interval, Field(alias="mAP@0.5")]
    resamples: int  # how many sets were drawn
    seed: int


@dataclass(frozen=True)
class Suspect:
    """A place where the labels look wrong.

    - `missing box`: a confident detection where there is no true box; `suggested` is its label.
    - `wrong label`: a confident detection of another label at an IoU of more than 0.5 with a true box; no detection of
      the box's own label has the threshold of the analysis.
    - `box without object`: no detection of any label or score has an IoU of 0.1 or more with the true box.
    """

    kind: Literal["missing box", "wrong label", "box without object"]
    key: str  # of the photo
    corners: Corners  # of the true box, or of the detection if there is no true box
    label: str | None  # of the true box
    suggested: str | None  # None if the box should go
    score: float | None  # of the detection
    evidence: float  # the score; for a box without object, the share of its label's boxes that are found


@dataclass(frozen=True)
class JudgedDetection:
    """A detection and its kind."""

    corners: Corners
    label: str
    score: float
    kind: Kind


@dataclass(frozen=True)
class PhotoAnalysis:
    """The errors on one photo."""

    key: str
    counts: ErrorCounts  # at the threshold of the analysis
    detections: tuple[JudgedDetection, ...]  # with a score of at least 0.05, the highest first


@dataclass(frozen=True)
class Analysis:
    """Where a model fails on the validation photos."""

    photos: int
    boxes: int
    map: Annotated[float | None, Field(alias="mAP")]
    map50: Annotated[float | None, Field(alias="mAP@0.5")]
    bootstrap: Bootstrap | None  # None if fewer than two photos have boxes
    recommended: OperatingPoint | None  # the best F1 over all labels together; None if no detection is right
    threshold: float  # of the parts below: the recommended one, or 0.5 if there is none
    per_label: dict[str, LabelAnalysis]
    confusion: Confusion
    errors: Errors
    sizes: Sizes
    calibration: Calibration
    suspects: tuple[Suspect, ...]  # at most 50, the strongest evidence first
    per_photo: tuple[PhotoAnalysis, ...]
