"""Checks a photo in full, turns it upright, and returns the bytes that go into a record."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pi_heif
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from entrypoint.data.boxes import FIRST_ON_ITS_SIDE
from entrypoint.system import memory
from entrypoint.system.parallel import Budget

pi_heif.register_heif_opener()

# Pillow refuses more than twice its limit, which is 179 million pixels. Such a photo takes half a gigabyte when it is
# decoded: it is a decompression bomb, or of no use.
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
# More than a photo of so many pixels has in any format. A sparse file can have any size.
MOST_BYTES = 1 << 30
# A JPEG of several scans repeats all pixels in each. Cameras and programs write at most some ten scans.
MOST_SCANS = 100
# What ends a scan: a marker that is neither an escaped byte nor a restart (ITU-T T.81, B.1.1.2 and table B.1).
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
# The TIFF tags of a tile's width and length (TIFF 6.0, section 15). The decoder allocates a whole tile.
TILE = (322, 323)
# Pillow stores a pixel in four bytes. A photo that is converted is in memory once as it was and once as RGB, and both
# once more while it is turned.
PIXEL_BYTES = 4
COPIES = 3
# The decoder of a progressive JPEG stores three coefficients of two bytes for each pixel, at whatever size it decodes.
COEFFICIENT_BYTES = 6
# The memory for photos that are decoded at one time.
DECODED = Budget(memory.total() // 4)
# After a photo of this size, memory that was freed is given back to the kernel.
LARGE_BYTES = 1 << 28
# The pixels that are converted to RGB at one time.
STRIP_PIXELS = 1 << 22
# Pillow also reads other formats. One of them is PostScript, for which it starts another program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "HEIF")
ORIENTATION = 0x0112  # the Exif tag (Exif 2.3, section 4.6.4)
UPRIGHT = 1
# What turns a photo of each orientation upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_OF_PNG = {"exif", "Raw profile type exif"}
# In these modes of Pillow, TensorFlow's decoders return the same three channels as Pillow.
PLAIN_MODES = {"JPEG": {"RGB", "L"}, "PNG": {"RGB", "L"}}
WHITE = (255, 255, 255)
BITS = (8, 10, 12, 14, 16)  # the bit depths of grey photos that cameras write
# How Pillow reports that a decoder got no memory.
OUT_OF_MEMORY = "out of memory"
HASH_SIDE = 8
LOOK_BITS = 2 * HASH_SIDE**2
LOOK_SIZE = (4 * HASH_SIDE, 4 * HASH_SIDE)  # width and height in pixels that are enough for the hash
# A photo has a hash only if its brightest and its darkest place differ by at least this much, of 255.
LEAST_CONTRAST = 8
# Pillow's documentation: from this value on, the result is almost the same as that of the slow method.
REDUCING_GAP = 3.0
# Width and height of an upright photo -> width and height to store it with, or None to leave it as it is.
Shrink = Callable[[int, int], "tuple[int, int] | None"]
# Decodes a JPEG or PNG in full as the training does: [height, width, 3]. Returns None if the training could not decode
# it.
AsTrained = Callable[[bytes], "NDArray[np.uint8] | None"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a photo that can be used."""

    width: int  # in pixels, upright, before it was made smaller
    height: int
    look: int  # the perceptual hash, see `look_of`
    changes: tuple[str, ...] = ()  # what was done to it, if anything


