"""The engine of the zoo's first generation: slim models of the Object Detection API, as graphs."""

import tensorflow as tf

# Upstream registers slim models only if TensorFlow 2's behaviour is off when upstream's builders are imported.
tf.compat.v1.disable_v2_behavior()
# Without resource variables, a SavedModel could not be trained further.
tf.compat.v1.enable_resource_variables()

from entrypoint.engines.tf1.tf1_engine import Tf1Engine  # noqa: E402

__all__ = ["Tf1Engine"]
