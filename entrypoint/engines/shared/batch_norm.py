"""How fast the averages of batch norm follow the weights, so that a short training ends with averages of its own.

Upstream's backbones for SSD in TF1 and for CenterNet have a decay of 0.9997 of their own, which no field of the
pipeline.config changes without changing other things too: after 600 steps, five sixths of the averages are still those
of the checkpoint, and do not belong to the trained weights.

Shared by both engines.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from entrypoint.settings.schema import Settings

logger = logging.getLogger("job")

# Averages with the decay d are over about 1 / (1 - d) steps: at most the twentieth part of the training.
PARTS = 20
# No decay is lowered further. docs/recipes.md has what it is worth in trainings of 150 to 600 steps.
LOWEST = 0.97


def greatest_decay(config: Any, settings: Settings) -> float:
    """Returns the greatest decay that the averages of batch norm have in a training.

    How many steps fit into MAX_MINUTES is found only in the training. The decay is a float32, as those of a
    pipeline.config are, so that equal ones are equal.
    """
    steps = config.train_config.num_steps
    if settings.max_minutes is not None or not steps:
        return float(np.float32(LOWEST))
    return float(np.float32(max(LOWEST, 1 - PARTS / steps)))


def lower(decay: float, greatest: float, lowered: set[float]) -> float:
    """Returns a decay that is the greatest one at most, and adds it to `lowered` if it was greater.

    With a decay of 1 the averages are meant to stay as they are.
    """
    if not greatest < decay < 1:
        return decay
    lowered.add(decay)
    return greatest


def fit(model: Any, greatest: float) -> None:
    """Lowers the decay of a Keras model's batch norms that learn their averages."""
    lowered: set[float] = set()
    for layer in filter(is_learning, layers_of(model)):
        layer.momentum = lower(layer.momentum, greatest, lowered)
    log(lowered, greatest)


def layers_of(model: Any) -> list[Any]:
    """Returns the batch norms of a Keras model, which are of several classes."""
    return [each for each in model.submodules if hasattr(each, "moving_variance")]


def is_learning(layer: Any) -> bool:
    """Returns whether the averages of a batch norm of Keras change in training."""
    # Upstream's own class keeps in `_training` whether its averages are frozen.
    return bool(layer.trainable) and getattr(layer, "_training", None) is not False


def log(lowered: set[float], greatest: float) -> None:
    """Logs that these decays were lowered, if there are any."""
    if lowered:
        spans = (round(1 / (1 - decay)) for decay in (greatest, max(lowered)))
        logger.info("batch norm: averages over %d steps instead of %d, because the training is short", *spans)
