"""How much of a model a checkpoint filled, told in the same words for both generations of the zoo."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from entrypoint.system.errors import UserError

logger = logging.getLogger("job")

# Of a checkpoint of the same model all of it is restored; of another, what has the same place and shape by chance.
LEAST_OF_BACKBONE = 0.5


@dataclass(frozen=True)
class Restored:
    """The names of the model's variables that a checkpoint filled, and of those that it did not."""

    restored: list[str]
    missing: list[str]


def report(result: Restored, backbone: set[str], prefix: str) -> None:
    """Logs the counts, and the names by layer; UserError where the checkpoint is of another model's `backbone`."""
    total = len(result.restored) + len(result.missing)
    logger.info("checkpoint: %d of %d variables restored from %s", len(result.restored), total, prefix)
    filled = backbone.intersection(result.restored)
    if len(filled) < LEAST_OF_BACKBONE * len(backbone):
        raise UserError(
            f"only {len(filled)} of the {len(backbone)} variables of the model's backbone are in the checkpoint "
            f"{prefix}: it belongs to another model"
        )
    layers: dict[str, list[str]] = {}
    for name in result.missing:
        layer, _, variable = name.rpartition("/")
        layers.setdefault(layer, []).append(variable.removesuffix(":0"))
    if layers:
        lines = "\n".join(f"  {layer}: {', '.join(names)}" for layer, names in layers.items())
        logger.info("checkpoint: not restored, trained from random values:\n%s", lines)
