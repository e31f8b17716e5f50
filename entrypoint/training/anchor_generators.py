"""What upstream's anchor generators can express: read from a config, written into it, and their shapes in numpy.

The shapes are those of upstream's anchor_generators, without the positions. Scales and aspect ratios may change; their
number may not, because the heads of a checkpoint have one output for each anchor at a location.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrypoint.system.errors import UserError
from entrypoint.training.changes import Changes
from entrypoint.zoo import input_size, pipeline_config
from entrypoint.zoo.input_size import InputSize

# Where each meta-architecture has its anchor generator. CenterNet has none.
FIELDS = {"ssd": "anchor_generator", "faster_rcnn": "first_stage_anchor_generator"}
# The pixels between two cells of the first feature map of an SSD with `ssd_anchor_generator`. Each further map has half
# the cells of the map before. So it is in all such models of the zoo.
FIRST_STRIDE = 16
# The side of the additional anchor on the first feature map of an SSD with `reduce_boxes_in_lowest_layer`.
REDUCED_SCALE = 0.1
# Each scale of an SSD is at least so many times as large as the scale before; the search begins a little above that.
LEAST_RISE, RISE = 1.02, 1.03


@dataclass(frozen=True)
class Parameters:
    """The values of an anchor generator that can be fitted. Their units are those of the generator's fields."""

    scales: tuple[float, ...]
    ratios: tuple[float, ...]  # width / height

    @property
    def values(self) -> tuple[float, ...]:
        """All values, the scales first."""
        return self.scales + self.ratios

    def replaced(self, values: Sequence[float]) -> Parameters:
        """Returns parameters of the same numbers of scales and ratios with other values."""
        count = len(self.scales)
        return Parameters(tuple(values[:count]), tuple(values[count:]))


@dataclass(frozen=True)
class Generator(ABC):
    """An anchor generator of a config, for a model's input."""

    message: Any  # the part of the config
    path: str  # of the message in the config
    size: InputSize

    @property
    @abstractmethod
    def present(self) -> Parameters:
        """The values in the config."""

    @property
    @abstractmethod
    def unit(self) -> tuple[float, float]:
        """Width and height in pixels of the smallest anchor of scale 1 and ratio 1."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest value that a fit gives each scale, whatever the config has.

        An anchor is at least as large as the distance of two cells of its feature map, because smaller anchors leave
        gaps. It is at most as large as the input.
        """

    @property
    @abstractmethod
    def strides(self) -> NDArray[np.float64]:
        """The pixels between two cells of the feature map of each anchor, in the order of `shapes`: [anchors]."""

    @abstractmethod
    def shapes(self, parameters: Parameters) -> NDArray[np.float64]:
        """Returns width and height in pixels of each anchor at a location of each feature map, [anchors, 2].

        The order is that of upstream.
        """

    @abstractmethod
    def write(self, parameters: Parameters, changes: Changes) -> None:
        """Writes values into the config. Fields whose values stay are left alone."""

    @property
    def limits(self) -> list[tuple[float, float]]:
        """The lowest and the highest value of each scale: `bounds`, which never exclude the value in the config."""
        pairs = zip(self.bounds, self.present.scales, strict=True)
        return [(min(low, old), max(high, old)) for (low, high), old in pairs]

    def allows(self, parameters: Parameters) -> bool:
        """Returns whether the scales are within their limits."""
        pairs = zip(parameters.scales, self.limits, strict=True)
        return all(low <= scale <= high for scale, (low, high) in pairs)

    def scales_for(self, sides: Sequence[float]) -> tuple[float, ...]:
        """Returns a scale for each feature map or anchor, from sides in pixels in rising order."""
        pixels = math.sqrt(self.unit[0] * self.unit[1])
        pairs = zip(spread(sides, len(self.present.scales)), self.limits, strict=True)
        return tuple(min(max(side / pixels, low), high) for side, (low, high) in pairs)

    def ratios_for(self, ratios: Sequence[float]) -> tuple[float, ...]:
        """Returns the aspect ratios of the generator, from ratios of width and height in pixels in rising order."""
        of_unit = self.unit[0] / self.unit[1]
        return tuple(ratio / of_unit for ratio in spread(ratios, len(self.present.ratios)))

    def write_lists(self, names: tuple[str, str], parameters: Parameters, changes: Changes) -> None:
        """Writes scales and aspect ratios into the repeated fields of these names."""
        pairs = (
            (names[0], self.present.scales, parameters.scales),
            (names[1], self.present.ratios, parameters.ratios),
        )
        for name, before, after in pairs:
            if before != after:
                changes.set(self.message, self.path, name, list(after))


