from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entrypoint.data import images
from tests.awkward import STORED_BY, encode
from tests.conftest import environment, run_measured

KINDS = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tiff": "TIFF", "heic": "HEIF"}


def draw_upright() -> Image.Image:
    """A grey photo, wider than high, with a red square in its upper left corner."""
    image = Image.new("RGB", (96, 64), (90, 90, 90))
    image.paste((250, 10, 10), (0, 0, 32, 32))
    return image


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def pixels(photo: images.Photo) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(photo.encoded)).convert("RGB")).astype(int)


@pytest.mark.parametrize("orientation", STORED_BY)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "heic"])
def test_photo_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    transpose = STORED_BY[orientation]
    stored = draw_upright().transpose(transpose) if transpose is not None else draw_upright()
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / f"a.{suffix}").write_bytes(encode(stored, KINDS[suffix], "RGB", {"exif": exif, "quality": 95}))
    photo = images.load((tmp_path / f"a.{suffix}").read_bytes())
    assert (photo.width, photo.height) == (96, 64)
    found = pixels(photo)
    assert found.shape == (64, 96, 3)
    assert found[8:24, 8:24, 0].min() > 230
    assert found[8:24, 40:, 0].max() < 110
    assert found[40:, 8:24, 0].max() < 110
    # What decodes HEIC turns it, and says no more how it was.
    told = 1 if suffix == "heic" else orientation
    assert images.read_frame((tmp_path / f"a.{suffix}").read_bytes()) == images.Frame(96, 64, told)
    assert Image.open(io.BytesIO(photo.encoded)).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("name", "options"), [("a.jpg", {"quality": 80}), ("a.jpg", {"progressive": True}), ("a.png", {})]
)
def test_photo_that_needs_nothing_is_stored_byte_for_byte(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    draw_upright().save(tmp_path / name, **options)
    photo = images.load((tmp_path / name).read_bytes())
    assert photo.encoded == (tmp_path / name).read_bytes()
    assert photo.facts.changes == ()


def test_png_named_jpg_is_stored_as_png(tmp_path: Path) -> None:
    draw_upright().save(tmp_path / "a.jpg", "PNG")
    assert images.load((tmp_path / "a.jpg").read_bytes()).format == "png"


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_jpeg_of_other_colours_keeps_its_picture(tmp_path: Path, mode: str) -> None:
    draw_upright().convert(mode).save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(draw_upright().convert(mode).convert("RGB")).astype(int)
    assert np.abs(pixels(images.load((tmp_path / "a.jpg").read_bytes())) - expected).mean() < 3


@pytest.mark.parametrize("mode", ["P", "L", "1", "RGBA", "LA"])
def test_png_of_other_colours_keeps_its_picture(tmp_path: Path, mode: str) -> None:
    draw_upright().convert(mode).save(tmp_path / "a.png")
    expected = np.asarray(draw_upright().convert(mode).convert("RGB")).astype(int)
    assert np.abs(pixels(images.load((tmp_path / "a.png").read_bytes())) - expected).mean() < 1


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.abs(pixels(images.load((tmp_path / "a.png").read_bytes()))[..., 0] - values / 256).max() < 1


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_grey_of_any_number_of_bits_is_as_bright_as_it_was(bits: int) -> None:
    shades = np.tile(np.linspace(0, (1 << bits) - 1, 64).astype(np.uint16), (48, 1))
    found = pixels(images.load(saved(Image.fromarray(shades), "PNG")))
    assert np.abs(found[..., 0] - np.linspace(0, 255, 64)).max() <= 1


def test_fractions_of_white_are_grey() -> None:
    shades = np.tile(np.linspace(0, 1, 64).astype(np.float32), (48, 1))
    found = pixels(images.load(saved(Image.fromarray(shades), "TIFF")))
    assert np.abs(found[..., 0] - np.linspace(0, 255, 64)).max() <= 1


def test_colour_that_stands_for_none_becomes_white() -> None:
    image = Image.new("RGB", (64, 48), (10, 20, 30))
    photo = images.load(encode(image, "PNG", "RGB", {"transparency": (10, 20, 30)}))
    assert (pixels(photo) == 255).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_header_alone_tells_the_size(suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), KINDS[suffix], "RGB", {})
    assert images.read_frame(content[:1000]) == images.Frame(400, 300, 1)


