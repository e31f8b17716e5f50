"""The environment variables that libraries read when they are imported."""

from __future__ import annotations

import os

from entrypoint.settings.schema import Settings


def prepare(values: Settings) -> None:
    """Sets the variables that libraries read when they are imported. The user's own values are kept.

    CUDA_VISIBLE_DEVICES is the exception: DEVICE=cpu replaces its value.
    """
    # The Object Detection API is written for Keras 2.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # TensorFlow logs only errors: its other messages are about how it was built. In a cluster it logs not even errors,
    # because it reports every machine that has finished its part as crashed. Real failures are raised as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if values.tf_config else "2")
    if values.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    if values.batch_size == "auto":
        # This process would take all memory of the GPUs before the processes that try how much a batch needs.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Matplotlib keeps its list of fonts below HOME, which a container may lack.
    os.environ.setdefault("MPLCONFIGDIR", str(values.work_dir / "matplotlib"))
