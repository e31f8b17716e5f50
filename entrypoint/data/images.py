"""One photo: checked in full, turned upright, and the bytes that go into a record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import pi_heif
from PIL import Image, ImageOps, UnidentifiedImageError

from entrypoint.data.boxes import FIRST_ON_ITS_SIDE

pi_heif.register_heif_opener()

# Pillow refuses more than twice its limit, 179 million: half a gigabyte decoded, a bomb or of no use.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
# Pillow reads more, among them PostScript, for which it starts another program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "HEIF")
ORIENTATION = 0x0112  # the tag of Exif 2.3, section 4.6.4
UPRIGHT = 1
EXIF_OF_PNG = {"exif", "Raw profile type exif"}
# The modes of Pillow in which TensorFlow's decoders give the same three channels as Pillow does.
PLAIN_MODES = {"JPEG": {"RGB", "L"}, "PNG": {"RGB", "L"}}
WHITE = (255, 255, 255)
BITS = (8, 10, 12, 14, 16)  # of greys that cameras write
HASH_SIDE = 8
LOOK_BITS = 2 * HASH_SIDE**2
LOOK_SIZE = (4 * HASH_SIDE, 4 * HASH_SIDE)  # pixels that tell it
LEAST_CONTRAST = 8  # of 255 between the brightest and the darkest place of a photo whose hash says anything
REDUCING_GAP = 3.0  # Pillow's documentation: from there on the result is almost that of the slow way
# Width and height of an upright photo -> those to store it with, or None to leave it as it is.
Shrink = Callable[[int, int], "tuple[int, int] | None"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of a photo that can be used."""

    width: int  # in pixels, upright, before it was made smaller
    height: int
    look: int  # see `look_of`
    changes: tuple[str, ...] = ()  # what was done to it, if anything


@dataclass(frozen=True)
class Photo:
    """An upright photo as JPEG or PNG bytes."""

    encoded: bytes
    format: str  # "jpeg" or "png"
    width: int
    height: int
    facts: Facts

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


def read_frame(content: bytes) -> Frame | None:
    """Size and orientation, by the header alone, of which `content` holds enough; None for what is no photo."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # For a PNG without Exif in its header, Pillow would decode the photo to look for it behind.
            is_plain = image.format == "PNG" and not EXIF_OF_PNG & image.info.keys()
            orientation = UPRIGHT if is_plain else orientation_of(image)
            return Frame(*upright_size(image, orientation), orientation)
    except Exception:
        # Damaged headers make Pillow's readers raise almost anything.
        return None


def orientation_of(image: Image.Image) -> int:
    """The Exif orientation, 1 to 8; upright where it is missing or another number."""
    orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    return int(orientation) if orientation in range(UPRIGHT, 9) else UPRIGHT


def keep_size(width: int, height: int) -> None:
    """Leaves every photo as large as it is."""


def upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Width and height after the photo is turned upright; Pillow turns a TIFF itself, and says so before it does."""
    is_turned = orientation in range(FIRST_ON_ITS_SIDE, 9) and image.format != "TIFF"
    return image.size[::-1] if is_turned else image.size


