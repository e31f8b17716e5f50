import tempfile
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image

from entrypoint import job, workspace
from entrypoint.system.errors import JobError, UserError
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config
from tests.conftest import BOX, make_settings, run_job, write_bucket
from tests.server import Answer, serve

CHEAP = ("annotations", "label_map", "tf_record", "checkpoint", "pipeline")


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    names = tuple(f"{index}.png" for index in range(10))
    return write_bucket(tmp_path / "bucket", {name: [BOX] for name in names}, names)


def run_cheap(tmp_path: Path, **settings: Any) -> Workspace:
    """Runs the steps before training, as the job does."""
    work = Workspace(make_settings(tmp_path, **{"model": "smoke", **settings}))
    with workspace.claim(work):
        for step in job.PLAN:
            if step.name in CHEAP:
                job.run_unless_done(step, work)
    return work


def began(work: Workspace) -> dict[str, float]:
    return {name: mark.began for name, mark in workspace.read_marks(work).items()}


def ran_again(before: dict[str, float], after: dict[str, float]) -> set[str]:
    """The steps that ran again, of those that are not always run."""
    return {name for name in after if after[name] != before.get(name)} - {"annotations"}


@pytest.mark.usefixtures("bucket")
def test_same_job_does_nothing_twice(tmp_path: Path) -> None:
    before = began(run_cheap(tmp_path))
    assert set(before) == set(CHEAP)
    assert ran_again(before, began(run_cheap(tmp_path))) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, {"tf_record", "pipeline"}),
        ({"batch_size": 2}, {"pipeline"}),
        ({"zoo_url": "/elsewhere"}, {"checkpoint"}),
        ({"workers": 1}, set()),
        ({"checkpoint_seconds": 1}, set()),
    ],
)
@pytest.mark.usefixtures("bucket")
def test_changed_setting_runs_the_steps_that_it_decides(
    tmp_path: Path, change: dict[str, Any], expected: set[str]
) -> None:
    before = began(run_cheap(tmp_path))
    assert ran_again(before, began(run_cheap(tmp_path, **change))) == expected


def test_exports_of_another_precision_are_written_and_compared_again(tmp_path: Path) -> None:
    for name in ("export", "parity"):
        step = job.find(name)
        inputs = {
            job.input_digest(step, Workspace(make_settings(tmp_path, quantize=quantize)))
            for quantize in ("none", "float16", "int8")
        }
        assert len(inputs) == 3, name


def test_changed_photo_runs_the_conversion_again(tmp_path: Path, bucket: Path) -> None:
    before = began(run_cheap(tmp_path))
    Image.new("RGB", (99, 99)).save(bucket / "3.png")
    assert ran_again(before, began(run_cheap(tmp_path))) == {"tf_record", "pipeline"}


@pytest.mark.usefixtures("bucket")
def test_missing_output_runs_its_step_again(tmp_path: Path) -> None:
    work = run_cheap(tmp_path)
    before = began(work)
    next(work.records.glob("train-*")).unlink()
    assert "tf_record" in ran_again(before, began(run_cheap(tmp_path)))


@pytest.mark.usefixtures("bucket")
def test_output_of_a_killed_step_is_not_taken_for_that_of_the_step_before(tmp_path: Path) -> None:
    work = run_cheap(tmp_path)
    # Another job replaces the records and dies before its mark is written: a folder is in the way of the new mark.
    (work.marks / ".tf_record.json.part").mkdir()
    with pytest.raises(IsADirectoryError):
        run_cheap(tmp_path, seed=1)
    assert "tf_record" not in workspace.read_marks(work)


@pytest.mark.usefixtures("bucket")
def test_job_that_is_replaced_is_not_marked_as_finished_any_more(tmp_path: Path) -> None:
    work = run_cheap(tmp_path)
    work.results.mkdir(exist_ok=True)
    (work.manifest).write_text('{"files": []}')
    run_cheap(tmp_path)
    assert (work.manifest).exists()
    run_cheap(tmp_path, batch_size=2)
    assert not (work.manifest).exists()


def test_failed_download_is_told_where_it_is_waited_for(tmp_path: Path) -> None:
    with serve(b"", Answer(404)) as server:
        work = Workspace(make_settings(tmp_path, zoo_url=server.address))
        future = job.start(job.find("checkpoint"), work)
        with pytest.raises(UserError, match="answered 404"):
            future.result(timeout=20)


def test_mistyped_bucket_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    result = run_job(DATA_DIR=tmp_path / "bukcet", WORK_DIR=tmp_path / "work", MODEL="smoke")
    assert result.returncode == 2
    assert "bukcet is not a folder" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_folder_of_the_user_s_is_no_work_dir(tmp_path: Path) -> None:
    (tmp_path / "work" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="holds files that do not belong to this job"):
        run_cheap(tmp_path)


def test_work_dir_belongs_to_one_job_at_a_time(tmp_path: Path) -> None:
    work = Workspace(make_settings(tmp_path))
    with workspace.claim(work), pytest.raises(JobError, match="is in use by another job"), workspace.claim(work):
        pass
    with workspace.claim(work):
        pass


@pytest.mark.parametrize(("work", "result"), [("a", "a"), ("a", "a/b"), ("a/b", "a")])
def test_work_and_results_do_not_lie_in_one_another(tmp_path: Path, work: str, result: str) -> None:
    outcome = run_job("models", DATA_DIR=tmp_path, WORK_DIR=tmp_path / work, RESULT_DIR=tmp_path / result)
    assert outcome.returncode == 2
    assert "lie in one another" in outcome.stdout


def test_work_dir_that_is_a_link_in_the_temporary_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    work = Workspace(make_settings(tmp_path, work_dir=tmp_path / "ours"))
    with pytest.raises(UserError, match=r"WORK_DIR=.*ours is a link of user"), workspace.claim(work):
        pass


@pytest.mark.usefixtures("bucket")
def test_records_are_found_in_a_work_dir_that_looks_like_a_pattern(tmp_path: Path) -> None:
    work = run_cheap(tmp_path, work_dir=tmp_path / "w[1]*")
    config = pipeline_config.read(work.pipeline)
    (pattern,) = config.train_input_reader.tf_record_input_reader.input_path
    assert len(tf.io.gfile.glob(pattern)) == len(list(work.records.glob("train-*.tfrecord"))) > 0