def test_transparent_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (pixels(images.load((tmp_path / "a.png").read_bytes())) == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "bmp", "webp", "tiff", "heic"])
def test_other_formats_are_converted_without_loss(suffix: str) -> None:
    image = draw_upright()
    mode = "P" if suffix == "gif" else "RGB"
    # The encoder of HEIC takes -1 for lossless.
    options: dict[str, Any] = {"quality": -1} if suffix == "heic" else {"lossless": True}
    photo = images.load(encode(image, KINDS[suffix], mode, options))
    assert photo.format == "png"
    # HEIC has luma and chroma of eight bits.
    assert np.abs(pixels(photo) - np.asarray(image)).max() <= (suffix == "heic")


def test_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    other = Image.new("RGB", (96, 64), (0, 0, 255))
    draw_upright().save(tmp_path / "a.gif", save_all=True, append_images=[other])
    assert np.abs(pixels(images.load((tmp_path / "a.gif").read_bytes())) - np.asarray(draw_upright())).max() == 0


def test_photo_of_one_pixel_works(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    photo = images.load((tmp_path / "a.png").read_bytes())
    assert (photo.width, photo.height) == (1, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "file is empty"),
        (b"hello, this is text", "no photo"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "no photo|damaged"),
    ],
)
def test_what_is_no_photo_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(images.UnusablePhotoError, match=words):
        images.load((tmp_path / "a.jpg").read_bytes())


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_photo_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    content = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(images.UnusablePhotoError):
        images.load((tmp_path / f"a.{suffix}").read_bytes())


def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    with pytest.raises(images.UnusablePhotoError, match="pixels"):
        images.load((tmp_path / "a.png").read_bytes())


def progressive(scans: int) -> bytes:
    """A progressive JPEG, whose last scan is repeated until it has that many."""
    buffer = io.BytesIO()
    draw_upright().save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(images.START_OF_SCAN)
    return content[:last] + content[last:-2] * (scans - len(list(images.scans(content))) + 1) + content[-2:]


def test_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    assert images.load(progressive(images.MOST_SCANS)).width == 96
    with pytest.raises(images.UnusablePhotoError, match="more than 100 scans"):
        images.load(progressive(images.MOST_SCANS + 1))


def test_sequential_jpeg_of_many_scans_is_refused_too() -> None:
    """Its first scan has only one of three colours, so that the decoder reads on."""
    buffer = io.BytesIO()
    draw_upright().save(buffer, "JPEG")
    content = buffer.getvalue()
    start = content.rindex(images.START_OF_SCAN)
    one = content[: start + 2] + bytes([0, 8, 1, 1, 0, 0, 63, 0]) + content[start + 14 : -2]
    assert images.load(content).width == 96
    many = one + one[start:] * images.MOST_SCANS + content[-2:]
    with pytest.raises(images.UnusablePhotoError, match="more than 100 scans"):
        images.load(many)


def test_film_behind_a_jpeg_does_not_count_as_scans() -> None:
    assert images.load(progressive(10) + images.START_OF_SCAN * 1000).width == 96


def tiled_tiff(tile: int) -> bytes:
    """A grey TIFF of 96 x 64 pixels in one tile of that width and length, which is not in the file (TIFF 6.0)."""
    short, long = 3, 4
    tags = {256: (short, 96), 257: (short, 64), 258: (short, 8), 259: (short, 8), 262: (short, 1), 277: (short, 1)}
    tags |= {322: (long, tile), 323: (long, tile), 324: (long, 8), 325: (long, 8)}
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in tags.items())
    return struct.pack("<2sHI", b"II", 42, 16) + bytes(8) + struct.pack("<H", len(tags)) + rows + bytes(4)


def test_tiff_with_a_tile_of_gigabytes_is_refused() -> None:
    with pytest.raises(images.UnusablePhotoError, match="its tiles have more than"):
        images.load(tiled_tiff(tile=60_000))


# A GIF of 16,384 x 10,900 pixels, of which one is transparent, and of which no pixel is in the file.
BOMB = b"GIF89a\x00\x40\x94\x2a\x80\x00\x00\xff\x00\x00\x00\xff\x00"
BOMB += b"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
LOAD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from entrypoint.data import images
with ThreadPoolExecutor(4) as pool:
    found = list(pool.map(images.load, [open(sys.argv[1], "rb").read()] * 4))
