"""Evaluation during the training: a job that gets worse after a while, is killed, goes on elsewhere and ends early."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from tests.conftest import ROOT, read_until, run_job, start_job

EVERY, STEPS, BEST = 60, 600, 120
PREFIXES = (f"checkpoint/best-{BEST}", "checkpoint/ckpt-240")
# From step 130 on, a learning rate that no training survives.
SCHEDULE = """manual_step_learning_rate {
          initial_learning_rate: 0.003
          schedule { step: 130 learning_rate: 0.5 }
        }"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, demo_bucket: Path) -> dict[str, Any]:
    """The settings of the job, whose learning rate ruins the model after the second evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    config = (ROOT / "pipelines" / "smoke.config").read_text()
    config = re.sub(r"cosine_decay_learning_rate \{[^}]*\}", SCHEDULE, config)
    config = re.sub(r"num_steps: \d+", f"num_steps: {STEPS}", config)
    (folder / "own.config").write_text(config)
    return {
        "PIPELINE_CONFIG": folder / "own.config",
        "CHECKPOINT": "none",
        "NUM_STEPS": STEPS,
        "BATCH_SIZE": 8,
        "LEARNING_RATE": 0.5,
        "EVALUATE_EVERY": EVERY,
        "EARLY_STOPPING": 2,
        "EXPORTS": "saved_model",
        "DATA_DIR": demo_bucket,
        "WORK_DIR": folder / "work",
        "RESULT_DIR": folder / "results",
    }


@pytest.fixture(scope="module")
def log(places: dict[str, Any]) -> str:
    """The log of the job, killed after its first evaluation and started again on another machine."""
    process = start_job(**places)
    first = read_until(process, lambda line: f"checkpoint saved at step {EVERY}" in line)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(places["WORK_DIR"])
    again = run_job(**places)
    assert again.returncode == 0, again.stdout
    assert f"evaluation: step = {EVERY}," in first
    assert f"resumed at step {EVERY} from" in again.stdout
    assert f"evaluation: step = {EVERY}," not in again.stdout
    assert f"step {BEST} was evaluated during the training" in again.stdout
    return again.stdout


def rows_in(results: Path) -> list[dict[str, str]]:
    with (results / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("log")
def test_job_ends_early_with_each_evaluation_once(places: dict[str, Any]) -> None:
    rows = rows_in(places["RESULT_DIR"])
    assert [int(row["step"]) for row in rows] == [EVERY, BEST, 180, 240]
    best, *worse = [float(row["mAP"]) for row in rows[1:]]
    assert best > 0.005
    assert max(worse) < best
    saved = {path.stem for path in (places["RESULT_DIR"] / "checkpoint").glob("*.json")}
    assert saved == {f"best-{BEST}", "ckpt-180", "ckpt-240"}


@pytest.mark.usefixtures("log")
def test_metrics_and_report_are_those_of_the_best_checkpoint(places: dict[str, Any]) -> None:
    metrics = json.loads((places["RESULT_DIR"] / "metrics.json").read_text())
    assert (metrics["step"], metrics["kept"]) == (BEST, "best")
    assert metrics["summary"]["mAP"] == pytest.approx(float(rows_in(places["RESULT_DIR"])[1]["mAP"]), abs=1e-6)
    report = (places["RESULT_DIR"] / "report.html").read_text()
    assert f"The model is the checkpoint of step {BEST}, the best of 4 evaluations during the training" in report
    assert "mAP during the training" in report


@pytest.mark.usefixtures("log")
def test_model_has_the_weights_of_the_best_checkpoint(places: dict[str, Any]) -> None:
    """And none of those of the last one."""

    def kernels(prefix: Path) -> set[bytes]:
        reader = tf.train.load_checkpoint(str(prefix))
        found = [name for name, shape in reader.get_variable_to_shape_map().items() if len(shape) == 4]
        kept = [name for name in found if "OPTIMIZER" not in name and not name.startswith("averages/")]
        return {reader.get_tensor(name).tobytes() for name in kept}

    results = places["RESULT_DIR"]
    model, best, last = map(kernels, (results / path for path in ("model/variables/variables", *PREFIXES)))
    assert len(model) > 10
    assert model == best
    assert not model & last


def test_keep_last_exports_the_last_checkpoint_without_another_training(places: dict[str, Any], log: str) -> None:
    assert "tensorflow:loss" in log
    again = run_job("evaluate", **places | {"KEEP": "last"})
    assert again.returncode == 0, again.stdout
    assert "tensorflow:loss" not in again.stdout
    metrics = json.loads((places["WORK_DIR"] / "metrics.json").read_text())
    assert (metrics["step"], metrics["kept"]) == (240, "last")


def test_checkpoint_alone_has_the_metrics_that_it_had_in_training(places: dict[str, Any], log: str) -> None:
    assert "tensorflow:loss" in log
    during = json.loads((places["RESULT_DIR"] / "metrics.json").read_text())
    shutil.rmtree(places["WORK_DIR"] / "evaluated")
    again = run_job("evaluate", **places)
    assert again.returncode == 0, again.stdout
    assert "was evaluated during the training" not in again.stdout
    assert json.loads((places["WORK_DIR"] / "metrics.json").read_text()) == during
