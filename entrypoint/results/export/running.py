"""Runs an exported model in its runtime: `python -m entrypoint.results.export.running FORMAT FOLDER PHOTOS FILE`.

A process of its own: a runtime can abort, and some cannot be loaded beside TensorFlow. PHOTOS is a folder of files that
`write_photo` wrote. FILE gets, for each of them in the order of their names, what `read` yields.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entrypoint.engines.engine import ClientPhoto
from entrypoint.results.export import converter, formats
from entrypoint.results.export.export_format import ExportFormat, Found

NAME = "entrypoint.results.export.running"
PARTS = ("boxes", "classes", "scores", "seconds")


def write_photo(photo: ClientPhoto, path: Path) -> None:
    """Writes a photo for the process."""
    np.savez(path, pixels=photo.pixels, resized=photo.resized, share=photo.share)


def read_photo(path: Path) -> ClientPhoto:
    """Reads a photo in the process."""
    with np.load(path) as arrays:
        height, width = map(float, arrays["share"])
        return ClientPhoto(arrays["pixels"], arrays["resized"], (height, width))


def run(each: ExportFormat, folder: Path, photos: Path, generation: str) -> list[tuple[Found, float]]:
    """Returns what a format's model finds on each photo, and the seconds that it took.

    A SavedModel of the TF2 engine runs in this process, in which TensorFlow is there already, and in the same mode.

    Raises:
        JobError: the runtime failed, or its process ended.
    """
    if each.is_of_tensorflow and generation == "tf2":
        return list(detect_all(each, folder, photos))
    with tempfile.TemporaryDirectory(dir=photos.parent) as scratch:
        target = Path(scratch) / "found.npz"
        converter.run(NAME, f"the runtime of {each.name}", each.name, folder, photos, target)
        return list(read(target))


def detect_all(each: ExportFormat, folder: Path, photos: Path) -> Iterator[tuple[Found, float]]:
    """Yields what the model finds on each photo, and the seconds that it took, in this process."""
    if each.open is None:
        raise ValueError(f"{each.name} has no runtime here")
    detect = each.open(folder)
    paths = sorted(photos.iterdir())
    # The first call of a runtime allocates what the others use again.
    detect(read_photo(paths[0]))
    for path in paths:
        photo = read_photo(path)
        began = time.perf_counter()
        found = detect(photo)
        yield found, time.perf_counter() - began


def main(name: str, folder: str, photos: str, target: str) -> None:
    """Writes what the model finds."""
    arrays: dict[str, NDArray[Any]] = {}
    for index, (found, seconds) in enumerate(detect_all(formats.format_of(name), Path(folder), Path(photos))):
        values = zip(PARTS, (*found, seconds), strict=True)
        arrays |= {f"{index} {part}": np.asarray(value) for part, value in values}
    with Path(target).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read(target: Path) -> Iterator[tuple[Found, float]]:
    """Yields what `main` wrote."""
    with np.load(target) as arrays:
        for index in range(len(arrays.files) // len(PARTS)):
            boxes, classes, scores, seconds = (arrays[f"{index} {part}"] for part in PARTS)
            yield (boxes, classes, scores), float(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
