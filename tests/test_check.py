from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from entrypoint.results import check_page
from entrypoint.workspace import Workspace, claim
from tests.conftest import BOX, ROOT, environment, make_settings, run_job, write_bucket


def settings(folder: Path) -> dict[str, Path]:
    return {"DATA_DIR": folder / "bucket", "RESULT_DIR": folder / "results", "WORK_DIR": folder / "work"}


def test_demo_bucket_can_be_trained_on_and_what_is_odd_is_told(demo_bucket: Path, tmp_path: Path) -> None:
    result = run_job("check", **settings(tmp_path) | {"DATA_DIR": demo_bucket})
    assert result.returncode == 0, result.stdout
    assert "40 labelled photos: 34 to train on, 6 for validation" in result.stdout
    assert "repaired: box with corners swapped, put in order: 1 (photo-0000.jpg)" in result.stdout
    assert "\n300 steps of 32 photos show each of the 34 training photos 282.4 times\n" in result.stdout
    assert result.stdout.rstrip().endswith("the job can start")
    # The page and the sizes of the photos are all that is written.
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"results/check.html", "work/.training-job", "work/photos.json"}


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


# Runs a command of the job in one process, and prints how often a file of the bucket was opened, by its name.
COUNTED = """
import collections, json, os, sys
opened = collections.Counter()
def count(event, arguments):
    if event == "open" and str(arguments[0]).startswith(os.environ["DATA_DIR"]):
        opened[os.path.basename(arguments[0])] += 1
sys.addaudithook(count)
from entrypoint.main import main
main(sys.argv[1:])
print(json.dumps(opened))
"""


def opened_by(arguments: list[str], folder: Path) -> dict[str, int]:
    """How often a command opened each file of the bucket."""
    result = subprocess.run(
        [sys.executable, "-c", COUNTED, *arguments],
        env=environment(**settings(folder)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    counts: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    return counts


def write_coco(folder: Path, count: int) -> list[str]:
    """A bucket whose boxes are in pixels of photos of a size that only the photos have; returns the photos."""
    keys = [f"{number}.png" for number in range(count)]
    write_bucket(folder, {}, photos=tuple(keys))
    (folder / "_annotations.json").unlink()
    document = {
        "images": [{"id": number, "file_name": key} for number, key in enumerate(keys)],
        "annotations": [{"image_id": number, "category_id": 1, "bbox": [4, 3, 20, 12]} for number in range(count)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "labels.json").write_text(json.dumps(document))
    return keys


def test_photos_are_read_once_and_their_sizes_not_again_by_the_job(tmp_path: Path) -> None:
    keys = write_coco(tmp_path / "bucket", check_page.PHOTOS + 6)
    opened = opened_by(["check"], tmp_path)
    # Those that the page shows are read once more.
    assert sorted(opened[key] for key in keys) == [1] * 6 + [2] * check_page.PHOTOS
    # A photo that changed is read again.
    Image.new("RGB", (80, 60)).save(tmp_path / "bucket" / keys[0])
    opened = opened_by(["annotations"], tmp_path)
    assert {key: count for key, count in opened.items() if key in keys} == {keys[0]: 1}
    dataset = json.loads((tmp_path / "work" / "dataset.json").read_text())
    widths = [round(1 / (image["boxes"][0]["xmax"] - image["boxes"][0]["xmin"]), 6) for image in dataset["images"]]
    assert widths == [4.0, *[2.0] * (check_page.PHOTOS + 5)]


@pytest.mark.parametrize("content", ["", "[]", '{"photos": {"0.png": {"bytes": "x"}}}'])
def test_damaged_sizes_are_read_again(tmp_path: Path, content: str) -> None:
    write_coco(tmp_path / "bucket", 2)
    opened_by(["check"], tmp_path)
    (tmp_path / "work" / "photos.json").write_text(content)
    assert opened_by(["annotations"], tmp_path)["0.png"] == 1


def test_check_beside_a_job_on_the_same_folder_leaves_it_alone(tmp_path: Path) -> None:
    write_coco(tmp_path / "bucket", 2)
    with claim(Workspace(make_settings(tmp_path, work_dir=tmp_path / "work"))):
        assert run_job("check", **settings(tmp_path)).returncode == 0
    assert not (tmp_path / "work" / "photos.json").exists()


def test_document_is_as_its_schema_says(tmp_path: Path) -> None:
    schema = json.loads((ROOT / "docs" / "check.schema.json").read_text())
    write_coco(tmp_path / "bucket", 12)
    for expected in (0, 2):
        result = run_job("check", "--json", **settings(tmp_path))
        assert result.returncode == expected
        jsonschema.validate(json.loads(result.stdout), schema)
        (tmp_path / "bucket" / "labels.json").unlink(missing_ok=True)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"version": 1}, schema)


def test_text_fits_on_a_screen_and_has_the_most_severe_first(tmp_path: Path) -> None:
    keys = [f"{number}.png" for number in range(40)]
    drawn = {key: [{**BOX, "label": f"label {number}"}] for number, key in enumerate(keys)}
    drawn["0.png"] = [{**BOX, "x": 0.9}]
    drawn["1.png"] = [{**BOX, "label": "Label 2"}]
    gone = {f"gone {number}.png": [BOX] for number in range(9)}
    write_bucket(tmp_path / "bucket", drawn | gone, photos=tuple(keys))
    result = run_job("check", **settings(tmp_path))
    lines = result.stdout.splitlines()
    assert len(lines) < 30
    assert "  and 28 more" in lines
    severities = ("stops", "doubt", "repaired", "note")
    found = [line for line in lines if line.startswith(severities)]
    assert [line.partition(":")[0] for line in found] == list(severities)
    assert found[1].endswith("skipped: 9 (gone 0.png, gone 1.png, gone 2.png and 6 more)")
    assert lines[-1] == "the job would stop"
