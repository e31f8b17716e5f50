"""The outputs for labels in the heads of a model, which a training keeps of a checkpoint that knows its labels.

A layer of a head has its outputs in the last dimension: for each anchor of a place, for each part of a box (R-FCN), or
for each box, one for each label, after one for the background in models that have it. Two-stage models can also have
four sides of a box for each label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

# Parts of the names of TF1's variables, and of the keys of TF2's checkpoints.
SCORES = re.compile(
    r"/ClassPredictor/|/_class_predictor_layers/|/object_center/|^SecondStageBoxPredictor/class_predictions/"
)
BOXES = re.compile(
    r"^SecondStageBoxPredictor/(BoxEncodingPredictor|refined_locations)/"
    r"|/_mask_rcnn_box_predictor/_box_prediction_head/"
)
# The first stage of two tells objects from background, and knows no labels.
FIRST_STAGE = re.compile(r"FirstStage|/_first_stage_box_predictor/")
VALUES = re.compile(r"/(?:pointwise_)?(?:kernel|weights)(?:/|$)|/bias(?:es)?(?:/|$)")
SIDES = 4


@dataclass(frozen=True)
class Known:
    """The labels of a training that its start checkpoint was trained for."""

    count: int  # labels of the checkpoint
    places: dict[int, int]  # index of a label in the training: its index in the checkpoint; both from 0
    names: tuple[str, ...]  # of these labels
    fresh: tuple[str, ...] = ()  # names of the other labels of the training


@dataclass(frozen=True)
class Outputs:
    """How many outputs for labels a model has."""

    labels: int
    has_background: bool

    @classmethod
    def of(cls, config: Any) -> Outputs:
        """Returns those of upstream's TrainEvalPipelineConfig."""
        kind = config.model.WhichOneof("model")
        architecture = getattr(config.model, kind)
        background = architecture.add_background_class if kind == "ssd" else kind == "faster_rcnn"
        return cls(architecture.num_classes, background)

    def blend(self, name: str, fresh: NDArray[Any], start: NDArray[Any], known: Known) -> NDArray[Any] | None:
        """Returns the values of a variable with those of known labels from a checkpoint, the others as they are.

        `fresh` are the values of the model, `start` those of the checkpoint. The result is None if the variable has no
        outputs for labels, or has other outputs than the checkpoint.
        """
        if not has_label_outputs(name):
            return None
        is_boxes = BOXES.search(name) is not None
        # Boxes have no output for the background.
        background = int(self.has_background and not is_boxes)
        slots, start_slots = self.labels + background, known.count + background
        groups, rest = divmod(fresh.shape[-1], slots)
        if rest or start.shape != (*fresh.shape[:-1], groups * start_slots) or (is_boxes and groups % SIDES):
            return None
        # CenterNet has no anchors; the layers before its last one have larger kernels.
        if "/object_center/" in name and (groups != 1 or fresh.shape[:-2] not in ((), (1, 1))):
            return None
        result: NDArray[Any] = fresh.copy()
        pairs = {label + background: place + background for label, place in known.places.items()}
        source, target = by_slot(start, start_slots, is_boxes=is_boxes), by_slot(result, slots, is_boxes=is_boxes)
        for slot, place in {**pairs, **({0: 0} if background else {})}.items():
            target[..., slot] = source[..., place]
        return result


def has_label_outputs(name: str) -> bool:
    """Returns whether the name of a variable, or its key in a checkpoint, is one of a layer with outputs for labels."""
    is_head = SCORES.search(name) or BOXES.search(name)
    return bool(is_head and VALUES.search(name) and not FIRST_STAGE.search(name))


def by_slot(values: NDArray[Any], slots: int, *, is_boxes: bool) -> NDArray[Any]:
    """Returns a view of contiguous values whose last dimension are the slots: labels, and the background."""
    slotted: NDArray[Any] = values.reshape(*values.shape[:-1], -1, slots, *([SIDES] if is_boxes else []))
    return slotted.swapaxes(-1, -2) if is_boxes else slotted
