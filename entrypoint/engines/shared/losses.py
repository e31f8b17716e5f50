"""Computes the losses of a model on a batch.

Shared by both engines. Import it only after the engine has set TensorFlow's mode.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection import model_lib

from entrypoint.engines.engine import LOSS


def compute(model: Any, features: dict[str, Any], labels: Any, step: Any, regularize: bool) -> dict[str, Any]:
    """Returns upstream's losses of a batch by name, and their sum as Loss/total_loss: scalars, float32."""
    model_lib.provide_groundtruth(model, labels, training_step=step)
    shapes = features["true_image_shape"]
    predictions = model.predict(features["image"], shapes, **model.get_side_inputs(features))
    losses = dict(model.loss(predictions, shapes))
    penalties = model.regularization_losses() if regularize else []
    if penalties:
        losses["Loss/regularization_loss"] = tf.add_n(penalties)
    losses[LOSS] = tf.add_n(list(losses.values()))
    return losses
