"""A bucket with every awkward photo, box and key. Each usable photo shows one object, which lies in its box."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

from entrypoint.data import losses

SIZE = (120, 80)
GROUND, OBJECT = (70, 80, 90), (230, 200, 40)
# The transformation for storing a photo with each Exif orientation (Exif 2.3, 4.6.4). A viewer turns the photo back.
STORED_BY = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# The format, mode and options for Pillow's encoders.
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "plain.jpg": ("JPEG", "RGB", {"quality": 95}),
    "progressive.jpg": ("JPEG", "RGB", {"quality": 95, "progressive": True}),
    "grey.jpg": ("JPEG", "L", {"quality": 95}),
    "cmyk.jpg": ("JPEG", "CMYK", {"quality": 95}),
    "plain.png": ("PNG", "RGB", {}),
    "alpha.png": ("PNG", "RGBA", {}),
    "palette.png": ("PNG", "P", {}),
    "grey.png": ("PNG", "L", {}),
    "grey-alpha.png": ("PNG", "LA", {}),
    "sixteen.png": ("PNG", "I;16", {}),
    "png-named.jpg": ("PNG", "RGB", {}),
    "plain.webp": ("WEBP", "RGB", {"quality": 95}),
    "lossless.webp": ("WEBP", "RGBA", {"lossless": True}),
    "plain.bmp": ("BMP", "RGB", {}),
    "plain.gif": ("GIF", "P", {}),
    "animated.gif": ("GIF", "P", {"save_all": True}),
    "plain.tiff": ("TIFF", "RGB", {}),
    "cmyk.tif": ("TIFF", "CMYK", {}),
    "plain.heic": ("HEIF", "RGB", {"quality": 100}),
    "alpha.heif": ("HEIF", "RGBA", {"quality": 100}),
}
# The faults that the job repairs, and the kind of the finding.
REPAIRED = {
    "inverted": "box with corners swapped, put in order",
    "strings": None,
    "twice": "box drawn twice, taken once",
}
# Boxes that cannot be used, and the kind of the finding.
UNUSABLE = {
    "zero": ("box without area, skipped", {"x": 0.5, "y": 0.5, "x2": 0.5, "y2": 0.9}),
    "outside": ("box outside of the photo, skipped", {"x": 1.5, "y": 0.5, "x2": 1.9, "y2": 0.9}),
    "nan": (losses.CORNERS, {"x": float("nan"), "y": 0.5, "x2": 0.9, "y2": 0.9}),
    "missing": (losses.CORNERS, {"x": 0.1, "y": 0.5, "x2": 0.9}),
}
# Files that are not usable photos, and a part of the reason that is reported.
BROKEN = {
    "empty.jpg": (b"", "file is empty"),
    "text.jpg": (b"this is no photo", "no photo, whatever its name"),
    "bomb.png": (b"", "pixels"),
    "cut-off.jpg": (b"", "damaged or cut off"),
    "cut-off.png": (b"", "damaged or cut off"),
}
LABELS = ('a "quoted" label', "two\nlines", "größer 犬 🦝", "x" * 300)
OUTSIDE_KEYS = ("../escape.jpg", "/etc/escape.jpg", "link.jpg")


def draw(number: int, scale: int = 1) -> tuple[Image.Image, dict[str, float]]:
    """Returns a photo with one object, and its box in fractions.

    The size and place of the object depend on the number. It is never in the middle.
    """
    width, height = SIZE[0] * scale, SIZE[1] * scale
    left, top = 8 + 7 * (number % 5), 6 + 5 * (number % 3)
    right, bottom = left + 30 + 3 * (number % 4), top + 20 + 2 * (number % 6)
    image = Image.new("RGB", (width, height), GROUND)
    image.paste(OBJECT, (scale * left, scale * top, scale * right, scale * bottom))
    return image, {"x": left / SIZE[0], "y": top / SIZE[1], "x2": right / SIZE[0], "y2": bottom / SIZE[1]}


def write(folder: Path) -> dict[str, dict[str, float]]:
    """Writes the bucket; returns the corners of the object on each photo that can be used."""
    folder.mkdir(parents=True)
    annotations: dict[str, list[dict[str, Any]]] = {}
    drawn: dict[str, dict[str, float]] = {}
    for number, (name, content, corners) in enumerate(photos()):
        (folder / name).write_bytes(content)
        annotations[name] = [{**corners, "label": LABELS[number % len(LABELS)] if number % 3 == 0 else "thing"}]
        drawn[name] = corners
    for name in REPAIRED:
        image, corners = draw(len(annotations))
        image.save(folder / f"{name}.png")
        annotations[f"{name}.png"] = [{**each, "label": "thing"} for each in distort(name, corners)]
        drawn[f"{name}.png"] = corners
    for name, (kind, box) in UNUSABLE.items():
        image, corners = draw(len(annotations))
        image.save(folder / f"{name}.png")
        # The photo also has a box that can be used, and is lost all the same if the other one cannot be read.
        annotations[f"{name}.png"] = [{**box, "label": "thing"}, {**corners, "label": "thing"}]
        if kind != losses.CORNERS:
            drawn[f"{name}.png"] = corners
    for name, content in broken_files():
        (folder / name).write_bytes(content)
        annotations[name] = [{"x": 0.1, "y": 0.1, "x2": 0.9, "y2": 0.9, "label": "thing"}]
    (folder.parent / "escape.jpg").write_bytes((folder / "plain.jpg").read_bytes())
    (folder / "link.jpg").symlink_to(folder.parent / "escape.jpg")
    for key in (*OUTSIDE_KEYS, "gone.jpg"):
        annotations[key] = [{"x": 0.1, "y": 0.1, "x2": 0.9, "y2": 0.9, "label": "thing"}]
    (folder / "plain-2.jpg").write_bytes((folder / "plain.jpg").read_bytes())
    annotations["plain-2.jpg"] = [{"label": "Negative"}]
    (folder / "never-mentioned.jpg").write_bytes((folder / "plain.jpg").read_bytes())
    (folder / "one-pixel.png").write_bytes(png(1, 1, b"\x00\x80\x80\x80"))
    annotations["one-pixel.png"] = [{"x": 0.0, "y": 0.0, "x2": 1.0, "y2": 1.0, "label": "Thing"}]
    document = {"version": "1.0", "type": "localization", "labels": ["thing"], "annotations": annotations}
    (folder / "_annotations.json").write_text(json.dumps(document))
    return drawn


def distort(name: str, corners: dict[str, float]) -> list[dict[str, Any]]:
    """Returns the box with one of the faults of REPAIRED."""
    if name == "inverted":
        return [{"x": corners["x2"], "y": corners["y2"], "x2": corners["x"], "y2": corners["y"]}]
    return [corners, corners] if name == "twice" else [{key: str(value) for key, value in corners.items()}]


def photos() -> Iterator[tuple[str, bytes, dict[str, float]]]:
    """Yields name, content and corners of a photo of each format, and of small and large photos of each orientation."""
    number = 0
    for name, (kind, mode, options) in FORMATS.items():
        image, corners = draw(number)
        yield name, encode(image, kind, mode, options), corners
        number += 1
    for orientation, transpose in STORED_BY.items():
        for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tiff"), ("HEIF", "heic")):
            # The job makes the large photos smaller.
            image, corners = draw(number, scale=8 if number % 2 else 1)
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored = image.transpose(transpose) if transpose is not None else image
            yield f"turned-{orientation}.{suffix}", encode(stored, kind, "RGB", {"exif": exif, "quality": 95}), corners
            number += 1


def encode(image: Image.Image, kind: str, mode: str, options: dict[str, Any]) -> bytes:
    """Returns the photo encoded in a format and mode."""
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "P":
        # `convert` would dither the photo to the palette of web colours.
        image = image.quantize(8)
    else:
        image = image.convert(mode)
    if options.get("save_all"):
        options = {**options, "append_images": [Image.new("P", image.size, 3)]}
    buffer = io.BytesIO()
    if kind == "HEIF":
        # Pillow's `save` needs a registered encoder, which would register its decoder too, and that is not the job's
        # decoder. This encoder turns an Exif orientation into HEIC's own, which every decoder undoes.
        exif = options.get("exif", Image.Exif()).tobytes()
        pillow_heif.from_pillow(image).save(buffer, **{**options, "exif": exif, "chroma": 444})
    else:
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def broken_files() -> Iterator[tuple[str, bytes]]:
    """Yields the names and contents of files that cannot be read."""
    jpeg = encode(draw(0, scale=4)[0], "JPEG", "RGB", {})
    noise = encode(
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8)), "PNG", "RGB", {}
    )
    made = {
        "bomb.png": png(100_000, 100_000, b""),
        "cut-off.jpg": jpeg[: len(jpeg) * 2 // 3],
        "cut-off.png": noise[: len(noise) * 2 // 3],
    }
    for name, (content, _) in BROKEN.items():
        yield name, made.get(name, content)


def png(width: int, height: int, rows: bytes) -> bytes:
    """Returns a PNG file of eight-bit RGB with these rows. They need not fit the size in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