@dataclass(frozen=True)
class SsdGenerator(Generator):
    """`ssd_anchor_generator`: one scale for each feature map, as a fraction of the shorter side of the input.

    The scales rise from map to map: by equal steps from min_scale to max_scale, or as `scales` lists them (SSD,
    arXiv:1512.02325, section 2.2). Each map has an anchor more, of a scale between its own and that of the next map.
    """

    @property
    def present(self) -> Parameters:
        """The values in the config."""
        ratios = tuple(self.message.aspect_ratios)
        if self.message.scales:
            return Parameters(tuple(self.message.scales)[: self.message.num_layers], ratios)
        low, high, last = self.message.min_scale, self.message.max_scale, max(1, self.message.num_layers - 1)
        return Parameters(tuple(low + (high - low) * i / last for i in range(self.message.num_layers)), ratios)

    @property
    def unit(self) -> tuple[float, float]:
        """Width and height in pixels of the smallest anchor of scale 1 and ratio 1."""
        side = min(self.size.width, self.size.height)
        return self.message.base_anchor_width * side, self.message.base_anchor_height * side

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest value of each scale."""
        return tuple((1 / cells, 1.0) for cells in self.cells)

    @property
    def cells(self) -> list[int]:
        """The number of cells of each feature map along the shorter side of the input."""
        found = [math.ceil(min(self.size.width, self.size.height) / FIRST_STRIDE)]
        for _ in self.present.scales[1:]:
            found.append(math.ceil(found[-1] / 2))
        return found

    @property
    def strides(self) -> NDArray[np.float64]:
        """The distance of two cells, by anchor."""
        counts = [len(self.of_map(layer, 1.0, 1.0, self.present.ratios)) for layer in range(len(self.cells))]
        return np.repeat([min(self.size.width, self.size.height) / cells for cells in self.cells], counts)

    def allows(self, parameters: Parameters) -> bool:
        """Returns whether the scales are within their limits and rise, if those in the config do."""
        return super().allows(parameters) and (rises(parameters.scales) or not rises(self.present.scales))

    def scales_for(self, sides: Sequence[float]) -> tuple[float, ...]:
        """Returns a scale for each feature map, from sides in pixels in rising order: the scales rise too."""
        found = list(super().scales_for(sides))
        for index in range(1, len(found)):
            found[index] = max(found[index], RISE * found[index - 1])
        found[-1] = min(found[-1], self.limits[-1][1])
        for index in reversed(range(len(found) - 1)):
            found[index] = min(found[index], found[index + 1] / RISE)
        return tuple(found)

    def shapes(self, parameters: Parameters) -> NDArray[np.float64]:
        """Returns the anchors, map by map."""
        found: list[tuple[float, float]] = []
        for layer, (scale, larger) in enumerate(itertools.pairwise((*parameters.scales, 1.0))):
            found += self.of_map(layer, scale, larger, parameters.ratios)
        return pixels_of(found, self.unit)

    def of_map(self, layer: int, scale: float, larger: float, ratios: Sequence[float]) -> list[tuple[float, float]]:
        """Returns scale and ratio of each anchor of a map; `larger` is the scale of the next map."""
        if layer == 0 and self.message.reduce_boxes_in_lowest_layer:
            return [(REDUCED_SCALE, 1.0), (scale, 2.0), (scale, 0.5)]
        between = self.message.interpolated_scale_aspect_ratio
        additional = [(math.sqrt(scale * larger), between)] if between > 0 else []
        return [(scale, ratio) for ratio in ratios] + additional

    def write(self, parameters: Parameters, changes: Changes) -> None:
        """Writes `scales`, with which upstream ignores min_scale and max_scale, and aspect ratios."""
        self.write_lists(("scales", "aspect_ratios"), parameters, changes)


@dataclass(frozen=True)
class MultiscaleGenerator(Generator):
    """`multiscale_anchor_generator`: one scale for all levels of a feature pyramid, as a multiple of a level's stride.

    Each level has scales_per_octave anchors between its own size and that of the next level (RetinaNet,
    arXiv:1708.02002, section 4).
    """

    @property
    def present(self) -> Parameters:
        """The values in the config."""
        return Parameters((self.message.anchor_scale,), tuple(self.message.aspect_ratios))

    @property
    def unit(self) -> tuple[float, float]:
        """Width and height in pixels of the smallest anchor of scale 1 and ratio 1."""
        return 2.0**self.message.min_level, 2.0**self.message.min_level

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest value of each scale."""
        return ((1.0, max(1.0, max(self.size.width, self.size.height) / 2**self.message.max_level)),)

    @property
    def strides(self) -> NDArray[np.float64]:
        """The distance of two cells, by anchor."""
        levels = range(self.message.min_level, self.message.max_level + 1)
        return np.repeat([2.0**level for level in levels], len(self.present.ratios) * self.message.scales_per_octave)

    def scales_for(self, sides: Sequence[float]) -> tuple[float, ...]:
        """Returns the scale with which an anchor of some level is as large as the smallest side.

        Half the scale has the same anchors on the next coarser level.
        """
        ((low, high),) = self.limits
        scale = sides[0] / self.unit[0]
        while scale > high:
            scale /= 2
        return (max(scale, low),)

    def shapes(self, parameters: Parameters) -> NDArray[np.float64]:
        """Returns the anchors, level by level."""
        (scale,) = parameters.scales
        octaves = self.message.scales_per_octave
        levels = range(self.message.max_level - self.message.min_level + 1)
        boxes = [
            (2**level * 2 ** (octave / octaves) * scale, ratio)
            for level, ratio, octave in itertools.product(levels, parameters.ratios, range(octaves))
        ]
        return pixels_of(boxes, self.unit)

    def write(self, parameters: Parameters, changes: Changes) -> None:
        """Writes anchor_scale and aspect ratios."""
        if parameters.scales != self.present.scales:
            changes.set(self.message, self.path, "anchor_scale", parameters.scales[0])
        if parameters.ratios != self.present.ratios:
            changes.set(self.message, self.path, "aspect_ratios", list(parameters.ratios))


