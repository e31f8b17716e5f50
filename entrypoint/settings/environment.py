"""What the libraries read from the environment when they are imported."""

from __future__ import annotations

import os

from entrypoint.settings.schema import Settings


def prepare(values: Settings) -> None:
    """What libraries read from the environment when they are imported; what the user set stays."""
    # Keras 2, for which the Object Detection API is written.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    # Errors alone: the rest is about how TensorFlow was built.
    # Of a cluster, it calls every machine that has ended its part a crashed one; what did fail is raised as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if values.tf_config else "2")
    if values.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # Matplotlib keeps its fonts' list below HOME, which a container may lack.
    os.environ.setdefault("MPLCONFIGDIR", str(values.work_dir / "matplotlib"))