@dataclass(frozen=True)
class Photo:
    """An upright photo as JPEG or PNG bytes."""

    encoded: bytes
    format: str  # "jpeg" or "png"
    width: int
    height: int
    facts: Facts
    orientation: int  # that of the file, see `Frame`

    @property
    def frame(self) -> Frame:
        """What `read_frame` returns for the file."""
        return Frame(self.facts.width, self.facts.height, self.orientation)

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.width * self.height

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes, as hexadecimal digits."""
        return hashlib.sha256(self.encoded).hexdigest()


@dataclass(frozen=True)
class Frame:
    """The content of a photo's header: width and height of the upright photo in pixels, and its Exif orientation."""

    width: int
    height: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the photo before it is turned upright."""
        return self.size[::-1] if self.is_on_its_side else self.size

    @property
    def is_on_its_side(self) -> bool:
        """Whether width and height change places when the photo is turned upright."""
        return self.orientation >= FIRST_ON_ITS_SIDE


class UnusablePhotoError(Exception):
    """The photo cannot be trained on; the message is the reason."""


def read_frame(content: bytes) -> Frame | None:
    """Returns size and orientation; reads only the header. Returns None if `content` is not the start of a photo."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            orientation = orientation_of(image)
            return Frame(*upright_size(image, orientation), orientation)
    except MemoryError:
        raise
    except Exception:
        # Pillow's readers can raise almost any exception for a damaged header.
        return None


def orientation_of(image: Image.Image) -> int:
    """Returns the Exif orientation, 1 to 8, before the photo is decoded; UPRIGHT if it is missing or another number."""
    if image.format == "PNG" and not EXIF_OF_PNG & image.info.keys():
        # Pillow would decode the photo to look for Exif behind the pixels, which browsers ignore: boxes were drawn on
        # the photo as it is.
        return UPRIGHT
    orientation = image.getexif().get(ORIENTATION, UPRIGHT)
    return int(orientation) if orientation in range(UPRIGHT, 9) else UPRIGHT


def keep_size(width: int, height: int) -> None:
    """Returns None for every photo, so that each keeps its size."""


def upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Returns width and height of the upright photo.

    Pillow itself turns a TIFF when it decodes it, and reports the upright size from the start.
    """
    is_turned = orientation in range(FIRST_ON_ITS_SIDE, 9) and image.format != "TIFF"
    return image.size[::-1] if is_turned else image.size


def load(content: bytes, shrink: Shrink = keep_size, as_trained: AsTrained | None = None) -> Photo:
    """Decodes a photo once in full; `shrink` decides at which size it is stored.

    `as_trained` decodes a photo that is stored unchanged if its decoder can be stricter than Pillow. What it cannot
    decode, and Pillow can, is encoded anew.

    Raises:
        UnusablePhotoError: the file is empty, is not a photo, is cut off, or is larger than any training can use.
    """
    if not content:
        raise UnusablePhotoError("file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            refuse_costly(image, content)
            plan = plan_for(image, shrink)
            trained = as_trained if as_trained and plan.is_kept and may_be_refused(plan, content) else None
            with DECODED.part(plan.memory):
                pixels = trained(content) if trained else None
                photo = decode(image, content, plan, pixels)
                image.close()
                if plan.memory > LARGE_BYTES:
                    memory.give_back()
            return encode_anew(photo) if trained and pixels is None else photo
    except Image.DecompressionBombError:
        raise UnusablePhotoError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise UnusablePhotoError("no photo, whatever its name") from None
    except (MemoryError, UnusablePhotoError):
        raise
    except Exception as error:
        if OUT_OF_MEMORY in str(error):
            raise MemoryError(str(error)) from None
        # Pillow's decoders can raise almost any exception for a damaged file, with a different text for each file.
        raise UnusablePhotoError("damaged or cut off") from None


def refuse_costly(image: Image.Image, content: bytes) -> None:
    """Raises UnusablePhotoError if decoding would take far more time or memory than the pixels of the photo."""
    tags = getattr(image, "tag_v2", {})
    width, length = (tags.get(tag, 0) for tag in TILE)
    if width * length > MAX_PIXELS:
        raise UnusablePhotoError(f"its tiles have more than {MAX_PIXELS:,} pixels")
    if image.format in ("JPEG", "MPO") and has_many_scans(image, content):
        raise UnusablePhotoError(f"more than {MOST_SCANS} scans")


def has_many_scans(image: Image.Image, content: bytes) -> bool:
    """Returns whether a JPEG has more than MOST_SCANS scans.

    A decoder reads further scans of a file that is progressive, or whose first scan does not have all of its colours.
    """
    starts = scans(content)
    first = next(starts, None)
    if first is None:
        return False
    # A length of two bytes precedes the number of colours (ITU-T T.81, B.2.3).
    colours = content[first + 2 : first + 3]
    is_last = "progressive" not in image.info and colours == bytes([len(image.getbands())])
    return not is_last and sum(1 for _ in itertools.islice(starts, MOST_SCANS)) >= MOST_SCANS


def scans(content: bytes) -> Iterator[int]:
    """Yields where the header of each scan of a JPEG begins."""
    return (start for marker, start in markers(content) if marker == START_OF_SCAN)


def markers(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields the markers of a JPEG, and where each ends. What lies behind its end, such as a film, has none."""
    position = 2
    while found := MARKER.search(content, position):
        marker, start = found[0], found.end()
        yield marker, start
        if marker == END_OF_IMAGE:
            return
        # A segment, the header of a scan too, begins with its length.
        position = start + int.from_bytes(content[start : start + 2], "big")


