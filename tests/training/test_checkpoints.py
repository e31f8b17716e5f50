from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from entrypoint.system.errors import UserError
from entrypoint.training import checkpoints
from entrypoint.training.metrics import Evaluated, Evaluations
from entrypoint.workspace import Workspace
from tests.conftest import make_settings
from tests.training.counting import CountingTrainer


def save_steps(work: Workspace, *steps: int, job: str = "job") -> None:
    trainer = CountingTrainer()
    for step in steps:
        trainer.value.assign(step)
        checkpoints.adopt(checkpoints.write(trainer, [{"step": step, "loss": 1.0}], work), job, work)


def steps_in(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.glob("ckpt-*")}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_newest_checkpoint_is_found_and_restored(work: Workspace) -> None:
    save_steps(work, 9, 10, 100)
    saved = checkpoints.newest("job", work)
    assert saved is not None
    assert (saved.step, saved.history) == (100, [{"step": 100, "loss": 1.0}])
    trainer = CountingTrainer()
    trainer.restore(saved.prefix)
    assert trainer.step == 100


def test_two_checkpoints_are_kept_in_both_places(work: Workspace) -> None:
    save_steps(work, 1, 2, 3, 4)
    for folder in checkpoints.folders(work):
        assert steps_in(folder) == {"ckpt-3", "ckpt-4"}
        assert tf.train.latest_checkpoint(str(folder)) == str(folder / "ckpt-4")


def test_checkpoint_that_is_published_is_not_copied_again(work: Workspace) -> None:
    save_steps(work, 5)
    saved = checkpoints.newest("job", work)
    assert saved is not None
    work.events.mkdir()
    (work.events / "events.out.tfevents.0.job").write_bytes(b"")
    # While it is written over there is none. What is written again has another time.
    for path in work.published_checkpoints.iterdir():
        os.utime(path, ns=(1, 1))
    checkpoints.adopt(saved, "job", work)
    published = checkpoints.publish_all(work)
    assert {path.name for path in published} == {path.name for path in work.checkpoints.rglob("*") if path.is_file()}
    untouched = {path.name for path in work.published_checkpoints.iterdir() if path.stat().st_mtime_ns == 1}
    assert untouched == {"ckpt-5.index", "ckpt-5.data-00000-of-00001", "ckpt-5.json"}


