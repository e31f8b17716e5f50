"""Boxes: as an annotation file has them (`Drawn`), and as the job uses them everywhere (`Box`).

There is one corner convention: fractions of the upright photo's width and height, in the order xmin, ymin, xmax, ymax.
Every other convention is a named conversion here.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Exif orientations from this one on exchange the width and the height of a photo (Exif 2.3, section 4.6.4).
FIRST_ON_ITS_SIDE = 5
# Boxes are drawn a little over the edge of a photo.
TOLERANCE = 0.01


class NoBox(enum.Enum):
    """Annotations that are not a box."""

    NEGATIVE = "the photo shows no object"
    CROWD = "a region of many objects that nobody separated"
    UNKNOWN = "anything else"


@dataclass(frozen=True, slots=True)
class Unread:
    """An object that was drawn and cannot be read, so that its photo is lost."""

    reason: str  # a key of `losses.MENDS`
    where: str  # the file and the line, and what is there


@dataclass(frozen=True, slots=True)
class Drawn:
    """A box as an annotation file has it, unchecked: two opposite corners, in pixels or in fractions.

    A corner is None if the file has no finite number for it.
    """

    label: Any
    x: float | None
    y: float | None
    x2: float | None
    y2: float | None

    @classmethod
    def from_size(cls, label: Any, x: Any, y: Any, width: Any, height: Any) -> Drawn:
        """Returns the box of an upper left corner and a size, as COCO has it."""
        x, y, width, height = map(number, (x, y, width, height))
        if x is None or y is None or width is None or height is None:
            return cls(label, None, None, None, None)
        return cls(label, x, y, x + width, y + height)

    @classmethod
    def from_centre(cls, label: Any, x: Any, y: Any, width: Any, height: Any) -> Drawn:
        """Returns the box of a middle and a size, as YOLO and CreateML have it."""
        x, y, width, height = map(number, (x, y, width, height))
        if x is None or y is None or width is None or height is None:
            return cls(label, None, None, None, None)
        return cls.from_size(label, x - width / 2, y - height / 2, width, height)

    def rotated(self, degrees: float) -> Drawn:
        """Returns the hull of a box in pixels that was rotated about its middle, clockwise as CVAT counts."""
        if self.x is None or self.y is None or self.x2 is None or self.y2 is None or not degrees % 360:
            return self
        angle = math.radians(degrees)
        cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
        width, height = abs(self.x2 - self.x), abs(self.y2 - self.y)
        half_width, half_height = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
        x, y = (self.x + self.x2) / 2, (self.y + self.y2) / 2
        return Drawn(self.label, x - half_width, y - half_height, x + half_width, y + half_height)

    def leaves(self, width: float = 1.0, height: float = 1.0) -> bool:
        """Returns whether a box reaches out of its picture by more than a rounding.

        The picture has that size in the box's unit. By default, the box is in fractions of it.
        """
        # Some tools count pixels from 1.
        rounding = 0 if width == height == 1 else 1
        left, right = -TOLERANCE * width, (1 + TOLERANCE) * width + rounding
        top, bottom = -TOLERANCE * height, (1 + TOLERANCE) * height + rounding
        x, y, x2, y2 = self.x, self.y, self.x2, self.y2
        # Every box is asked several times: a loop or a function for the corners takes twice as long.
        return (
            (x is not None and not left <= x <= right)
            or (x2 is not None and not left <= x2 <= right)
            or (y is not None and not top <= y <= bottom)
            or (y2 is not None and not top <= y2 <= bottom)
        )

    @classmethod
    def from_points(cls, label: Any, xs: Sequence[Any], ys: Sequence[Any]) -> Drawn:
        """Returns the hull of points. Points that are not finite numbers are left out."""
        numbers_x, numbers_y = ([value for each in axis if (value := number(each)) is not None] for axis in (xs, ys))
        return cls(
            label,
            min(numbers_x, default=None),
            min(numbers_y, default=None),
            max(numbers_x, default=None),
            max(numbers_y, default=None),
        )

    def to_fractions(self, width: float, height: float) -> Drawn:
        """Returns a box as fractions of its picture, which has that size in the box's unit."""
        return Drawn(
            self.label,
            None if self.x is None else self.x / width,
            None if self.y is None else self.y / height,
            None if self.x2 is None else self.x2 / width,
            None if self.y2 is None else self.y2 / height,
        )


@dataclass(frozen=True, slots=True)
class Box:
    """A labelled box; corners are fractions of the upright photo's width and height, min < max, within 0..1."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float

    @classmethod
    def from_detection(cls, label: str, corners: Sequence[Any]) -> Box:
        """Returns the box of upstream's corners: ymin, xmin, ymax, xmax as fractions."""
        ymin, xmin, ymax, xmax = map(float, corners)
        return cls(label, xmin, ymin, xmax, ymax)

    def to_coco(self, width: int, height: int) -> list[float]:
        """Returns left, top, width and height in pixels of the upright photo, which has that width and height."""
        return [
            self.xmin * width,
            self.ymin * height,
            (self.xmax - self.xmin) * width,
            (self.ymax - self.ymin) * height,
        ]

    def turned(self, orientation: int) -> Box:
        """Returns the box after its photo was turned upright by an Exif orientation, 1 to 8 (Exif 2.3, 4.6.4)."""
        xmin, ymin, xmax, ymax = self.xmin, self.ymin, self.xmax, self.ymax
        if orientation >= FIRST_ON_ITS_SIDE:
            xmin, ymin, xmax, ymax = ymin, xmin, ymax, xmax
        if orientation in (2, 3, 6, 7):
            xmin, xmax = 1 - xmax, 1 - xmin
        if orientation in (3, 4, 7, 8):
            ymin, ymax = 1 - ymax, 1 - ymin
        return Box(self.label, xmin, ymin, xmax, ymax)


def number(value: Any) -> float | None:
    """Returns a finite number, also out of a string; None for anything else."""
    if type(value) is float:  # as nearly all numbers are
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None
