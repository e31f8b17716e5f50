"""The benchmarks of the training loops, on sizes so small that their figures mean nothing."""

from __future__ import annotations

import re
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import gpu, hand_weights, loops, subset, workers, yardstick
from tests import demo
from tests.clients import run_node
from tests.server import serve_folder

FAST = {"step": 0.1, "input": 0.02}


def test_table_of_a_gpu_compares_the_job_with_upstream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # On a CPU, bfloat16 is float32.
    monkeypatch.setattr(gpu, "LOOPS", gpu.LOOPS[:2])
    gpu.main(("smoke",), steps=1, photos=12, batch=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no GPU: these are the figures of the CPU"
    row = r"\| smoke \| 2 \| [\d.]+ photos/s \| [\d.]+ photos/s \([\d.]+ times\) \| \d+% \|"
    assert re.fullmatch(row, lines[-1]), lines


def test_gain_is_on_upstream_and_reasons_stand_where_figures_are_missing() -> None:
    assert gpu.row("a", 8, [{"step": 0.2}, FAST, {"step": 0.05, "input": 0.02}]) == (
        "| a | 8 | 40.0 photos/s | 80.0 photos/s (2.00 times) | 160.0 photos/s (4.00 times) | 20%, 40% |"
    )
    missing = gpu.row("a", 8, ["failed: out of memory", FAST, "no time left"])
    assert missing == "| a | 8 | failed: out of memory | 80.0 photos/s | no time left | 20% |"


def test_loop_that_fails_or_comes_too_late_does_not_end_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise subprocess.CalledProcessError(1, "loop", stderr="Traceback\nOOM | when allocating\n")

    monkeypatch.setattr(loops, "run", fail)
    later = time.monotonic() + 60
    assert gpu.measure("job", tmp_path, 1, "float32", later) == "failed: OOM / when allocating"
    monkeypatch.setattr(loops, "prepare", fail)
    words = " | ".join(["failed: OOM / when allocating"] * 3)
    assert gpu.measure_model(tmp_path, "a", None, 1, later) == f"| a | - | {words} | - |"
    assert "no time left" in gpu.measure_model(tmp_path, "a", None, 1, time.monotonic() - 1)
    assert gpu.measure("job", tmp_path, 1, "float32", time.monotonic() - 1) == "no time left"

    def hang(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("loop", 1)

    monkeypatch.setattr(loops, "run", hang)
    assert gpu.measure("job", tmp_path, 1, "float32", later) == "no time left"


def test_workers_are_compared_with_the_job_s_step(capsys: pytest.CaptureFixture[str]) -> None:
    workers.main(photos=12)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "12 photos, 20 ms at every open"
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        "| 1 Dask workers, one photo at a time each",
        "| 2 Dask workers, one photo at a time each",
        "| the job's step, one photo at a time",
        "| the job's step",
    ]
    assert all(re.fullmatch(r"\| .* \| [\d.]+ \|", line) for line in lines[4:])


def test_detections_of_yolo_are_measured_as_those_of_the_job(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    demo.draw_bucket(bucket, photos=20)
    dataset, parts = subset.parts_of(bucket)
    yardstick.write(parts, dataset.labels, bucket, tmp_path / "yolo")
    # The boxes that YOLO is trained on, as if it had found them.
    found: dict[str, list[Any]] = {}
    for photo in (tmp_path / "yolo" / "images" / "validation").iterdir():
        with Image.open(photo) as opened:
            sides = [opened.width, opened.height] * 2
        lines = (tmp_path / "yolo" / "labels" / "validation" / f"{photo.stem}.txt").read_text().splitlines()
        rows = [[float(word) for word in line.split()] for line in lines]
        found[photo.name] = []
        for label, x, y, w, h in rows:
            corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * sides
            found[photo.name].append([int(label), 0.9, *corners])
    measured = yardstick.metrics_of(found, dataset, parts["validation"], bucket)
    assert measured == {"mAP": pytest.approx(1.0), "mAP@0.5": pytest.approx(1.0)}
    nothing = yardstick.metrics_of({name: [] for name in found}, dataset, parts["validation"], bucket)
    assert nothing == {"mAP": 0.0, "mAP@0.5": 0.0}


def test_whole_weights_have_seen_no_photo_for_validation(tmp_path: Path) -> None:
    demo.draw_bucket(tmp_path, photos=20)
    _, parts = subset.parts_of(tmp_path)
    batches = list(hand_weights.read_photos(tmp_path))
    assert sum(len(each) for each in batches) == len(parts["train"]) < 20
    first = Image.open(tmp_path / parts["train"][0].key).convert("RGB").resize((640, 640))
    np.testing.assert_array_equal(batches[0][0], np.asarray(first))


def test_whole_weights_find_what_their_own_package_finds(tmp_path: Path) -> None:
    """The package's model in TensorFlow.js, and the checkpoint that is made of it in TensorFlow."""
    import tensorflow as tf

    from entrypoint.engines.shared import patches
    from entrypoint.engines.tf2 import model as models
    from entrypoint.zoo import catalogue, pipeline_config

    name = "ssd_mobilenet_v2_fpnlite_320x320"
    demo.draw_bucket(tmp_path / "bucket", photos=8)
    place = hand_weights.make(tmp_path / "weights", name, tmp_path / "bucket")
    pixels = np.asarray(Image.open(tmp_path / "bucket" / "photo-0000.jpg").convert("RGB").resize((320, 320)))
    (tmp_path / "photo.rgb").write_bytes(pixels.tobytes())
    with tarfile.open(hand_weights.download(tmp_path / "weights")) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "package" / "models" / "webmodel" / hand_weights.MODELS[name] / "base"
    with serve_folder(folder) as address:
        lines = run_node("tfjs_outputs.js", address, tmp_path / "photo.rgb", 320, 320)
    config = pipeline_config.read(catalogue.PIPELINES / f"{name}.config")
    config.model.ssd.num_classes = hand_weights.LABELS
    built = models.build(config, is_training=False)
    # The archive's own labels are those of this model, so all of its variables fit.
    assert not models.restore_start(built, str(place / "ckpt-0"), "detection").missing
    patches.set_training(built, is_training=False)
    image, shapes = built.preprocess(tf.constant(pixels[np.newaxis], tf.float32))
    found = built.postprocess(built.predict(image, shapes), shapes)
    scores, boxes = found["raw_detection_scores"].numpy(), found["raw_detection_boxes"].numpy()
    by_size = {len(line): line for line in lines}
    np.testing.assert_allclose(by_size[scores.size], scores.ravel(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(by_size[boxes.size], boxes.ravel(), rtol=0, atol=1e-4)
