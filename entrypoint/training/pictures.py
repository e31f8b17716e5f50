"""A few validation photos with their boxes, which TensorBoard shows after each evaluation."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from entrypoint.data import examples
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.engines.engine import Detections
from entrypoint.system import sampling
from entrypoint.training.stored import SHOWN_SCORE

PHOTOS = 4
SIDE = 640  # pixels, the longer side
TRUE, FOUND = "#ffffff", "#d55e00"


class Pictures:
    """The photos, which are the same ones after each evaluation."""

    def __init__(self, records: Sequence[str], dataset: Dataset) -> None:
        """`records` are the paths of the validation photos' records."""
        self.records = records
        self.dataset = dataset
        self.keys: list[str] = []

    @functools.cached_property
    def photos(self) -> dict[str, bytes]:
        """The photos as they are trained on, by their keys."""
        return dict(examples.photos_in(self.records, set(self.keys)))

    def draw(self, found: Sequence[Detections]) -> list[bytes]:
        """Returns JPEGs: boxes that were drawn in white, and detections with label and score."""
        if not self.keys:
            self.keys = [each.key for each in sampling.evenly(found, PHOTOS)]
        by_key = {each.key: each for each in found}
        true = {image.key: image.boxes for image in self.dataset.images}
        return [self._draw(self.photos[key], true.get(key, ()), by_key[key]) for key in self.keys]

    def _draw(self, encoded: bytes, true: Iterable[Box], found: Detections) -> bytes:
        """Returns a photo with its boxes."""
        with Image.open(io.BytesIO(encoded)) as opened:
            photo = ImageOps.contain(opened.convert("RGB"), (SIDE, SIDE))
        pen = ImageDraw.Draw(photo)
        for box in true:
            pen.rectangle(corners(box, photo.size), outline=TRUE, width=2)
        for corner, number, score in zip(found.boxes, found.classes, found.scores, strict=True):
            if score >= SHOWN_SCORE:
                label = self.dataset.labels[int(number) - 1]
                left, top, right, bottom = corners(Box.from_detection(label, corner), photo.size)
                pen.rectangle((left, top, right, bottom), outline=FOUND, width=2)
                tag(pen, left, top, f"{label} {score:.2f}")
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def tag(pen: ImageDraw.ImageDraw, left: float, top: float, text: str) -> None:
    """Writes white text on a ground of its own, above a box if there is room, else in it."""
    font = ImageFont.load_default(14)
    height = 18
    top = top - height if top >= height else top
    pen.rectangle((left, top, left + pen.textlength(text, font) + 6, top + height), fill=FOUND)
    pen.text((left + 3, top + 1), text, fill="white", font=font)


def corners(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of a box in pixels of a picture."""
    width, height = size
    left, right = sorted((box.xmin * width, box.xmax * width))
    top, bottom = sorted((box.ymin * height, box.ymax * height))
    return left, top, right, bottom
