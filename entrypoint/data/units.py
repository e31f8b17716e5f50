"""In which unit the corners of boxes are: pixels, fractions, percent or thousandths of the photo.

All boxes decide together, because a box that reaches out of its photo was not drawn in that unit. If no unit but that
of the format fits to all files, the boxes of each file decide. The unit of the format counts unless boxes speak against
it.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from entrypoint.data.boxes import Drawn
from entrypoint.data.formats.source import Labelled
from entrypoint.data.images import Frame

# Some boxes are drawn over the edge in every data set.
MOST_LEAVING = 0.1  # of the boxes
# That all boxes lie within a part of their photos by chance must be less probable than this. The probability is the
# product of the part's shares of the photos' areas, as if one box of each photo lay anywhere.
CHANCE = 1e-4
# Against the unit of the format, it must be far less probable, and the boxes must reach to the edges of the part.
SMALL_CHANCE = 1e-6
FILLED = 0.97
# What fewer boxes say about their unit is no evidence.
LEAST_BOXES = 5

Photos = Mapping[str, Labelled]


class Unit(enum.Enum):
    """A unit of corners, by what a file in it is called."""

    PIXELS = "pixels"
    FRACTIONS = "fractions of the photo"
    PERCENT = "percent of the photo"
    THOUSANDTHS = "thousandths of the photo"


# Unit -> the width and height of a photo in it. In pixels, they are those of the photo.
SIDES = {Unit.FRACTIONS: 1.0, Unit.PERCENT: 100.0, Unit.THOUSANDTHS: 1000.0}


def told(unit: Unit) -> str:
    """Returns what was decided, as a finding."""
    return f"boxes in {unit.value}, which is not the unit of the format, read as such"


def doubtful(labelled: Photos) -> set[str]:
    """Returns the photos whose boxes the format describes as fractions, in files whose boxes are no fractions."""
    fractions = {key: each for key, each in labelled.items() if not each.in_pixels}
    found: set[str] = set()
    for photos in by_file(fractions).values():
        if leaving(photos, sides_of(photos, {}, Unit.FRACTIONS)) > MOST_LEAVING:
            found.update(photos)
    return found


def decide(labelled: Photos, frames: Mapping[str, Frame]) -> dict[str, Labelled]:
    """Returns the photos with the unit that their boxes are in.

    `frames` has the size of the photos whose header was read and is whole.
    """
    result = dict(labelled)
    for declared in (Unit.PIXELS, Unit.FRACTIONS):
        own = {key: each for key, each in labelled.items() if each.in_pixels == (declared is Unit.PIXELS)}
        together = unit_of(own, frames, declared)
        for photos in by_file(own).values():
            unit = unit_of(photos, frames, declared) if together is declared else together
            if unit is not declared:
                result |= {key: converted(each, unit) for key, each in photos.items() if each.boxes}
    return result


def by_file(labelled: Photos) -> dict[str, dict[str, Labelled]]:
    """Returns the photos by the file that has their annotations."""
    groups: dict[str, dict[str, Labelled]] = defaultdict(dict)
    for key, each in labelled.items():
        groups[each.file][key] = each
    return groups


def unit_of(photos: Photos, frames: Mapping[str, Frame], declared: Unit) -> Unit:
    """Returns the unit of the boxes of one file."""
    known = {key: each for key, each in photos.items() if each.boxes and size_of(each, frames.get(key))}
    if declared is Unit.PIXELS and are_fractions(photos):
        return Unit.FRACTIONS
    if sum(len(each.boxes) for each in known.values()) < LEAST_BOXES:
        return declared
    if declared is Unit.FRACTIONS:
        beyond = leaving(photos, sides_of(photos, frames, Unit.FRACTIONS))
        if beyond <= MOST_LEAVING:
            return declared
        # In percent, a box within the first hundredth of a photo is no box: fractions are mixed with something else.
        return declared if beyond < 1 - MOST_LEAVING else narrowest(known, frames, list(Unit), declared)
    if leaving(known, sides_of(known, frames, declared)) > MOST_LEAVING:
        return narrowest(known, frames, [Unit.PERCENT, Unit.THOUSANDTHS], declared)
    return next((unit for unit in (Unit.PERCENT, Unit.THOUSANDTHS) if is_compelling(known, frames, unit)), declared)


def narrowest(photos: Photos, frames: Mapping[str, Frame], units: Iterable[Unit], declared: Unit) -> Unit:
    """Returns the unit in which photos are smallest, of those that no boxes leave; `declared` if chance can be why."""
    sides = {unit: sides_of(photos, frames, unit) for unit in units}
    fitting = [unit for unit, each in sides.items() if unit is not declared and leaving(photos, each) <= MOST_LEAVING]
    ranked = sorted(fitting, key=lambda unit: sum(width * height for width, height in sides[unit].values()))
    if len(ranked) > 1 and chance(sides[ranked[0]], sides[ranked[1]]) > CHANCE:
        return declared
    return ranked[0] if ranked else declared


def is_compelling(photos: Photos, frames: Mapping[str, Frame], unit: Unit) -> bool:
    """Returns whether boxes that fit into their photos in pixels are in another unit for all that."""
    drawn = [box for each in photos.values() for box in each.boxes]
    right, bottom = max(box.x2 or 0.0 for box in drawn), max(box.y2 or 0.0 for box in drawn)
    if min(right, bottom) < FILLED * SIDES[unit]:
        return False
    sides = sides_of(photos, frames, unit)
    return not leaving(photos, sides) and chance(sides, sides_of(photos, frames, Unit.PIXELS)) <= SMALL_CHANCE


def chance(narrow: Mapping[str, tuple[float, float]], wide: Mapping[str, tuple[float, float]]) -> float:
    """Returns the probability that a box of each photo lies within a part of it. Both have widths and heights."""
    return math.prod(min(1.0, math.prod(narrow[key]) / math.prod(wide[key])) for key in narrow)


def are_fractions(photos: Photos) -> bool:
    """Returns whether no corner lies beyond one, and some are no whole numbers: such boxes are smaller than a pixel."""
    drawn = [box for each in photos.values() for box in each.boxes]
    values = [value for box in drawn for value in (box.x, box.y, box.x2, box.y2) if value is not None]
    return any(not value.is_integer() for value in values) and not any(box.leaves() for box in drawn)


def leaving(photos: Photos, sides: Mapping[str, tuple[float, float]]) -> float:
    """Returns the share of boxes that reach out of their photos; `sides` has widths and heights in the boxes' unit."""
    drawn = [(box, sides[key]) for key, each in photos.items() for box in each.boxes]
    return sum(box.leaves(*size) for box, size in drawn) / max(1, len(drawn))