def load(content: bytes, shrink: Shrink = keep_size) -> Photo:
    """Decodes a photo once in full; `shrink` says how large it is stored.

    Raises:
        UnusablePhotoError: the file is empty, no photo, cut off, or larger than any training can use.
    """
    if not content:
        raise UnusablePhotoError("file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return decode(image, content, shrink)
    except Image.DecompressionBombError:
        raise UnusablePhotoError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnusablePhotoError("no photo, whatever its name") from None
    except Exception:
        # Damaged files make Pillow's decoders raise almost anything, in words that differ from file to file.
        raise UnusablePhotoError("damaged or cut off") from None


def decode(image: Image.Image, content: bytes, shrink: Shrink) -> Photo:
    """The photo as it is stored: as it came where TensorFlow reads it alike, else upright, smaller, encoded anew."""
    # MPO is a JPEG with further pictures, such as a preview, behind the first.
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    mode = image.mode
    orientation = orientation_of(image)
    size = upright_size(image, orientation)
    smaller = shrink(*size)
    is_kept = not smaller and orientation == UPRIGHT and is_read_alike(image, kind)
    if smaller or is_kept:
        # A JPEG's decoder leaves out what would be averaged away; all of the file is read nevertheless. What is kept as
        # it is, the conversion has decoded in full by TensorFlow, as training does.
        wanted = smaller or LOOK_SIZE
        image.draft(None, wanted if image.size == size else wanted[::-1])
    image.load()
    if is_kept:
        return Photo(content, kind.lower(), *size, Facts(*size, look_of(image)))
    changes = []
    if kind not in PLAIN_MODES:
        changes.append(f"{kind} converted")
    if mode not in {"RGB", "L"}:
        changes.append(f"colours converted from {mode}")
    if orientation != UPRIGHT:
        changes.append(f"turned upright (orientation {orientation})")
    upright = to_rgb(ImageOps.exif_transpose(image))
    if smaller:
        changes.append("stored smaller, at the size that the model can use")
        upright = upright.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    encoded, name = encode(upright, lossless=kind != "JPEG")
    return Photo(encoded, name, *upright.size, Facts(*size, look_of(upright), tuple(changes)))


def is_read_alike(image: Image.Image, kind: str) -> bool:
    """Whether TensorFlow's decoders give the channels that Pillow gives; to them no colour stands for transparency."""
    return image.mode in PLAIN_MODES.get(kind, ()) and "transparency" not in image.info


def encode_anew(photo: Photo) -> Photo:
    """The same photo from Pillow's encoder, for one that Pillow can decode and TensorFlow cannot."""
    with Image.open(io.BytesIO(photo.encoded)) as image:
        encoded, _ = encode(to_rgb(image), lossless=photo.format == "png")
    facts = replace(photo.facts, changes=("encoded anew, TensorFlow could not read it",))
    return replace(photo, encoded=encoded, facts=facts)


def look_of(image: Image.Image) -> int:
    """A perceptual hash of 128 bits, of which few differ between two copies of a photo; 0 for one of a single colour.

    A difference hash (Krawetz, "Kind of Like That", 2013): whether each of 8 x 8 places is brighter than its right, and
    than its lower neighbour.
    """
    # One row and one column more than there are differences.
    grey = image.convert("L") if image.mode != "L" else image
    small = grey.resize((HASH_SIDE + 1, HASH_SIDE + 1), Image.Resampling.BOX, reducing_gap=REDUCING_GAP)
    pixels = small.tobytes()
    if max(pixels) - min(pixels) < LEAST_CONTRAST:
        return 0
    bits = 0
    for row in range(HASH_SIDE):
        for column in range(HASH_SIDE):
            here = row * (HASH_SIDE + 1) + column
            is_brighter = pixels[here] > pixels[here + 1], pixels[here] > pixels[here + HASH_SIDE + 1]
            bits = bits << 2 | is_brighter[0] << 1 | is_brighter[1]
    return bits


def to_rgb(image: Image.Image) -> Image.Image:
    """Three channels of eight bits; what is transparent becomes white, greys of more bits keep their upper eight."""
    if image.mode.startswith(("I", "F")):
        image = to_eight_bits(image)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (*WHITE, 255))
        image = Image.alpha_composite(ground, rgba)
    return image.convert("RGB")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """A grey photo of 8, 10, 12, 14 or 16 bits, or of fractions up to 1: as few bits as hold its brightest place.

    Cameras of science write twelve bits into sixteen, which would be all but black else.
    """
    values = image if image.mode == "F" else image.convert("I").convert("F")
    brightest = cast(tuple[float, float], values.getextrema())[1]
    depth = next((bits for bits in BITS if brightest < 1 << bits), BITS[-1])
    scale = 255.0 if image.mode == "F" and brightest <= 1 else 2.0 ** (BITS[0] - depth)
    return values.point(lambda value: value * scale + 0).convert("L")


def encode(image: Image.Image, *, lossless: bool) -> tuple[bytes, str]:
    """The image as PNG, or as JPEG of a quality and chroma sampling that add no visible loss; and which it is."""
    buffer = io.BytesIO()
    if lossless:
        # The grain of a photo hardly compresses, however long it is tried.
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling="4:4:4")
    return buffer.getvalue(), "png" if lossless else "jpeg"
