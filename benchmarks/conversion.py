"""Measures the conversion of a bucket: `python -m benchmarks.conversion [speed | memory | epochs | before ...]`.

speed   compares the job's step with a plain converter, which reads, opens and writes one photo after another as the
        tutorials do, and with `cat` of the same files: on local disk, and on a mount that waits 20 ms at every open
memory  peak memory of the step with 1,000, 10,000 and 100,000 photos
epochs  seconds per epoch of the input pipeline with photos of 12 megapixels, stored smaller and at their own size
before  compares the job's step with that of an older commit, which the environment variable BASELINE names

Without a name, all but `before` run.

The runs of a comparison follow each other on the same machine. Times of `speed` are the best of REPEATS runs, times of
`epochs` the average of REPEATS epochs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import ROOT, environment, run_measured

REPEATS = 3
SECONDS_PER_OPEN = 0.02
COUNTS = (1_000, 10_000, 100_000)
# The page cache holds all of these photos.
SPEED_PHOTOS, SPEED_SIZE = 600, (1024, 768)
EPOCH_PHOTOS, EPOCH_SIZE = 32, (4000, 3000)


def main(names: list[str]) -> None:
    """Runs the parts with the given names, or all parts, and prints their results."""
    parts: dict[str, Callable[[Path], None]] = {
        "speed": measure_speed,
        "memory": measure_memory,
        "epochs": measure_epochs,
        "before": measure_before,
    }
    for name in names or [name for name in parts if name != "before"]:
        with tempfile.TemporaryDirectory() as scratch:
            parts[name](Path(scratch))


def draw(folder: Path, photos: int, size: tuple[int, int], distinct: int) -> Path:
    """Creates a bucket of noisy photos and returns it. `distinct` photos are drawn, the others are links to them."""
    folder.mkdir(parents=True)
    annotations = {}
    for index in range(photos):
        name = f"{index:06d}.jpg"
        if index < distinct:
            draw_photo(size, index).save(folder / name, quality=90)
        else:
            (folder / name).hardlink_to(folder / f"{index % distinct:06d}.jpg")
        annotations[name] = [{"x": 0.25, "y": 0.25, "x2": 0.75, "y2": 0.5, "label": f"label {index % 3}"}]
    document = {"version": "1.0", "type": "localization", "labels": [], "annotations": annotations}
    (folder / "_annotations.json").write_text(json.dumps(document))
    return folder


def draw_photo(size: tuple[int, int], seed: int) -> Image.Image:
    """Returns an image of coarse and fine noise, which compresses about as well as a photo."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def measure_speed(folder: Path) -> None:
    """Prints the seconds and their ratios on local disk and on the slow mount."""
    bucket = draw(folder / "bucket", SPEED_PHOTOS, SPEED_SIZE, SPEED_PHOTOS)
    size = sum(path.stat().st_size for path in bucket.iterdir())
    print(f"{SPEED_PHOTOS} photos of {SPEED_SIZE[0]} x {SPEED_SIZE[1]}, {size / 1e6:.0f} MB, {os.cpu_count()} cores")
    local = {name: best(run, bucket, folder) for name, run in RUNS.items()}
    with mounted(bucket, folder / "mount") as mount:
        slow = {name: best(run, mount, folder) for name, run in RUNS.items()}
    for name in RUNS:
        print(f"  {name:24} local {local[name]:6.2f} s    mount {slow[name]:6.2f} s")
    step, plain = "the job's step", "plain converter"
    # Runs of the same work differ by about this much, so that shorter waits cannot be measured.
    unseen = 0.1 * local[step]
    waits = {name: max(slow[name] - local[name], unseen) for name in RUNS}
    print(f"  local: {local[step] / local[plain]:.1f} times the plain converter's time, but that verifies nothing;")
    print(f"         {local[step] / local['cat']:.1f} times `cat`'s")
    print(f"  mount: {slow[plain] / slow[step]:.1f} times as fast as the plain converter;")
    less = waits[plain] / waits[step]
    print(f"         at least {less:.0f} times less waiting: {waits[plain]:.1f} s and {waits[step]:.2f} s")


