"""What Watson Machine Learning does with training.zip: the command of cacli, on a machine without the image."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from pathlib import Path

from tests.conftest import ROOT
from tests.jobs.test_manifests import fill


def test_training_zip_installs_itself_and_trains(tmp_path: Path, demo_bucket: Path) -> None:
    # Neither Python's nor the service's unpacking keeps what may be executed.
    with zipfile.ZipFile(ROOT / "dist" / "training.zip") as archive:
        archive.extractall(tmp_path / "code")
    manifest = fill("watson-machine-learning.json", tmp_path, MODEL="smoke", NUM_STEPS="3")
    command = json.loads(manifest.read_text())["model_definition"]["command"]
    settings = {"DATA_DIR": demo_bucket, "RESULT_DIR": tmp_path / "results", "WORK_DIR": tmp_path / "work"}
    result = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path / "code",
        env=os.environ | {name: str(path) for name, path in settings.items()} | {"EXPORTS": "saved_model"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.rstrip().endswith("CACLI-TRAINING-SUCCESS")
    assert (tmp_path / "results" / "job.json").exists()
    # What cacli shows of the progress.
    assert "tensorflow:loss = " in result.stdout


def test_equal_files_give_an_equal_archive(tmp_path: Path) -> None:
    archives = []
    for name in ("a.zip", "b.zip"):
        command = ["python3", "jobs/training_zip.py", "requirements-cpu.txt", str(tmp_path / name), "1a2b3c"]
        subprocess.run(command, cwd=ROOT, check=True)
        archives.append((tmp_path / name).read_bytes())
    assert archives[0] == archives[1]
