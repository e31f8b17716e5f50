"""Every change that is made at run time to the code of upstream or Keras, with its reason and the versions concerned.

tests/engines/test_patches.py shows for each change that it is still needed. Changes without which upstream cannot be
imported are in the compatibility layer of the sdists, sdists/compatibility.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from object_detection.builders import dataset_builder, image_resizer_builder
from object_detection.utils import ops

from entrypoint.engines.shared import oversampling
from entrypoint.engines.shared.batch_norm import lower


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute of an object of upstream while the block runs."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def repeated_reading(repeats: list[float] | None) -> Iterator[None]:
    """Repeats the records that upstream's input pipeline reads, while the block builds the pipeline.

    `repeats` lists for each label how often photos with this label are shown in an epoch. The first label has id 1.
    None repeats nothing. Upstream (object_detection 2.8.0) has no setting for repetition. The function with which
    upstream reads a file is the only place to repeat photos before upstream shuffles them.
    """
    if repeats is None:
        yield
        return
    read_dataset = dataset_builder.read_dataset

    def read(read_file: Callable[[Any], Any], *arguments: Any, **options: Any) -> Any:
        return read_dataset(lambda names: oversampling.repeat(read_file(names), repeats), *arguments, **options)

    with replaced(dataset_builder, "read_dataset", read):
        yield


@contextmanager
def no_download() -> Iterator[None]:
    """Prevents Keras from downloading ImageNet's weights while the block builds a model.

    Upstream's CenterNet on MobileNetV2 (object_detection 2.8.0) requests these weights. Training starts from the job's
    own checkpoint, and a job may have no network.
    """
    from object_detection.models.keras_models import mobilenet_v2

    applications = mobilenet_v2.tf.keras.applications
    make = applications.MobileNetV2

    def with_random_weights(*arguments: Any, **options: Any) -> Any:
        return make(*arguments, **{**options, "weights": None})

    with replaced(applications, "MobileNetV2", with_random_weights):
        yield


@contextmanager
def batch_norm(is_constant: Callable[[str], bool], greatest_decay: float = 1.0) -> Iterator[set[float]]:
    """Builds batch norm of certain scopes in inference mode: it normalises by its averages, and does not change them.

    `is_constant` returns whether the batch norm of a scope, which it gets by name, is one of them. The averages of all
    others have at most the greatest decay; the set gets the decays that were lowered. Upstream (object_detection 2.8.0)
    has one mode for all layers of a model, and decays of its own in its backbones. slim (tf-slim 1.1) has no other
    place that knows the scope.
    """
    from tf_slim.layers import layers

    # slim builds batch norm in one of two ways, by where its averages are updated.
    fused, build_layer = layers._fused_batch_norm, layers.normalization_layers.BatchNormalization
    lowered: set[float] = set()

    def with_averages(inputs: Any, **options: Any) -> Any:
        if is_constant(tf.compat.v1.get_variable_scope().name):
            options["is_training"] = False
        if options["is_training"] is not False:
            options["decay"] = lower(options["decay"], greatest_decay, lowered)
        return fused(inputs, **options)

    def layer_with_averages(**options: Any) -> Any:
        layer, constant = build_layer(**options), is_constant(options["_scope"].name)
        apply = layer.apply

        def apply_lowered(inputs: Any, training: Any) -> Any:
            is_training = False if constant else training
            if is_training is not False:
                layer.momentum = lower(layer.momentum, greatest_decay, lowered)
            return apply(inputs, training=is_training)

        layer.apply = apply_lowered
        return layer

    with (
        replaced(layers, "_fused_batch_norm", with_averages),
        replaced(layers.normalization_layers, "BatchNormalization", layer_with_averages),
    ):
        yield lowered


def skip_autograph(model: Any) -> None:
    """Prevents AutoGraph from converting a Keras model's methods (object_detection 2.8.0, TensorFlow 2.21).

    Upstream's models have no control flow that needs the conversion, and it takes half of the time of tracing.
    """
    for name in ("preprocess", "predict", "postprocess", "loss"):
        setattr(model, name, tf.autograph.experimental.do_not_convert(getattr(model, name)))


def predict_in_float32(model: Any) -> None:
    """Casts a Keras model's predictions to float32 (object_detection 2.8.0).

    Upstream casts them only on TPUs. Without the cast, losses and boxes lose digits under Keras's mixed precision.
    """
    predict = model.predict

    def cast(*arguments: Any, **options: Any) -> Any:
        return ops.bfloat16_to_float32_nested(predict(*arguments, **options))

    model.predict = cast


def correct_rmsprop(optimizer: Any, config: Any) -> None:
    """Passes the `decay` of optimizer.proto to Keras's RMSProp as the discounting factor `rho` (tf-keras 2.21).

    In TF1, `decay` discounts the squared gradients. Keras calls this factor `rho`. Upstream (object_detection 2.8.0)
    passes it as Keras's `decay` instead, which lowers the learning rate with time: to a thousandth in 1,000 steps.
    """
    optimizer._initial_decay = optimizer.decay = 0.0
    optimizer.rho = config.decay


@contextmanager
def detecting(model: Any) -> Iterator[None]:
    """Switches a Keras model to detection while the block runs, and back to the mode that it had."""
    is_training = model._is_training
    set_training(model, is_training=False)
    try:
        yield
    finally:
        set_training(model, is_training=is_training)


def resize_without_branch(model: Any, resizer: Any) -> None:
    """Makes a model resize and pad photos without a branch of the graph.

    Upstream (object_detection 2.8.0) resizes in two branches, for landscape and portrait, which are the same if the
    padded input is a square. TensorFlow.js 1.0.0 does not get past them. Other resizers stay as they are.
    """
    padded = resizer.keep_aspect_ratio_resizer
    side = padded.max_dimension
    if not padded.pad_to_max_dimension or side != padded.min_dimension or any(padded.per_channel_pad_value):
        return
    method = image_resizer_builder._tf_resize_method(padded.resize_method)

    def resize(image: Any) -> list[Any]:
        image = tf.compat.v1.image.resize_images(image, [side, side], method=method, preserve_aspect_ratio=True)
        shape = tf.shape(image)
        result = tf.pad(image, [[0, side - shape[0]], [0, side - shape[1]], [0, 0]])
        result.set_shape([side, side, 3])
        return [result, shape]

    model._image_resizer_fn = resize


def set_training(model: Any, *, is_training: bool) -> None:
    """Switches dropout, batch norm and sampling of a Keras model (object_detection 2.8.0, tf-keras 2.21).

    Upstream keeps the mode in a private attribute, and calls some layers without `training`. Only Keras's learning
    phase, deprecated since Keras 2.3, switches these layers.
    """
    model._is_training = is_training
    tf.keras.backend.set_learning_phase(is_training)
