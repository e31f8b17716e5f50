"""What a trained slim model finds on photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from entrypoint import decoding
from entrypoint.engine import Detections
from entrypoint.tf1 import model as models


def evaluate(config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
    """The detections on every photo of the records, in their order."""
    with tf.Graph().as_default():
        model = models.build(config, is_training=False)
        iterator = tf.data.make_initializable_iterator(decoding.batches(model, records))
        keys, sizes, images, shapes = iterator.get_next()
        found = model.postprocess(model.predict(images, shapes), shapes)
        fetches = (keys, sizes, {name: found[name] for name in decoding.FOUND})
        with models.restored_session(checkpoint) as session:
            session.run(iterator.initializer)
            while True:
                try:
                    batch = session.run(fetches)
                except tf.errors.OutOfRangeError:
                    return
                yield from decoding.detections(*batch)
