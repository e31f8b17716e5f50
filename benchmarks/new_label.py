"""What it is worth that a training keeps the outputs for labels that it knows: `python -m benchmarks.new_label`.

The model of the demo learns two labels. A second training starts from its results, with a third label and the labels in
another order: once with the label map beside the checkpoint, by which the job finds the outputs of the two labels, and
once without it.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.accuracy import job
from tests import demo

STEPS, MORE_STEPS, EVERY = 300, 100, 20
NEW = "triangle"


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        first = train(folder / "first", draw(folder / "two", has_new=False), "none", STEPS)
        without = folder / "without"
        shutil.copytree(first, without)
        (without / "label_map.pbtxt").unlink()
        bucket = draw(folder / "three", has_new=True)
        rows = [
            curve(train(folder / start.name / "next", bucket, str(start), MORE_STEPS)) for start in (first, without)
        ]
    print("| mAP after steps |", " | ".join(rows[0]), "|\n|---|" + "---|" * len(rows[0]))
    for name, row in zip(("outputs of two labels kept", "all outputs random"), rows, strict=True):
        print(f"| {name} |", " | ".join(f"{float(value):.3f}" for value in row.values()), "|")


def draw(bucket: Path, *, has_new: bool) -> Path:
    """Draws the demo's bucket, without the boxes of the new label, or with its labels in the opposite order."""
    demo.draw_bucket(bucket)
    path = bucket / "_annotations.json"
    document = json.loads(path.read_text())
    labels = document["labels"]
    document["labels"] = labels[::-1] if has_new else [label for label in labels if label != NEW]
    if not has_new:
        photos = document["annotations"]
        for name, boxes in photos.items():
            photos[name] = [box for box in boxes if box.get("label") != NEW] or [{"label": "Negative"}]
    path.write_text(json.dumps(document))
    return bucket


def train(folder: Path, bucket: Path, start: str, steps: int) -> Path:
    """Trains the model of the demo; returns the folder of the results."""
    places = {"DATA_DIR": bucket, "WORK_DIR": folder / "work", "RESULT_DIR": folder / "results"}
    values = {"MODEL": "smoke", "CHECKPOINT": start, "NUM_STEPS": steps, "EVALUATE_EVERY": EVERY}
    job("publish", {**places, **values, "EXPORTS": "saved_model"})
    return folder / "results"


def curve(results: Path) -> dict[str, str]:
    """Returns mAP by the number of steps."""
    with (results / "metrics.csv").open(newline="") as file:
        return {row["step"]: row["mAP"] for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
