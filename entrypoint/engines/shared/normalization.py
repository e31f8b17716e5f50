"""How a model normalises photos, found by what it makes of black and of white, so that it holds for every extractor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from entrypoint.engines.engine import Normalization

Pixels = Callable[[float], Any]


def measure(normalised: Pixels) -> Normalization:
    """Returns by which mean and standard deviation of each channel a model normalises.

    `normalised` returns what the model makes of a photo of one value: the channels of a pixel, float32 [3].

    Raises:
        ValueError: the model does more with a channel than to subtract and to divide.
    """
    black, middle, white = (np.asarray(normalised(value), np.float64) for value in (0.0, 100.0, 255.0))
    std = 255 / (white - black)
    mean = -black * std
    if not np.allclose((100 - mean) / std, middle, atol=1e-4) or not (std > 0).all():
        raise ValueError("the model normalises photos in a way that mean and standard deviation do not describe")
    return Normalization(rounded(mean), rounded(std))


def rounded(values: Any) -> tuple[float, ...]:
    """Returns the values with the digits that float32 has, one value if all channels have the same."""
    found = tuple(round(float(value), 4) for value in values)
    return found[:1] if len(set(found)) == 1 else found
