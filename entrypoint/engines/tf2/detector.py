"""Runs a trained model on photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from entrypoint.engines.engine import Detections
from entrypoint.engines.shared import validation_input
from entrypoint.engines.tf2 import model as models


def evaluate(config: Any, checkpoint: Path, records: list[str]) -> Iterator[Detections]:
    """Yields the detections on every photo of the records, in their order."""
    model = models.load_trained(config, str(checkpoint))

    @tf.function(autograph=False)
    def detect(images: Any, shapes: Any) -> dict[str, Any]:
        found = model.postprocess(model.predict(images, shapes), shapes)
        return {name: found[name] for name in validation_input.FOUND}

    for keys, sizes, images, shapes in validation_input.batches(model, records, config.train_config.batch_size):
        found = {name: value.numpy() for name, value in detect(images, shapes).items()}
        yield from validation_input.detections(keys.numpy(), sizes.numpy(), found)