def measure_before(folder: Path) -> None:
    """Prints the seconds of the job's step before and after a change, the runs taking turns."""
    bucket = draw(folder / "bucket", SPEED_PHOTOS, SPEED_SIZE, SPEED_PHOTOS)
    baseline = os.environ["BASELINE"]
    code = extract(baseline, folder / "before")
    runs = [(run_step(bucket, folder, code), run_step(bucket, folder)) for _ in range(REPEATS)]
    before, after = (min(each) for each in zip(*runs, strict=True))
    print(f"{SPEED_PHOTOS} photos of {SPEED_SIZE[0]} x {SPEED_SIZE[1]}, {os.cpu_count()} cores")
    print(f"  {baseline}: {before:.2f} s    now: {after:.2f} s    {after / before:.2f} of the time")


def extract(commit: str, folder: Path) -> Path:
    """Writes the files of a commit into a new folder and returns it."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


def best(run: Callable[[Path, Path], float], bucket: Path, folder: Path) -> float:
    """Returns the seconds of the fastest of REPEATS runs."""
    return min(run(bucket, folder) for _ in range(REPEATS))


def run_cat(bucket: Path, _: Path) -> float:
    """Returns the seconds that `cat` needs to read all files one after another."""
    began = time.perf_counter()
    files = sorted(str(path) for path in bucket.glob("*.jpg"))
    with Path(os.devnull).open("wb") as sink:
        subprocess.run(["cat", *files], stdout=sink, check=True)
    return time.perf_counter() - began


def run_plain(bucket: Path, folder: Path) -> float:
    """Returns the seconds of the plain converter, without the start of TensorFlow."""
    return run_timed(["-m", "benchmarks.conversion", "plain", str(bucket), str(folder / "plain.tfrecord")])


def run_step(bucket: Path, folder: Path, code: Path = ROOT) -> float:
    """Returns the seconds of the job's step in that folder of the code, without the start of TensorFlow.

    The step decodes and verifies every photo and stores it at its own size.
    """
    settings: dict[str, Any] = {
        "DATA_DIR": bucket,
        "WORK_DIR": folder / "work",
        "RESULT_DIR": folder / "results",
        "PYTHONPATH": code,
    }
    return run_timed(["-m", "benchmarks.conversion", "step"], code, TRAIN_IMAGE_SIZE="original", **settings)


RUNS = {"cat": run_cat, "plain converter": run_plain, "the job's step": run_step}


def run_timed(arguments: list[str], code: Path = ROOT, **settings: Any) -> float:
    """Runs a Python process in a folder of the code and returns the number in the last line that it prints."""
    result = subprocess.run(
        [sys.executable, *arguments], env=environment(**settings), cwd=code, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(result.stdout + result.stderr)
    return float(result.stdout.splitlines()[-1])


def convert_plainly(bucket: str, target: str) -> None:
    """Reads one photo after another, opens it for its size and writes its record; prints the seconds."""
    import tensorflow as tf

    def feature(kind: str, *values: Any) -> Any:
        lists = {"bytes": tf.train.BytesList, "int64": tf.train.Int64List, "float": tf.train.FloatList}
        return tf.train.Feature(**{f"{kind}_list": lists[kind](value=values)})

    began = time.perf_counter()
    annotations = json.loads(Path(bucket, "_annotations.json").read_text())["annotations"]
    labels = {
        label: index for index, label in enumerate(sorted({b["label"] for bs in annotations.values() for b in bs}), 1)
    }
    with tf.io.TFRecordWriter(target) as writer:
        for name, boxes in annotations.items():
            content = Path(bucket, name).read_bytes()
            with Image.open(Path(bucket, name)) as image:
                width, height = image.size
            features = {
                "image/height": feature("int64", height),
                "image/width": feature("int64", width),
                "image/filename": feature("bytes", name.encode()),
                "image/source_id": feature("bytes", name.encode()),
                "image/encoded": feature("bytes", content),
                "image/format": feature("bytes", b"jpeg"),
                "image/object/bbox/xmin": feature("float", *(box["x"] for box in boxes)),
                "image/object/bbox/xmax": feature("float", *(box["x2"] for box in boxes)),
                "image/object/bbox/ymin": feature("float", *(box["y"] for box in boxes)),
                "image/object/bbox/ymax": feature("float", *(box["y2"] for box in boxes)),
                "image/object/class/text": feature("bytes", *(box["label"].encode() for box in boxes)),
                "image/object/class/label": feature("int64", *(labels[box["label"]] for box in boxes)),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    print(time.perf_counter() - began)


def convert_by_steps() -> None:
    """Runs the job's steps from the bucket to the records; prints their seconds."""
    import tensorflow  # noqa: F401 - imported first, so that its start is not measured

    from entrypoint import workspace
    from entrypoint.data import annotations, tf_record
    from entrypoint.settings import command_line

    work = workspace.Workspace(command_line.load([]).settings)
    began = time.perf_counter()
    annotations.run(work)
    tf_record.run(work)
    print(time.perf_counter() - began)


