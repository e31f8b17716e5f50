"""Applies the fields of a train_config about gradients: which variables are trained, and how gradients are adjusted.

Shared by both engines. Import it only after the engine has set TensorFlow's mode.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import tensorflow as tf

from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

# The ends of the names that slim and Keras give to biases.
BIAS = re.compile(r"/bias(es)?(:\d+)?$")


def to_train(variables: list[Any], train: Any) -> list[Any]:
    """Returns the variables that a train_config lets train. Patterns match anywhere in a name, as in upstream.

    Raises:
        UserError: no variable is left to train.
    """

    def fits(variable: Any, patterns: Any) -> bool:
        return any(re.search(pattern, variable.name) for pattern in patterns)

    for name in ("freeze_variables", "update_trainable_variables"):
        for pattern in getattr(train, name):
            refuse_pattern(name, pattern)
    wanted = train.update_trainable_variables
    found = [each for each in variables if not wanted or fits(each, wanted)]
    found = [each for each in found if not fits(each, train.freeze_variables)]
    if not found:
        raise UserError("train_config's freeze_variables and update_trainable_variables leave no variable to train")
    if len(found) < len(variables):
        logger.info("%d of %d variables are trained, the rest is frozen", len(found), len(variables))
    return found


def refuse_pattern(name: str, pattern: str) -> None:
    """Raises UserError if a pattern in that field of a train_config is not a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"train_config's {name} has {pattern!r}, which is not a regular expression ({error}): `.*` matches every "
            "name"
        ) from None


def adjust(gradients: list[Any], variables: list[Any], train: Any) -> list[tuple[Any, Any]]:
    """Returns pairs of gradient and variable, adjusted as a train_config specifies.

    The gradients of biases are multiplied, and then all gradients are clipped by their global norm. Variables that the
    loss does not depend on have no gradient and are left out.
    """
    pairs = [(gradient, each) for gradient, each in zip(gradients, variables, strict=True) if gradient is not None]
    if factor := train.bias_grad_multiplier:
        pairs = [(gradient * factor if BIAS.search(each.name) else gradient, each) for gradient, each in pairs]
    if train.gradient_clipping_by_norm > 0:
        clipped, _ = tf.clip_by_global_norm([gradient for gradient, _ in pairs], train.gradient_clipping_by_norm)
        pairs = [(gradient, each) for gradient, (_, each) in zip(clipped, pairs, strict=True)]
    return pairs
