"""Photos per second on GPUs, as a Markdown table: `python -m benchmarks.gpu [MODEL ...]`, ten minutes at most.

For each model: upstream's loop in float32, the job's in float32 and in bfloat16, with the batch size that a job has by
default, on photos that are drawn. The input pipeline's time is that which the photos of a step take without the model,
as a share of the step's time: from 100% on, the GPU waits for photos. It needs no network. What ten minutes do not
suffice for is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import loops
from tests import demo

MODELS = ("ssd_mobilenet_v2_fpnlite_320x320", "ssd_resnet50_v1_fpn_640x640", "faster_rcnn_resnet101_v1_640x640")
LOOPS = (("upstream", "float32"), ("job", "float32"), ("job", "bfloat16"))
SECONDS = 600
PHOTOS = 256
# Prints the names of the devices that TensorFlow trains on.
DEVICES = """
import json, tensorflow as tf
found = tf.config.list_physical_devices("GPU")
print(json.dumps([tf.config.experimental.get_device_details(each).get("device_name", each.name) for each in found]))
"""


def main(
    models: tuple[str, ...], steps: int, photos: int = PHOTOS, batch: int | None = None, seconds: float = SECONDS
) -> None:
    """Prints the table, a row for each model."""
    end = time.monotonic() + seconds
    print(f"{describe_devices()}\n")
    print("| model | batch | upstream, float32 | the job, float32 | the job, bfloat16 | input pipeline |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        demo.draw_bucket(Path(folder) / "bucket", photos=photos)
        for model in models:
            print(measure_model(Path(folder), model, batch, steps, end), flush=True)


def describe_devices() -> str:
    """Returns the names of the GPUs, or that there is none."""
    result = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, check=True)
    return ", ".join(json.loads(result.stdout.splitlines()[-1])) or "no GPU: these are the figures of the CPU"


def measure_model(folder: Path, model: str, batch: int | None, steps: int, end: float) -> str:
    """Returns a model's row."""
    try:
        work = loops.prepare(folder / model, folder / "bucket", model, batch, limit=left(end))
    except (subprocess.SubprocessError, OutOfTimeError) as error:
        return row(model, 0, [reason(error)] * len(LOOPS))
    return row(model, loops.batch_of(work), [measure(kind, work, steps, precision, end) for kind, precision in LOOPS])


def row(model: str, batch: int, found: list[dict[str, float] | str]) -> str:
    """Returns a model's row: photos per second of each loop, and how many times as fast as upstream's it is."""
    first = found[0]
    cells = [each if isinstance(each, str) else f"{batch / each['step']:.1f} photos/s" for each in found]
    for index, each in enumerate(found[1:], start=1):
        if isinstance(first, dict) and isinstance(each, dict):
            cells[index] += f" ({first['step'] / each['step']:.2f} times)"
    waits = [f"{each['input'] / each['step']:.0%}" for each in found if isinstance(each, dict) and "input" in each]
    return f"| {model} | {batch or '-'} | {' | '.join(cells)} | {', '.join(waits) or '-'} |"


def measure(kind: str, work: Path, steps: int, precision: str, end: float) -> dict[str, float] | str:
    """Returns what a loop took, or the reason why there is no figure."""
    try:
        return loops.run(kind, work, steps, precision, limit=left(end))
    except (subprocess.SubprocessError, OutOfTimeError) as error:
        return reason(error)


class OutOfTimeError(Exception):
    """The time of the benchmark is over."""


def left(end: float) -> float:
    """Returns the seconds that are left; raises OutOfTimeError if there are none."""
    if end <= time.monotonic():
        raise OutOfTimeError
    return end - time.monotonic()


def reason(error: Exception) -> str:
    """Returns why there is no figure, in a form that a table can hold."""
    if not isinstance(error, subprocess.CalledProcessError):
        return "no time left"
    lines = [line for line in (error.stderr or error.stdout or "").splitlines() if line.strip()]
    # The last line of a job that has failed is only the mark of that.
    told = [line for line in lines if "CACLI-TRAINING" not in line]
    return f"failed: {told[-1][-80:] if told else error.returncode}".replace("|", "/")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or MODELS, steps=20)
