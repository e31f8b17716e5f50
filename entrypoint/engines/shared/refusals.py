"""What upstream refuses in a pipeline.config is an error of the user, whatever exception upstream raises.

Shared by both engines. Import it only after the engine has set TensorFlow's mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from object_detection.builders import preprocessor_builder

from entrypoint.system.errors import UserError


@contextmanager
def named() -> Iterator[None]:
    """Raises UserError for what upstream and TensorFlow raise while they build what a config describes."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, AttributeError, AssertionError, LookupError) as error:
        raise refused(error) from None
    except (RuntimeError, tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
        raise refused(error) from None
    except tf.errors.ResourceExhaustedError as error:
        raise UserError(
            f"the model in the pipeline.config does not fit into the memory of this machine ({first_line(error)}): "
            "correct its sizes"
        ) from None


def refused(error: Exception) -> UserError:
    """Returns the error for a config that upstream refuses."""
    return UserError(
        f"the Object Detection API cannot build what the pipeline.config describes: {type(error).__name__}: "
        f"{first_line(error)}"
    )


def first_line(error: Exception) -> str:
    """Returns the first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), "no reason given")


def build_augmentation(train: Any) -> None:
    """Reads the augmentation of a train_config as upstream does."""
    for option in train.data_augmentation_options:
        preprocessor_builder.build(option)
