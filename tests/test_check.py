from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BOX, ROOT, environment, run_job, write_bucket


def settings(folder: Path) -> dict[str, Path]:
    return {"DATA_DIR": folder / "bucket", "RESULT_DIR": folder / "results", "WORK_DIR": folder / "work"}


def test_demo_bucket_can_be_trained_on_and_what_is_odd_is_told(demo_bucket: Path, tmp_path: Path) -> None:
    result = run_job("check", **settings(tmp_path) | {"DATA_DIR": demo_bucket})
    assert result.returncode == 0, result.stdout
    assert "40 labelled photos: 34 to train on, 6 for validation" in result.stdout
    assert "repaired: box with corners swapped, put in order: 1 (photo-0000.jpg)" in result.stdout
    assert result.stdout.rstrip().endswith("the job can start")
    # The page is all that is written.
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "results" / "check.html"]


def test_what_would_stop_the_job_is_told_with_its_exit_code(tmp_path: Path) -> None:
    keys = [f"{number}.png" for number in range(10)]
    write_bucket(tmp_path / "bucket", {key: [BOX] for key in (*keys, "gone.png")}, photos=tuple(keys))
    for key in keys[:2]:
        (tmp_path / "bucket" / key).write_bytes(b"no photo")
    result = run_job("check", "--json", **settings(tmp_path))
    assert result.returncode == 2
    facts = json.loads(result.stdout)
    (stop,) = facts["stops"]
    assert stop.startswith("3 of 11 photos cannot be used, more than MAX_SKIPPED=0.1 allows: photo skipped, no photo")
    assert facts["found"]["photo skipped: no photo, whatever its name"] == ["0.png", "1.png"]
    assert facts["photos"]["train"] + facts["photos"]["validation"] == 8
    # The job says the same.
    only = run_job("tf_record", "--only", **settings(tmp_path))
    assert "--only tf_record: the step `label_map` is not done with these settings" in only.stdout
    whole = run_job("1", MODEL="smoke", **settings(tmp_path))
    assert whole.returncode == 2
    assert "3 of 11 photos cannot be used, more than MAX_SKIPPED=0.1 allows" in whole.stdout


def test_bucket_without_annotations_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    result = run_job("check", **settings(tmp_path))
    assert result.returncode == 2
    assert "_annotations.json is missing" in result.stdout


def test_check_says_what_it_read_and_where_the_split_is_from(demo_bucket: Path, tmp_path: Path) -> None:
    facts = json.loads(run_job("check", "--json", **settings(tmp_path) | {"DATA_DIR": demo_bucket}).stdout)
    assert facts["annotations"] == {"format": "cloud_annotations", "place": str(demo_bucket / "_annotations.json")}
    assert facts["split"] == "by VALIDATION_FRACTION and SEED"


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ({"CHECKPOINT": "/nowhere/ckpt"}, "/nowhere/ckpt is missing: correct CHECKPOINT"),
        (
            {"MODEL": "faster_rcnn_resnet50_v1_640x640", "EXPORTS": "tflite", "PIPELINE_CONFIG": "/none"},
            "is not a file",
        ),
        ({"DATA_DIR": "/nowhere"}, "DATA_DIR=/nowhere is not a folder"),
    ],
)
def test_check_refuses_what_the_job_would_refuse_and_prints_json_all_the_same(
    demo_bucket: Path, tmp_path: Path, refused: dict[str, str], words: str
) -> None:
    result = run_job("check", "--json", **settings(tmp_path) | {"DATA_DIR": demo_bucket} | refused)
    assert result.returncode == 2
    assert words in json.loads(result.stdout)["error"]
    assert words in run_job("check", **settings(tmp_path) | {"DATA_DIR": demo_bucket} | refused).stdout


def test_page_is_written_where_it_is_asked_for(demo_bucket: Path, tmp_path: Path) -> None:
    given = settings(tmp_path) | {"DATA_DIR": demo_bucket}
    result = run_job("check", "--page", str(tmp_path / "pages" / "a.html"), **given)
    assert result.returncode == 0, result.stdout
    assert "The job can start" in (tmp_path / "pages" / "a.html").read_text()
    (tmp_path / "file").write_text("")
    refused = run_job("check", "--page", str(tmp_path / "file" / "a.html"), **given)
    assert refused.returncode == 2
    assert "file/a.html cannot be written" in refused.stdout
    other = run_job("label_map", "--page", "a.html", **given)
    assert "--page belongs to check" in other.stdout


def test_bucket_that_cannot_be_written_is_checked_without_a_page(demo_bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = settings(tmp_path) | {"DATA_DIR": demo_bucket, "RESULT_DIR": tmp_path / "file" / "results"}
    result = run_job("check", **given)
    assert result.returncode == 0, result.stdout
    assert "the page check.html is not written" in result.stdout


def test_check_does_without_tensorflow(demo_bucket: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('not for this')")
    given = environment(**settings(tmp_path) | {"DATA_DIR": demo_bucket})
    command = [sys.executable, "-m", "entrypoint", "check"]
    paths = {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    result = subprocess.run(command, env=given | paths, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
