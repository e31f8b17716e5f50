"""AUGMENT: the augmentation of the photos, as lists of upstream's own operations, and what no photo may go through.

A list replaces that of the pipeline.config. The operations are those of upstream's preprocessor.proto.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from entrypoint.training.changes import Changes

logger = logging.getLogger("job")

# The name of an operation, and its fields that differ from upstream's defaults.
Operation = tuple[str, dict[str, float]]
FLIP: Operation = ("random_horizontal_flip", {})
# Three quarters of the photo or more, and boxes that reach out of it are cut.
CROP: Operation = (
    "random_crop_image",
    {
        "min_object_covered": 0.0,
        "min_aspect_ratio": 0.75,
        "max_aspect_ratio": 1.33,
        "min_area": 0.75,
        "max_area": 1.0,
        "overlap_thresh": 0.0,
    },
)
# A third of the photo or more: objects are up to 1.7 times as large as in the photos.
CLOSER: Operation = ("random_crop_image", {**CROP[1], "min_area": 0.33})
# Light and colour, by upstream's default amounts.
LIGHT: tuple[Operation, ...] = (("random_adjust_brightness", {}), ("random_adjust_contrast", {}))
COLOUR: tuple[Operation, ...] = (("random_adjust_hue", {}), ("random_adjust_saturation", {}))
LISTS: dict[str, tuple[Operation, ...]] = {
    "none": (),
    "light": (FLIP,),
    "default": (FLIP, CROP, *LIGHT),
    "strong": (FLIP, CLOSER, *LIGHT, *COLOUR),
}
# Operations that show a mirrored photo, or mirror what is in a box.
MIRRORING = ("random_horizontal_flip", "random_vertical_flip", "autoaugment_image")
# Left and right.
SIDES = {
    *("left", "right", "lefthand", "righthand"),  # English
    *("links", "rechts", "linke", "rechte", "linker", "rechter"),  # German
    *("gauche", "droite", "droit"),  # French
    *("izquierda", "izquierdo", "derecha", "derecho"),  # Spanish
    *("sinistra", "sinistro", "destra", "destro"),  # Italian
    *("esquerda", "esquerdo", "direita", "direito"),  # Portuguese
    *("linkse", "rechtse"),  # Dutch
    *("lewy", "prawy", "lewa", "prawa"),  # Polish
}
# Left and right in Chinese and Japanese, which put no space between words.
SIGNS = ("左", "右")


def inject(train: Any, wanted: str | None, labels: Iterable[str], changes: Changes) -> None:
    """Writes the augmentation of AUGMENT into a train_config; without AUGMENT, that of the config stays.

    If a label tells left from right, the operations that mirror are removed: they would make one of the other.
    """
    path = "train_config.data_augmentation_options"
    before = names(train)
    if wanted is not None:
        train.ClearField("data_augmentation_options")
        for name, values in LISTS[wanted]:
            step = getattr(train.data_augmentation_options.add(), name)
            step.SetInParent()
            for field, value in values.items():
                setattr(step, field, value)
    sided = [label for label in labels if tells_sides(label)]
    mirrored = [name for name in names(train) if name in MIRRORING]
    if sided and mirrored:
        kept = [
            step for step in train.data_augmentation_options if step.WhichOneof("preprocessing_step") not in MIRRORING
        ]
        train.ClearField("data_augmentation_options")
        train.data_augmentation_options.extend(kept)
        logger.info(
            "%s left out of the augmentation: the label %r tells left from right, and a photo in a mirror would teach "
            "the opposite",
            " and ".join(mirrored),
            sided[0],
        )
    after = names(train)
    if wanted is not None or before != after:
        changes.rows.append((path, ", ".join(before) or "none", ", ".join(after) or "none"))


def names(train: Any) -> list[str]:
    """Returns the names of the operations of a train_config."""
    return [step.WhichOneof("preprocessing_step") for step in train.data_augmentation_options]


def tells_sides(label: str) -> bool:
    """Returns whether a label tells left from right: `left_hand`, `TurnRight`, `Hand links`."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label))
    return any(word.casefold() in SIDES for word in words) or any(sign in label for sign in SIGNS)
