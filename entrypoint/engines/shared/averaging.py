"""Averaged weights: an exponential moving average of the weights of all steps (Polyak and Juditsky 1992).

Shared by both engines. Import it only after the engine has set TensorFlow's mode.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# The default of moving_average_decay in optimizer.proto.
DECAY = 0.9999


def rate(step: Any) -> Any:
    """Returns the share of the present weights in their average, float32, after a step.

    It is that of tf.train.ExponentialMovingAverage with `num_updates`, as upstream uses it: 1 - min(DECAY, (1 + n) /
    (10 + n)). Early in the training the average forgets quickly.
    """
    passed = tf.cast(step, tf.float32)
    return 1 - tf.minimum(DECAY, (1 + passed) / (10 + passed))


def move(average: Any, weight: Any, share: Any) -> None:
    """Moves an average towards a weight."""
    average.assign_sub(share * (average - weight))
