"""Each change to upstream's code at run time is still needed: a test that fails says that the change can go."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf
from object_detection.builders import dataset_builder, image_resizer_builder, model_builder, optimizer_builder
from object_detection.models.keras_models import mobilenet_v2
from object_detection.models.ssd_mobilenet_v2_feature_extractor import SSDMobileNetV2FeatureExtractor
from object_detection.protos import input_reader_pb2, optimizer_pb2, ssd_pb2
from tf_slim.layers import layers

from entrypoint.engines.shared import batch_norm, patches
from entrypoint.zoo import catalogue, pipeline_config

PHOTO = [1, 160, 160, 3]


def build(name: str, *, is_training: bool = False) -> Any:
    """A model as upstream builds it, without a change."""
    config = pipeline_config.read(catalogue.PIPELINES / f"{name}.config")
    return model_builder.build(config.model, is_training=is_training)


@pytest.fixture
def smoke() -> Iterator[Any]:
    """The smoke model as upstream builds it; TensorFlow is afterwards as it was."""
    yield build("smoke")
    tf.keras.backend.set_learning_phase(0)
    tf.keras.mixed_precision.set_global_policy("float32")


def predictions(model: Any) -> dict[str, Any]:
    """What a model predicts for a photo of noise."""
    noise = tf.random.stateless_uniform(PHOTO, (1, 2), 0, 255)
    image, shapes = model.preprocess(noise)
    found: dict[str, Any] = model.predict(image, shapes)
    return found


def test_upstream_still_cannot_repeat_records() -> None:
    fields = [field.name for field in input_reader_pb2.InputReader.DESCRIPTOR.fields]
    assert not [name for name in fields if "repeat" in name or "oversampl" in name]
    assert next(iter(inspect.signature(dataset_builder.read_dataset).parameters)) == "file_read_func"


def test_centernet_still_asks_for_weights_of_imagenet() -> None:
    asked = []

    def record(*_: Any, **options: Any) -> Any:
        asked.append(options["weights"])
        raise RuntimeError("built no further")

    applications = mobilenet_v2.tf.keras.applications
    with patches.replaced(applications, "MobileNetV2", record), pytest.raises(RuntimeError, match="built no further"):
        build("centernet_mobilenetv2_fpn_512x512")
    assert asked == ["imagenet"]
    with patches.no_download():
        build("centernet_mobilenetv2_fpn_512x512")


def test_batch_norm_of_slim_still_has_one_mode_for_all_layers_of_a_model() -> None:
    for message in (ssd_pb2.Ssd, ssd_pb2.SsdFeatureExtractor):
        fields = [field.name for field in message.DESCRIPTOR.fields]
        assert [name for name in fields if "freeze" in name] in ([], ["freeze_batchnorm"])
    # What the change replaces is still what slim calls.
    source = inspect.getsource(layers.batch_norm)
    assert "return _fused_batch_norm(" in source
    assert "normalization_layers.BatchNormalization(" in source
    assert "_scope=sc" in source


def test_backbones_still_have_decays_of_their_own_that_no_config_changes() -> None:
    with patches.no_download():
        model = build("centernet_mobilenetv2_fpn_512x512", is_training=True)
    assert 0.9997 in {each.momentum for each in batch_norm.layers_of(model)}
    assert "bn_decay=0.9997" in inspect.getsource(SSDMobileNetV2FeatureExtractor.extract_features)


def test_autograph_still_converts_models(smoke: Any) -> None:
    # do_not_convert marks what it wraps.
    assert not hasattr(smoke.predict, "autograph_info__")
    patches.skip_autograph(smoke)
    assert hasattr(smoke.predict, "autograph_info__")


def test_mixed_precision_still_loses_digits_of_predictions(smoke: Any) -> None:
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = build("smoke")
    assert predictions(model)["box_encodings"].dtype == tf.bfloat16
    patches.predict_in_float32(model)
    assert predictions(model)["box_encodings"].dtype == tf.float32
    assert predictions(smoke)["box_encodings"].dtype == tf.float32


def test_decay_of_rmsprop_still_lowers_the_learning_rate() -> None:
    config = optimizer_pb2.Optimizer(use_moving_average=False)
    config.rms_prop_optimizer.decay = 0.8
    config.rms_prop_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.1
    optimizer, _ = optimizer_builder.build(config)
    assert float(optimizer.decay) == pytest.approx(0.8)
    patches.correct_rmsprop(optimizer, config.rms_prop_optimizer)
    assert [float(optimizer.decay), float(optimizer.rho)] == pytest.approx([0, 0.8])


@pytest.mark.usefixtures("smoke")
def test_layers_still_follow_the_learning_phase() -> None:
    model = build("smoke", is_training=True)
    assert model._is_training is True
    with patches.detecting(model):
        assert model._is_training is False
    assert model._is_training is True
    found = []
    for phase in (0, 1):
        tf.keras.backend.set_learning_phase(phase)
        found.append(predictions(model)["box_encodings"].numpy())
    assert (found[0] != found[1]).any()


def test_padding_resizer_still_branches_and_without_the_branch_finds_the_same() -> None:
    text = "keep_aspect_ratio_resizer { min_dimension: 64 max_dimension: 64 pad_to_max_dimension: true }"
    resizer = pipeline_config.parse(f"model {{ ssd {{ image_resizer {{ {text} }} }} }}").model.ssd.image_resizer
    upstream = image_resizer_builder.build(resizer)
    model = SimpleNamespace(_image_resizer_fn=upstream)
    patches.resize_without_branch(model, resizer)
    spec = tf.TensorSpec([None, None, 3], tf.float32)
    functions = [
        tf.function(each, autograph=False).get_concrete_function(spec) for each in (upstream, model._image_resizer_fn)
    ]
    with_branch, without = ({each.type for each in function.graph.get_operations()} for function in functions)
    assert {"If", "StatelessIf"} & with_branch
    assert not {"If", "StatelessIf"} & without
    for height, width in ((40, 50), (50, 40), (111, 33), (20, 20)):
        photo = tf.random.stateless_uniform([height, width, 3], (1, 2), 0, 255)
        for wanted, found in zip(*(function(photo) for function in functions), strict=True):
            assert wanted.shape == found.shape
            assert wanted.numpy() == pytest.approx(found.numpy())
