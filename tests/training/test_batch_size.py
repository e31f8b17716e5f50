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
from entrypoint.training import batch_size, identity, schedule
from entrypoint.training.changes import Changes
from entrypoint.training.checkpoints import Manifest
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue, pipeline_config
from tests.conftest import make_settings
from tests.training.test_resuming import prepared

CLUSTER = json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}})


@pytest.mark.parametrize(
    ("limit", "first", "most", "found", "tried"),
    [
        (1000, 32, 128, 128, [32, 64, 128]),
        (1000, 32, 100, 100, [32, 64, 100]),
        # What just fits is 96, and an eighth of it is left out.
        (100, 32, 128, 84, [32, 64, 128, 96, 112, 104]),
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

    def run(module: str, *_: str, **__: Any) -> subprocess.CompletedProcess[str]:
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
    work = prepared(tmp_path)
    ends_with(monkeypatch, status, '{"error": "the photos are upside down"}\n', "a warning of a library\n")
    with pytest.raises(kind, match="training with 16 photos a step fails: the photos are upside down") as caught:
        batch_size.try_batch(config, work)
    assert type(caught.value) is kind
    assert not work.trial.exists()
    # A process that ends inside a library prints nothing of its own.
    ends_with(monkeypatch, status, "", "a line of a library\nits last line\n")
    with pytest.raises(kind, match="fails: its last line"):
        batch_size.try_batch(config, work)


def test_trial_that_hangs_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(module: str, *_: str, **__: Any) -> Any:
        raise subprocess.TimeoutExpired(module, 1)

    monkeypatch.setattr(child, "run_module", hang)
    with pytest.raises(JobError, match="a training with 16 photos a step does not get on"):
        batch_size.try_batch(pipeline_config.read(catalogue.PIPELINES / "smoke.config"), prepared(tmp_path))


@pytest.mark.parametrize(
    ("changed", "devices", "found"),
    [
        ({}, 1, 12),
        ({"num_steps": 90}, 1, 12),
        ({}, 4, 12),
        # Twelve photos cannot be shared evenly.
        ({}, 5, None),
        ({"resume": "never"}, 1, None),
        ({"model": "efficientdet_d0"}, 1, None),
        ({"freeze": "backbone"}, 1, None),
        ({"photos": "others"}, 1, None),
    ],
)
def test_training_goes_on_with_the_batch_that_it_found(
    changed: dict[str, Any], devices: int, found: int | None, tmp_path: Path
) -> None:
    work = prepared(tmp_path, batch_size="auto", num_steps=60)
    leave_checkpoint(of_batch(12, work), work)
    later = prepared(tmp_path, batch_size="auto", **{"num_steps": 60, **changed})
    config = pipeline_config.read(later.pipeline)
    assert batch_size.of_checkpoint(config, fit_config, devices, later) == found


def test_number_that_was_made_up_is_not_taken(tmp_path: Path) -> None:
    work = prepared(tmp_path, batch_size="auto")
    leave_checkpoint({**of_batch(12, work), "BATCH_SIZE": f"{'9' * 30}{identity.FOUND}"}, work)
    assert batch_size.of_checkpoint(pipeline_config.read(work.pipeline), fit_config, 1, work) is None


def leave_checkpoint(words: dict[str, str], work: Workspace) -> None:
    """Leaves the manifest of a checkpoint whose training those words decide."""
    folder = work.settings.result_dir / "checkpoint"
    folder.mkdir(parents=True)
    files = dict.fromkeys(("ckpt-8.index", "ckpt-8.data-00000-of-00001"), "0" * 64)
    documents.write(folder / "ckpt-8.json", Manifest(8, "job", files, [], settings=words))


def fit_config(config: Any, size: int | None, _: Changes) -> None:
    """Writes the batch size, and nothing that follows from it."""
    config.train_config.batch_size = size


def of_batch(size: int, work: Workspace) -> dict[str, str]:
    """What decides a training with that batch, in words."""
    config = pipeline_config.read(work.pipeline)
    fit_config(config, size, Changes())
    return identity.words(work, size, schedule.peak_of_optimizer(config.train_config.optimizer), config)


def test_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="BATCH_SIZE=auto is for one machine"):
        batch_size.refuse_cluster(make_settings(tmp_path, batch_size="auto", tf_config=CLUSTER))
    batch_size.refuse_cluster(make_settings(tmp_path, batch_size=8, tf_config=CLUSTER))
