"""Applies the fields of a train_config about gradients: which variables are trained, and how gradients are adjusted.

Shared by both engines. Import it only after the engine has set TensorFlow's mode.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

# The fields of a train_config with patterns of names of variables.
PATTERNS = ("freeze_variables", "update_trainable_variables")
# The ends of the names that slim and Keras give to biases.
BIAS = re.compile(r"/bias(es)?(:\d+)?$")


def to_train(variables: list[Any], train: Any, is_frozen: Callable[[Any], bool] = lambda _: False) -> list[Any]:
    """Returns the variables that a train_config lets train. Patterns match anywhere in a name, as in upstream.

    `is_frozen` tells whether a variable stays as it is, whatever the train_config says.

    Raises:
        UserError: no variable is left to train.
    """

    def fits(variable: Any, patterns: Any) -> bool:
        return any(re.search(pattern, variable.name) for pattern in patterns)

    for name, pattern in without_effect(variables, train):
        logger.warning("%s", refusal(name, pattern, variables))
    wanted = train.update_trainable_variables
    found = [each for each in variables if not wanted or fits(each, wanted)]
    found = [each for each in found if not fits(each, train.freeze_variables) and not is_frozen(each)]
    if not found:
        raise UserError(
            "train_config's freeze_variables and update_trainable_variables, and FREEZE, leave no variable to train"
        )
    if len(found) < len(variables):
        logger.info("%d of %d variables are trained, the rest is frozen", len(found), len(variables))
    return found


def refuse_without_effect(variables: list[Any], train: Any) -> None:
    """Raises UserError if a pattern of a train_config fits no variable, so that it would do nothing."""
    for name, pattern in without_effect(variables, train):
        raise UserError(f"{refusal(name, pattern, variables)}: correct the pattern, or remove it")


def without_effect(variables: list[Any], train: Any) -> list[tuple[str, str]]:
    """Returns the patterns of a train_config that fit no variable, each with the name of its field.

    Raises:
        UserError: a pattern is not a regular expression.
    """
    patterns = [(name, pattern) for name in PATTERNS for pattern in getattr(train, name)]
    for name, pattern in patterns:
        refuse_pattern(name, pattern)
    return [
        (name, pattern) for name, pattern in patterns if not any(re.search(pattern, each.name) for each in variables)
    ]


def refusal(name: str, pattern: str, variables: list[Any]) -> str:
    """Returns the message about a pattern that fits no variable, with the first, the middle and the last of them."""
    names = sorted(each.name for each in variables)
    shown = ", ".join(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
    return f"{name} {pattern!r} in the pipeline.config fits no variable of the model, which has {shown} and others"


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
