"""The validation photos of the report: thumbnails, true boxes and judged detections, for the page and for its script.

Matches do not depend on the threshold, because a detection is matched only after those with higher scores. So the
page's script does not match anything: it has the kind of each detection and the true box that it is about.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from entrypoint.data.annotations import Dataset
from entrypoint.engines.engine import Detections
from entrypoint.results.analysis import matching
from entrypoint.results.analysis.curves import LOWEST_SCORE
from entrypoint.results.analysis.document import Suspect
from entrypoint.results.analysis.matching import Matches
from entrypoint.results.cards import COLOURS, thumbnail
from entrypoint.system import parallel
from entrypoint.training.stored import DIGITS

MOST_PHOTOS = 2000
# The page stays under 20 MB. In characters of the page: photos with their boxes, and how many of them boxes may be. The
# rest is for everything else.
ROOM, BOXES = 17_500_000, 9_000_000
# Longer side in pixels and quality of WebP, the best first.
SHAPES = ((480, 80), (400, 75), (320, 70), (256, 60), (208, 55), (160, 50), (128, 45), (96, 40), (64, 30))
SAMPLE = 24  # photos with which the shape is chosen
UNIT = 10_000  # boxes are whole numbers of ten-thousandths of the photo's width and height
MARGIN = 0.75  # around a suspected place, as a share of its longer side
CROP = 220  # pixels, the longer side of a suspected place's picture


@dataclass(frozen=True)
class Entry:
    """A photo of the gallery. A box is left, top, width, height in ten-thousandths of the photo."""

    key: str
    width: int  # pixels
    height: int
    true: tuple[tuple[int, ...], ...]  # index of the label, box
    # Index of the label, score, index in KINDS, index of the true box that it is or is about, or -1; box.
    found: tuple[tuple[float, ...], ...]

    @property
    def row(self) -> list[Any]:
        """The photo in the page's data, without its thumbnail."""
        return [self.key, self.width, self.height, self.true, self.found]

    @property
    def length(self) -> int:
        """The characters that the photo takes in the page, without its thumbnail."""
        return len(json.dumps(self.row, separators=(",", ":")))


def entries(matches: Matches, found: Sequence[Detections], threshold: float) -> list[Entry]:
    """Returns the photos with the most errors first, at most 2,000, and at most as many as the page has room for.

    Detections with a score of at least `lowest_score(threshold)` are in them.

    Args:
        matches: of these photos.
        found: the photos, in the order of the matches.
        threshold: the score from which on detections count for the order.
    """
    errors = count_errors(matches, len(found), threshold)
    order = sorted(range(len(found)), key=lambda index: (-errors[index], found[index].key))
    chosen, room = [], BOXES
    for index in order[:MOST_PHOTOS]:
        each = entry(matches, found[index], index, lowest_score(threshold))
        room -= each.length
        if room < 0:
            break
        chosen.append(each)
    return chosen


def lowest_score(threshold: float) -> float:
    """Returns the lowest score in the page's data: 0.05, or the threshold with which the page begins if it is lower."""
    return min(LOWEST_SCORE, threshold)


def count_errors(matches: Matches, photos: int, threshold: float) -> Any:
    """Returns the number of errors on each photo at a threshold, int [photos]."""
    is_wrong = (matches.found.score >= threshold) & (matches.kind != matching.RIGHT)
    wrong = np.bincount(matches.found.photo[is_wrong], minlength=photos)
    return wrong + np.bincount(matches.true.photo[matches.is_missed(threshold)], minlength=photos)


def entry(matches: Matches, photo: Detections, index: int, lowest: float) -> Entry:
    """Returns a photo with its boxes, and with its detections from a score on."""
    found, true = matches.found, matches.true
    first, last = (int(each) for each in np.searchsorted(found.photo, (index, index + 1)))
    begin, end = (int(each) for each in np.searchsorted(true.photo, (index, index + 1)))
    about = np.where(matches.matched[0] >= 0, matches.matched[0], matches.blamed)
    rows = []
    for each in range(first, last):
        if found.score[each] >= lowest:
            target = int(about[each]) - begin if about[each] >= 0 else -1
            judged = (int(found.label[each]), round(float(found.score[each]), DIGITS), int(matches.kind[each]), target)
            rows.append((*judged, *whole(found.corners[each])))
    boxes = tuple((int(true.label[each]), *whole(true.corners[each])) for each in range(begin, end))
    return Entry(photo.key, photo.width, photo.height, boxes, tuple(rows))


