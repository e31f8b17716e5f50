from __future__ import annotations

import numpy as np
import pytest

from entrypoint.engines.engine import SCALES, Normalization
from entrypoint.results.export import coreml
from entrypoint.results.export.coreml import Facts


def test_boxes_are_those_of_upstream_s_coder() -> None:
    import tensorflow as tf
    from object_detection.box_coders import faster_rcnn_box_coder
    from object_detection.core import box_list

    rng = np.random.default_rng(1)
    encodings = rng.normal(0, 2, (50, 4)).astype(np.float32)
    centres = rng.uniform(0.2, 0.8, (50, 2)).astype(np.float32)
    sides = rng.uniform(0.05, 0.4, (50, 2)).astype(np.float32)
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    coder = faster_rcnn_box_coder.FasterRcnnBoxCoder(scale_factors=list(SCALES))
    ymin, xmin, ymax, xmax = (
        coder.decode(tf.constant(encodings), box_list.BoxList(tf.constant(corners))).get().numpy().T
    )
    wanted = np.stack([(xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin], axis=1)
    anchors = np.concatenate([centres, sides], axis=1).tolist()
    np.testing.assert_allclose(coreml.to_coordinates(encodings, anchors), wanted, rtol=1e-4, atol=1e-5)


def test_layer_that_removes_duplicates_has_the_labels_and_reads_the_outputs_of_the_detector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # coremltools imports Keras by way of TensorFlow.
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    import coremltools

    facts = Facts(("cat", "dog"), ((0.5, 0.5, 0.1, 0.1),) * 7, Normalization((127.5,), (127.5,)), threshold=0.375)
    detector = coremltools.proto.Model_pb2.Model()
    for name, width in ((coreml.CONFIDENCE, 2), (coreml.COORDINATES, 4)):
        coreml.describe(detector.description.output.add(), f"raw_{name}", width, 7)
    model = coreml.suppression(facts, detector)
    layer = model.nonMaximumSuppression
    inputs = [each.name for each in model.description.input]
    assert {layer.confidenceInputFeatureName, layer.coordinatesInputFeatureName} <= set(inputs)
    assert [each.name for each in model.description.output] == ["confidence", "coordinates"]
    assert list(layer.stringClassLabels.vector) == ["cat", "dog"]
    assert layer.confidenceThreshold == 0.375
    assert set(coreml.THRESHOLDS) <= {each.name for each in model.description.input if each.type.isOptional}
