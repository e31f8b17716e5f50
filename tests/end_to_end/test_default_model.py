"""The default model, from scratch and from an archive of the zoo."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entrypoint.training.start_checkpoint import KEPT
from entrypoint.zoo import catalogue, pipeline_config
from tests.conftest import run_job
from tests.server import Answer, serve

MODEL = "ssd_mobilenet_v2_fpnlite_320x320"
STEM = "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8"


def test_default_model_trains_from_scratch(tmp_path: Path, demo_bucket: Path) -> None:
    import tensorflow as tf

    results = tmp_path / "results"
    result = run_job(
        "5", DATA_DIR=demo_bucket, RESULT_DIR=results, WORK_DIR=tmp_path / "work", CHECKPOINT="none", BATCH_SIZE=4
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("CACLI-TRAINING-SUCCESS") == 1
    assert re.search(r"tensorflow:loss = [\d.]+, step = 5$", result.stdout, re.MULTILINE)
    assert "box without area, skipped: 1" in result.stdout
    newest = tf.train.latest_checkpoint(str(results / "checkpoint"))
    assert tf.train.load_variable(newest, "step/.ATTRIBUTES/VARIABLE_VALUE") == 5
    for name in ("label_map.pbtxt", "pipeline.config", "model/saved_model.pb", "model/labels.json", "metrics.json"):
        assert (results / name).is_file()
    for name in ("model_android/model.tflite", "model_android/anchors.json", "report.html", "job.json"):
        assert (results / name).is_file()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's archive of the default model with weights of our own: 90 classes, as published."""
    import object_detection  # noqa: F401 - before TensorFlow is used
    import tensorflow as tf

    from entrypoint.engines.tf2 import model

    folder = tmp_path_factory.mktemp("zoo")
    path = catalogue.find(MODEL).pipeline
    assert path is not None
    config = pipeline_config.read(path)
    tf.keras.utils.set_random_seed(1)
    tf.train.Checkpoint(model=model.build(config, is_training=True)).save(str(folder / "checkpoint" / "ckpt"))
    for part in (folder / "checkpoint").glob("ckpt-1.*"):
        part.rename(part.with_name(part.name.replace("ckpt-1", "ckpt-0")))
    (folder / "pipeline.config").write_text(path.read_text())
    return folder


def test_archive_has_the_published_names_and_shapes(archive: Path) -> None:
    """The digest is that of the index in the published archive."""
    import tensorflow as tf

    variables = tf.train.list_variables(str(archive / "checkpoint" / "ckpt-0"))
    assert len(variables) == 386
    published = "a69dd4ccb8663495298027cd041df7f5d888858931ee4a573c88c4cae1859fb6"
    assert hashlib.sha256(json.dumps(variables).encode()).hexdigest() == published


def pack(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, STEM)
    return buffer.getvalue()


def weights(prefix: Path) -> dict[str, Any]:
    """Trained weights of a checkpoint that do not depend on labels; the averages of batch norm follow the photos."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("model/")
        and "_prediction_heads" not in name
        and name.endswith(("kernel/.ATTRIBUTES/VARIABLE_VALUE", "gamma/.ATTRIBUTES/VARIABLE_VALUE"))
        and "OPTIMIZER_SLOT" not in name
    }


def test_weights_of_a_zoo_archive_that_comes_haltingly_are_in_the_model_before_the_first_step(
    tmp_path: Path, archive: Path, dog_bucket: Path
) -> None:
    places = {"DATA_DIR": dog_bucket, "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    with serve(pack(archive), Answer(503), Answer(500), Answer(send=0.5)) as server:
        # At such a rate a step moves no weight, so that the checkpoint after it holds what was restored before it.
        result = run_job(
            "1", "--learning-rate=1e-12", "--batch-size=2", ZOO_URL=server.address, EXPORTS="saved_model", **places
        )
    assert result.returncode == 0, result.stdout
    assert len(server.requests) == 4
    assert server.requests[3][1] is not None
    assert "answered 503" in result.stdout
    assert "checkpoint: 384 of 384 variables restored" in result.stdout
    assert "checkpoint: outputs restored for the labels dog; those for square, triangle begin" in result.stdout
    before, after = weights(archive / "checkpoint" / "ckpt-0"), weights(tmp_path / "results" / "checkpoint" / "ckpt-1")
    assert before.keys() == after.keys()
    assert len(before) > 80
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, rtol=0, atol=1e-9, err_msg=name)
    kept = {path.name for path in (tmp_path / "work" / "zoo" / STEM).rglob("*") if path.is_file()}
    assert all(KEPT.fullmatch(name) for name in kept)
    check_known_label(archive / "checkpoint" / "ckpt-0", tmp_path / "results" / "checkpoint" / "ckpt-1")


def check_known_label(start: Path, trained: Path) -> None:
    """The scores for dogs are those of the start checkpoint; those for squares are not.

    The labels are square, dog and triangle; the id of dogs in COCO is 18.
    """
    import tensorflow as tf

    head = "model/_box_predictor/_prediction_heads/class_predictions_with_background/_class_predictor_layers/0"
    names = [f"{head}/{each}/.ATTRIBUTES/VARIABLE_VALUE" for each in ("pointwise_kernel", "bias")]
    for name in names:
        old, new = (
            tf.train.load_variable(str(prefix), name).reshape(-1, 6, labels)
            for prefix, labels in ((start, 91), (trained, 4))
        )
        np.testing.assert_allclose(new[..., [0, 2]], old[..., [0, 18]], rtol=0, atol=1e-9)
        if name == names[0]:
            assert np.abs(new[..., 1] - old[..., 1]).max() > 1e-3


def test_checkpoint_of_another_model_is_refused(tmp_path: Path, demo_bucket: Path) -> None:
    import tensorflow as tf

    (tmp_path / "other").mkdir()
    tf.train.Checkpoint(model=tf.train.Checkpoint(x=tf.Variable(1.0))).write(str(tmp_path / "other" / "ckpt-0"))
    places = {"DATA_DIR": demo_bucket, "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    result = run_job("1", CHECKPOINT=tmp_path / "other", **places)
    assert result.returncode == 2
    assert "it belongs to another model" in result.stdout