@pytest.mark.parametrize("damage", [cut, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("end", [".index", ".data-00000-of-00001", ".json"])
def test_checkpoint_that_is_not_whole_is_published_again(
    work: Workspace, damage: Callable[[Path], None], end: str
) -> None:
    save_steps(work, 5)
    damage(work.results / "checkpoint" / f"ckpt-5{end}")
    checkpoints.publish_all(work)
    for path in work.checkpoints.iterdir():
        assert (work.results / "checkpoint" / path.name).read_bytes() == path.read_bytes()


def test_later_checkpoints_that_are_damaged_take_no_place(work: Workspace) -> None:
    save_steps(work, 90, 100)
    for folder in checkpoints.folders(work):
        for step in (90, 100):
            cut(folder / f"ckpt-{step}.index")
    assert checkpoints.newest("job", work) is None
    save_steps(work, 50, 60)
    for folder in checkpoints.folders(work):
        assert steps_in(folder) == {"ckpt-50", "ckpt-60"}


def test_what_a_killed_save_left_behind_is_removed(work: Workspace) -> None:
    folder = work.checkpoints / "ckpt-7_temp"
    folder.mkdir(parents=True)
    (folder / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    save_steps(work, 8)
    assert steps_in(work.checkpoints) == {"ckpt-8"}


def test_files_that_the_job_did_not_make_stay(work: Workspace, tmp_path: Path) -> None:
    """Beside the job's checkpoints, and behind a link in the place of the folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    work.results.mkdir()
    (work.results / "checkpoint").symlink_to(elsewhere)
    theirs = {
        "ckpt-0.index": "zoo",
        "ckpt-0.data-00000-of-00001": "zoo",
        "ckpt-best/weights": "mine",
        "ckpt-99.json": '{"files": {"../photo.jpg": "x", "ckpt-99.index": "x"}, "job": "job", "step": 99}',
        "ckpt-98.claim": '{"files": ["notes.txt"], "job": "job"}',
        "notes.txt": "mine",
        "checkpoint": 'model_checkpoint_path: "ckpt-0"\nall_model_checkpoint_paths: "ckpt-0"\n',
        "../photo.jpg": "mine",
    }
    for name, text in theirs.items():
        (elsewhere / name).parent.mkdir(exist_ok=True)
        (elsewhere / name).write_text(text)
    save_steps(work, 50, job="other")
    save_steps(work, 1, 2, 3)
    checkpoints.publish_all(work)
    assert {name: (elsewhere / name).read_text() for name in theirs} == theirs
    assert steps_in(elsewhere) == {"ckpt-0", "ckpt-best", "ckpt-98", "ckpt-99", "ckpt-2", "ckpt-3"}


def test_half_published_checkpoint_is_removed(work: Workspace) -> None:
    save_steps(work, 5)
    folder = work.results / "checkpoint"
    (folder / "ckpt-7.claim").write_text('{"job": "job", "files": ["ckpt-7.index", "ckpt-7.data-00000-of-00001"]}')
    (folder / "ckpt-7.index").write_bytes(b"half")
    checkpoints.refuse_foreign(work)
    save_steps(work, 8)
    assert steps_in(folder) == {"ckpt-5", "ckpt-8"}


@pytest.mark.parametrize("name", ["ckpt-7.index", "ckpt-1000.data-00000-of-00001"])
def test_file_that_a_checkpoint_would_be_written_over_is_refused_by_name(tmp_path: Path, name: str) -> None:
    work = Workspace(make_settings(tmp_path, num_steps=1000))
    folder = work.results / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "ckpt-0.index").write_text("no step of the job has this number")
    checkpoints.refuse_foreign(work)
    (folder / name).write_text("mine")
    with pytest.raises(UserError, match=f"checkpoint/{name} was not made by this job"):
        checkpoints.refuse_foreign(work)


def test_results_alone_are_enough_to_resume(work: Workspace) -> None:
    save_steps(work, 5)
    for path in work.checkpoints.iterdir():
        path.unlink()
    saved = checkpoints.newest("job", work)
    assert saved is not None
    assert saved.prefix == work.checkpoints / "ckpt-5"


@pytest.mark.parametrize(
    ("damage", "end"),
    [
        (cut, ".index"),
        (cut, ".data-00000-of-00001"),
        (cut, ".json"),
        (flip_a_bit, ".index"),
        (flip_a_bit, ".data-00000-of-00001"),
        (Path.unlink, ".index"),
        (Path.unlink, ".data-00000-of-00001"),
    ],
)
def test_damaged_checkpoint_gives_way_to_the_one_before_and_is_named(
    work: Workspace, damage: Callable[[Path], None], end: str, caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(work, 5, 6)
    for folder in checkpoints.folders(work):
        damage(folder / f"ckpt-6{end}")
    with caplog.at_level(logging.WARNING):
        saved = checkpoints.newest("job", work)
    assert saved is not None
    assert saved.step == 5
    for folder in checkpoints.folders(work):
        assert f"{folder}/ckpt-6" in caplog.text


def test_checkpoint_without_its_manifest_was_never_finished(work: Workspace) -> None:
    save_steps(work, 5, 6)
    for folder in checkpoints.folders(work):
        (folder / "ckpt-6.json").unlink()
    saved = checkpoints.newest("job", work)
    assert saved is not None
    assert saved.step == 5


def test_checkpoint_of_another_job_is_neither_used_nor_kept(work: Workspace) -> None:
    save_steps(work, 50, job="other")
    assert checkpoints.newest("job", work) is None
    save_steps(work, 3)
    for folder in checkpoints.folders(work):
        assert steps_in(folder) == {"ckpt-3"}


def test_nothing_is_found_where_nothing_was_saved(work: Workspace) -> None:
    assert checkpoints.newest("job", work) is None


def test_place_for_checkpoints_keeps_what_is_another_s(work: Workspace, tmp_path: Path) -> None:
    work = Workspace(make_settings(tmp_path, checkpoint_dir=tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    for name in ("ckpt-0.index", "ckpt-0.data-00000-of-00001", "ckpt-0-notes.txt"):
        (tmp_path / "kept" / name).write_text("the user's")
    save_steps(work, 7, job="another")
    save_steps(work, 1, 2, 3)
    assert steps_in(tmp_path / "kept") == {"ckpt-0", "ckpt-0-notes", "ckpt-2", "ckpt-3", "ckpt-7"}


@pytest.mark.parametrize(
    "change",
    [
        {"files": ["ckpt-6.index", "ckpt-6.data-00000-of-00001"]},
        {"files": {}},
        {"files": {"ckpt-6.index": "x"}},
        {"files": {"ckpt-6.index": "x", "a/b": "x"}},
        {"files": {"ckpt-6.index": "x", "../ckpt-6.data-00000-of-00001": "x"}},
        {"files": {"ckpt-6.index": 5, "ckpt-6.data-00000-of-00001": None}},
        {"step": 7},
        {"history": "none"},
        {"job": None},
    ],
    ids=str,
)
def test_manifest_of_another_form_is_damaged(
    work: Workspace, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(work, 5, 6)
    for folder in checkpoints.folders(work):
        path = folder / "ckpt-6.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    saved = checkpoints.newest("job", work)
    assert saved is not None
    assert saved.step == 5
    assert "ckpt-6.json is damaged and is not used" in caplog.text


def save_evaluated(work: Workspace, *values: float) -> None:
    """A checkpoint every ten steps, each evaluated."""
    rows: tuple[Evaluated, ...] = ()
    for step, value in enumerate(values, 1):
        trainer = CountingTrainer()
        trainer.value.assign(10 * step)
        saved = checkpoints.write(trainer, [], work)
        rows = (*rows, Evaluated(10 * step, value, value, {}, 1.0))
        checkpoints.adopt(dataclasses.replace(saved, evaluations=Evaluations(10, rows)), "job", work)


def all_in(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for pattern in ("ckpt-*", "best-*") for path in folder.glob(pattern)}


def test_best_checkpoint_outlives_the_newest_ones(work: Workspace) -> None:
    save_evaluated(work, 0.1, 0.5, 0.2, 0.3, 0.4)
    for folder in checkpoints.folders(work):
        assert all_in(folder) == {"best-20", "ckpt-40", "ckpt-50"}
    saved = checkpoints.find_best(20, "job", work)
    assert saved is not None
    trainer = CountingTrainer()
    trainer.restore(saved.prefix)
    assert trainer.step == 20


def test_best_checkpoint_is_found_on_another_machine_with_the_evaluations(work: Workspace) -> None:
    save_evaluated(work, 0.1, 0.5, 0.2, 0.3)
    shutil.rmtree(work.checkpoints)
    newest = checkpoints.newest("job", work)
    assert newest is not None
    assert [row.map for row in newest.evaluations.rows] == [0.1, 0.5, 0.2, 0.3]
    assert newest.evaluations.every == 10
    best = newest.evaluations.best
    assert best is not None
    found = checkpoints.find_best(best.step, "job", work)
    assert found is not None
    assert found.prefix == work.checkpoints / "best-20"
    assert checkpoints.load(found.prefix).step == 20


@pytest.mark.parametrize("damage", [cut, flip_a_bit, Path.unlink])
def test_damaged_best_checkpoint_is_not_used(work: Workspace, damage: Callable[[Path], None]) -> None:
    save_evaluated(work, 0.5, 0.1)
    for folder in checkpoints.folders(work):
        damage(folder / "best-10.data-00000-of-00001")
    assert checkpoints.find_best(10, "job", work) is None


def test_best_checkpoint_of_another_job_is_removed(work: Workspace) -> None:
    save_evaluated(work, 0.5, 0.1)
    save_steps(work, 30, 40, job="other")
    for folder in checkpoints.folders(work):
        assert all_in(folder) == {"ckpt-30", "ckpt-40"}


def test_manifest_of_an_older_release_is_read(work: Workspace) -> None:
    save_steps(work, 7)
    for folder in checkpoints.folders(work):
        document = json.loads((folder / "ckpt-7.json").read_text())
        assert document.pop("evaluations") == {"every": 0, "rows": []}
        (folder / "ckpt-7.json").write_text(json.dumps(document))
    saved = checkpoints.newest("job", work)
    assert saved is not None
    assert saved.evaluations == Evaluations()
