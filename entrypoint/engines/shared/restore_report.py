"""Reports how much of a model a checkpoint filled, in the same words for both generations of the zoo."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from entrypoint.engines.shared.class_outputs import Known
from entrypoint.system.errors import UserError
from entrypoint.system.printable import Lines

logger = logging.getLogger("job")

# A checkpoint of the same model fills the whole backbone. A checkpoint of another model fills only the variables that
# have the same place and shape by chance.
LEAST_OF_BACKBONE = 0.5


@dataclass(frozen=True)
class Restored:
    """The names of the model's variables that a checkpoint filled, and of those that it did not."""

    restored: list[str]
    missing: list[str]
    known: Known | None = None  # labels whose outputs are those of the checkpoint, found by their names


def report(result: Restored, backbone: set[str], prefix: str) -> None:
    """Logs how many variables were restored, and the names of the missing variables by layer.

    Raises:
        UserError: the checkpoint fills less than LEAST_OF_BACKBONE of `backbone`, so it belongs to another model.
    """
    total = len(result.restored) + len(result.missing)
    logger.info("checkpoint: %d of %d variables restored from %s", len(result.restored), total, prefix)
    if result.known:
        fresh = f"; those for {', '.join(result.known.fresh)} begin with random values" if result.known.fresh else ""
        logger.info("checkpoint: outputs restored for the labels %s%s", ", ".join(result.known.names), fresh)
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
        lines = Lines(f"  {layer}: {', '.join(names)}" for layer, names in layers.items())
        logger.info("checkpoint: not restored, trained from random values:\n%s", lines)
