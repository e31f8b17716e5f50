"""The detection of TF2 models on the photos of records, with a model that only counts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from entrypoint.engines.tf2.detector import Detector
from entrypoint.workspace import Workspace
from tests.engines.test_validation_input import Model, write_records


class Counting(Model):
    """Finds a box on each photo, with the number of photos in the batch as its score, and counts its traces."""

    _is_training = True
    traces = 0

    def predict(self, images: Any, shapes: Any) -> Any:  # noqa: ARG002
        self.traces += 1
        return images

    def postprocess(self, images: Any, shapes: Any) -> dict[str, Any]:  # noqa: ARG002
        size = images.shape[0]
        one = tf.ones([size, 1])
        return {"detection_boxes": tf.zeros([size, 1, 4]), "detection_classes": one, "detection_scores": one * size}


def test_model_is_traced_once_for_all_batches_the_last_one_too(work: Workspace) -> None:
    """Twenty photos in batches of eight leave a batch of four."""
    model = Counting(32)
    detector = Detector(model, write_records(work, photos=20), 8, tf.distribute.get_strategy())
    for _ in range(2):
        found = list(detector.run())
        assert sorted(each.key for each in found) == sorted(f"valid/{index}.png" for index in range(20))
        assert {float(each.scores[0]) for each in found} == {8.0}
    assert model.traces == 1
    assert model._is_training
