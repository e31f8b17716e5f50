"""Runs a model on photos, in training or trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from entrypoint.engines.engine import Detections
from entrypoint.engines.shared import distribution, patches, validation_input
from entrypoint.engines.tf2 import model as models


class Detector:
    """A model and the photos of some records. It is traced once, however often it runs."""

    def __init__(self, model: Any, records: list[str], largest: int, strategy: Any) -> None:
        self.model = model
        self.strategy = strategy
        self.batches = validation_input.batches(model, records, largest)
        self.detect = tf.function(self._detect, autograph=False)

    def run(self) -> Iterator[Detections]:
        """Yields the detections of the present weights on every photo, in the order of the records.

        A model in training can go on with it afterwards.
        """
        size = 0
        for keys, sizes, images, shapes in self.batches:
            # For a last batch of fewer photos the model would be traced once more.
            size = max(size, len(keys))
            batch = (filled(images, size), filled(shapes, size))
            # Whoever reads the detections may train the model between two batches.
            with patches.detecting(self.model):
                found = {name: value.numpy() for name, value in self.detect(*batch).items()}
            yield from validation_input.detections(keys.numpy(), sizes.numpy(), found)

    def _detect(self, images: Any, shapes: Any) -> dict[str, Any]:
        """Returns the detections on a batch, of the first replica.

        In a replica, the averages of batch norm are read without the other machines of a cluster.
        """
        found: dict[str, Any] = self.strategy.run(self._postprocess, args=(images, shapes))
        return {name: distribution.local(self.strategy, value) for name, value in found.items()}

    def _postprocess(self, images: Any, shapes: Any) -> dict[str, Any]:
        """Returns the detections on a batch."""
        found = self.model.postprocess(self.model.predict(images, shapes), shapes)
        return {name: found[name] for name in validation_input.FOUND}


def filled(values: Any, size: int) -> Any:
    """Returns a batch with its last entry repeated up to a size."""
    missing = size - len(values)
    return tf.concat([values, tf.repeat(values[-1:], missing, axis=0)], axis=0) if missing else values


def evaluate(config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
    """Yields the detections of a checkpoint on every photo of the records, in their order."""
    model = models.load_trained(config, str(checkpoint))
    yield from Detector(model, records, config.train_config.batch_size, tf.distribute.get_strategy()).run()
