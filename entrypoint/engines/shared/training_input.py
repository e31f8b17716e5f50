"""Reads records for training with upstream's input pipeline. Both engines use it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from object_detection import inputs


def batches(config: Any, model: Any, context: Any = None) -> Any:
    """Returns upstream's input pipeline: endless batches of (features, labels), augmented, resized and padded.

    `context` is the InputContext of a machine in a cluster.
    """
    arguments = (config.train_config, config.train_input_reader, config.model)
    try:
        # AutoGraph takes longer than all other tracing together, and nearly all of upstream's augmentation does
        # without it. The decorator holds for all functions of the pipeline.
        build = tf.autograph.experimental.do_not_convert(inputs.train_input)
        return build(*arguments, model=model, input_context=context)
    except tf.errors.OperatorNotAllowedInGraphError:
        # For example random_square_crop_by_scale, with which CenterNet is trained.
        return inputs.train_input(*arguments, model=model, input_context=context)
