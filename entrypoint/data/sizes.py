"""In which picture boxes in pixels were drawn, if the annotations give another size than the photo has.

The boxes of all photos decide together, because a box that reaches out of a picture was not drawn in it. If nothing
speaks for one reading, the photos are lost: a guess would train on wrong boxes, and nobody would notice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, Unread
from entrypoint.data.formats.source import Labelled
from entrypoint.data.images import UPRIGHT as UPRIGHT_ORIENTATION
from entrypoint.data.images import Frame
from entrypoint.data.units import CHANCE, chance
from entrypoint.system.errors import UserError

TURNED = "boxes drawn on a photo before it was turned upright, turned with it"
UPRIGHT = "size of the photo before it was turned upright beside boxes of the upright one, boxes not turned"
SCALED = "size in the annotations is not that of the photo, boxes scaled to it"
CROPPED = "size in the annotations is not that of the photo, boxes taken in pixels of the photo"
# Fewer boxes that reach out of their photos are no evidence.
LEAST_BOXES = 10

Photos = Mapping[str, Labelled]
Size = tuple[int, int]


def decide(labelled: Photos, frames: Mapping[str, Frame]) -> dict[str, Labelled]:
    """Returns the photos with the size that their boxes in pixels belong to.

    `frames` has the size and orientation of the photos whose header could be read.
    """
    result = dict(labelled)
    other = {key: frames[key] for key, each in labelled.items() if is_other(each, frames.get(key))}
    turned = {key for key, frame in other.items() if is_swapped(labelled[key], frame)}
    if turned:
        # What the tool did with photos on their sides it did with those that are upside down or mirrored, too.
        turned |= {key for key, each in labelled.items() if is_turned_in_its_frame(each, frames.get(key))}
    for keys, choose in ((sorted(turned), turned_reading), (sorted(other.keys() - turned), resized_reading)):
        if keys:
            result |= choose({key: labelled[key] for key in keys}, frames)
    return result


def is_turned_in_its_frame(labelled: Labelled, frame: Frame | None) -> bool:
    """Returns whether a photo with boxes in pixels keeps its width and height when it is turned upright."""
    if frame is None or not labelled.in_pixels or labelled.size != frame.size:
        return False
    return frame.orientation != UPRIGHT_ORIENTATION and not frame.is_on_its_side


def is_other(labelled: Labelled, frame: Frame | None) -> bool:
    """Returns whether the annotations give another size than the upright photo has, and boxes depend on it."""
    return frame is not None and labelled.in_pixels and labelled.size not in (None, frame.size)


def is_swapped(labelled: Labelled, frame: Frame) -> bool:
    """Returns whether the annotations give the size of a photo before it was turned upright."""
    return frame.is_on_its_side and labelled.size == frame.stored_size


def turned_reading(photos: Photos, frames: Mapping[str, Frame]) -> dict[str, Labelled]:
    """Returns photos whose width and height are swapped: the boxes show whether they were drawn before the turn.

    Some tools write the size of the stored photo and draw on the upright one.
    """
    fits_stored = not any_leaves(photos, {key: frames[key].stored_size for key in photos})
    fits_upright = not any_leaves(photos, {key: frames[key].size for key in photos})
    if fits_upright and (not fits_stored or all(each.is_upright for each in photos.values())):
        return {key: dataclasses.replace(each, size=frames[key].size, told=UPRIGHT) for key, each in photos.items()}
    if fits_stored and not fits_upright:
        return {key: dataclasses.replace(each, is_turned=True, told=TURNED) for key, each in photos.items()}
    return {key: lost(losses.TURNED, key, each, frames[key].size) for key, each in photos.items()}


def resized_reading(photos: Photos, frames: Mapping[str, Frame]) -> dict[str, Labelled]:
    """Returns photos of another size than the annotations give: the boxes show in which picture they were drawn.

    A photo was made smaller or larger after the boxes were drawn, or cut out of a larger picture before.
    """
    sizes = {key: each.size for key, each in photos.items() if each.size is not None}
    fits_declared = not any_leaves(photos, sizes)
    fits_photo = not any_leaves(photos, {key: frames[key].size for key in photos})
    drawn_on = {key: frames[key].size for key, each in photos.items() if each.boxes}
    is_chance = chance(drawn_on, sizes) > CHANCE
    is_cut = all(frames[key].width <= size[0] and frames[key].height <= size[1] for key, size in sizes.items())
    is_larger = all(frames[key].width >= size[0] and frames[key].height >= size[1] for key, size in sizes.items())
    if fits_declared and (not fits_photo or is_larger):
        return {key: dataclasses.replace(each, told=SCALED) for key, each in photos.items()}
    if fits_photo and (not fits_declared or (is_cut and not is_chance)):
        return {key: dataclasses.replace(each, size=frames[key].size, told=CROPPED) for key, each in photos.items()}
    return {key: lost(losses.SIZE, key, each, frames[key].size) for key, each in photos.items()}


def any_leaves(photos: Photos, sizes: Mapping[str, Size]) -> bool:
    """Returns whether a box reaches out of its picture; `sizes` has width and height of the pictures."""
    return any(box.leaves(*sizes[key]) for key, each in photos.items() for box in each.boxes)


def lost(reason: str, key: str, labelled: Labelled, size: Size) -> Labelled:
    """Returns a photo that is lost if it has a box, with the size that the annotations give and its own."""
    if not labelled.boxes:
        return labelled
    width, height = labelled.size or size
    where = f"{key}: {width} x {height} in the annotations, {size[0]} x {size[1]} in the photo"
    return dataclasses.replace(labelled, annotations=[Unread(reason, where)])


def refuse_many_beyond(labelled: Photos, frames: Mapping[str, Frame], max_repaired: float) -> None:
    """Raises UserError if more boxes reach out of their photos, or have no area, than MAX_REPAIRED allows.

    To cut most boxes of a data set to the photos is no repair. A few boxes are no evidence.
    """
    drawn = [(key, box) for key, each in labelled.items() for box in in_fractions(each, frames.get(key))]
    for words, is_faulty in (("reach out of their photos", Drawn.leaves), ("have no area", has_no_area)):
        faulty = [key for key, box in drawn if is_faulty(box)]
        if len(faulty) >= LEAST_BOXES and len(faulty) > max_repaired * len(drawn):
            raise UserError(
                f"{len(faulty)} of {len(drawn)} boxes {words}, the first on {faulty[0]}, more than "
                f"MAX_REPAIRED={max_repaired:g} allows: the boxes may be in other units, or belong to other photos; "
                "export the annotations again, or raise MAX_REPAIRED if the boxes are right"
            )


def in_fractions(labelled: Labelled, frame: Frame | None) -> Iterable[Drawn]:
    """Returns the boxes of a photo as fractions of it; nothing if they are in pixels and its size is not known."""
    size = labelled.size or (frame.size if frame else None)
    if not labelled.in_pixels:
        return labelled.boxes
    return (box.to_fractions(*size) for box in labelled.boxes) if size else ()


def has_no_area(box: Drawn) -> bool:
    """Returns whether two corners of a box lie on one line."""
    return None not in (box.x, box.y) and (box.x == box.x2 or box.y == box.y2)