@dataclass(frozen=True)
class Plan:
    """How a photo is stored, as its header decides it."""

    kind: str  # the format of the file, as Pillow names it
    mode: str  # the colours of the file, as Pillow names them
    orientation: int
    size: tuple[int, int]  # width and height, upright
    smaller: tuple[int, int] | None  # width and height to store it with, None for those that it has
    is_kept: bool  # whether its bytes stay as they are
    memory: int  # the bytes that it takes at most while it is decoded and converted


def plan_for(image: Image.Image, shrink: Shrink) -> Plan:
    """Returns how a photo is stored, and prepares the decoder for it.

    The bytes stay the same if the photo is upright, need not be smaller, and TensorFlow reads it as Pillow does.
    """
    # MPO is a JPEG with further pictures, for example a preview, behind the first one.
    kind = "JPEG" if image.format == "MPO" else image.format or ""
    mode = image.mode
    orientation = orientation_of(image)
    size = upright_size(image, orientation)
    smaller = shrink(*size)
    is_kept = not smaller and orientation == UPRIGHT and is_read_alike(image, kind)
    if smaller or is_kept:
        # The JPEG decoder leaves out detail that resizing would average away, and still reads the whole file.
        wanted = smaller or LOOK_SIZE
        image.draft("L" if is_kept else None, wanted if image.size == size else wanted[::-1])
    needed = image.width * image.height * PIXEL_BYTES * (1 if is_kept else COPIES)
    if "progressive" in image.info:
        needed += size[0] * size[1] * COEFFICIENT_BYTES
    return Plan(kind, mode, orientation, size, smaller, is_kept, needed)


def may_be_refused(plan: Plan, content: bytes) -> bool:
    """Returns whether the decoder of the training can refuse a photo that Pillow decodes.

    Both read a JPEG with libjpeg. Pillow stops behind the last pixel, and the training reads to the end of the image.
    """
    return plan.kind != "JPEG" or END_OF_IMAGE not in (marker for marker, _ in markers(content))


