"""The engine of the zoo's first generation: slim models of the Object Detection API, as graphs."""

import tensorflow as tf

# Upstream registers slim models only if TensorFlow 2's behaviour is off, and looks when its builders are imported.
tf.compat.v1.disable_v2_behavior()
# A SavedModel with variables of the older kind could not be trained further.
tf.compat.v1.enable_resource_variables()

from entrypoint.engines.tf1.tf1_engine import Tf1Engine  # noqa: E402

__all__ = ["Tf1Engine"]
