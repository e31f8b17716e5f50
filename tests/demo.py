"""Draws a small bucket: coloured shapes on textured backgrounds, with their boxes. Some of the photos are awkward."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {"square": (205, 60, 50), "disc": (45, 110, 205), "triangle": (235, 185, 40)}
SIZE = (320, 240)
PHOTOS = 200
ORIENTATION = 0x0112
# The transformation for storing a photo with each EXIF orientation. A viewer turns the photo back.
STORED_BY = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def draw_bucket(folder: Path, photos: int = PHOTOS, seed: int = 7) -> None:
    """Writes photos and _annotations.json of version 1.0 into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    annotations: dict[str, Any] = {}
    for index in range(photos):
        rng = random.Random(seed * 1_000_003 + index)
        image, boxes = draw_photo(rng, shapes=0 if index % 20 == 19 else rng.randint(1, 4))
        name = f"photo-{index:04d}.{'png' if index % 10 == 3 else 'jpg'}"
        save(image, folder / name, orientation=(1, 6, 3, 8)[index // 10 % 4] if index % 10 == 5 else 1)
        # A photo that is marked as negative has a label without corners.
        annotations[name] = boxes or [{"label": "Negative"}]
    make_awkward(annotations)
    document = {"version": "1.0", "type": "localization", "labels": list(COLOURS), "annotations": annotations}
    (folder / "_annotations.json").write_text(json.dumps(document, indent=1))


def draw_photo(rng: random.Random, shapes: int) -> tuple[Image.Image, list[dict[str, Any]]]:
    """Returns a background with `shapes` shapes on it that do not overlap, and their boxes."""
    image = draw_background(rng)
    boxes: list[dict[str, Any]] = []
    for _ in range(shapes):
        for _ in range(50):
            label = rng.choice(list(COLOURS))
            corners = choose_corners(rng)
            if not any(overlap(corners, other["corners"]) for other in boxes):
                draw_shape(image, label, corners, rng)
                boxes.append({"label": label, "corners": corners})
                break
    return image.filter(ImageFilter.GaussianBlur(0.5)), [normalise(box) for box in boxes]


def draw_background(rng: random.Random) -> Image.Image:
    """Returns grey-brown waves with grain, different for each photo."""
    noise = np.random.default_rng(rng.getrandbits(32))
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width]
    angle, period = rng.uniform(0, math.pi), rng.uniform(15, 60)
    waves = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period)
    base = np.array([rng.uniform(70, 180) for _ in range(3)])
    pixels = base + 18 * waves[..., None] + noise.normal(0, 10, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def choose_corners(rng: random.Random) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of a shape, in pixels."""
    side = rng.randint(36, 90)
    stretch = rng.uniform(0.8, 1.25)
    width, height = int(side * stretch), int(side / stretch)
    left, top = rng.randint(0, SIZE[0] - width - 1), rng.randint(0, SIZE[1] - height - 1)
    if rng.random() < 0.1:
        top = SIZE[1] - height - 1
    return left, top, left + width, top + height


def overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    """Returns whether two boxes have a pixel in common."""
    return first[0] <= second[2] and second[0] <= first[2] and first[1] <= second[3] and second[1] <= first[3]


def draw_shape(image: Image.Image, label: str, corners: tuple[int, int, int, int], rng: random.Random) -> None:
    """Draws a shape that touches its box on all sides, in a shade of its colour."""
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = corners
    colour = tuple(min(255, max(0, value + rng.randint(-20, 20))) for value in COLOURS[label])
    if label == "square":
        draw.rectangle(corners, fill=colour)
    elif label == "disc":
        draw.ellipse(corners, fill=colour)
    else:
        draw.polygon([((left + right) // 2, top), (left, bottom), (right, bottom)], fill=colour)


def normalise(box: dict[str, Any]) -> dict[str, Any]:
    """Returns a box as Cloud Annotations writes it."""
    left, top, right, bottom = box["corners"]
    width, height = SIZE
    return {
        "label": box["label"],
        "x": left / width,
        "y": top / height,
        "x2": (right + 1) / width,
        "y2": (bottom + 1) / height,
    }


def save(image: Image.Image, path: Path, orientation: int) -> None:
    """Writes the photo as a camera in that orientation does: turned, with the Exif tag that turns it back."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ORIENTATION] = orientation
        image = image.transpose(STORED_BY[orientation])
    if path.suffix == ".png":
        image.save(path)
    else:
        image.save(path, quality=90, exif=exif)


def make_awkward(annotations: dict[str, Any]) -> None:
    """Adds the faults of people and programs: swapped corners, boxes out of the frame, clicks without area."""
    keys = [key for key, boxes in annotations.items() if "x" in boxes[0]]
    for key in keys[::40]:
        box = annotations[key][0]
        box["x"], box["x2"] = box["x2"], box["x"]
    for key in keys[7::40]:
        annotations[key].append({"label": "disc", "x": 0.5, "y": 0.5, "x2": 0.5, "y2": 0.5})
    for key in keys[1::4]:
        # At the border of the photo a hand can slip beyond it. The part of the box within the photo stays the same.
        box = max(annotations[key], key=lambda each: each["y2"])
        if box["y2"] == 1:
            box["y2"] = 1.2


if __name__ == "__main__":
    draw_bucket(Path(sys.argv[1]) / "bucket")
