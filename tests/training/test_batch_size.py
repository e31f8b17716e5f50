"""BATCH_SIZE=auto: which sizes are tried, what ends a trial, and which batch a training goes on with."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from entrypoint.system import child, documents
from entrypoint.system.errors import JobError, UserError
from entrypoint.training import batch_size
from entrypoint.training.checkpoints import Manifest
from entrypoint.zoo import catalogue, pipeline_config
from tests.conftest import make_settings
from tests.training.test_resuming import prepared

CLUSTER = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    ("limit", "first", "most", "found", "tried"),
    [
        (1000, 32, 128, 128, [32, 64, 128]),
        (1000, 32, 100, 100, [32, 64, 100]),
        (100, 32, 128, 96, [32, 64, 128, 96, 112, 104]),
        (5, 32, 128, 5, [32, 16, 8, 4, 6, 5]),
        (1, 8, 8, 1, [8, 4, 2, 1]),
        (0, 8, 8, 0, [8, 4, 2, 1]),
        (0, 1, 1, 0, [1]),
        (9, 1, 9, 9, [1, 2, 4, 8, 9]),
    ],
)
def test_largest_is_found_to_within_an_eighth(limit: int, first: int, most: int, found: int, tried: list[int]) -> None:
    sizes = []

    def fits(size: int) -> bool:
        sizes.append(size)
        return size <= limit

    assert batch_size.largest(fits, first, most) == found
    assert sizes == tried


def ends_with(monkeypatch: pytest.MonkeyPatch, status: int, output: str = "", errors: str = "") -> None:
    """Lets every trial end with that exit status and output."""

    def run(module: str, *_: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([module], status, output, errors)

    monkeypatch.setattr(child, "run_module", run)


def test_trial_tells_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pipeline_config.read(catalogue.PIPELINES / "smoke.config")
    ends_with(monkeypatch, 0, 'a line of a library\n{"bytes": 1024, "seconds_per_step": 0.5}\n')
    assert batch_size.try_batch(config, prepared(tmp_path)) == batch_size.Trial(1024, 0.5)


@pytest.mark.parametrize("status", [batch_size.TOO_LARGE, -signal.SIGKILL, -signal.SIGABRT])
def test_trial_that_runs_out_of_memory_is_too_large(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pipeline_config.read(catalogue.PIPELINES / "smoke.config")
    ends_with(monkeypatch, status)
    work = prepared(tmp_path)
    assert batch_size.try_batch(config, work) is None
    with pytest.raises(UserError, match="not even one photo on each device fits into memory"):
        batch_size.find(config, lambda *_: None, work)


@pytest.mark.parametrize(("status", "kind"), [(2, UserError), (1, JobError)])
def test_trial_that_fails_otherwise_ends_the_job(
    status: int, kind: type[JobError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pipeline_config.read(catalogue.PIPELINES / "smoke.config")
    ends_with(monkeypatch, status, "", "Traceback\nthe photos are upside down\n")
    with pytest.raises(kind, match="training with 16 photos a step fails: the photos are upside down") as caught:
        batch_size.try_batch(config, prepared(tmp_path))
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("words", "changed", "found"),
    [
        ("12, the largest that fits", {}, 12),
        ("12", {}, None),
        ("12, the largest that fits", {"resume": "never"}, None),
        ("12, the largest that fits", {"model": "efficientdet_d0"}, None),
        ("12, the largest that fits", {"freeze": "backbone"}, None),
    ],
)
def test_training_goes_on_with_the_batch_that_it_found(
    words: str, changed: dict[str, Any], found: int | None, tmp_path: Path
) -> None:
    work = prepared(tmp_path, batch_size="auto", **changed)
    known = {"MODEL": "smoke", "PRECISION": "float32", "BATCH_SIZE": words}
    folder = work.settings.result_dir / "checkpoint"
    folder.mkdir(parents=True)
    documents.write(
        folder / "ckpt-8.json",
        Manifest(8, "job", dict.fromkeys(("ckpt-8.index", "ckpt-8.data-00000-of-00001"), "0" * 64), [], settings=known),
    )
    assert batch_size.of_checkpoint(work) == found


def test_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BATCH_SIZE=auto is for one machine"):
        batch_size.refuse_cluster(make_settings(tmp_path, batch_size="auto", tf_config=CLUSTER))
    batch_size.refuse_cluster(make_settings(tmp_path, batch_size=8, tf_config=CLUSTER))
