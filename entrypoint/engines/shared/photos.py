"""Photos of the records as clients of an exported model give them to it. Both engines use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from object_detection.builders import image_resizer_builder

from entrypoint.engines.engine import ClientPhoto
from entrypoint.engines.shared.serving import decoded
from entrypoint.zoo import pipeline_config


def prepare(config: Any, encoded: Iterable[bytes]) -> Iterator[ClientPhoto]:
    """Yields each photo, decoded by TensorFlow and resized by the model's own resizer."""
    resize = image_resizer_builder.build(pipeline_config.architecture_of(config).image_resizer)
    # A graph and a session serve both engines, whatever mode TensorFlow is in.
    with tf.Graph().as_default(), tf.Session() as session:
        content = tf.placeholder(tf.string, [])
        pixels = decoded(content)
        resized, size = resize(tf.cast(pixels, tf.float32))
        for each in encoded:
            original, values, (height, width, _) = session.run((pixels, resized, size), {content: each})
            share = (float(height) / values.shape[0], float(width) / values.shape[1])
            yield ClientPhoto(original, np.asarray(values, np.float32), share)
