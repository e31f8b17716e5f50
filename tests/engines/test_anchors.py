"""The raw outputs that clients decode with the anchors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from entrypoint.zoo import pipeline_config

LOGITS = np.array([[[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]]], np.float32)
ENCODINGS = np.array([[[0.1, 0.2, 0.3, 0.4], [1.0, -1.0, 0.5, 0.0]]], np.float32)
EFFICIENTDET = """add_background_class: false box_coder { faster_rcnn_box_coder {
  y_scale: 1 x_scale: 1 height_scale: 1 width_scale: 1 } }"""


def raw_outputs(fields: str) -> dict[str, Any]:
    from entrypoint.engines.shared import anchors

    config = pipeline_config.parse(f"model {{ ssd {{ {fields} post_processing {{ score_converter: SIGMOID }} }} }}")
    predictions = {"box_encodings": ENCODINGS, "class_predictions_with_background": LOGITS}
    return {name: value.numpy() for name, value in anchors.raw_outputs(config, predictions).items()}


def test_published_form_is_left_as_it_is() -> None:
    raw = raw_outputs("box_coder { faster_rcnn_box_coder {} }")
    np.testing.assert_array_equal(raw["box_encodings"], ENCODINGS)
    assert raw["class_predictions"] == pytest.approx(1 / (1 + np.exp(-LOGITS)))


def test_model_without_scales_and_background_is_brought_into_it() -> None:
    raw = raw_outputs(EFFICIENTDET)
    assert raw["box_encodings"] == pytest.approx(ENCODINGS * [10, 10, 5, 5])
    assert raw["class_predictions"][..., 1:] == pytest.approx(1 / (1 + np.exp(-LOGITS)))
    assert not raw["class_predictions"][..., 0].any()
