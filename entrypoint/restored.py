"""How much of a model a checkpoint filled, told in the same words for both generations of the zoo."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from entrypoint.errors import UserError

logger = logging.getLogger("job")

# What sits on the backbone has this in its name in every architecture of upstream's.
HEADS = re.compile("predict", re.IGNORECASE)


@dataclass(frozen=True)
class Restored:
    """The names of the model's variables that a checkpoint filled, and of those that it did not."""

    restored: list[str]
    missing: list[str]


def report(result: Restored, prefix: str) -> None:
    """Logs the counts, and the names by layer; UserError where nothing of the backbone was restored."""
    total = len(result.restored) + len(result.missing)
    logger.info("checkpoint: %d of %d variables restored from %s", len(result.restored), total, prefix)
    if all(HEADS.search(name) for name in result.restored):
        raise UserError(
            f"no variable of the model's backbone is in the checkpoint {prefix}, only {len(result.restored)} of its "
            "heads: it belongs to another model"
        )
    layers: dict[str, list[str]] = {}
    for name in result.missing:
        layer, _, variable = name.rpartition("/")
        layers.setdefault(layer, []).append(variable.removesuffix(":0"))
    if layers:
        lines = "\n".join(f"  {layer}: {', '.join(names)}" for layer, names in layers.items())
        logger.info("checkpoint: not restored, trained from random values:\n%s", lines)
