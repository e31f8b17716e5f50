"""The size that a model's resizer gives a photo, and how much smaller photos can be stored for it.

The resizers are those of upstream's image_resizer.proto. TensorFlow is not needed to read them, so that `check` can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from entrypoint.settings.schema import Settings
from entrypoint.system.errors import UserError
from entrypoint.zoo import catalogue

# Random crops show a model parts of a photo as large as the whole: at twice its input they are still sharp.
MARGIN = 2
# Encoding anew loses a little, which is worth it where at least half of the pixels go.
MOST_PIXELS_KEPT = 0.5
RESIZER = re.compile(r"\bimage_resizer\s*:?\s*\{\s*(\w+)\s*:?\s*\{([^{}]*)\}")
SIDE = re.compile(r"\b(height|width|min_dimension|max_dimension)\s*:\s*(\d+)")


@dataclass(frozen=True)
class InputSize:
    """What a model sees of a photo: one height and width for all, or, with `keeps_shape`, the sides' bounds."""

    height: int  # of `keeps_shape` the shorter side, in pixels
    width: int  # of `keeps_shape` the longer side at most
    keeps_shape: bool = False

    def scale(self, width: int, height: int) -> tuple[float, float]:
        """By what the model multiplies width and height of a photo of that size."""
        if self.keeps_shape:
            factor = min(self.height / min(width, height), self.width / max(width, height))
            return factor, factor
        return self.width / width, self.height / height


@dataclass(frozen=True)
class Storage:
    """How small photos may be stored: `margin` times what the model's input needs on each side."""

    size: InputSize
    margin: int = MARGIN

    def shrink(self, width: int, height: int) -> tuple[int, int] | None:
        """Width and height to store a photo of that size with, its shape kept; None where it stays as it is."""
        factor = self.margin * max(self.size.scale(width, height))
        if factor**2 > MOST_PIXELS_KEPT:
            return None
        return max(1, round(width * factor)), max(1, round(height * factor))


def of_model(settings: Settings) -> InputSize | None:
    """The input size of the job's model; None where its photos keep their sizes.

    Raises:
        UserError: there is no such model or file.
    """
    path = settings.pipeline_config
    if path is not None:
        try:
            return of_config(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError) as error:
            raise UserError(f"PIPELINE_CONFIG={path} cannot be read ({error})") from None
    model = catalogue.find(settings.model)
    return of_name(model.input_size)


def of_name(text: str) -> InputSize | None:
    """The catalogue's `300x300`, height and width, or `600-1024`, shortest and longest side."""
    found = re.fullmatch(r"(\d+)([x-])(\d+)", text)
    return InputSize(int(found[1]), int(found[3]), keeps_shape=found[2] == "-") if found else None


def of_config(text: str) -> InputSize | None:
    """The size in a pipeline.config, in protocol buffer text format; None for a resizer that fixes none."""
    resizer = RESIZER.search(re.sub(r"#[^\n]*", "", text))
    if resizer is None:
        return None
    sides = {name: int(value) for name, value in SIDE.findall(resizer[2])}
    if resizer[1] == "fixed_shape_resizer":
        # The defaults of image_resizer.proto.
        return InputSize(sides.get("height", 300), sides.get("width", 300))
    if resizer[1] == "keep_aspect_ratio_resizer":
        return InputSize(sides.get("min_dimension", 600), sides.get("max_dimension", 1024), keeps_shape=True)
    return None


def storage(settings: Settings) -> Storage | None:
    """How small TRAIN_IMAGE_SIZE lets photos be stored; None where each keeps its size."""
    chosen = settings.train_image_size
    if chosen == "original":
        return None
    if chosen == "auto":
        size = of_model(settings)
        return Storage(size) if size else None
    # The shorter side is given, and the longer one follows it.
    return Storage(InputSize(chosen, 1 << 20, keeps_shape=True), margin=1)
