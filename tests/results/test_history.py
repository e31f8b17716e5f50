"""history.json: what is read of a file from a bucket, and how a run is added."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from entrypoint import workspace
from entrypoint.data import annotations as annotations_step
from entrypoint.data import records
from entrypoint.results import history, metrics_document, report_runs
from entrypoint.results.history import History, Run
from entrypoint.system import bucket, copying, documents
from entrypoint.training import checkpoints, train
from entrypoint.workspace import Workspace
from tests import stores
from tests.conftest import make_settings
from tests.results import reported

RUN = Run(
    weights="a" * 64,
    ended=1_790_000_000.0,
    version="1.0.0 (unknown)",
    model="smoke",
    steps=300,
    kept=200,
    photos=28,
    validation_photos=32,
    labels=3,
    map=0.4,
    map50=0.7,
    minutes=11.5,
    data="b" * 64,
    validation="c" * 64,
    settings={"MODEL": "smoke", "NUM_STEPS": "300", "BATCH_SIZE": "16", "pipeline.config": "0123"},
)


def run(number: int, **values: Any) -> Run:
    """A run with weights of its own."""
    return dataclasses.replace(RUN, weights=f"{number:064x}", **values)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    names = [f"{index}.jpg" for index in range(16)]
    work = reported.job(tmp_path_factory.mktemp("job"), names, ["cat", "dog"], validation_fraction=0.5)
    work.results.mkdir()
    return work


def written(work: Workspace) -> History:
    """The history that the job writes into WORK_DIR."""
    dataset, recorded = annotations_step.load(work), records.load(work)
    return history.write(work, dataset, recorded, metrics_document.load(work))


def publish(work: Workspace, content: str) -> Path:
    """Puts a file into RESULT_DIR, as another job or anybody else does."""
    place = Path(work.results / "history.json")
    place.unlink(missing_ok=True)
    place.write_text(content)
    return place


def plain(*runs: Run) -> dict[str, Any]:
    """The document of these runs, as it is read from a file."""
    document: dict[str, Any] = json.loads(json.dumps(documents.to_plain(History(runs))))
    return document


def test_run_is_added_behind_those_in_the_results(job: Workspace) -> None:
    publish(job, json.dumps(plain(run(1), run(2))))
    found = written(job)
    assert [each.weights for each in found.earlier] == [run(1).weights, run(2).weights]
    assert documents.read(History, job.history) == found
    metrics = metrics_document.load(job)
    recorded = records.load(job)
    assert (found.now.model, found.now.steps, found.now.kept, found.now.labels) == ("smoke", 300, 300, 2)
    assert (found.now.photos, found.now.validation_photos) == (recorded.train.photos, recorded.validation.photos)
    assert found.now.map == pytest.approx(metrics.summary.map, abs=1e-6)
    assert found.now.ended == workspace.read_marks(job)["train"].began + reported.SECONDS["train"]
    assert found.now.minutes == pytest.approx(sum(reported.SECONDS.values()) / 60, abs=0.01)
    assert found.now.settings["BATCH_SIZE"] == "16"


def test_run_that_is_published_twice_appears_once_with_the_time_of_its_training(job: Workspace) -> None:
    publish(job, json.dumps(plain(run(1))))
    once = written(job)
    publish(job, job.history.read_text())
    assert written(job) == once
    # On another machine nothing was left to train.
    workspace.write_mark("train", dataclasses.replace(workspace.read_marks(job)["train"], began=9e9, seconds=1), job)
    assert written(job) == once


def test_another_training_is_another_run(job: Workspace) -> None:
    before = written(job)
    publish(job, job.history.read_text())
    path = checkpoints.manifest_of(train.last_checkpoint(job))
    kept = path.read_bytes()
    documents.write(path, dataclasses.replace(checkpoints.load(train.last_checkpoint(job)), files={"x": "2" * 64}))
    assert len(written(job).runs) == len(before.runs) + 1
    path.write_bytes(kept)


def test_only_the_last_runs_are_kept(job: Workspace) -> None:
    publish(job, json.dumps(plain(*(run(number) for number in range(1, 61)))))
    found = written(job)
    assert len(found.runs) == history.MOST_RUNS
    assert found.runs[-2].weights == run(60).weights
    assert job.history.stat().st_size < history.MOST_BYTES / 10


def test_missing_history_is_no_warning(job: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    publish(job, "").unlink()
    with caplog.at_level(logging.WARNING, "job"):
        assert written(job).earlier == ()
    assert not caplog.records


def damaged(**values: Any) -> str:
    document = plain(run(1))
    document["runs"][0].update(values)
    return json.dumps(document)


BAD = {
    "empty": "",
    "cut off": json.dumps(plain(run(1)))[:-20],
    "another document": '{"type": "localization"}',
    "a list": "[]",
    "too deep": "[" * 100_000,
    "a later version": json.dumps(plain(run(1)) | {"schema_version": 2}),
    "not a number": damaged(mAP=float("nan")),
    "no metric": damaged(mAP=7),
    "a time that no calendar has": damaged(ended=1e300),
    "a long name": damaged(model="x" * 1000),
    "many settings": damaged(settings={str(index): "" for index in range(1000)}),
    "no digest": damaged(weights="<script>"),
    "a large number": damaged(steps=10**30),
    "large": " " * history.MOST_BYTES + json.dumps(plain(run(1))),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_file_that_is_no_history_is_missing_with_one_warning(
    job: Workspace, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    place = publish(job, content)
    with caplog.at_level(logging.WARNING, "job"):
        assert written(job).earlier == ()
    (record,) = caplog.records
    assert str(place) in record.getMessage()
    assert "is replaced by a new history" in record.getMessage()


def test_whole_record_is_read_as_the_damaged_ones_begin(job: Workspace) -> None:
    publish(job, damaged())
    assert len(written(job).earlier) == 1


def test_link_out_of_the_results_and_fifo_are_not_read(
    job: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "history.json"
    outside.write_text(json.dumps(plain(run(1))))
    place = publish(job, "")
    place.unlink()
    place.symlink_to(outside)
    assert written(job).earlier == ()
    place.unlink()
    os.mkfifo(place)
    assert written(job).earlier == ()
    place.unlink()
    assert len(caplog.records) == 2


@pytest.mark.parametrize(("scheme", "start"), [("s3", stores.s3), ("gs", stores.gcs)])
def test_history_is_read_from_a_bucket_without_a_mount(
    scheme: str, start: Callable[[], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "job.json").write_text("{}")
    with start() as variables, mock.patch.dict(os.environ, variables):
        stores.upload(tmp_path / "files", address := f"{scheme}://bucket-of-tests/results")
        work = Workspace(make_settings(tmp_path, result_dir=bucket.parse(address)))
        assert history.read_published(work).runs == ()
        assert "new history" not in caplog.text
        copying.write_file(work.results / "history.json", json.dumps(plain(run(1), run(2))).encode())
        assert history.read_published(work).runs == (run(1), run(2))
        for count, content in enumerate((b"{}", b" " * (history.MOST_BYTES + 1), b""), start=1):
            copying.write_file(work.results / "history.json", content)
            assert history.read_published(work).runs == ()
            assert len([each for each in caplog.records if "new history" in each.getMessage()]) == count


def test_digest_depends_on_names_and_boxes_of_the_validation_photos_alone(job: Workspace) -> None:
    dataset, recorded, metrics = annotations_step.load(job), records.load(job), metrics_document.load(job)
    publish(job, "").unlink()
    now = history.write(job, dataset, recorded, metrics).now
    assert metrics.analysis
    measured = {photo.key for photo in metrics.analysis.per_photo}
    for is_measured in (True, False):
        index = next(at for at, image in enumerate(dataset.images) if (image.key in measured) == is_measured)
        image = dataset.images[index]
        moved = dataclasses.replace(image, boxes=(dataclasses.replace(image.boxes[0], xmin=0.0123), *image.boxes[1:]))
        images = [*dataset.images[:index], moved, *dataset.images[index + 1 :]]
        other = history.describe(job, dataclasses.replace(dataset, images=images), recorded, metrics)
        assert (other.validation != now.validation) == is_measured
        assert other.data != now.data
    reversed_ = history.describe(job, dataclasses.replace(dataset, images=dataset.images[::-1]), recorded, metrics)
    assert (reversed_.validation, reversed_.data) == (now.validation, now.data)


def test_differences_are_named_with_the_values_of_the_earlier_run() -> None:
    words = {**RUN.settings, "BATCH_SIZE": "8", "AUGMENT": "light", "pipeline.config": "4567"}
    assert report_runs.differences(run(1), RUN) == "nothing: the same settings and photos"
    assert report_runs.differences(run(1, settings=words), RUN) == "BATCH_SIZE=8; AUGMENT=light"
    assert report_runs.differences(RUN, run(1, settings=words)) == "BATCH_SIZE=16; AUGMENT not set"
    assert report_runs.differences(run(1, settings=RUN.settings | {"MODEL": "scratch"}), RUN) == "another model"
    config = {**RUN.settings, "pipeline.config": "4567"}
    assert report_runs.differences(run(1, settings=config), RUN) == "another pipeline.config"
    assert report_runs.differences(run(1, data="0" * 64), RUN) == "other training photos or boxes"
    other = report_runs.differences(run(1, validation="0" * 64, data="0" * 64), RUN)
    assert other == "other validation photos or boxes: mAP cannot be compared"
    many = report_runs.differences(run(1, settings={f"X{number}": "1" for number in range(20)}), RUN)
    assert re.search(r"; \d+ more settings$", many)


def test_best_run_is_one_on_the_same_validation_photos() -> None:
    elsewhere = run(1, validation="0" * 64, map=0.9)
    assert report_runs.about_best(History((elsewhere, RUN))) == ""
    worse, better = run(2, map=0.3), run(3, map=0.5, model="scratch")
    assert "highest mAP of the 2 runs" in report_runs.about_best(History((elsewhere, worse, RUN)))
    sentence = report_runs.about_best(History((elsewhere, worse, better, RUN)))
    assert sentence.startswith("Of the 3 runs on the same validation photos, that of 2026-09-21 ")
    assert "MODEL=scratch, 300 steps, mAP 0.500" in sentence
    assert report_runs.about_best(History((better, dataclasses.replace(RUN, map=None, map50=None)))) == ""


def test_rows_have_the_newest_first_and_mark_those_on_other_photos() -> None:
    rows = report_runs.rows(History((run(1, validation="0" * 64), run(2), RUN)))
    assert [(row.number, row.is_now, row.is_comparable) for row in rows] == [
        (3, True, True),
        (2, False, True),
        (1, False, False),
    ]