def sides_of(photos: Photos, frames: Mapping[str, Frame], unit: Unit) -> dict[str, tuple[float, float]]:
    """Returns width and height of each photo in that unit."""
    if unit in SIDES:
        return dict.fromkeys(photos, (SIDES[unit], SIDES[unit]))
    return {key: size for key, each in photos.items() if (size := size_of(each, frames.get(key)))}


def size_of(labelled: Labelled, frame: Frame | None) -> tuple[int, int] | None:
    """Returns width and height in pixels of the largest picture that can have been annotated, None if none is known.

    The annotations can have another size than the photo, and that of a photo before it was turned upright.
    """
    sizes = [size for size in (labelled.size, *((frame.size, frame.stored_size) if frame else ())) if size]
    return (max(width for width, _ in sizes), max(height for _, height in sizes)) if sizes else None


def converted(labelled: Labelled, unit: Unit) -> Labelled:
    """Returns the annotations of a photo whose boxes are in that unit."""
    if unit is Unit.PIXELS:
        return dataclasses.replace(labelled, in_pixels=True, told=told(unit))
    side = SIDES[unit]
    drawn = [each.to_fractions(side, side) if isinstance(each, Drawn) else each for each in labelled.annotations]
    return dataclasses.replace(labelled, annotations=drawn, in_pixels=False, told=told(unit))
