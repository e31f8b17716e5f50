"""A bucket with fewer photos to train on, and the same for validation: `python -m benchmarks.subset BUCKET PHOTOS OUT`.

The split is that of the job. It is written as folders `train` and `valid` with annotations in COCO's format, which the
job keeps, so that trainings on few and on many photos are evaluated on the same photos.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entrypoint.data import annotations, images
from entrypoint.data.annotations import Dataset, LabelledImage
from entrypoint.data.split import split
from entrypoint.settings.schema import Settings

FOLDERS = {"train": "train", "validation": "valid"}


def make(bucket: Path, photos: int, out: Path) -> dict[str, int]:
    """Writes the bucket with copies of the photos; returns how many photos each split has.

    Raises:
        ValueError: the bucket has fewer photos to train on.
    """
    dataset, parts = parts_of(bucket)
    if len(parts["train"]) < photos:
        raise ValueError(f"{bucket} has {len(parts['train'])} photos to train on, fewer than {photos}")
    chosen = {"train": parts["train"][:photos], "validation": parts["validation"]}
    for name, part in chosen.items():
        write(part, dataset.labels, bucket, out / FOLDERS[name])
    return {name: len(part) for name, part in chosen.items()}


def parts_of(bucket: Path) -> tuple[Dataset, dict[str, list[LabelledImage]]]:
    """Returns the data set of a bucket, and its photos for training and for validation, as the job splits them."""
    values: dict[str, Any] = {"data_dir": bucket}
    settings = Settings(**values)
    dataset, _ = annotations.read_with_origin(settings, settings.result_dir)
    return dataset, split(dataset.images, settings.validation_fraction, settings.seed)


def write(photos: Sequence[LabelledImage], labels: Sequence[str], bucket: Path, folder: Path) -> None:
    """Writes a folder of photos with `_annotations.coco.json`."""
    folder.mkdir(parents=True)
    ids = {label: index for index, label in enumerate(labels, start=1)}
    rows, boxes = [], []
    for index, image in enumerate(photos):
        name = file_of(image)
        shutil.copy(bucket / image.key, folder / name)
        width, height = size_of(image, bucket)
        rows.append({"id": index, "file_name": name, "width": width, "height": height})
        boxes += [
            {"image_id": index, "category_id": ids[box.label], "bbox": box.to_coco(width, height)}
            for box in image.boxes
        ]
    document = {
        "images": rows,
        "annotations": [{**box, "id": number} for number, box in enumerate(boxes)],
        "categories": [{"id": number, "name": label} for label, number in ids.items()],
    }
    (folder / "_annotations.coco.json").write_text(json.dumps(document))


def file_of(image: LabelledImage) -> str:
    """Returns the name of a photo's file in one folder for all."""
    return image.key.replace("/", "-")


def size_of(image: LabelledImage, bucket: Path) -> tuple[int, int]:
    """Returns width and height of the upright photo in pixels."""
    frame = images.read_frame((bucket / image.key).read_bytes())
    if frame is None:
        raise ValueError(f"{bucket / image.key} is not a photo")
    return frame.size


def main(arguments: Sequence[str]) -> int:
    """Writes the bucket that the command line names."""
    bucket, photos, out = arguments
    print(make(Path(bucket), int(photos), Path(out)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