def whole(corners: Any) -> tuple[int, ...]:
    """Returns left, top, width and height in ten-thousandths, of ymin, xmin, ymax and xmax as fractions."""
    ymin, xmin, ymax, xmax = (float(value) for value in corners)
    return tuple(round(UNIT * value) for value in (xmin, ymin, xmax - xmin, ymax - ymin))


def room_for_thumbnails(chosen: Sequence[Entry]) -> int:
    """Returns how many characters of the page are left for the thumbnails of these photos."""
    return ROOM - sum(each.length for each in chosen)


def choose_shape(sample: Sequence[bytes], photos: int, room: int) -> tuple[int, int]:
    """Returns the largest side and the quality with which so many thumbnails fit into the page.

    Args:
        sample: some of the photos.
        photos: how many thumbnails there will be.
        room: the characters of the page that they may take.
    """
    for side, quality in SHAPES:
        lengths = [len(shrunk(photo, side, quality)) for photo in sample]
        # The margin is for photos that are less simple than the sample.
        if 1.1 * photos * sum(lengths) <= room * len(lengths):
            return side, quality
    return SHAPES[-1]


def thumbnails(photos: Iterable[tuple[str, bytes]], shape: tuple[int, int], room: int, workers: int) -> dict[str, str]:
    """Returns data URLs by key. Photos that cannot be decoded, or for which the page has no room, get an empty one."""

    def make(photo: tuple[str, bytes]) -> tuple[str, str]:
        return photo[0], shrunk(photo[1], *shape)

    made = {}
    for key, source in parallel.map_in_order(make, photos, workers):
        room -= len(source)
        made[key] = source if room >= 0 else ""
    return made


def shrunk(encoded: bytes, side: int, quality: int) -> str:
    """Returns a photo as a small WebP in a data URL, or an empty text if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(encoded)) as photo:
            # A JPEG is decoded at a half, a quarter or an eighth of its size if that is enough.
            photo.draft("RGB", (side, side))
            return thumbnail(photo, side, quality, "WEBP")
    except MemoryError:
        raise
    except Exception:
        # Pillow's decoders can raise almost any exception for a damaged file.
        return ""


def to_json(dataset: Dataset, chosen: Sequence[Entry], sources: dict[str, str], threshold: float) -> str:
    """Returns the data of the page's script. No text in it can end the element in which it stands."""
    document = {
        "threshold": round(threshold, DIGITS),
        "lowest": round(lowest_score(threshold), DIGITS),
        "labels": dataset.labels,
        "colours": [COLOURS[index % len(COLOURS)] for index in range(len(dataset.labels))],
        "photos": [[*each.row, sources.get(each.key, "")] for each in chosen],
    }
    text = json.dumps(document, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@dataclass(frozen=True)
class Place:
    """The picture of a suspected place: a part of the photo, and the box in it, in pixels of the picture."""

    suspect: Suspect
    source: str  # a data URL
    width: int
    height: int
    box: tuple[float, float, float, float]  # left, top, width, height


def places(suspects: Sequence[Suspect], photos: dict[str, bytes]) -> Iterator[Place]:
    """Yields a picture of each suspected place. Photos that could not be read are left out."""
    for each in suspects:
        if each.key in photos:
            with Image.open(io.BytesIO(photos[each.key])) as photo:
                yield crop(each, photo)


def crop(suspect: Suspect, photo: Image.Image) -> Place:
    """Returns the place with a margin around it."""
    ymin, xmin, ymax, xmax = suspect.corners
    left, top, right, bottom = xmin * photo.width, ymin * photo.height, xmax * photo.width, ymax * photo.height
    margin = MARGIN * max(right - left, bottom - top, 16.0)
    first = max(0, int(left - margin)), max(0, int(top - margin))
    last = min(photo.width, int(right + margin) + 1), min(photo.height, int(bottom + margin) + 1)
    part = photo.convert("RGB").crop((*first, *last))
    scale = CROP / max(part.size)
    part = part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale))))
    box = ((left - first[0]) * scale, (top - first[1]) * scale, (right - left) * scale, (bottom - top) * scale)
    rounded = [round(value, 1) for value in box]
    return Place(suspect, thumbnail(part, CROP), *part.size, (rounded[0], rounded[1], rounded[2], rounded[3]))
