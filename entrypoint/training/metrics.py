"""metrics.json: COCO's metrics of the validation photos, and those of the evaluations during the training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field


@dataclass(frozen=True)
class Summary:
    """COCO's twelve figures; from 0 to 1, None if there is nothing to measure.

    The fields have the order of pycocotools.cocoeval.COCOeval.stats.
    """

    map: Annotated[float | None, Field(alias="mAP")] = None
    map50: Annotated[float | None, Field(alias="mAP@0.5")] = None
    map75: Annotated[float | None, Field(alias="mAP@0.75")] = None
    map_small: Annotated[float | None, Field(alias="mAP small")] = None
    map_medium: Annotated[float | None, Field(alias="mAP medium")] = None
    map_large: Annotated[float | None, Field(alias="mAP large")] = None
    recall1: Annotated[float | None, Field(alias="recall@1")] = None
    recall10: Annotated[float | None, Field(alias="recall@10")] = None
    recall100: Annotated[float | None, Field(alias="recall@100")] = None
    recall100_small: Annotated[float | None, Field(alias="recall@100 small")] = None
    recall100_medium: Annotated[float | None, Field(alias="recall@100 medium")] = None
    recall100_large: Annotated[float | None, Field(alias="recall@100 large")] = None


@dataclass(frozen=True)
class LabelMetrics:
    """The average precision of one label, and how many of its boxes the validation photos have."""

    ap: Annotated[float | None, Field(alias="AP")]
    ap50: Annotated[float | None, Field(alias="AP@0.5")]
    boxes: int


@dataclass(frozen=True)
class Evaluated:
    """The result of an evaluation."""

    step: int
    map: float | None  # COCO's mAP, from 0 to 1; None if the validation photos have no box
    map50: float | None  # mAP@0.5
    per_label: dict[str, float | None]  # AP of each label
    seconds: float
    # mAP of the weights as they are, and of the averaged ones, if both were evaluated. `map` is the higher one.
    raw: float | None = None
    averaged: float | None = None

    @property
    def is_averaged(self) -> bool:
        """Whether the averaged weights are better than those as they are."""
        return (self.averaged or 0.0) > (self.raw or 0.0)


@dataclass(frozen=True)
class Evaluations:
    """The evaluations up to a step, and how many steps lie between two of them."""

    every: int = 0  # 0 if none are made, or if the first of EVALUATE_EVERY=auto is still to come
    rows: tuple[Evaluated, ...] = ()

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the highest mAP, of equal ones the last; None if there is no mAP."""
        return max((row for row in self.rows if row.map is not None), key=lambda row: (row.map, row.step), default=None)


@dataclass(frozen=True)
class Metrics:
    """What metrics.json holds."""

    summary: Summary
    per_label: dict[str, LabelMetrics]
    per_iou: tuple[tuple[float, float | None], ...]  # IoU that counts as found, mAP
    photos: int
    boxes: int
    step: int  # of the checkpoint that was evaluated
    kept: Literal["best", "last"] = "last"  # which checkpoint of the training that is
    evaluations: Evaluations = field(default_factory=Evaluations)  # during the training
