"""A job that is killed again and again, against one that is left alone: `make soak [KILLS=20] [SEED=1]`, half an hour.

The moments are random and spread over all steps. SIGKILL and SIGTERM alternate at random, and after some of the kills
WORK_DIR is gone, as on another machine. A job that ends between two kills begins anew. All jobs must end with the same
results, except for the order of the photos.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import demo
from tests.conftest import environment

STEPS, EVERY = 120, 30
LONGEST = 75.0  # seconds from a start to a kill: a run without kills takes about twice as long on two cores
LOST = 0.3  # of the kills, so many lose WORK_DIR


def main() -> int:
    """Runs both jobs and prints what was compared; returns 1 if they differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int)
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo.draw_bucket(folder / "bucket", photos=60)
        killed, alone = (settings(folder, name) for name in ("killed", "alone"))
        if not run(alone):
            return 1
        problems, kills, jobs = faults(alone["RESULT_DIR"]), 0, 1
        while kills < arguments.kills:
            told, has_ended = kill(killed, chance)
            print(f"kill {kills + 1}: {told}" if not has_ended else "the job has ended", flush=True)
            kills += not has_ended
            if has_ended:
                problems += [*differences(killed, alone), *faults(killed["RESULT_DIR"])]
                for name in ("WORK_DIR", "RESULT_DIR"):
                    shutil.rmtree(killed[name], ignore_errors=True)
                jobs += 1
        if not run(killed):
            return 1
        problems += [*differences(killed, alone), *faults(killed["RESULT_DIR"])]
    print(
        "\n".join(problems)
        or f"{kills} kills in {jobs} jobs with seed {arguments.seed}: the results are those of a job that is left alone"
    )
    return int(bool(problems))


def settings(folder: Path, name: str) -> dict[str, Any]:
    """Returns the settings of a job in a folder of its own."""
    places = {
        "DATA_DIR": folder / "bucket",
        "WORK_DIR": folder / name / "work",
        "RESULT_DIR": folder / name / "results",
    }
    model = {"MODEL": "smoke", "BATCH_SIZE": 4, "NUM_STEPS": STEPS, "EVALUATE_EVERY": EVERY, "EXPORTS": "saved_model"}
    return {**places, **model, "CHECKPOINT_SECONDS": 5}


def command() -> list[str]:
    """Returns the command of the job."""
    return [sys.executable, "-m", "entrypoint"]


def run(job: dict[str, Any]) -> bool:
    """Runs a job to its end; returns whether it has ended well."""
    result = subprocess.run(command(), env=environment(**job), capture_output=True, text=True, check=False)
    if result.returncode:
        print(result.stdout)
    return not result.returncode


def kill(job: dict[str, Any], chance: random.Random) -> tuple[str, bool]:
    """Starts the job and kills it after a random time; returns what was done in words, and whether it had ended."""
    number, seconds = chance.choice([signal.SIGKILL, signal.SIGTERM]), chance.uniform(0.5, LONGEST)
    is_lost = chance.random() < LOST
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command(), env=environment(**job), stdout=log, stderr=subprocess.STDOUT)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < seconds:
            time.sleep(0.1)
        process.send_signal(number)
        code = process.wait(timeout=180)
        log.seek(0)
        lines = log.read().splitlines()
    has_ended = not code
    if is_lost and not has_ended:
        shutil.rmtree(job["WORK_DIR"], ignore_errors=True)
    if code not in (0, 143, -signal.SIGKILL):
        print("\n".join(lines[-20:]))
    last = lines[-1][:90] if lines else "nothing"
    words = f"{number.name} after {seconds:.0f} s, exit code {code}{', WORK_DIR lost' if is_lost else ''}: {last}"
    return words, has_ended


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """Returns the SHA-256 of files, by their names."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob(pattern))}


def rows_of(results: Path) -> list[dict[str, str]]:
    """Returns the rows of metrics.csv."""
    with (results / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns what differs between the results of two jobs and must not."""
    found = []
    for what, place, pattern in (
        ("label map", "RESULT_DIR", "label_map.pbtxt"),
        ("records", "WORK_DIR", "records/*.tfrecord"),
        ("manifest of the records", "WORK_DIR", "records/manifest.json"),
    ):
        if not digests(other[place], pattern) or digests(one[place], pattern) != digests(other[place], pattern):
            found.append(f"{what}: they differ")
    steps = [[row["step"] for row in rows_of(job["RESULT_DIR"])] for job in (one, other)]
    if steps[0] != steps[1]:
        found.append(f"evaluations: at {steps[0]} and at {steps[1]}")
    names = [sorted(path.name for path in job["RESULT_DIR"].iterdir() if path.name[0] != ".") for job in (one, other)]
    if names[0] != names[1]:
        found.append(f"files of the results: {names[0]} and {names[1]}")
    return found


def faults(results: Path) -> list[str]:
    """Returns what is wrong with the results of a job: its last step, its best checkpoint, gaps in its curves."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = [(float(row["mAP"]), int(row["step"])) for row in rows_of(results)]
    best = max(rows)[1]
    found = []
    names = {path.stem for path in (results / "checkpoint").glob("*.json")}
    if f"ckpt-{STEPS}" not in names or {name for name in names if name.startswith("best")} != {f"best-{best}"}:
        found.append(f"{results}: checkpoints {sorted(names)}, and the best evaluation was that of step {best}")
    if json.loads((results / "metrics.json").read_text())["step"] != best:
        found.append(f"{results}: metrics.json is not that of the best step, {best}")
    events = EventAccumulator(str(results / "checkpoint" / "events"), size_guidance={"scalars": 0})
    events.Reload()
    for name, expected in (
        ("Loss/total_loss", list(range(1, STEPS + 1))),
        ("validation/mAP", list(range(EVERY, STEPS + 1, EVERY))),
    ):
        steps = [event.step for event in events.Scalars(name)]
        if steps != expected:
            found.append(f"{results}: {name} has the steps {steps}")
    return found


if __name__ == "__main__":
    sys.exit(main())
