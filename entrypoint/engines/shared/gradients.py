"""What a train_config says of gradients; for both engines, in whose mode of TensorFlow it is imported."""

from __future__ import annotations

import logging
import re
from typing import Any

import tensorflow as tf

from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

# The names that slim and Keras give them.
BIAS = re.compile(r"/bias(es)?(:\d+)?$")


def to_train(variables: list[Any], train: Any) -> list[Any]:
    """The variables that a train_config lets train: patterns fit anywhere in a name, as upstream's do.

    Raises:
        UserError: there are none.
    """

    def fits(variable: Any, patterns: Any) -> bool:
        return any(re.search(pattern, variable.name) for pattern in patterns)

    wanted = train.update_trainable_variables
    found = [each for each in variables if not wanted or fits(each, wanted)]
    found = [each for each in found if not fits(each, train.freeze_variables)]
    if not found:
        raise UserError("train_config's freeze_variables and update_trainable_variables leave no variable to train")
    if len(found) < len(variables):
        logger.info("%d of %d variables are trained, the rest is frozen", len(found), len(variables))
    return found


def adjust(gradients: list[Any], variables: list[Any], train: Any) -> list[tuple[Any, Any]]:
    """Pairs of gradient and variable as a train_config wants them: those of biases multiplied, all clipped by norm.

    Variables that the loss does not depend on have no gradient, and are left out.
    """
    pairs = [(gradient, each) for gradient, each in zip(gradients, variables, strict=True) if gradient is not None]
    if factor := train.bias_grad_multiplier:
        pairs = [(gradient * factor if BIAS.search(each.name) else gradient, each) for gradient, each in pairs]
    if train.gradient_clipping_by_norm > 0:
        clipped, _ = tf.clip_by_global_norm([gradient for gradient, _ in pairs], train.gradient_clipping_by_norm)
        pairs = [(gradient, each) for gradient, (_, each) in zip(clipped, pairs, strict=True)]
    return pairs
