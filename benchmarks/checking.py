"""Measures `check` on a bucket of many folders with photos of equal names: `python -m benchmarks.checking`.

CVAT exports tasks like this: job_N/images/default/frame_000000.jpg. If the environment variable BASELINE names a
commit, `check` of that commit takes turns with that of today. Times are the best of REPEATS runs. The mount waits 20 ms
at every open.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.conversion import REPEATS, draw_photo, extract, mounted
from tests.conftest import ROOT, environment

FOLDERS, PHOTOS_OF_FOLDER, SIZE = 80, 100, (160, 120)
FOLDERS_OF_MOUNT = 10


def main() -> None:
    """Prints the seconds for half of the folders, for all of them, and for some of them on a slow mount."""
    baseline = os.environ.get("BASELINE")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        codes = {"now": ROOT} | ({baseline: extract(baseline, folder / "before")} if baseline else {})
        print(f"photos of {SIZE[0]} x {SIZE[1]} in folders of {PHOTOS_OF_FOLDER}, {os.cpu_count()} cores")
        for folders in (FOLDERS // 2, FOLDERS):
            report(f"{folders * PHOTOS_OF_FOLDER} photos", draw(folder / f"{folders}", folders), codes)
        with mounted(draw(folder / "source", FOLDERS_OF_MOUNT), folder / "mount") as mount:
            report(f"{FOLDERS_OF_MOUNT * PHOTOS_OF_FOLDER} photos on the mount", mount, codes)


def report(what: str, bucket: Path, codes: dict[str, Path]) -> None:
    """Prints the seconds of `check` on a bucket, by the name of the code."""
    turns = [{name: seconds(bucket, code) for name, code in codes.items()} for _ in range(REPEATS)]
    best = {name: min(turn[name] for turn in turns) for name in codes}
    print(f"  {what:26}" + "    ".join(f"{name}: {value:.2f} s" for name, value in best.items()), flush=True)


def seconds(bucket: Path, code: Path) -> float:
    """Returns the seconds of the command, with the start of Python."""
    with tempfile.TemporaryDirectory() as scratch:
        env = environment(DATA_DIR=bucket, WORK_DIR=f"{scratch}/work", RESULT_DIR=f"{scratch}/results", PYTHONPATH=code)
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "entrypoint", "check"], cwd=code, env=env, capture_output=True, check=True
        )
        return time.perf_counter() - began


def draw(root: Path, folders: int) -> Path:
    """Creates a bucket as CVAT exports it, a COCO document for each folder of photos, and returns it."""
    photos = [draw_photo(SIZE, seed) for seed in range(PHOTOS_OF_FOLDER)]
    for number in range(folders):
        draw_folder(root / f"job_{number}", photos, number)
    return root


def draw_folder(root: Path, photos: list[Image.Image], number: int) -> None:
    """Creates one folder of photos with their COCO document."""
    (root / "images" / "default").mkdir(parents=True)
    (root / "annotations").mkdir()
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for index, photo in enumerate(photos):
        name = f"frame_{index:06d}.jpg"
        # A comment makes the bytes of the photo those of no other folder.
        photo.save(root / "images" / "default" / name, quality=80, comment=f"{number}".encode())
        images.append({"id": index + 1, "width": SIZE[0], "height": SIZE[1], "file_name": name})
        for label in (1, 2):
            box = [10 * label, 5 + index % 50, 40 + number % 30, 30]
            boxes.append({"id": len(boxes) + 1, "image_id": index + 1, "category_id": label, "bbox": box})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    document = {"images": images, "annotations": boxes, "categories": categories}
    (root / "annotations" / "instances_default.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main()
