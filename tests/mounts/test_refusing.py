"""Results on filesystems that refuse operations as bucket mounts do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrypoint.system import copying, lease
from entrypoint.workspace import Workspace
from tests.conftest import ROOT, hold_results, make_settings, run_job

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.W_OK) or not shutil.which("fusermount3"),
    reason="needs /dev/fuse and the package fuse3",
)
REFUSALS = ("rename", "append", "random-write", "overwrite", "chmod", "fsync", "close")
Mount = Callable[..., Path]


@contextmanager
def mounts(folder: Path) -> Iterator[Mount]:
    """Yields a function that mounts a folder which refuses the given operations. Unmounts it in the end."""
    started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(*refused: str) -> Path:
        place = folder / "mount"
        for each in (place, folder / "below"):
            each.mkdir()
        command = [sys.executable, "-m", "tests.mounts.refusing", str(folder / "below"), str(place), *refused]
        started.append((subprocess.Popen(command, cwd=ROOT), place))
        deadline = time.monotonic() + 20
        while not place.is_mount():
            assert time.monotonic() < deadline, "the filesystem was not mounted"
            time.sleep(0.1)
        return place

    yield start
    for process, place in started:
        subprocess.run(["fusermount3", "-u", place], check=False)
        process.wait(20)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    with mounts(tmp_path) as start:
        yield start


@dataclass(frozen=True)
class Whole:
    """A whole job whose results lie where everything is refused."""

    result: subprocess.CompletedProcess[str]
    results: Path
    settings: dict[str, Any]  # without RESULT_DIR: a job with these settings has nothing left to train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, demo_bucket: Path) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("whole")
    settings = {"MODEL": "smoke", "BATCH_SIZE": 4, "NUM_STEPS": 3, "EXPORTS": "saved_model", "CHECKPOINT_SECONDS": 0}
    settings |= {"DATA_DIR": demo_bucket, "WORK_DIR": folder / "work"}
    with mounts(folder) as start:
        results = start(*REFUSALS) / "results"
        yield Whole(run_job(**settings, RESULT_DIR=results), results, settings)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_files_are_published_and_replaced_where_it_is_refused(tmp_path: Path, mount: Mount, refusal: str) -> None:
    place = mount(refusal)
    for content in (b"first" * 500_000, b"second"):
        (tmp_path / "source").mkdir(exist_ok=True)
        (tmp_path / "source" / "file").write_bytes(content)
        copying.copy_tree(tmp_path / "source", place / "results" / "folder")
        assert (tmp_path / "below" / "results" / "folder" / "file").read_bytes() == content


@pytest.mark.parametrize("refusal", REFUSALS)
def test_lock_is_made_renewed_and_removed_where_it_is_refused(
    tmp_path: Path, mount: Mount, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.3)
    work = Workspace(make_settings(tmp_path, result_dir=mount(refusal) / "results"))
    with hold_results(work.results):
        claims: list[dict[str, Any]] = []
        deadline = time.monotonic() + 20
        while len(claims) < 2:
            assert time.monotonic() < deadline, f"the lock was not renewed: {claims}"
            # The claim is empty or None while the file is being replaced.
            if (claim := lease.read_claim(work.results / lease.LOCK)) and claim not in claims:
                claims.append(claim)
            time.sleep(0.1)
        first, renewed = claims
        assert first["token"] == renewed["token"]
    assert not (work.results / lease.LOCK).exists()


def test_whole_job_completes_where_everything_is_refused(whole: Whole) -> None:
    assert whole.result.returncode == 0, whole.result.stdout
    facts = json.loads((whole.results / "job.json").read_text())
    for name in facts["files"]:
        assert (whole.results / name).stat().st_size > 0
    files = (path for path in whole.results.rglob("*") if path.is_file())
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    assert newest.name == "job.json"


def test_failure_that_stays_leaves_no_manifest(tmp_path: Path, whole: Whole) -> None:
    results = tmp_path / "results"
    (results / "report.html").mkdir(parents=True)
    (results / "report.html" / "in the way").write_text("")
    result = run_job(**whole.settings, RESULT_DIR=results)
    assert result.returncode == 1
    assert "report.html" in result.stdout.splitlines()[-2]
    assert result.stdout.rstrip().endswith("CACLI-TRAINING-FAILED")
    assert not (results / "job.json").exists()


def test_close_that_always_fails_is_tried_again_and_leaves_no_manifest(mount: Mount, whole: Whole) -> None:
    results = mount("close-of-report") / "results"
    result = run_job(**whole.settings, RESULT_DIR=results)
    assert result.returncode == 1
    assert result.stdout.count("report.html'; trying again in") == 5
    assert "Input/output error, writing" in result.stdout.splitlines()[-2]
    assert result.stdout.rstrip().endswith("CACLI-TRAINING-FAILED")
    assert not (results / "job.json").exists()
