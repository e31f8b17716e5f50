"""Builds a detection model of slim layers in a graph, and restores checkpoints into its variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf
from object_detection.builders import model_builder

from entrypoint.system.errors import JobError, UserError


def extractors() -> set[str]:
    """Returns the types of feature extractors that upstream has for this engine."""
    return set().union(*model_builder.FEATURE_EXTRACTOR_MAPS)


def build(config: Any, *, is_training: bool) -> Any:
    """Returns the DetectionModel of a config. Its first `predict` creates its variables.

    Raises:
        UserError: the model cannot be built.
    """
    try:
        return model_builder.build(config.model, is_training=is_training)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the model in the pipeline.config cannot be built: {error}") from None


def restored_session(prefix: Path) -> Any:
    """Returns a session of the default graph with the weights of a checkpoint of this job.

    Raises:
        JobError: a weight is missing in the checkpoint or has another shape.
    """
    session = tf.Session()
    # The input pipeline can contain tables.
    session.run(tf.tables_initializer())
    restore(session, tf.train.Saver(), prefix)
    return session


def restore(session: Any, saver: Any, prefix: Path) -> None:
    """Fills the variables of a saver.

    Raises:
        JobError: a variable is missing in the checkpoint or has another shape.
    """
    try:
        saver.restore(session, str(prefix))
    except (ValueError, tf.errors.OpError) as error:
        words = str(error).splitlines()[0]
        raise JobError(f"the checkpoint {prefix} does not belong to this job: {words}") from None
