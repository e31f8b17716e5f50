"""A conversion by one and by two Dask workers on a slow mount, as a Markdown table: `python -m benchmarks.workers`.

Every open of a photo waits 20 ms. A process reads one photo at a time, so that the wait is what is measured: two
machines have twice the cores, and two processes on this one have not. The job's own step stands beside them, with one
photo at a time and with its default.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.conversion import SECONDS_PER_OPEN, draw, mounted
from tests.conftest import run_job, wait_until
from tests.dask_cluster import scheduler, worker, workers_of

PHOTOS, SIZE, DISTINCT = 1000, (320, 240), 50


def main(photos: int = PHOTOS) -> None:
    """Prints a row for each way to convert the same photos."""
    print(f"{photos} photos, {SECONDS_PER_OPEN * 1000:.0f} ms at every open\n\n| conversion | seconds |\n|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder / "bucket", photos, SIZE, DISTINCT)
        with mounted(folder / "bucket", folder / "mount") as mount:
            for count in (1, 2):
                tell(f"{count} Dask workers, one photo at a time each", by_workers(mount, folder, count))
            tell("the job's step, one photo at a time", by_step(mount, folder, WORKERS=1))
            tell("the job's step", by_step(mount, folder))


def tell(what: str, seconds: float) -> None:
    """Prints a row of the table."""
    print(f"| {what} | {seconds:.1f} |", flush=True)


def by_workers(bucket: Path, folder: Path, count: int) -> float:
    """Returns the seconds of a conversion by so many workers, the start of the cluster not counted."""
    with scheduler() as address, ExitStack() as stack:
        for index in range(count):
            stack.enter_context(worker(address, folder / f"worker {index}"))
        wait_until(lambda: workers_of(address) == count, "the workers do not come")
        return timed("convert", folder, "--scheduler", address, DATA_DIR=bucket, WORKERS=1)


def by_step(bucket: Path, folder: Path, **settings: Any) -> float:
    """Returns the seconds of the job up to its step `tf_record`."""
    return timed("tf_record", folder, DATA_DIR=bucket, WORK_DIR=folder / "work", CHECKPOINT="none", **settings)


def timed(command: str, folder: Path, *words: str, **settings: Any) -> float:
    """Returns the seconds of a command of the job, its start included."""
    records = {"RECORDS_DIR": folder / "records"} if command == "convert" else {}
    began = time.perf_counter()
    result = run_job(command, *words, RESULT_DIR=folder / "results", MODEL="smoke", **records, **settings)
    seconds = time.perf_counter() - began
    if result.returncode:
        sys.exit(result.stdout)
    for name in ("records", "work"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return seconds


if __name__ == "__main__":
    main()
