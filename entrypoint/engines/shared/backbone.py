"""FREEZE for models of slim: which variables belong to the backbone. Layers of Keras models are frozen instead."""

from __future__ import annotations

import re
from collections.abc import Callable

# The variables of feature extractors. A two-stage model's second extractor is part of its heads.
EXTRACTOR = re.compile(r"(^|/)(FirstStage)?FeatureExtractor/")
# What upstream puts behind the backbone within a feature extractor: feature pyramids and the extra layers of SSDs.
BEHIND_BACKBONE = re.compile(r"/fpn/|/MnasFPN/|/bottom_up_|_[12]_Conv2d_\d+_|/Base_Conv2d_1x1_")


def is_part(name: str) -> bool:
    """Returns whether the name of a variable, or of a scope of variables, is one of the backbone."""
    return EXTRACTOR.search(name) is not None and BEHIND_BACKBONE.search(f"{name}/") is None


def frozen_by(freeze: str) -> Callable[[str], bool]:
    """Returns the function that tells by a name whether FREEZE leaves a variable as it is."""
    return is_part if freeze == "backbone" else lambda _: False
