"""Where the time of a training goes, as a Markdown table: `python -m benchmarks.training`, 20 minutes.

The default model is trained on drawn photos from random weights, with 8 photos a step: the job's loop, upstream's, and
the backbone alone, in turns on one machine. Then the job's loop on photos of 12 megapixels, stored smaller, as the job
does by default, and as they are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import conversion, loops
from tests import demo

MODEL, BATCH, STEPS, TURNS = "ssd_mobilenet_v2_fpnlite_320x320", 8, 8, 2
LARGE_PHOTOS, LARGE_SIZE = 40, (4000, 3000)


def main(model: str = MODEL, steps: int = STEPS, turns: int = TURNS, large: tuple[int, int] = LARGE_SIZE) -> None:
    """Prints the table. A figure is the smallest of all turns; the large photos have one turn."""
    print("| what | seconds | of the job's |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo.draw_bucket(folder / "bucket")
        work = loops.prepare(folder / "job", folder / "bucket", model, BATCH)
        found: dict[str, list[dict[str, float]]] = {"job": [], "upstream": [], "backbone": []}
        for _ in range(turns):
            for kind, rows in found.items():
                rows.append(loops.run(kind, work, steps))
        job = least(found["job"], "step")
        tell("a step of the job", job, job)
        tell("a step of upstream's model_main_tf2", least(found["upstream"], "step"), job)
        tell("forward and backward through the backbone alone", least(found["backbone"], "step"), job)
        tell("the photos of a step without the model", least(found["job"], "input"), job)
        measure_large(folder, model, steps, large, job)
        tell("building and compiling the model, with its first step", least(found["job"], "first"))
        tell(
            "start of the job to the end of its first step, photos converted",
            min(start(work, model) for _ in range(turns)),
        )
        tell("a photo of the first evaluation in the training", least(found["job"], "evaluation"))
        tell("a photo of each later evaluation", least(found["job"], "later_evaluation"))


def measure_large(folder: Path, model: str, steps: int, size: tuple[int, int], job: float) -> None:
    """Tells the time of a step on large photos, stored smaller and as they are."""
    bucket = conversion.draw(folder / "large", LARGE_PHOTOS, size, LARGE_PHOTOS)
    for stored, words in (("auto", "stored smaller"), ("original", "stored as they are")):
        work = loops.prepare(folder / f"large-{stored}", bucket, model, BATCH, train_image_size=stored)
        seconds = loops.run("job", work, steps)["step"]
        tell(f"a step on photos of {size[0]} x {size[1]}, {words}", seconds, job)


def least(rows: list[dict[str, float]], name: str) -> float:
    """Returns the smallest of all figures of a name."""
    return min(row[name] for row in rows)


def tell(what: str, seconds: float, job: float | None = None) -> None:
    """Prints a row of the table."""
    print(f"| {what} | {seconds:.3f} | {f'{seconds / job:.2f}' if job else ''} |", flush=True)


def start(work: Path, model: str) -> float:
    """Returns the seconds from the start of a job whose photos are converted to the end of its first step."""
    words = ["train", "--data-dir", work.parent.parent / "bucket", "--work-dir", work, "--checkpoint", "none"]
    words += ["--result-dir", work.parent / "results", "--model", model, "--batch-size", BATCH, "--resume", "never"]
    began = time.perf_counter()
    command = [sys.executable, "-m", "entrypoint", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if "step = 1\n" in line:
                process.kill()
                return time.perf_counter() - began
    raise SystemExit("".join(lines[-20:]))


if __name__ == "__main__":
    main()
