"""A detection model of slim layers, in a graph, and the variables that a checkpoint fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow.compat.v1 as tf
from object_detection.builders import model_builder

from entrypoint.system.errors import JobError, UserError


def extractors() -> set[str]:
    """The types of feature extractors that upstream has for this engine."""
    return set().union(*model_builder.FEATURE_EXTRACTOR_MAPS)


def build(config: Any, *, is_training: bool) -> Any:
    """The DetectionModel of a config; its variables come with its first `predict`.

    Raises:
        UserError: it cannot be built.
    """
    try:
        return model_builder.build(config.model, is_training=is_training)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the pipeline.config describes no model that can be built: {error}") from None


def restored_session(prefix: Path) -> Any:
    """A session of the default graph, with the weights of a checkpoint of this job; JobError where one is missing."""
    session = tf.Session()
    # Tables of the input pipeline, if there are any.
    session.run(tf.tables_initializer())
    restore(session, tf.train.Saver(), prefix)
    return session


def restore(session: Any, saver: Any, prefix: Path) -> None:
    """Fills the variables of a saver; JobError where one of them is not in the checkpoint, or of another shape."""
    try:
        saver.restore(session, str(prefix))
    except (ValueError, tf.errors.OpError) as error:
        words = str(error).splitlines()[0]
        raise JobError(f"the checkpoint {prefix} does not belong to this job: {words}") from None
