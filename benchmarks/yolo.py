"""Trains YOLO11n from random weights for a time, and writes what it finds, for benchmarks/yardstick.py.

It runs in an environment of its own that has ultralytics: PYTHON benchmarks/yolo.py DATA.yaml MINUTES SEED OUT.json.
The hyperparameters are those of ultralytics.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

SIZE, BATCH = 320, 8
# As many detections of a photo, with as low scores, as the job keeps.
MOST, LEAST_SCORE = 100, 1e-3


def main(data: str, minutes: str, seed: str, out: str) -> None:
    """Writes file name -> [[label, score, left, top, right, bottom], ...], in pixels, for the validation photos."""
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as folder:
        model = YOLO("yolo11n.yaml")
        # `time` is in hours, and decides instead of the number of epochs. Mixed precision and plots download files.
        model.train(
            data=data,
            time=float(minutes) / 60,
            imgsz=SIZE,
            batch=BATCH,
            seed=int(seed),
            device="cpu",
            pretrained=False,
            amp=False,
            plots=False,
            project=folder,
            name="run",
        )
        best = YOLO(Path(folder) / "run" / "weights" / "best.pt")
        photos = sorted((Path(data).parent / "images" / "validation").iterdir())
        found = {}
        for photo in photos:
            (result,) = best.predict(photo, imgsz=SIZE, conf=LEAST_SCORE, max_det=MOST, device="cpu", verbose=False)
            rows = zip(result.boxes.cls.tolist(), result.boxes.conf.tolist(), result.boxes.xyxy.tolist(), strict=True)
            found[photo.name] = [[int(label), score, *corners] for label, score, corners in rows]
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
