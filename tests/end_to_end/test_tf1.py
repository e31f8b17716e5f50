"""Models of the first generation of the zoo, which train as graphs; nobody should notice but by the model's name."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from entrypoint.zoo import pipeline_config
from tests.conftest import ROOT, read_until, run_job, start_job
from tests.server import serve
from tests.zoo import published

SSD, FASTER_RCNN = "ssd_mobilenet_v1_coco", "faster_rcnn_inception_v2_coco"
COMPARED = ("saved_model", "tflite", "onnx", "openvino")
SIGNATURE = {"detection_boxes", "detection_classes", "detection_scores", "num_detections", "raw_detection_boxes"}


def make_archive(name: str, folder: Path) -> Path:
    """An archive of the zoo: the published names and shapes, with random weights, beside what is in it."""
    command = [sys.executable, "-m", "tests.zoo.archives", name, str(folder), "1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            (folder / Path(member.name).name).write_bytes(content.read())
    return archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of ssd_mobilenet_v1_coco."""
    return make_archive(SSD, tmp_path_factory.mktemp("archive"))


@pytest.fixture
def settings(tmp_path: Path, demo_bucket: Path) -> dict[str, Any]:
    """A job on the demo's bucket."""
    places = {"DATA_DIR": demo_bucket, "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    return {"MODEL": "ssd_mobilenet_v1_coco", "BATCH_SIZE": 4, **places}


def values(prefix: Path) -> Iterator[tuple[str, Any]]:
    """Names and values of a checkpoint."""
    reader = tf.train.load_checkpoint(str(prefix))
    for name in reader.get_variable_to_shape_map():
        yield name, reader.get_tensor(name)


def test_name_alone_trains_from_the_zoo_and_exports(archive: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    with serve(archive.read_bytes()) as server:
        result = run_job("1", **settings, LEARNING_RATE="1e-12", ZOO_URL=server.address, EXPORTS=",".join(COMPARED))
    assert result.returncode == 0, result.stdout
    compared = json.loads((tmp_path / "work" / "parity.json").read_text())["exports"]
    assert {name: each["state"] for name, each in compared.items()} == dict.fromkeys(COMPARED, "equal")
    assert f"pipeline.config from {ROOT / 'pipelines' / 'ssd_mobilenet_v1_coco.config'}" in result.stdout
    # The heads of 90 classes do not fit three labels; everything else does.
    found = re.search(r"checkpoint: (\d+) of (\d+) variables restored", result.stdout)
    assert found is not None
    assert (int(found.group(1)), int(found.group(2))) == (187, 199)
    assert "BoxPredictor_0/ClassPredictor: biases, weights" in result.stdout
    assert "batch norm: averages over 33 steps instead of 3333, because the training is short" in result.stdout
    # The averages of batch norm move with the first photo, at any learning rate.
    assert_kept(archive.parent / "model.ckpt", tmp_path / "results/checkpoint/ckpt-1", moving="moving_")
    check_exports(tmp_path / "results")


def assert_kept(start: Path, trained: Path, moving: str = "(?!)") -> None:
    """Asserts that the training started from the weights of a checkpoint.

    The heads of the labels and the variables that match `moving` are left out. A learning rate of 1e-12 moves a weight
    by less than 1e-9.
    """
    found = dict(values(trained))
    for name, value in values(start):
        if not re.search(rf"BoxPredictor_\d/ClassPredictor|SecondStageBoxPredictor|^global_step$|{moving}", name):
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-9, err_msg=name)


def check_exports(results: Path) -> None:
    """Both formats load in TensorFlow as it is used today, and find something on a photo."""
    program = """
import sys, numpy as np, tensorflow as tf
model, photos = tf.saved_model.load(f"{sys.argv[1]}/model"), tf.zeros([1, 120, 200, 3], tf.uint8)
found = model.signatures["serving_default"](input_tensor=photos)
print("serving", *sorted(found))
print("called", *sorted(name for name, value in model(photos).items() if np.array_equal(value, found[name])))
for name, file in (("detect", "model"), ("raw", "model_raw")):
    lite = tf.lite.Interpreter(f"{sys.argv[1]}/model_android/{file}.tflite")
    assert list(lite.get_signature_list()) == [name]
    runner = lite.get_signature_runner(name)
    found = runner(input=np.zeros(runner.get_input_details()["input"]["shape"], np.float32))
    print(name, *(f"{key}:{'x'.join(map(str, value.shape))}" for key, value in sorted(found.items())))
"""
    lines = dict(line.split(" ", 1) for line in run_python(program, str(results)).splitlines())
    assert set(lines["serving"].split()) >= SIGNATURE
    assert lines["called"] == lines["serving"]
    anchors = len(json.loads((results / "model_android/anchors.json").read_text()))
    assert lines["raw"].split() == [f"box_encodings:1x{anchors}x4", f"class_predictions:1x{anchors}x4"]
    assert lines["detect"].split()[0] == "detection_boxes:1x100x4"


def run_python(program: str, *arguments: str) -> str:
    """What a program prints, run in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_killed_job_resumes_at_the_same_step(settings: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "published.config"
    config.write_text(pipeline_config.write(published.config(SSD)))
    settings |= {"PIPELINE_CONFIG": config, "CHECKPOINT": "none", "CHECKPOINT_SECONDS": 0, "EXPORTS": "saved_model"}
    # The only evaluation is that of the end, and the averages are evaluated, too.
    settings |= {"EVALUATE_EVERY": 8}
    process = start_job("8", **settings)
    log = read_until(process, lambda line: "checkpoint saved at step 2" in line)
    process.kill()
    process.communicate()
    again = run_job("8", **settings)
    assert again.returncode == 0, again.stdout
    resumed = re.search(r"resumed at step (\d+)", again.stdout)
    assert resumed is not None
    assert int(resumed.group(1)) >= 2
    steps = [int(step) for step in re.findall(r"step = (\d+)", again.stdout)]
    assert steps[0] > int(resumed.group(1))
    assert steps[-1] == 8
    assert "CACLI" not in log
    history = json.loads((tmp_path / "results/checkpoint/ckpt-8.json").read_text())["history"]
    assert [point["step"] for point in history] == list(range(1, 9))
    (row,) = csv.DictReader((tmp_path / "results/metrics.csv").open())
    assert float(row["mAP"]) == max(float(row["mAP raw weights"]), float(row["mAP averaged weights"]))
    check_averages(tmp_path / "results", is_averaged=float(row["mAP averaged weights"]) > float(row["mAP raw weights"]))


def check_averages(results: Path, *, is_averaged: bool) -> None:
    """The last checkpoint has weights and their averages; the best one has those as weights that were better."""
    last, best = (dict(values(results / "checkpoint" / name)) for name in ("ckpt-8", "best-8"))
    averages = {name: value for name, value in last.items() if name.endswith("/ExponentialMovingAverage")}
    assert len(averages) > 100
    for name, average in averages.items():
        weight = name.removesuffix("/ExponentialMovingAverage")
        np.testing.assert_array_equal(best[weight], average if is_averaged else last[weight])
    assert any(np.any(last[name.rpartition("/")[0]] != average) for name, average in averages.items())


def test_two_stage_model_trains_and_is_exported_as_far_as_it_can_be(
    settings: dict[str, Any], dog_bucket: Path, tmp_path: Path
) -> None:
    # A model that has no pipeline of ours runs on the one in its archive, whatever that describes.
    settings |= {"MODEL": "faster_rcnn_resnet50_lowproposals_coco", "BATCH_SIZE": 2, "DATA_DIR": dog_bucket}
    with serve(make_archive(FASTER_RCNN, tmp_path).read_bytes()) as server:
        result = run_job("2", **settings, LEARNING_RATE="1e-12", ZOO_URL=server.address)
    assert result.returncode == 0, result.stdout
    assert "/extracted/pipeline.config, with these values" in result.stdout
    # Photos of several shapes in one batch.
    assert re.search(r"keep_aspect_ratio_resizer.pad_to_max_dimension +False -> True", result.stdout)
    assert "checkpoint: 356 of 356 variables restored" in result.stdout
    assert_kept(tmp_path / "model.ckpt", tmp_path / "results/checkpoint/ckpt-2")
    assert "checkpoint: outputs restored for the labels dog; those for square, triangle begin" in result.stdout
    check_known_label(dict(values(tmp_path / "model.ckpt")), dict(values(tmp_path / "results/checkpoint/ckpt-2")))
    assert "exports: tflite is left out: SSD and CenterNet models alone" in result.stdout
    assert (tmp_path / "results/model/saved_model.pb").exists()
    assert not (tmp_path / "results/model_android").exists()


def check_known_label(start: dict[str, Any], found: dict[str, Any]) -> None:
    """Scores and boxes for dogs are those of the start checkpoint, and so is the score of the background.

    The labels are square, dog and triangle; the id of dogs in COCO is 18.
    """
    scores, boxes = (f"SecondStageBoxPredictor/{name}/weights" for name in ("ClassPredictor", "BoxEncodingPredictor"))
    assert found[scores].shape == (1024, 4)
    np.testing.assert_allclose(found[scores][:, [0, 2]], start[scores][:, [0, 18]], rtol=0, atol=1e-9)
    assert found[boxes].shape == (1024, 12)
    np.testing.assert_allclose(found[boxes][:, 4:8], start[boxes][:, 4 * 17 : 4 * 18], rtol=0, atol=1e-9)
    assert np.abs(found[boxes][:, :4] - start[boxes][:, :4]).max() > 1e-3


def test_checkpoint_of_the_other_generation_is_refused(archive: Path, settings: dict[str, Any]) -> None:
    result = run_job("1", **settings | {"MODEL": "ssd_mobilenet_v2_fpnlite_320x320"}, CHECKPOINT=archive)
    assert result.returncode == 2
    assert "is a TF1 checkpoint, which a TF2 model cannot start from" in result.stdout


def test_unknown_model_is_a_named_error_with_its_line(settings: dict[str, Any], tmp_path: Path) -> None:
    text = (ROOT / "pipelines" / f"{SSD}.config").read_text()
    (tmp_path / "user.config").write_text(text.replace('"ssd_mobilenet_v1"', '"ssd_mobilenet_v9"'))
    result = run_job("1", **settings, PIPELINE_CONFIG=tmp_path / "user.config", CHECKPOINT="none")
    assert result.returncode == 2
    line = next(number for number, each in enumerate(text.splitlines(), start=1) if '"ssd_mobilenet_v1"' in each)
    assert (
        f"user.config:{line}: feature_extractor.type 'ssd_mobilenet_v9' is not in the Object Detection API"
        in result.stdout
    )
    assert "ssd_mobilenet_v1" in result.stdout


def test_photos_of_several_shapes_are_no_batch(settings: dict[str, Any], tmp_path: Path) -> None:
    text = (ROOT / "pipelines" / "ssd_mobilenet_v1_coco.config").read_text()
    text, count = re.subn(r"fixed_shape_resizer \{[^}]*\}", "identity_resizer {}", text)
    assert count == 1
    # Crops are of all shapes.
    text = text.replace("train_config {", "train_config {\n  data_augmentation_options { ssd_random_crop {} }")
    (tmp_path / "user.config").write_text(text)
    result = run_job("1", **settings, PIPELINE_CONFIG=tmp_path / "user.config", CHECKPOINT="none")
    assert result.returncode == 2
    assert "photos of several shapes cannot form a batch" in result.stdout
