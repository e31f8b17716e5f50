"""FREEZE=backbone: weights and batch norm of the backbone stay, everything behind it is trained, in both engines."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from entrypoint.engines.shared import backbone, patches
from entrypoint.engines.tf2 import model as models
from entrypoint.system.errors import UserError
from entrypoint.training import pipeline
from entrypoint.zoo import catalogue, pipeline_config
from tests.conftest import ROOT, environment, make_settings

# A step on noise of a slim model, without and with a frozen backbone. Prints the names of what is trained, and of the
# averages of batch norm that change.
TF1 = """
import json, sys
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
from pathlib import Path
from entrypoint.engines.shared import backbone, patches
from entrypoint.engines.tf1 import model as models
from entrypoint.zoo import pipeline_config
config = pipeline_config.read(Path(sys.argv[1]))
found = []
for is_frozen in map(backbone.frozen_by, ("none", "backbone")):
    with tf.Graph().as_default(), patches.batch_norm(is_frozen):
        tf.set_random_seed(1)
        model = models.build(config, is_training=True)
        image, shapes = model.preprocess(tf.random.uniform([2, 96, 96, 3], 0, 255))
        model.predict(image, shapes)
        averages = [each for each in tf.global_variables() if "/moving_" in each.op.name]
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            before = session.run(averages)
            session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
            after = session.run(averages)
        changed = [each.op.name for each, a, b in zip(averages, before, after) if (a != b).any()]
        trained = [each.op.name for each in tf.trainable_variables() if not is_frozen(each.op.name)]
        found.append([trained, changed])
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def _leave_keras_as_it_was() -> Iterator[None]:
    yield
    tf.keras.backend.set_learning_phase(0)
    tf.keras.backend.clear_session()


def names(variables: list[Any]) -> set[str]:
    return {each.name for each in variables}


def test_backbone_of_a_keras_model_stays_while_the_rest_is_trained() -> None:
    config = pipeline_config.read(catalogue.PIPELINES / "smoke.config")
    model = models.build(config, is_training=True)
    models.freeze_backbone(model)
    frozen = names(model._feature_extractor.classification_backbone.variables)
    assert not names(model.trainable_variables) & frozen
    trained = " ".join(names(model.trainable_variables))
    assert "FeatureMaps" in trained
    assert "BoxPredictor" in trained
    variables = dict(models.named_variables(model))
    averages = {name: each for name, each in variables.items() if "moving_" in name}
    before = {name: each.numpy() for name, each in averages.items()}
    patches.set_training(model, is_training=True)
    image, shapes = model.preprocess(tf.random.stateless_uniform([2, 160, 160, 3], (1, 2), 0, 255))
    model.predict(image, shapes)
    changed = {name for name, each in averages.items() if (each.numpy() != before[name]).any()}
    assert changed
    assert changed == set(averages) - frozen


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        # What is trained begins behind the backbone; the fourth block of a two-stage ResNet is part of its heads.
        ("faster_rcnn_resnet50_v1_640x640", "conv5_block1_1_conv/kernel:0", 40),
        ("centernet_resnet50_v1_fpn_512x512", "conv2d/kernel:0", 32),
    ],
)
def test_backbone_ends_where_the_heads_of_its_architecture_begin(name: str, first: str, count: int) -> None:
    model = models.build(pipeline_config.read(catalogue.PIPELINES / f"{name}.config"), is_training=True)
    models.freeze_backbone(model)
    assert first in names(model.trainable_variables)
    assert len(model.trainable_variables) == count


def test_own_layers_of_centernet_on_mobilenet_are_not_its_backbone() -> None:
    inside = tf.keras.Sequential([tf.keras.Input([8]), tf.keras.layers.Dense(4)])
    whole = tf.keras.Sequential([tf.keras.Input([8]), inside, tf.keras.layers.Dense(2)])
    extractor = SimpleNamespace(classification_backbone=whole)
    frozen = models.freeze_backbone(SimpleNamespace(_feature_extractor=extractor))
    assert frozen == {id(each) for each in inside.variables}
    assert not inside.trainable_variables
    assert len(whole.trainable_variables) == 2


def test_backbone_of_a_slim_model_stays_while_the_rest_is_trained() -> None:
    config = catalogue.PIPELINES / "ssdlite_mobilenet_v2_coco.config"
    words = [sys.executable, "-c", TF1, str(config)]
    env = environment(TF2_BEHAVIOR=0, PYTHONPATH=ROOT)
    result = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 0, result.stderr
    (trained, changed), (others, other_changed) = json.loads(result.stdout.splitlines()[-1])
    # Each of MobileNetV2's 52 convolutions has weights, gamma and beta, and the averages of its batch norm.
    assert len(trained) - len(others) == 52 * 3
    assert set(changed) - set(other_changed) == {name for name in changed if backbone.is_part(name)}
    assert len(changed) - len(other_changed) == 52 * 2
    assert other_changed


@pytest.mark.parametrize(
    ("name", "is_inside"),
    [
        ("FeatureExtractor/MobilenetV1/Conv2d_13_pointwise/BatchNorm/beta", True),
        ("FeatureExtractor/MobilenetV1/Conv2d_13_pointwise_1_Conv2d_2_1x1_256/weights", False),
        ("FeatureExtractor/MobilenetV2/layer_19_2_Conv2d_5_3x3_s2_128/weights", False),
        ("FeatureExtractor/resnet_v1_50/block4/unit_3/bottleneck_v1/conv3/BatchNorm", True),
        ("FeatureExtractor/resnet_v1_50/fpn/projection_1/weights", False),
        ("FeatureExtractor/resnet_v1_50/Base_Conv2d_1x1_1024/weights", False),
        ("FeatureExtractor/InceptionV2/Mixed_5c/Branch_3/Conv2d_0b_1x1/weights", True),
        ("FirstStageFeatureExtractor/resnet_v1_50/resnet_v1_50/conv1/weights", True),
        ("SecondStageFeatureExtractor/resnet_v1_50/block4/unit_1/bottleneck_v1/conv1/weights", False),
        ("BoxPredictor_0/ClassPredictor/weights", False),
    ],
)
def test_backbone_of_a_slim_model_is_told_by_names(name: str, is_inside: bool) -> None:
    assert backbone.is_part(name) == is_inside


def test_random_backbone_is_not_frozen(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="FREEZE=backbone keeps the weights of a checkpoint, and this training starts"):
        pipeline.refuse_early(make_settings(tmp_path, checkpoint="none", freeze="backbone"))
