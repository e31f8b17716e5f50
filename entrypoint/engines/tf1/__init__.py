"""The engine of the zoo's first generation: slim models of the Object Detection API, as graphs. See engine.Engine."""

import tensorflow as tf

# Upstream registers slim models where TensorFlow 2's behaviour is off, and looks when its builders are imported.
tf.compat.v1.disable_v2_behavior()
# What a SavedModel holds of the older kind cannot be trained on.
tf.compat.v1.enable_resource_variables()

from entrypoint.engines.tf1.detector import evaluate  # noqa: E402
from entrypoint.engines.tf1.exporter import export, export_tflite_source  # noqa: E402
from entrypoint.engines.tf1.model import extractors  # noqa: E402
from entrypoint.engines.tf1.trainer import build, train  # noqa: E402

__all__ = ["build", "evaluate", "export", "export_tflite_source", "extractors", "train"]
