"""TFLite's operation that decodes the boxes of an SSD and removes duplicates, as upstream describes it."""

from __future__ import annotations

from typing import Any

from object_detection.export_tflite_graph_lib_tf2 import SSDModule


def module(config: Any, model: Any) -> Any:
    """Returns upstream's module for an SSD; it returns as many detections of a photo as the model itself.

    `model` may be None if only the description of the operation is asked for.
    """
    # Upstream's own program asks for ten: on photos with more objects, a phone would find fewer than the model.
    most = config.model.ssd.post_processing.batch_non_max_suppression.max_total_detections
    return SSDModule(config, model, most, use_regular_nms=True)
