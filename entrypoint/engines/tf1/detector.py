"""Runs a trained slim model on photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf

from entrypoint.engines.engine import Detections
from entrypoint.engines.shared import validation_input
from entrypoint.engines.tf1 import model as models


class Detector:
    """A graph that detects, with the photos of some records. It is built once, however many checkpoints it runs."""

    def __init__(self, config: Any, records: list[str]) -> None:
        with tf.Graph().as_default():
            model = models.build(config, is_training=False)
            batches = validation_input.batches(model, records, config.train_config.batch_size)
            self.iterator = tf.data.make_initializable_iterator(batches)
            keys, sizes, images, shapes = self.iterator.get_next()
            found = model.postprocess(model.predict(images, shapes), shapes)
            self.fetches = (keys, sizes, {name: found[name] for name in validation_input.FOUND})
            self.saver = tf.train.Saver()
            self.session = tf.Session()
            # The input pipeline can contain tables.
            self.session.run(tf.tables_initializer())

    def run(self, checkpoint: Path) -> Iterator[Detections]:
        """Yields the detections of a checkpoint on every photo, in the order of the records.

        Raises:
            JobError: a weight is missing in the checkpoint or has another shape.
        """
        models.restore(self.session, self.saver, checkpoint)
        self.session.run(self.iterator.initializer)
        while True:
            try:
                batch = self.session.run(self.fetches)
            except tf.errors.OutOfRangeError:
                return
            yield from validation_input.detections(*batch)


def evaluate(config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
    """Yields the detections of a checkpoint on every photo of the records, in their order."""
    detector = Detector(config, records)
    with detector.session:
        yield from detector.run(checkpoint)
