"""The pipeline on Beam's runner for one machine, in an environment of its own, against the job's own step."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from upath import UPath

from entrypoint.data import annotations, label_map, tf_record
from entrypoint.data.split import SPLITS
from entrypoint.workspace import Workspace
from tests import awkward, stores
from tests.conftest import ROOT, make_settings, run_job, run_module

PYTHON = ROOT / ".beam-venv" / "bin" / "python"


def run_beam(*arguments: str, python: Path | str = PYTHON, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs the conversion; standard error is part of standard output."""
    return run_module(python, "entrypoint.beam", *arguments, **settings)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket of everything awkward, and what Beam made of it with two processes."""
    root = tmp_path_factory.mktemp("beam")
    awkward.write(root / "bucket")
    places = {"DATA_DIR": root / "bucket", "RECORDS_DIR": root / "records"}
    options = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    result = run_beam(*options, MODEL="smoke", MAX_SKIPPED=0.5, **places)
    assert result.returncode == 0, result.stdout
    return root


def examples_in(folder: Path, split: str) -> list[bytes]:
    import tensorflow as tf

    paths = sorted(str(path) for path in folder.glob(f"{split}-*.tfrecord"))
    assert paths
    return sorted(tf.data.TFRecordDataset(paths).as_numpy_iterator())


def test_examples_are_byte_for_byte_those_of_the_step(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    work = Workspace(make_settings(tmp_path, data_dir=converted / "bucket", model="smoke", max_skipped=0.5))
    for step in (annotations, label_map, tf_record):
        step.run(work)
    for split in SPLITS:
        assert examples_in(converted / "records", split) == examples_in(work.records, split)
    folders = work.records, converted / "records"
    ours, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in folders)
    for manifest in (ours, theirs):
        for split in manifest["splits"].values():
            split["shards"] = [shard["name"] for shard in split["shards"]]
    assert theirs == ours
    assert (converted / "records" / "dataset.json").read_text() == work.dataset.read_text()


def test_buckets_by_their_addresses_are_converted_alike(converted: Path, tmp_path: Path) -> None:
    with stores.s3() as variables, mock.patch.dict(os.environ, variables):
        stores.upload(converted / "bucket", "s3://photos/awkward")
        places = {"DATA_DIR": "s3://photos/awkward", "RECORDS_DIR": "s3://photos/records"}
        endpoint = f"--s3_endpoint_url={variables['AWS_ENDPOINT_URL']}"
        result = run_beam(endpoint, MODEL="smoke", MAX_SKIPPED=0.5, **places)
        assert result.returncode == 0, result.stdout
        records = UPath("s3://photos/records")
        records.fs.get("photos/records/", f"{tmp_path / 'records'}/", recursive=True)
    # The link out of the bucket came along as a file; it is in no split of the folder's.
    found = {split: examples_in(tmp_path / "records", split) for split in SPLITS}
    wanted = {split: examples_in(converted / "records", split) for split in SPLITS}
    assert all(set(wanted[split]) <= set(found[split]) for split in SPLITS)
    assert sum(map(len, found.values())) - sum(map(len, wanted.values())) == 1


def test_job_trains_on_the_records_without_the_photos(converted: Path, tmp_path: Path) -> None:
    places = {"DATA_DIR": tmp_path / "nothing", "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    given = {
        **places,
        "RECORDS_DIR": converted / "records",
        "MODEL": "smoke",
        "BATCH_SIZE": 4,
        "EXPORTS": "saved_model",
    }
    result = run_job("1", **given)
    assert result.returncode == 0, result.stdout
    assert "stored for another input size" not in result.stdout
    # The report shows them out of the records.
    assert (tmp_path / "results" / "report.html").read_text().count("data:image/jpeg") > 10
    facts = json.loads((tmp_path / "results" / "job.json").read_text())
    assert facts["data"]["found"]["photo skipped: file is empty"]["where"] == ["empty.jpg"]
    # What is done stays done.
    again = run_job("1", **given)
    assert "tf_record: done already" in again.stdout
    assert "train: done already" in again.stdout


def test_records_for_another_input_are_told(converted: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    result = run_job("annotations", DATA_DIR=tmp_path, WORK_DIR=tmp_path / "work", RECORDS_DIR=converted / "records")
    assert result.returncode == 0, result.stdout
    for step in ("label_map", "tf_record"):
        result = run_job(step, DATA_DIR=tmp_path, WORK_DIR=tmp_path / "work", RECORDS_DIR=converted / "records")
    assert "stored for another input size than that of MODEL" in result.stdout


def test_place_that_is_in_use_is_refused(converted: Path) -> None:
    result = run_beam(DATA_DIR=converted / "bucket", RECORDS_DIR=converted / "records")
    assert result.returncode == 2
    assert "is not empty: name another place" in result.stdout


def test_too_many_broken_photos_stop_the_conversion_without_a_manifest(converted: Path, tmp_path: Path) -> None:
    result = run_beam(DATA_DIR=converted / "bucket", RECORDS_DIR=tmp_path / "records", MODEL="smoke")
    assert result.returncode == 2
    assert "photos cannot be used, more than MAX_SKIPPED=0.1 allows" in result.stdout
    job = run_job("1", RECORDS_DIR=tmp_path / "records", WORK_DIR=tmp_path / "work", DATA_DIR=tmp_path, MODEL="smoke")
    assert job.returncode == 2
    assert "has no manifest.json" in job.stdout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "RECORDS_DIR is missing"),
        ({"RECORDS_DIR": "ftp://x"}, "RECORDS_DIR='ftp://x'"),
        ({"RECORDS_DIR": "/nowhere", "MODEL": "ssd_mobilenet"}, "is not in the zoo"),
    ],
)
def test_wrong_setting_is_a_named_error(converted: Path, settings: dict[str, str], words: str) -> None:
    result = run_beam(DATA_DIR=converted / "bucket", **settings)
    assert result.returncode == 2, result.stdout
    assert words in result.stdout


def test_missing_package_is_a_named_error(converted: Path, tmp_path: Path) -> None:
    result = run_beam(DATA_DIR=converted / "bucket", RECORDS_DIR=tmp_path / "new", python=sys.executable)
    assert result.returncode == 2
    assert "requirements-beam.txt" in result.stdout
