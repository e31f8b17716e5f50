"""Runs a trained slim model on photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from entrypoint.engines.engine import Detections
from entrypoint.engines.shared import validation_input
from entrypoint.engines.tf1 import model as models


def evaluate(config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
    """Yields the detections on every photo of the records, in their order."""
    with tf.Graph().as_default():
        model = models.build(config, is_training=False)
        iterator = tf.data.make_initializable_iterator(
            validation_input.batches(model, records, config.train_config.batch_size)
        )
        keys, sizes, images, shapes = iterator.get_next()
        found = model.postprocess(model.predict(images, shapes), shapes)
        fetches = (keys, sizes, {name: found[name] for name in validation_input.FOUND})
        with models.restored_session(checkpoint) as session:
            session.run(iterator.initializer)
            while True:
                try:
                    batch = session.run(fetches)
                except tf.errors.OutOfRangeError:
                    return
                yield from validation_input.detections(*batch)
