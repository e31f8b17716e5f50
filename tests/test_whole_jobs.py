"""One small job of each generation of models, from the bucket to job.json; more jobs are in tests/end_to_end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from entrypoint import job
from entrypoint.system import version
from tests import demo
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


@pytest.mark.parametrize("generation", ["tf1", "tf2"])
def test_small_job_trains_evaluates_exports_and_publishes(generation: str, tmp_path: Path) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=12)
    places = {"DATA_DIR": tmp_path / "bucket", "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    models: dict[str, dict[str, Any]] = {
        "tf1": {"PIPELINE_CONFIG": tf1_config(tmp_path), "CHECKPOINT": "none"},
        "tf2": {"MODEL": "smoke"},
    }
    result = run_job("2", BATCH_SIZE=2, EXPORTS="saved_model", **models[generation], **places)
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("CACLI-TRAINING-SUCCESS\n")
    assert json.loads((tmp_path / "work" / "plan.json").read_text())["generation"] == generation
    facts = json.loads((tmp_path / "results" / "job.json").read_text())
    assert {"model/saved_model.pb", "report.html", "model_card.md", "metrics.json", "checkpoint/ckpt-2.index"} <= set(
        facts["files"]
    )
    assert set(facts["steps"]) == set(job.STEP_NAMES) - {"publish"}
    assert facts["version"] == version.describe()
