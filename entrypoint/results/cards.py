"""Photos with their boxes for the pages that a person looks at: the report and the page of `check`."""

import base64
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from entrypoint.data import examples, images
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.settings.schema import Settings
from entrypoint.system import parallel

THUMBNAIL = 480  # pixels, the longer side
# Okabe and Ito's colours (2008), which people with any colour vision can distinguish.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def template(name: str, **filters: Callable[[str], str]) -> jinja2.Template:
    """Returns the template of a page. A page of HTML has every value escaped except those that it marks as safe.

    Args:
        name: of the file beside this module.
        filters: functions that the template can apply to a text, beside `metric`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        # Markdown has other rules. Its template applies filters of its own.
        autoescape=name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["metric"] = lambda value: "-" if value is None else f"{value:.3f}"
    environment.filters.update(filters)
    return environment.get_template(name)


def read_photos(keys: set[str], settings: Settings) -> dict[str, bytes]:
    """Returns photos of the bucket as they are trained on, by their keys. Photos that cannot be read are left out."""

    def read(key: str) -> tuple[str, bytes | None]:
        try:
            return key, examples.read_photo(settings.data_dir, key).encoded
        except (images.UnusablePhotoError, OSError):
            return key, None

    found = parallel.map_in_order(read, sorted(keys), settings.workers)
    return {key: encoded for key, encoded in found if encoded is not None}


def is_readable(encoded: bytes) -> bool:
    """Returns whether Pillow decodes a photo. Records from elsewhere can hold photos that TensorFlow alone decodes."""
    try:
        with Image.open(io.BytesIO(encoded)) as photo:
            photo.load()
    except MemoryError:
        raise
    except Exception:
        # Pillow's decoders can raise almost any exception for a damaged file.
        return False
    return True


def photo_card(image: LabelledImage, dataset: Dataset, encoded: bytes) -> dict[str, Any]:
    """Returns a photo with its annotated boxes, in its own pixels."""
    with Image.open(io.BytesIO(encoded)) as photo:
        size = {"width": photo.width, "height": photo.height}
        source = thumbnail(photo)
    return {
        "key": image.key,
        "source": source,
        **size,
        "true": [rectangle(box, size, dataset) for box in image.boxes],
        "counts": Counter(box.label for box in image.boxes),
        "why": "",
    }


def rectangle(box: Box, size: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Returns a box in pixels of the upright photo, whose `width` and `height` are given, in its label's colour."""
    left, top, width, height = (round(side, 1) for side in box.to_coco(size["width"], size["height"]))
    return {"x": left, "y": top, "width": width, "height": height, "colour": colour_of(box.label, dataset)}


def colour_of(label: str, dataset: Dataset) -> str:
    """Returns the colour of a label, the same everywhere on the page."""
    return COLOURS[dataset.labels.index(label) % len(COLOURS)]


def series_of(label: str, dataset: Dataset) -> str:
    """Returns the colour of a label beside the photos: one of the style sheet, which depends on light or dark mode."""
    return f"var(--series-{dataset.labels.index(label) % len(COLOURS)})"


def thumbnail(photo: Image.Image, side: int = THUMBNAIL, quality: int = 80, kind: str = "JPEG") -> str:
    """Returns a small JPEG or WebP of a photo as a data URL; `side` is the longer side in pixels."""
    small = photo.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
