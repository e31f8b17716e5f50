"""Stretches the schedule of the learning rate, whose steps can be others than those of the training.

Shared by both engines. Import it only after the engine has set TensorFlow's mode.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def position(step: Any, stretch: Any) -> Any:
    """Returns the step of the schedule, int64, at a step of the training.

    `stretch` is float64 [3]: a step of the training, the step of the schedule there, and how many steps of the schedule
    pass in each step after it. [0, 0, 1] changes nothing.
    """
    first, there, pace = tf.unstack(stretch)
    return tf.cast(tf.round(there + (tf.cast(step, tf.float64) - first) * pace), tf.int64)