@contextmanager
def mounted(root: Path, place: Path) -> Iterator[Path]:
    """Mounts a folder as a slow mount and yields the mount."""
    place.mkdir()
    command = [sys.executable, "-m", "benchmarks.slow_mount", str(root), str(place), str(SECONDS_PER_OPEN)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        while not place.is_mount():
            time.sleep(0.1)
            if process.poll() is not None:
                sys.exit("the mount process ended: install FUSE (fuse3 on Debian)")
        yield place
    finally:
        subprocess.run(["fusermount3", "-u", str(place)], check=True)
        process.wait()


def measure_memory(folder: Path) -> None:
    """Prints the peak memory of the steps up to the records, for each number of photos."""
    print("peak memory of the conversion, photos of 320 x 240:")
    for count in COUNTS:
        place = folder / str(count)
        bucket = draw(place / "bucket", count, (320, 240), 50)
        settings: dict[str, Any] = {"DATA_DIR": bucket, "WORK_DIR": place / "work", "RESULT_DIR": place / "results"}
        command = [sys.executable, "-m", "benchmarks.conversion", "step"]
        status, output, peak = run_measured(command, environment(**settings))
        if status:
            sys.exit(output)
        seconds = float(output.splitlines()[-1])
        print(
            f"  {count:7,} photos: {peak:5.2f} GB, {seconds:6.1f} s, {1000 * seconds / count:.2f} ms each", flush=True
        )


def measure_epochs(folder: Path) -> None:
    """Prints the seconds per epoch of the training's input, for photos stored smaller and at their own size."""
    bucket = draw(folder / "bucket", EPOCH_PHOTOS, EPOCH_SIZE, 8)
    print(f"{EPOCH_PHOTOS} photos of 12 megapixels, the default model's input pipeline, {os.cpu_count()} cores:")
    seconds = {}
    for size in ("auto", "original"):
        place = folder / size
        settings: dict[str, Any] = {"DATA_DIR": bucket, "WORK_DIR": place / "work", "RESULT_DIR": place / "results"}
        given = {**settings, "VALIDATION_FRACTION": 0, "CHECKPOINT": "none", "BATCH_SIZE": 8, "TRAIN_IMAGE_SIZE": size}
        seconds[size] = run_timed(["-m", "benchmarks.conversion", "epoch"], **given)
        stored = sum(path.stat().st_size for path in (place / "work" / "records").glob("*.tfrecord"))
        print(f"  TRAIN_IMAGE_SIZE={size:9} {seconds[size]:6.2f} s per epoch, records of {stored / 1e6:.0f} MB")
    print(f"  stored smaller: {seconds['original'] / seconds['auto']:.1f} times as fast")


def read_epochs() -> None:
    """Writes the records and reads them as the training does; prints the average seconds of the later epochs."""
    from entrypoint import job, workspace
    from entrypoint.engines import loading
    from entrypoint.engines.tf2 import model as models
    from entrypoint.engines.tf2 import trainer as trainers
    from entrypoint.settings import command_line, environment

    values = command_line.load([]).settings
    work = workspace.Workspace(values)
    job.run(values, "pipeline")
    environment.prepare(values)
    import tensorflow as tf

    _, config = loading.load(work)
    model = models.build(config, is_training=True)
    batches = iter(trainers.make_dataset(config, model, tf.distribute.get_strategy()))
    steps = EPOCH_PHOTOS // config.train_config.batch_size
    for _ in range(steps):
        next(batches)
    began = time.perf_counter()
    for _ in range(REPEATS * steps):
        next(batches)
    print((time.perf_counter() - began) / REPEATS)


INSIDE: dict[str, Callable[..., None]] = {"plain": convert_plainly, "step": convert_by_steps, "epoch": read_epochs}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in INSIDE:
        INSIDE[sys.argv[1]](*sys.argv[2:])
    else:
        main(sys.argv[1:])
