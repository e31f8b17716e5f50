"""Prints which variables a model's labels decide about: `python -m tests.zoo.label_outputs GENERATION NAME...`.

A line of JSON for each model: `differ` are the names in its checkpoint whose shapes depend on the number of labels,
`kept` those whose outputs for known labels a training keeps. It is a process of its own, because the two generations
need different modes of TensorFlow.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from entrypoint.engines.shared.class_outputs import Known, Outputs
from entrypoint.zoo import coco_labels
from tests.zoo import archives, published

LABELS = 3
KNOWN = Known(coco_labels.IDS, {0: 5, 1: 7}, ("airplane", "train"), ("sledge",))


def main(generation: str, names: list[str]) -> None:
    """Prints the lines."""
    for name in names:
        config = published.config(name)
        start, own = (shapes_of(generation, config, labels) for labels in (KNOWN.count, LABELS))
        outputs = Outputs.of(config)
        differ = [key for key, shape in own.items() if shape != start.get(key)]
        kept = [
            key
            for key, shape in own.items()
            if key in start and outputs.blend(key, np.zeros(shape), np.zeros(start[key]), KNOWN) is not None
        ]
        print(json.dumps({"name": name, "differ": differ, "kept": kept}), flush=True)


def shapes_of(generation: str, config: Any, labels: int) -> archives.Shapes:
    """Returns the names and shapes of the checkpoint of a model with a number of labels, which stays in the config."""
    getattr(config.model, config.model.WhichOneof("model")).num_classes = labels
    with tempfile.TemporaryDirectory() as folder:
        return archives.shapes_of(archives.write(generation, config, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
