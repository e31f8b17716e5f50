"""The size that a model's resizer gives a photo, and how small photos can be stored for it.

The resizers are those of upstream's image_resizer.proto. They are read without TensorFlow, because `check` runs without
TensorFlow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.zoo import catalogue, pipeline_config

# Random crops enlarge a part of a photo to the model's whole input. The part is still sharp if the photo is stored at
# twice the input's size.
MARGIN = 2
# Encoding a photo again loses a little quality. This is worth it if at least half of the pixels are removed.
MOST_PIXELS_KEPT = 0.5
# The colon has its own blanks: two runs of blanks side by side would be tried in every division.
RESIZER = re.compile(r"\bimage_resizer\s*(?::\s*)?\{\s*(\w+)\s*(?::\s*)?\{([^{}]*)\}")
SIDE = re.compile(r"\b(height|width|min_dimension|max_dimension)\s*:\s*(\d+)")


@dataclass(frozen=True)
class InputSize:
    """The size of a model's input: one height and width for all photos, or, with `keeps_shape`, bounds of the sides."""

    height: int  # in pixels; with `keeps_shape` the shorter side
    width: int  # in pixels; with `keeps_shape` the longer side at most
    keeps_shape: bool = False

    def scale(self, width: int, height: int) -> tuple[float, float]:
        """Returns the factors by which the model multiplies width and height of a photo of that size."""
        if self.keeps_shape:
            factor = min(self.height / min(width, height), self.width / max(width, height))
            return factor, factor
        return self.width / width, self.height / height


@dataclass(frozen=True)
class Storage:
    """How small photos may be stored: each side has `margin` times the pixels that the model's input needs."""

    size: InputSize
    margin: int = MARGIN

    def shrink(self, width: int, height: int) -> tuple[int, int] | None:
        """Returns the smaller width and height to store a photo with, in the same shape; None if it keeps its size."""
        factor = self.margin * max(self.size.scale(width, height))
        if factor**2 > MOST_PIXELS_KEPT:
            return None
        return max(1, round(width * factor)), max(1, round(height * factor))


def of_model(settings: Settings) -> InputSize | None:
    """Returns the input size of the job's model, or None if the size is not known or the model does not fix it.

    Raises:
        UserError: there is no such model, or PIPELINE_CONFIG cannot be read.
    """
    path = settings.pipeline_config
    if path is not None:
        try:
            return of_config(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeError) as error:
            raise UserError(f"PIPELINE_CONFIG={path} cannot be read ({error})") from None
    model = catalogue.find(settings.model)
    return of_name(model.input_size)


def of_name(text: str) -> InputSize | None:
    """Reads a size of the catalogue: `300x300` is height and width, `600-1024` shortest and longest side."""
    found = re.fullmatch(r"(\d+)([x-])(\d+)", text)
    return InputSize(int(found[1]), int(found[3]), keeps_shape=found[2] == "-") if found else None


def of_config(text: str) -> InputSize | None:
    """Reads the size in a pipeline.config, in protocol buffer text format; None if the resizer does not fix a size."""
    resizer = RESIZER.search(pipeline_config.without_comments(text))
    if resizer is None:
        return None
    sides = {name: int(value) for name, value in SIDE.findall(resizer[2])}
    if resizer[1] == "fixed_shape_resizer":
        # The defaults are those of image_resizer.proto.
        return InputSize(sides.get("height", 300), sides.get("width", 300))
    if resizer[1] == "keep_aspect_ratio_resizer":
        return InputSize(sides.get("min_dimension", 600), sides.get("max_dimension", 1024), keeps_shape=True)
    return None


def storage(settings: Settings) -> Storage | None:
    """Returns how small TRAIN_IMAGE_SIZE allows photos to be stored; None if each photo keeps its size."""
    chosen = settings.train_image_size
    if chosen == "original":
        return None
    if chosen == "auto":
        size = of_model(settings)
        return Storage(size) if size else None
    # The setting is the shorter side. The longer side follows from the photo's shape.
    return Storage(InputSize(chosen, 1 << 20, keeps_shape=True), margin=1)