assert {photo.facts.width for photo in found} == {0x4000}
"""


def test_photos_that_are_huge_in_memory_are_not_decoded_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(BOMB)
    program = "from entrypoint.system import memory\nmemory.total = lambda: 4 << 30\n" + LOAD
    command = [sys.executable, "-c", program, str(tmp_path / "a.gif")]
    status, output, gigabytes = run_measured(command, environment())
    assert status == 0, output
    assert gigabytes < 2.2


def test_lack_of_memory_is_no_fault_of_a_photo() -> None:
    program = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n" + LOAD
    with_little = subprocess.run(
        [sys.executable, "-c", program, "/dev/stdin"], input=BOMB, env=environment(), capture_output=True, check=False
    )
    assert b"MemoryError" in with_little.stderr


def test_photo_with_a_preview_behind_it_is_stored_as_the_jpeg_it_is(tmp_path: Path) -> None:
    draw_upright().save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[draw_upright().resize((24, 16))])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    photo = images.load((tmp_path / "a.jpg").read_bytes())
    assert (photo.format, photo.width, photo.height) == ("jpeg", 96, 64)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tiff", "heic"])
def test_damage_anywhere_is_no_traceback(suffix: str) -> None:
    rng = random.Random(suffix)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(draw_upright(), KINDS[suffix], "P" if suffix == "gif" else "RGB", {"exif": exif})
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(images.UnusablePhotoError):
            images.load(bytes(damaged))


@pytest.mark.parametrize("orientation", STORED_BY)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "heic"])
def test_large_photo_is_stored_smaller_and_upright(orientation: int, suffix: str) -> None:
    upright = draw_upright().resize((960, 640), Image.Resampling.NEAREST)
    transpose = STORED_BY[orientation]
    stored = upright.transpose(transpose) if transpose is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(stored, KINDS[suffix], "RGB", {"exif": exif, "quality": 95})
    asked = []

    def shrink(width: int, height: int) -> tuple[int, int]:
        asked.append((width, height))
        return 96, 64

    photo = images.load(content, shrink)
    assert asked == [(960, 640)]
    assert (photo.width, photo.height) == (96, 64)
    assert (photo.facts.width, photo.facts.height) == (960, 640)
    assert "stored smaller, at the size that the model can use" in photo.facts.changes
    found = pixels(photo)
    assert found.shape == (64, 96, 3)
    assert found[8:24, 8:24, 0].min() > 230
    assert found[8:24, 40:, 0].max() < 110
    assert found[40:, 8:24, 0].max() < 110


def test_detail_is_averaged_and_not_dropped(tmp_path: Path) -> None:
    # Stripes of one pixel become an even grey; taking every tenth pixel would keep black or white.
    stripes = np.zeros((640, 960), np.uint8)
    stripes[:, ::2] = 255
    for name in ("a.png", "a.jpg"):
        Image.fromarray(stripes).save(tmp_path / name, quality=95)
        found = pixels(images.load((tmp_path / name).read_bytes(), lambda width, height: (width // 10, height // 10)))
        assert abs(found - 127).max() <= 6


def test_cut_off_photo_is_found_also_where_it_is_stored_smaller(tmp_path: Path) -> None:
    draw_upright().resize((1920, 1280)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(images.UnusablePhotoError, match="damaged or cut off"):
        images.load(content[: len(content) * 9 // 10], lambda _width, _height: (96, 64))


def png_with_late_exif(orientation: int) -> bytes:
    """A PNG whose Exif stands behind the pixels."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (96, 64), (9, 9, 9)).save(buffer, "PNG", exif=exif)
    content = buffer.getvalue()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    chunk, rest = content[start:end], content[:start] + content[end:]
    tail = rest.index(b"IEND") - 4
    return rest[:tail] + chunk + rest[tail:]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_header_and_pixels_agree_on_a_png_with_exif_behind_the_pixels(orientation: int) -> None:
    content = png_with_late_exif(orientation)
    frame = images.read_frame(content)
    assert frame is not None
    photo = images.load(content)
    # Browsers, in which boxes are drawn, ignore Exif there.
    assert frame.size == (photo.width, photo.height) == (96, 64)
