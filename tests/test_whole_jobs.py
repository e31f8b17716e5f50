"""One small job of each generation of models, from the bucket to job.json; more jobs are in tests/end_to_end."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrypoint import job
from entrypoint.results.history import History
from entrypoint.system import documents, version
from tests.conftest import ROOT, run_job

# The TF1 model, small enough for a few seconds of training.
SMALLER = ((r"height: 300 width: 300", "height: 96 width: 96"), (r"depth_multiplier: 1.0", "depth_multiplier: 0.25"))


def tf1_config(folder: Path) -> Path:
    text = (ROOT / "pipelines" / "ssd_mobilenet_v1_coco.config").read_text()
    for pattern, replacement in SMALLER:
        text, count = re.subn(pattern, replacement, text, count=1)
        assert count == 1
    path = folder / "small.config"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Done:
    """A finished job: its log, and what it left."""

    log: str
    generation: str
    facts: dict[str, Any]  # job.json's
    history: History
    report: str


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory, demo_bucket: Path) -> dict[str, Done]:
    """A job of each generation, one after the other, on the same photos and into the same RESULT_DIR."""
    folder = tmp_path_factory.mktemp("jobs")
    models: dict[str, dict[str, Any]] = {
        "tf1": {"PIPELINE_CONFIG": tf1_config(folder), "CHECKPOINT": "none"},
        "tf2": {"MODEL": "smoke"},
    }
    return {name: run(demo_bucket, folder, name, **values) for name, values in models.items()}


def run(bucket: Path, folder: Path, name: str, **settings: Any) -> Done:
    """Runs a job to its end."""
    work, results = folder / name, folder / "results"
    places = {"DATA_DIR": bucket, "WORK_DIR": work, "RESULT_DIR": results}
    result = run_job("2", BATCH_SIZE=2, EXPORTS="saved_model", **settings, **places)
    assert result.returncode == 0, result.stdout
    return Done(
        result.stdout,
        json.loads((work / "plan.json").read_text())["generation"],
        json.loads((results / "job.json").read_text()),
        documents.read(History, results / "history.json"),
        (results / "report.html").read_text(),
    )


@pytest.mark.parametrize("generation", ["tf1", "tf2"])
def test_small_job_trains_evaluates_exports_and_publishes(generation: str, jobs: dict[str, Done]) -> None:
    done = jobs[generation]
    assert done.log.endswith("CACLI-TRAINING-SUCCESS\n")
    assert done.generation == generation
    assert {"model/saved_model.pb", "report.html", "model_card.md", "metrics.json", "checkpoint/ckpt-2.index"} <= set(
        done.facts["files"]
    )
    assert set(done.facts["steps"]) == set(job.STEP_NAMES) - {"publish"}
    assert done.facts["version"] == version.describe()


def test_second_job_is_compared_with_the_first_one_in_its_results(jobs: dict[str, Done]) -> None:
    first, second = jobs["tf1"], jobs["tf2"]
    assert len(first.history.runs) == 1
    assert 'id="runs"' not in first.report
    assert second.history.earlier == first.history.runs
    assert [run.steps for run in second.history.runs] == [2, 2]
    # The generations store photos at different sizes; the photos are the same.
    assert len({run.validation for run in second.history.runs}) == 1
    assert len({run.data for run in second.history.runs}) == 1
    assert second.history.now.minutes > 0
    assert 'id="runs"' in second.report
    assert "another model" in second.report
