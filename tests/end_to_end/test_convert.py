"""Conversions by several processes: parts, and the workers of a Dask scheduler. All are started as users start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from upath import UPath

from tests import awkward, stores
from tests.conftest import PATIENCE, SHARED, run_job, start_job, wait_until
from tests.dask_cluster import scheduler, worker, workers_of


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bucket of everything awkward."""
    folder = tmp_path_factory.mktemp("convert") / "bucket"
    awkward.write(folder)
    return folder


@pytest.fixture(scope="module")
def whole(bucket: Path) -> dict[str, bytes]:
    """What one process makes of it: the files of RECORDS_DIR. They hold those of the job's own step."""
    folder = bucket.parent
    result = convert(bucket, folder / "records")
    assert result.returncode == 0, result.stdout
    places = {"DATA_DIR": bucket, "WORK_DIR": folder / "work", "RESULT_DIR": folder / "results"}
    step = run_job("tf_record", MODEL="smoke", MAX_SKIPPED=0.5, CHECKPOINT="none", **places)
    assert step.returncode == 0, step.stdout
    found = state(folder / "records")
    records = state(folder / "work" / "records")
    assert len(records) > 10
    assert {name: found[name] for name in records} == records
    assert found["dataset.json"] == (folder / "work" / "dataset.json").read_bytes()
    return found


def settings_of(bucket: Path | str, records: Path | str, **more: Any) -> dict[str, Any]:
    places = {"DATA_DIR": bucket, "RECORDS_DIR": records, "RESULT_DIR": "/nonexistent/results"}
    return {**places, "MODEL": "smoke", "MAX_SKIPPED": 0.5, "WORKERS": 2, **more}


