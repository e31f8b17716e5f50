"""The job and YOLO11n from random weights, for the same minutes: `python -m benchmarks.yardstick --help`.

Both train on the same photos of a bucket, one after the other, on the same cores. The job's minutes are those of the
whole job with its evaluation; YOLO's are those of its training alone. COCO's metrics of both are computed by the job.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks import accuracy, subset
from benchmarks.accuracy import Run
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.engines.engine import Detections
from entrypoint.training import coco

HEAD = "| minutes | seed | model | mAP | mAP@0.5 |\n|---|---|---|---|---|"
PROGRAM = Path(__file__).with_name("yolo.py")


def main(arguments: Sequence[str]) -> int:
    """Makes the trainings that are missing and prints the table."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [HEAD]
    for minutes in options.minutes:
        for seed in range(options.seeds):
            # A job with a pipeline.config of its own would not fit the anchors, as one with MODEL=scratch does.
            run = Run("scratch", "anchors", str(options.bucket), seed, "none", 100_000, 8, None, minutes)
            accuracy.records_of(run, options.out)
            job = accuracy.obtain(run, options.out).metrics
            yolo = measure_yolo(options.bucket, minutes, seed, options.python, options.out)
            for name, metrics in (("MODEL=scratch", job), ("YOLO11n", yolo)):
                rows.append(f"| {minutes:g} | {seed} | {name} | {metrics['mAP']:.3f} | {metrics['mAP@0.5']:.3f} |")
                print(rows[-1], file=sys.stderr, flush=True)
    print("\n".join(rows))
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.yardstick", description=__doc__)
    parser.add_argument("bucket", type=Path, help="folder with photos and annotations")
    parser.add_argument("--python", required=True, help="interpreter of an environment that has ultralytics")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 12.0], help="default: 5 and 12")
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings of each kind")
    parser.add_argument("--out", type=Path, default=Path("accuracy"), help="folder of what was found")
    return parser.parse_args(arguments)


def measure_yolo(bucket: Path, minutes: float, seed: int, python: str, out: Path) -> dict[str, float | None]:
    """Returns COCO's metrics of YOLO11n; it is trained if its detections are not there."""
    dataset, parts = subset.parts_of(bucket)
    folder = (out / "yolo" / bucket.name).resolve()
    if not (folder / "data.yaml").exists():
        write(parts, dataset.labels, bucket, folder)
    found = folder / f"{minutes:g}-{seed}.json"
    if not found.exists():
        command = [python, str(PROGRAM), str(folder / "data.yaml"), str(minutes), str(seed), str(found)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return metrics_of(json.loads(found.read_text()), dataset, parts["validation"], bucket)


def write(parts: dict[str, list[LabelledImage]], labels: Sequence[str], bucket: Path, folder: Path) -> None:
    """Writes photos, which are turned upright, and boxes in YOLO's format: label, centre and size as fractions."""
    for name, images in parts.items():
        for kind in ("images", "labels"):
            (folder / kind / name).mkdir(parents=True)
        for image in images:
            with Image.open(bucket / image.key) as photo:
                ImageOps.exif_transpose(photo).convert("RGB").save(
                    folder / "images" / name / file_of(image), quality=95
                )
            lines = []
            for box in image.boxes:
                left, top, width, height = box.to_coco(1, 1)
                lines.append(f"{labels.index(box.label)} {left + width / 2} {top + height / 2} {width} {height}\n")
            (folder / "labels" / name / file_of(image)).with_suffix(".txt").write_text("".join(lines))
    document = {
        "path": str(folder),
        "train": "images/train",
        "val": "images/validation",
        "names": dict(enumerate(labels)),
    }
    (folder / "data.yaml").write_text(json.dumps(document))


def file_of(image: LabelledImage) -> str:
    """Returns the file name of a photo."""
    return Path(subset.file_of(image)).with_suffix(".jpg").name


def metrics_of(
    found: dict[str, list[Any]], dataset: Dataset, photos: Sequence[LabelledImage], bucket: Path
) -> dict[str, float | None]:
    """Returns COCO's metrics of detections by file name, as the job computes them."""
    detections = []
    for image in photos:
        width, height = subset.size_of(image, bucket)
        rows = np.array(found[file_of(image)], np.float64).reshape(-1, 6)
        corners = rows[:, [3, 2, 5, 4]] / [height, width, height, width]
        detections.append(
            Detections(
                image.key, height, width, corners.astype(np.float32), rows[:, 0].astype(np.int64) + 1, rows[:, 1]
            )
        )
    summary = coco.measure(dataset, detections, step=0).summary
    return {"mAP": summary.map, "mAP@0.5": summary.map50}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
