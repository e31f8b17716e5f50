"""MAX_MINUTES in both engines: a job is fitted to a time, is killed, and ends where its checkpoint says."""

from __future__ import annotations

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import read_until, run_job, start_job
from tests.test_whole_jobs import tf1_config

# The schedules of both configs, fitted to the steps that NUM_STEPS=auto takes from random weights: peak and steps of
# warm-up.
SCHEDULED = 2000
SCHEDULES = {"tf1": (0.004, 132), "tf2": (0.003, 166)}


def cosine(position: float, peak: float, warmup: int) -> float:
    """The learning rate of a cosine schedule after the warm-up."""
    return 0.5 * peak * (1 + math.cos(math.pi * (position - warmup) / (SCHEDULED - warmup)))


@pytest.mark.parametrize("generation", ["tf1", "tf2"])
def test_killed_job_ends_where_its_checkpoint_says(generation: str, tmp_path: Path, demo_bucket: Path) -> None:
    places = {"DATA_DIR": demo_bucket, "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    models: dict[str, dict[str, Any]] = {
        "tf1": {"PIPELINE_CONFIG": tf1_config(tmp_path), "CHECKPOINT": "none"},
        "tf2": {"MODEL": "smoke"},
    }
    settings = {**places, **models[generation], "BATCH_SIZE": 4, "MAX_MINUTES": 60, "EVALUATE_EVERY": 0}
    settings |= {"LEARNING_RATE": SCHEDULES[generation][0], "CHECKPOINT_SECONDS": 2}
    process = start_job("train", **settings)
    log = read_until(process, lambda line: "the training ends at step" in line)
    fitted = int(log.split()[-1])
    # An hour is long for steps of a fraction of a second.
    assert fitted > 1000
    read_until(process, lambda line: "checkpoint saved at step" in line)
    process.send_signal(signal.SIGKILL)
    process.wait()

    manifests = (tmp_path / "work" / "checkpoint").glob("ckpt-*.json")
    path = max(manifests, key=lambda each: int(each.stem.removeprefix("ckpt-")))
    document = json.loads(path.read_text())
    step = document["step"]
    # A machine that has become slower meanwhile ends the training earlier.
    assert step < document["fit"]["last"] <= fitted
    assert 0 < document["seconds"] < 600
    # As if the job had become slower: ten steps more, in which the rest of the schedule passes.
    path.write_text(json.dumps(document | {"fit": {"last": step + 10, "first": step, "position": 500}}))
    again = run_job("train", **settings)
    assert again.returncode == 0, again.stdout
    assert f"resumed at step {step}" in again.stdout
    steps = [int(each) for each in re.findall(r"tensorflow:loss = .*, step = (\d+)", again.stdout)]
    assert steps[-1] == step + 10
    history = json.loads((path.parent / f"ckpt-{step + 10}.json").read_text())["history"]
    rates = [point["learning_rate"] for point in history][-10:]
    pace = (SCHEDULED - 500) / 10
    expected = [cosine(500 + pace * passed, *SCHEDULES[generation]) for passed in range(10)]
    assert rates == pytest.approx(expected, rel=1e-4)
