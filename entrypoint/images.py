"""One photo: checked in full, turned upright, and the bytes that go into a record."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow refuses more than twice its limit, 179 million: half a gigabyte decoded, a bomb or of no use.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
# Pillow reads more, among them PostScript, for which it starts another program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
ORIENTATION = 0x0112  # the tag of Exif 2.3, section 4.6.4
UPRIGHT = 1
FIRST_ON_ITS_SIDE = 5
# The modes of Pillow in which TensorFlow's decoders give the same three channels as Pillow does.
PLAIN_MODES = {"JPEG": {"RGB", "L"}, "PNG": {"RGB", "L"}}
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Photo:
    """An upright photo as JPEG or PNG bytes."""

    encoded: bytes
    format: str  # "jpeg" or "png"
    width: int
    height: int
    changes: tuple[str, ...]  # what was done to it, if anything

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, as hexadecimal digits."""
        return hashlib.sha256(self.encoded).hexdigest()


@dataclass(frozen=True)
class Frame:
    """What a photo's header tells: width and height of the upright photo in pixels, and its Exif orientation."""

    width: int
    height: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def is_on_its_side(self) -> bool:
        """Whether width and height change places when the photo is turned upright."""
        return self.orientation >= FIRST_ON_ITS_SIDE


class UnusablePhotoError(Exception):
    """The photo cannot be trained on; the message says why."""


def read_frame(place: Path) -> Frame | None:
    """Size and orientation, by the header alone; None for what is no photo. OSError where it cannot be read."""
    try:
        with place.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            orientation = image.getexif().get(ORIENTATION, UPRIGHT)
            orientation = orientation if orientation in range(UPRIGHT, 9) else UPRIGHT
            width, height = image.size[::-1] if orientation >= FIRST_ON_ITS_SIDE else image.size
            return Frame(width, height, orientation)
    except OSError as error:
        # Pillow's own are without a number.
        if error.errno is not None:
            raise
        return None
    except Exception:
        # Damaged headers make Pillow's readers raise almost anything.
        return None


def load(content: bytes) -> Photo:
    """Decodes a photo once in full.

    Raises:
        UnusablePhotoError: the file is empty, no photo, cut off, or larger than any training can use.
    """
    if not content:
        raise UnusablePhotoError("file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return decode(image, content)
    except Image.DecompressionBombError:
        raise UnusablePhotoError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnusablePhotoError("no photo, whatever its name") from None
    except Exception as error:
        # Damaged files make Pillow's decoders raise almost anything.
        raise UnusablePhotoError(f"damaged or cut off ({error})") from None


def decode(image: Image.Image, content: bytes) -> Photo:
    """The photo as it is stored: as it came where TensorFlow reads it alike, else turned upright and encoded anew."""
    # MPO is a JPEG with further pictures, such as a preview, behind the first.
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    image.load()
    orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    if orientation in (UPRIGHT, 0) and image.mode in PLAIN_MODES.get(kind, ()):
        return Photo(content, kind.lower(), image.width, image.height, ())
    changes = []
    if kind not in PLAIN_MODES:
        changes.append(f"{kind} converted")
    if image.mode not in {"RGB", "L"}:
        changes.append(f"colours converted from {image.mode}")
    if orientation not in (UPRIGHT, 0):
        changes.append(f"turned upright (orientation {orientation})")
    return encode(to_rgb(ImageOps.exif_transpose(image)), lossless=kind != "JPEG", changes=tuple(changes))


def encode_anew(photo: Photo) -> Photo:
    """The same photo from Pillow's encoder, for one that Pillow can decode and TensorFlow cannot."""
    with Image.open(io.BytesIO(photo.encoded)) as image:
        return encode(
            to_rgb(image), lossless=photo.format == "png", changes=("encoded anew, TensorFlow could not read it",)
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Three channels of eight bits; what is transparent becomes white, 16-bit greys keep their upper eight bits."""
    if image.mode.startswith(("I", "F")):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (*WHITE, 255))
        image = Image.alpha_composite(ground, rgba)
    return image.convert("RGB")


def encode(image: Image.Image, *, lossless: bool, changes: tuple[str, ...]) -> Photo:
    """The image as PNG, or as JPEG of a quality and chroma sampling that add no visible loss."""
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=95, subsampling="4:4:4")
    return Photo(buffer.getvalue(), "png" if lossless else "jpeg", image.width, image.height, changes)
