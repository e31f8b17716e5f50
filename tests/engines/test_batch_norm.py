"""The averages of batch norm follow the weights of a short training, in both engines."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from entrypoint.engines.shared import batch_norm
from entrypoint.engines.tf2 import model as models
from entrypoint.engines.tf2 import trainer as tf2_trainer
from entrypoint.zoo import catalogue, pipeline_config
from tests.conftest import ROOT, environment, make_settings

# An update of the averages of a slim model, with the decays of upstream and of the config, and with lowered ones.
# Prints by how much more the second one changes them, for each variable, and the decays that were lowered.
TF1 = """
import json, sys
import numpy as np
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
from pathlib import Path
from entrypoint.engines.shared import patches
from entrypoint.engines.tf1 import model as models
from entrypoint.zoo import pipeline_config
config = pipeline_config.read(Path(sys.argv[1]))
# slim has another way to build batch norm that updates its averages in each step by itself.
config.model.ssd.inplace_batchnorm_update = sys.argv[2] == "inplace"
changes = []
for greatest in (1.0, float(np.float32(0.97))):
    with tf.Graph().as_default(), patches.batch_norm(lambda scope: "expanded_conv_3" in scope, greatest) as lowered:
        tf.set_random_seed(1)
        model = models.build(config, is_training=True)
        image, shapes = model.preprocess(tf.random.uniform([2, 96, 96, 3], 0, 255))
        found = model.predict(image, shapes)
        means = {each.op.name: each for each in tf.global_variables() if each.op.name.endswith("/moving_mean")}
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            ends = [found["box_encodings"], found["class_predictions_with_background"]]
            session.run(ends + tf.get_collection(tf.GraphKeys.UPDATE_OPS))
            changes.append(session.run(means))
slow, fast = changes
ratios = {name: float(np.abs(fast[name]).sum() / max(np.abs(slow[name]).sum(), 1e-30)) for name in slow}
print(json.dumps([ratios, sorted(lowered)]))
"""


@pytest.fixture(autouse=True)
def _leave_keras_as_it_was() -> Iterator[None]:
    yield
    tf.keras.backend.set_learning_phase(0)
    tf.keras.backend.clear_session()


def slow() -> Any:
    """The smoke model's config with a backbone whose averages are slow."""
    config = pipeline_config.read(catalogue.PIPELINES / "smoke.config")
    config.model.ssd.feature_extractor.conv_hyperparams.batch_norm.decay = 0.9997
    config.train_config.num_steps = 1000
    return config


def decays_of(layers: list[Any]) -> set[float]:
    return {round(each.momentum, 5) for each in layers}


@pytest.mark.parametrize(
    ("steps", "minutes", "decay"),
    [
        (100, None, 0.97),
        (600, None, 0.97),
        (1000, None, 0.98),
        (25_000, None, 0.9992),
        (200_000, None, 0.9999),
        (200_000, 5.0, 0.97),
        (0, None, 0.97),
    ],
)
def test_averages_are_over_a_small_part_of_the_training(
    tmp_path: Path, steps: int, minutes: float | None, decay: float
) -> None:
    config = slow()
    config.train_config.num_steps = steps
    assert batch_norm.greatest_decay(config, make_settings(tmp_path, max_minutes=minutes)) == pytest.approx(decay)


def test_decays_of_a_keras_model_are_lowered_where_its_averages_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "job")
    model = models.build(slow(), is_training=True)
    norms = batch_norm.layers_of(model)
    before = decays_of(norms)
    batch_norm.fit(model, 0.9999)
    assert decays_of(norms) == before
    assert not [each for each in caplog.records if each.name == "job"]
    models.freeze_backbone(model)
    batch_norm.fit(model, 0.98)
    frozen = {id(each) for each in model._feature_extractor.classification_backbone.submodules}
    constant, learning = ([each for each in norms if (id(each) in frozen) == wanted] for wanted in (True, False))
    # The heads have a lower decay than the training needs, and keep it.
    assert decays_of(constant) == {0.9997}
    assert decays_of(learning) == {0.98, 0.97}
    (message,) = (each.getMessage() for each in caplog.records if each.name == "job")
    assert message == "batch norm: averages over 50 steps instead of 3333, because the training is short"


def test_batch_norm_that_does_not_learn_keeps_its_decays() -> None:
    config = slow()
    config.model.ssd.freeze_batchnorm = True
    model = models.build(config, is_training=True)
    norms = batch_norm.layers_of(model)
    before = [each.momentum for each in norms]
    batch_norm.fit(model, 0.9)
    assert before
    assert [each.momentum for each in norms] == before
    # A decay of 1 asks for averages that stay.
    layer = tf.keras.layers.BatchNormalization(momentum=1.0)
    layer.build([None, 3])
    batch_norm.fit(SimpleNamespace(submodules=[layer]), 0.97)
    assert layer.momentum == 1.0


def test_trainer_of_a_keras_model_lowers_the_decays_for_its_steps(tmp_path: Path) -> None:
    config = slow()
    config.train_input_reader.tf_record_input_reader.input_path.append(str(tmp_path / "train.record"))
    (tmp_path / "train.record").touch()
    built = tf2_trainer.build(config, make_settings(tmp_path), 0, None).model
    assert decays_of(batch_norm.layers_of(built)) == {0.98, 0.97}


@pytest.mark.parametrize("kind", ["layer", "inplace"])
def test_averages_of_a_slim_model_follow_faster_where_upstream_has_a_decay_of_its_own(kind: str) -> None:
    config = catalogue.PIPELINES / "ssdlite_mobilenet_v2_coco.config"
    words = [sys.executable, "-c", TF1, str(config), kind]
    env = environment(TF2_BEHAVIOR=0, PYTHONPATH=ROOT)
    result = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 0, result.stderr
    ratios, lowered = json.loads(result.stdout.splitlines()[-1])
    backbone = {name: ratio for name, ratio in ratios.items() if "/MobilenetV2/" in name and "/layer_19_" not in name}
    constant = {name for name in backbone if "expanded_conv_3/" in name}
    assert {ratios[name] for name in constant} == {0}
    assert ratios.keys() > backbone.keys() > constant
    # 0.03 of the new mean instead of 0.0003. The layers behind the backbone have the decay of the config.
    assert all(ratio == pytest.approx(100, rel=0.01) for name, ratio in backbone.items() if name not in constant)
    assert all(ratio == pytest.approx(1, rel=0.01) for name, ratio in ratios.items() if name not in backbone)
    assert lowered == [0.9997]