@dataclass(frozen=True)
class GridGenerator(Generator):
    """`grid_anchor_generator`: every scale with every aspect ratio on one feature map (Faster R-CNN, arXiv:1506.01497).

    Scales are multiples of the base size, 256 pixels unless the config has another.
    """

    @property
    def present(self) -> Parameters:
        """The values in the config."""
        return Parameters(tuple(self.message.scales), tuple(self.message.aspect_ratios))

    @property
    def unit(self) -> tuple[float, float]:
        """Width and height in pixels of the smallest anchor of scale 1 and ratio 1."""
        return float(self.message.width), float(self.message.height)

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest value of each scale."""
        pixels = math.sqrt(self.message.width * self.message.height)
        stride = max(self.message.width_stride, self.message.height_stride)
        return ((stride / pixels, max(self.size.width, self.size.height) / pixels),) * len(self.message.scales)

    @property
    def strides(self) -> NDArray[np.float64]:
        """The distance of two cells, by anchor."""
        stride = float(max(self.message.width_stride, self.message.height_stride))
        return np.full(len(self.message.scales) * len(self.message.aspect_ratios), stride)

    def shapes(self, parameters: Parameters) -> NDArray[np.float64]:
        """Returns the anchors."""
        boxes = [(scale, ratio) for ratio, scale in itertools.product(parameters.ratios, parameters.scales)]
        return pixels_of(boxes, self.unit)

    def write(self, parameters: Parameters, changes: Changes) -> None:
        """Writes scales and aspect ratios."""
        self.write_lists(("scales", "aspect_ratios"), parameters, changes)


KINDS: dict[str, type[Generator]] = {
    "ssd_anchor_generator": SsdGenerator,
    "multiscale_anchor_generator": MultiscaleGenerator,
    "grid_anchor_generator": GridGenerator,
}


def read(config: Any, name: str) -> Generator:
    """Returns the anchor generator of a TrainEvalPipelineConfig; `name` is the model's, for the messages.

    Raises:
        UserError: the model has no anchors, or such that cannot be fitted.
    """
    architecture = config.model.WhichOneof("model")
    refused = f"ANCHORS=auto: {name} has"
    if architecture not in FIELDS:
        raise UserError(f"{refused} no anchors; unset ANCHORS")
    field = FIELDS[architecture]
    generator = getattr(getattr(config.model, architecture), field)
    kind = generator.WhichOneof("anchor_generator_oneof")
    if kind not in KINDS:
        raise UserError(f"{refused} {kind or 'no anchor generator'}, which cannot be fitted to boxes; unset ANCHORS")
    size = input_size.of_config(pipeline_config.write(config))
    # The anchors of an SSD are fractions of the input, whose size must be the same for all photos.
    fixed = pipeline_config.input_size(config)
    if kind == "ssd_anchor_generator":
        size = InputSize(*fixed) if fixed else None
    if size is None:
        raise UserError(f"{refused} anchors whose pixels differ from photo to photo; unset ANCHORS")
    found = KINDS[kind](getattr(generator, kind), f"model.{architecture}.{field}.{kind}", size)
    if not len(found.shapes(found.present)):
        raise UserError(f"{refused} an empty {kind}; give scales and aspect ratios, or unset ANCHORS")
    return found


def pixels_of(boxes: Sequence[tuple[float, float]], unit: tuple[float, float]) -> NDArray[np.float64]:
    """Returns width and height in pixels, [anchors, 2], of anchors given by scale and aspect ratio.

    The width is scale * sqrt(ratio), the height scale / sqrt(ratio), each times that of the unit.
    """
    scales, ratios = np.array(boxes, np.float64).reshape(-1, 2).T
    roots = np.sqrt(ratios)
    return np.stack([scales * roots * unit[0], scales / roots * unit[1]], axis=1)


def rises(scales: Sequence[float]) -> bool:
    """Returns whether each scale is larger than the one before, by the factor LEAST_RISE at least."""
    return all(larger >= LEAST_RISE * smaller for smaller, larger in itertools.pairwise(scales))


def spread(values: Sequence[float], count: int) -> list[float]:
    """Returns `count` of some values in rising order, at even distances by rank."""
    return [values[int((index + 0.5) / count * len(values))] for index in range(count)]
