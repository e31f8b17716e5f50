"""Reads records for training with upstream's input pipeline. Both engines use it."""

from __future__ import annotations

import time
from collections.abc import Callable
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


def seconds_of(read: Callable[[], Any], batches: int) -> float:
    """Returns the seconds that `read` takes for a batch, as an average of some batches.

    Some batches are read before: the first one takes long because the buffers of the input pipeline are filled, and
    those that follow take no time because they are in these buffers.
    """
    for _ in range(2 * batches):
        read()
    began = time.monotonic()
    for _ in range(2 * batches):
        read()
    return (time.monotonic() - began) / (2 * batches)