def decode(image: Image.Image, content: bytes, plan: Plan, pixels: NDArray[np.uint8] | None) -> Photo:
    """Returns the photo as it is stored: unchanged, or upright, made smaller if needed, and encoded again.

    `pixels` are those of a photo that is kept, [height, width, 3], if they are decoded already.
    """
    if pixels is None:
        image.load()
    if plan.is_kept:
        look = look_of(image if pixels is None else Image.fromarray(pixels))
        return Photo(content, plan.kind.lower(), *plan.size, Facts(*plan.size, look), plan.orientation)
    changes = []
    if plan.kind not in PLAIN_MODES:
        changes.append(f"{plan.kind} converted")
    if plan.mode not in {"RGB", "L"}:
        changes.append(f"colours converted from {plan.mode}")
    if plan.orientation != UPRIGHT:
        changes.append(f"turned upright (orientation {plan.orientation})")
    upright = to_rgb(turned(image, plan.orientation))
    if plan.smaller:
        changes.append("stored smaller, at the size that the model can use")
        upright = upright.resize(plan.smaller, Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    encoded, name = encode(upright, lossless=plan.kind != "JPEG")
    facts = Facts(*plan.size, look_of(upright), tuple(changes))
    return Photo(encoded, name, *upright.size, facts, plan.orientation)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Returns a decoded photo turned upright. Pillow has turned a TIFF when it decoded it."""
    if orientation == UPRIGHT or image.format == "TIFF":
        return image
    return image.transpose(TURNS[orientation])


def is_read_alike(image: Image.Image, kind: str) -> bool:
    """Returns whether TensorFlow's decoders return the same channels as Pillow.

    They do not know that a colour can stand for transparency.
    """
    return image.mode in PLAIN_MODES.get(kind, ()) and "transparency" not in image.info


def encode_anew(photo: Photo) -> Photo:
    """Encodes a photo again with Pillow. This is for photos that Pillow can decode and TensorFlow cannot."""
    with Image.open(io.BytesIO(photo.encoded)) as image, DECODED.part(photo.pixels * PIXEL_BYTES * COPIES):
        encoded, _ = encode(to_rgb(image), lossless=photo.format == "png")
    facts = replace(photo.facts, changes=("encoded anew, TensorFlow could not read it",))
    return replace(photo, encoded=encoded, facts=facts)


def look_of(image: Image.Image) -> int:
    """Returns a perceptual hash of 128 bits. Two copies of a photo differ in only a few bits.

    It is a difference hash (Krawetz, "Kind of Like That", 2013). Two bits for each of 8 x 8 places record whether the
    place is brighter than its right and than its lower neighbour. The hash is 0 if the photo has hardly any contrast.
    """
    # The grid has one row and one column more than the hash, because each place is compared with the next one.
    grey = image.convert("L") if image.mode != "L" else image
    small = grey.resize((HASH_SIDE + 1, HASH_SIDE + 1), Image.Resampling.BOX, reducing_gap=REDUCING_GAP)
    pixels = np.asarray(small)
    if int(pixels.max()) - int(pixels.min()) < LEAST_CONTRAST:
        return 0
    here, right, below = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1]
    bits = np.stack([here > right, here > below], axis=-1)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the photo with three channels of eight bits.

    Transparent pixels become white. Greys of more than eight bits keep their upper eight bits.
    """
    if image.mode.startswith(("I", "F")):
        image = to_eight_bits(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    # Transparency takes three more copies, of one strip at a time.
    rgb = Image.new("RGB", image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgb.paste(on_white(strip), (0, top))
    return rgb


def on_white(image: Image.Image) -> Image.Image:
    """Returns an image as RGB, in which transparent pixels are white."""
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (*WHITE, 255))
        image = Image.alpha_composite(ground, rgba)
    return image.convert("RGB")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Converts a grey photo of 8, 10, 12, 14 or 16 bits, or of fractions up to 1, to eight bits.

    The bit depth is the smallest one that holds the brightest pixel. Scientific cameras store 12 bits in 16, and their
    photos would be almost black if all 16 bits counted.
    """
    values = image if image.mode == "F" else image.convert("I").convert("F")
    brightest = cast(tuple[float, float], values.getextrema())[1]
    depth = next((bits for bits in BITS if brightest < 1 << bits), BITS[-1])
    scale = 255.0 if image.mode == "F" and brightest <= 1 else 2.0 ** (BITS[0] - depth)
    return values.point(lambda value: value * scale + 0).convert("L")


def encode(image: Image.Image, *, lossless: bool) -> tuple[bytes, str]:
    """Returns the image as PNG or JPEG, and the name of the format.

    The quality and the chroma sampling of the JPEG cause no visible loss.
    """
    buffer = io.BytesIO()
    if lossless:
        # The grain of a photo hardly compresses, even at a higher level.
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling="4:4:4")
    return buffer.getvalue(), "png" if lossless else "jpeg"
