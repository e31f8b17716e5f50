"""Runs an exported model in its runtime: `python -m entrypoint.results.export.running FORMAT FOLDER PHOTOS FILE`.

A process of its own: a runtime can abort, and some cannot be loaded beside TensorFlow. PHOTOS is a folder of files that
`write_photo` wrote. FILE gets, for each of them in the order of their names, the arrays that `read` returns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from entrypoint.engines.engine import ClientPhoto
from entrypoint.results.export import converter, formats
from entrypoint.results.export.export_format import ExportFormat, Found

NAME = "entrypoint.results.export.running"


def write_photo(photo: ClientPhoto, path: Path) -> None:
    """Writes a photo for the process."""
    np.savez(path, pixels=photo.pixels, resized=photo.resized, share=photo.share)


def read_photo(path: Path) -> ClientPhoto:
    """Reads a photo in the process."""
    with np.load(path) as arrays:
        height, width = map(float, arrays["share"])
        return ClientPhoto(arrays["pixels"], arrays["resized"], (height, width))


def run(each: ExportFormat, folder: Path, photos: Path, target: Path) -> None:
    """Runs a format's model in its own process.

    Raises:
        JobError: the runtime failed, or its process ended.
    """
    converter.run(NAME, f"the runtime of {each.name}", each.name, folder, photos, target)


def detect_all(name: str, folder: str, photos: str, target: str) -> None:
    """Runs the model on every photo in this process."""
    each = formats.format_of(name)
    if each.open is None:
        raise ValueError(f"{name} has no runtime here")
    detect = each.open(Path(folder))
    paths = sorted(Path(photos).iterdir())
    # The first call of a runtime allocates what the others use again.
    detect(read_photo(paths[0]))
    arrays: dict[str, np.ndarray] = {}
    for index, path in enumerate(paths):
        photo = read_photo(path)
        began = time.perf_counter()
        boxes, classes, scores = detect(photo)
        seconds = time.perf_counter() - began
        values = {"boxes": boxes, "classes": classes, "scores": scores, "seconds": seconds}
        arrays |= {f"{index} {key}": np.asarray(value) for key, value in values.items()}
    with Path(target).open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read(target: Path) -> Iterator[tuple[Found, float]]:
    """Yields the detections on each photo and the seconds that they took."""
    with np.load(target) as arrays:
        for index in range(len(arrays.files) // 4):
            boxes, classes, scores, seconds = (
                arrays[f"{index} {key}"] for key in ("boxes", "classes", "scores", "seconds")
            )
            yield (boxes, classes, scores), float(seconds)


if __name__ == "__main__":
    detect_all(*sys.argv[1:])
