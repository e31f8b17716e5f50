from __future__ import annotations

import json
from pathlib import Path

import pytest

from entrypoint.results import replaced
from entrypoint.training import last_job
from entrypoint.workspace import Workspace
from tests.conftest import make_settings


def test_files_of_a_replaced_job_are_remembered_and_none_outside_of_the_results(work: Workspace) -> None:
    (work.results / "model_android").mkdir(parents=True)
    (work.results / "model_android" / "model.tflite").write_text("")
    outside = work.root / "thesis.doc"
    outside.write_text("")
    others = [work.results / name for name in ("photo.jpg", "models/mine.h5", "checkpoint/ckpt-0.index")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("the user's")
    strange = [str(path.relative_to(work.results)) for path in others]
    names = [
        *strange,
        "model_android/model.tflite",
        "model_android",
        "gone",
        str(outside),
        "../work/thesis.doc",
        5,
        ["x"],
    ]
    (work.results / "job.json").write_text(json.dumps({"files": names}))
    last_job.retract(work)
    last_job.retract(work)
    assert not (work.results / "job.json").exists()
    assert replaced.replaced_files(work) == [work.results / "model_android" / "model.tflite"]


@pytest.mark.parametrize(
    ("version", "removed"),
    [
        (None, ["model/saved_model.pb", "model/variables/1/x"]),
        (1, ["model/saved_model.pb", "model/1/saved_model.pb", "model/variables/1/x"]),
        (2, ["model/saved_model.pb", "model/variables/1/x"]),
    ],
)
def test_versions_of_earlier_jobs_stay_for_tensorflow_serving(
    tmp_path: Path, version: int | None, removed: list[str]
) -> None:
    names = ["model/saved_model.pb", "model/1/saved_model.pb", "model/12/variables/y", "model/variables/1/x"]
    work = Workspace(make_settings(tmp_path, serving_version=version))
    work.root.mkdir()
    for name in names:
        (work.results / name).parent.mkdir(parents=True, exist_ok=True)
        (work.results / name).write_text("")
    (work.results / "job.json").write_text(json.dumps({"files": names}))
    last_job.retract(work)
    assert replaced.replaced_files(work) == [work.results / name for name in removed]


LONG_NAME = json.dumps({"files": [f"model/{'x' * 5000}", "model/\0", "model/loop"]})


@pytest.mark.parametrize("content", ["", "[]", '{"files": 5}', "no json", "[" * 100_000, LONG_NAME], ids=len)
def test_manifest_that_is_none_is_retracted_too(work: Workspace, content: str) -> None:
    (work.results / "model").mkdir(parents=True)
    (work.results / "model" / "loop").symlink_to("loop")
    (work.results / "job.json").write_text(content)
    last_job.retract(work)
    assert replaced.replaced_files(work) == []
    assert not (work.results / "job.json").exists()
