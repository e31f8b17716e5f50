"""Whole jobs on buckets: by address, and through Debian's s3fs, both against moto's S3."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from entrypoint.system import bucket
from tests import stores
from tests.conftest import read_until, run_job, start_job

SMOKE: dict[str, Any] = {"MODEL": "smoke", "BATCH_SIZE": 4, "EXPORTS": "saved_model"}


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    """The log of the requests that the server of buckets got."""
    return tmp_path / "requests.log"


@pytest.fixture
def address(requests: Path, demo_bucket: Path) -> Iterator[str]:
    """The demo's bucket, by its address."""
    with stores.s3(requests) as variables, mock.patch.dict(os.environ, variables):
        stores.upload(demo_bucket, "s3://photos/demo")
        yield "s3://photos/demo"


@pytest.fixture
def mount(address: str, tmp_path: Path) -> Iterator[Path]:
    """The demo's bucket, mounted by s3fs."""
    if not shutil.which("s3fs") or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs /dev/fuse and the package s3fs")
    place, keys = tmp_path / "mount", tmp_path / "keys"
    place.mkdir()
    keys.write_text(f"{os.environ['AWS_ACCESS_KEY_ID']}:{os.environ['AWS_SECRET_ACCESS_KEY']}")
    keys.chmod(0o600)
    options = f"url={os.environ['AWS_ENDPOINT_URL']},use_path_request_style,passwd_file={keys},umask=000"
    name, _, folder = address.removeprefix("s3://").partition("/")
    process = subprocess.Popen(["s3fs", name, str(place), "-f", "-o", options], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not place.is_mount():
        assert process.poll() is None, "s3fs ended"
        assert time.monotonic() < deadline, "s3fs did not mount"
        time.sleep(0.1)
    yield place / folder
    subprocess.run(["fusermount", "-u", place], check=False)
    process.wait(30)


def assert_finished(results: Path, requests: Path) -> None:
    """The results in the bucket are those that the manifest names, and the manifest was written last."""
    facts = json.loads(bucket.read(results / "job.json"))
    found = bucket.listing(results)
    for name in facts["files"]:
        assert found[name].size > 0
    written = re.findall(r'"(?:PUT|POST) /photos/demo/results/([^ ?]+)\S* HTTP', requests.read_text())
    assert [name for name in written if name != ".training-job.lock"][-1] == "job.json"


def test_job_reads_from_and_writes_to_an_address(address: str, requests: Path, tmp_path: Path) -> None:
    result = run_job("3", **SMOKE, DATA_DIR=address, WORK_DIR=tmp_path / "work")
    assert result.returncode == 0, result.stdout
    assert_finished(bucket.parse(address) / "results", requests)
    # What lies in RESULT_DIR is never taken for data.
    again = run_job("3", **SMOKE, DATA_DIR=address, WORK_DIR=tmp_path / "work")
    assert "tf_record: done already" in again.stdout
    assert (
        "secret-of-tests"
        not in result.stdout + again.stdout + bucket.read(bucket.parse(address) / "results" / "job.json").decode()
    )


def test_killed_job_on_an_address_resumes_on_another_machine(address: str, tmp_path: Path) -> None:
    settings = {**SMOKE, "DATA_DIR": address}
    process = start_job("10", **settings, WORK_DIR=tmp_path / "work", CHECKPOINT_SECONDS=0)
    read_until(process, lambda line: "checkpoint saved at step" in line)
    process.kill()
    process.communicate()
    # The lock of a job that was killed here is known to be dead; on another machine it is waited for.
    result = run_job("10", **settings, WORK_DIR=tmp_path / "other")
    assert result.returncode == 0, result.stdout
    assert re.search(r"resumed at step [1-9]", result.stdout)


def test_job_on_a_mount_of_s3fs_completes(mount: Path, address: str, requests: Path, tmp_path: Path) -> None:
    result = run_job("3", **SMOKE, DATA_DIR=mount, WORK_DIR=tmp_path / "work", CHECKPOINT_SECONDS=0)
    assert result.returncode == 0, result.stdout
    assert_finished(bucket.parse(address) / "results", requests)


def test_checkpoint_of_the_zoo_comes_out_of_a_bucket(address: str, tmp_path: Path) -> None:
    (tmp_path / "no-archive.tar.gz").write_bytes(b"no archive")
    bucket.filesystem(bucket.parse(address)).put(str(tmp_path / "no-archive.tar.gz"), "photos/zoo/no-archive.tar.gz")
    settings = {**SMOKE, "DATA_DIR": address, "WORK_DIR": tmp_path / "work"}
    damaged = run_job("1", **settings, CHECKPOINT="s3://photos/zoo/no-archive.tar.gz")
    assert damaged.returncode == 2
    assert "it is not an archive, or it is damaged" in damaged.stdout
    missing = run_job("1", **settings, CHECKPOINT="s3://photos/zoo/none.tar.gz")
    assert missing.returncode == 2
    assert "s3://photos/zoo/none.tar.gz cannot be read" in missing.stdout