def convert(bucket: Path | str, records: Path | str, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return run_job("convert", *words, **settings_of(bucket, records, **more))


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_make_what_one_process_makes(bucket: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    with scheduler() as address, worker(address, tmp_path / "1"), worker(address, tmp_path / "2"):
        wait_until(lambda: workers_of(address) == 2, "the workers do not come")
        result = convert(bucket, tmp_path / "records", "--scheduler", address)
        assert result.returncode == 0, result.stdout
        assert state(tmp_path / "records") == whole
        # The same for a bucket of a few hundred photos, and what is done is not done again.
        raccoon = SHARED / "buckets" / "raccoon"
        assert convert(raccoon, tmp_path / "here").returncode == 0
        for done in (0, 16):
            result = convert(raccoon, tmp_path / "there", "--scheduler", address)
            assert result.returncode == 0, result.stdout
            assert f"{done} of 16 shards are done" in result.stdout
        assert state(tmp_path / "there") == state(tmp_path / "here")


def test_worker_and_driver_that_are_killed_lose_nothing(bucket: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    facts = tmp_path / "records" / "facts"

    def done() -> int:
        return len(list(facts.glob("*.json")))

    settings = settings_of(bucket, tmp_path / "records")
    with scheduler() as address, worker(address, tmp_path / "1") as first:
        wait_until(lambda: workers_of(address) == 1, "the worker does not come")
        driver = start_job("convert", "--scheduler", address, **settings)
        wait_until(lambda: done() > 1, "nothing is converted")
        # The worker and its nanny, which would start another one.
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert not (tmp_path / "records" / "manifest.json").exists()
        with worker(address, tmp_path / "2"):
            before = done()
            wait_until(lambda: done() > before, "the second worker converts nothing")
            driver.kill()
            driver.communicate()
            result = convert(bucket, tmp_path / "records", "--scheduler", address)
    assert result.returncode == 0, result.stdout
    assert state(tmp_path / "records") == whole


def test_parts_of_which_one_is_killed_make_what_one_process_makes(
    bucket: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    records = tmp_path / "records"
    # A service starts all parts at once, and a part that was killed again.
    numbered = [{"JOB_COMPLETION_INDEX": str(index)} for index in range(2)]
    jobs = [start_job("convert", "--part", "auto/2", **settings_of(bucket, records), **each) for each in numbered]
    wait_until(lambda: len(list((records / "facts").glob("*.json"))) > 1, "nothing is converted")
    os.kill(jobs[0].pid, signal.SIGKILL)
    jobs[0].communicate()
    again = convert(bucket, records, "--part", "auto/2", **numbered[0])
    output = jobs[1].communicate(timeout=PATIENCE)[0]
    assert (again.returncode, jobs[1].returncode) == (0, 0), again.stdout + output
    assert state(records) == whole


@pytest.mark.parametrize("store", ["s3", "gs"])
def test_buckets_by_their_addresses_are_converted_alike(store: str, tmp_path: Path) -> None:
    with {"s3": stores.s3, "gs": stores.gcs}[store]() as variables, mock.patch.dict(os.environ, variables):
        raccoon = SHARED / "buckets" / "raccoon"
        stores.upload(raccoon, f"{store}://photos/raccoon")
        places = (f"{store}://photos/raccoon", f"{store}://photos/records")
        with scheduler() as address, worker(address, tmp_path / "1", **variables):
            wait_until(lambda: workers_of(address) == 1, "the worker does not come")
            result = convert(*places, "--scheduler", address)
        assert result.returncode == 0, result.stdout
        records = UPath(places[1])
        records.fs.get(f"{records.path}/", f"{tmp_path / 'records'}/", recursive=True)
    assert convert(raccoon, tmp_path / "here").returncode == 0
    there, here = state(tmp_path / "records"), state(tmp_path / "here")
    # The versions of photos in a bucket are not those of files, and the lists of photos hold them.
    same = [name for name in here if name.endswith(".tfrecord") or name == "manifest.json"]
    assert {name: there[name] for name in same} == {name: here[name] for name in same}
    assert there.keys() == here.keys()


def test_job_trains_on_the_records_without_the_photos(bucket: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert "manifest.json" in whole
    places = {"DATA_DIR": tmp_path / "nothing", "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    records = {"RECORDS_DIR": bucket.parent / "records", "MODEL": "smoke"}
    given = {**places, **records, "BATCH_SIZE": 4, "EXPORTS": "saved_model"}
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
    other = run_job("tf_record", **{**given, "WORK_DIR": tmp_path / "other", "MODEL": "ssd_mobilenet_v1_coco"})
    assert "stored for another input size than that of MODEL" in other.stdout


def test_records_that_are_not_finished_are_refused(bucket: Path, tmp_path: Path) -> None:
    assert convert(bucket, tmp_path / "records", "--part", "1/2").returncode == 0
    job = run_job("1", RECORDS_DIR=tmp_path / "records", WORK_DIR=tmp_path / "work", DATA_DIR=tmp_path, MODEL="smoke")
    assert job.returncode == 2
    assert "has no manifest.json" in job.stdout


def test_worker_of_another_release_is_refused_by_its_name(bucket: Path, tmp_path: Path) -> None:
    # An image of another release, and a machine without the job.
    other = tmp_path / "release" / "entrypoint"
    (other / "system").mkdir(parents=True)
    for folder in (other, other / "system"):
        (folder / "__init__.py").touch()
    (other / "system" / "version.py").write_text("def describe():\n    return '0.9.0 (abc)'\n")
    (tmp_path / "empty").mkdir()
    for place, told in ((other.parent, "has 0.9.0 (abc)"), (tmp_path / "empty", "No module named 'entrypoint'")):
        # Python looks into the current folder before it looks anywhere else.
        with scheduler() as address, worker(address, tmp_path / "1", PYTHONPATH=str(place), PYTHONSAFEPATH="1"):
            wait_until(lambda: workers_of(address) == 1, "the worker does not come")
            result = convert(bucket, tmp_path / "records", "--scheduler", address)
        assert result.returncode == 2, result.stdout
        assert told in result.stdout
        assert "tcp://127.0.0.1:" in result.stdout
        assert "start the workers with the job's own image" in result.stdout


def test_scheduler_that_does_not_answer_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from entrypoint.data import dask_workers
    from entrypoint.system.errors import UserError

    (port,) = stores.free_ports(1)
    monkeypatch.setattr(dask_workers, "SECONDS_TO_CONNECT", 1)
    with pytest.raises(UserError, match=rf"--scheduler tcp://127\.0\.0\.1:{port} does not answer"):
        dask_workers.connect(f"tcp://127.0.0.1:{port}")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"Dask is not installed: .*requirements-dask\.txt"):
        dask_workers.connect(f"tcp://127.0.0.1:{port}")
