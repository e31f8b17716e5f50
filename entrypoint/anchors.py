"""The anchors of an SSD as clients of its raw outputs read them; for both engines."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def to_centers(corners: Any) -> Any:
    """Anchors [ymin, xmin, ymax, xmax] as [ycenter, xcenter, height, width]; float32 [anchors, 4], fractions."""
    ymin, xmin, ymax, xmax = tf.unstack(corners, axis=1)
    return tf.stack([(ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin], axis=1)


def rounded(centers: Any) -> list[list[float]]:
    """An array of anchors as lists, with the digits that float32 has."""
    return [[round(float(value), 7) for value in anchor] for anchor in centers]
