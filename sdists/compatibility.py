"""What the frozen Object Detection API expects of its surroundings and no longer finds there.

`import object_detection` applies every entry of ENTRIES, in order, before any other module of the package is
imported. An entry says what upstream wants and since when it is missing, and changes nothing where it is there, so
the same package runs on old and on current releases. Nothing here changes upstream's own modules.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from typing import Any


def legacy_keras() -> None:
    """tf.keras is Keras 3 since TensorFlow 2.16; upstream is written for Keras 2, which lives on as tf-keras.

    TensorFlow reads the variable when tf.keras is first used, not when tensorflow is imported.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def keras_applications() -> None:
    """`keras.applications.resnet` is Keras 3's since TensorFlow 2.16, whose layers do not fit into a Keras 2 model.

    Where no Keras of its own has been imported yet, the name `keras` leads to tf-keras, whose public modules lack the
    function that makes residual networks of any depth.
    """
    if "keras" in sys.modules or not is_installed("tf_keras"):
        return
    source = importlib.import_module("tf_keras.src.applications.resnet")
    set_missing(importlib.import_module("tf_keras.applications.resnet"), "ResNet", source.ResNet)
    alias("keras.applications", "tf_keras.applications")
    alias("keras", "tf_keras")


def control_flow_ops() -> None:
    """tf-slim 1.1.0 finds case, cond, while_loop and Assert in control_flow_ops, which lost them in TensorFlow 2.13."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_ops

    for name in ("case", "cond", "while_loop", "Assert"):
        set_missing(control_flow_ops, name, getattr(tf.compat.v1, name))


def array_ops() -> None:
    """tf-slim 1.1.0 finds stack and unstack in array_ops, which lost them in TensorFlow 2.14."""
    import tensorflow as tf
    from tensorflow.python.ops import array_ops as module

    for name in ("stack", "unstack"):
        set_missing(module, name, getattr(tf, name))


def variable_scope() -> None:
    """tf-slim 1.1.0 makes global and local variables by variable_scope.variable, gone since TensorFlow 2.13."""
    import tensorflow as tf
    from tensorflow.python.ops import variable_scope as module

    set_missing(module, "variable", tf.compat.v1.Variable)


def framework_ops() -> None:
    """tf-slim 1.1.0 finds IndexedSlices and Tensor in framework.ops, which lost them in TensorFlow 2.13 and 2.14."""
    import tensorflow as tf
    from tensorflow.python.framework import ops

    for name in ("IndexedSlices", "Tensor"):
        set_missing(ops, name, getattr(tf, name))


def estimator() -> None:
    """`tf.compat.v1.estimator` is gone since TensorFlow 2.16; upstream imports it and uses its ModeKeys.

    The values are those of the Estimator API, documented in tf.estimator.ModeKeys.
    """
    import tensorflow.compat.v1 as tf

    if hasattr(tf, "estimator"):
        return

    class ModeKeys:
        TRAIN = "train"
        EVAL = "eval"
        PREDICT = "infer"

    module = unavailable("tensorflow.compat.v1.estimator", "Estimator left TensorFlow with 2.16")
    vars(module)["ModeKeys"] = ModeKeys
    tf.estimator = module


def contrib() -> None:
    """tensorflow.contrib left with TensorFlow 2.0; slim models import parts of it where they are defined.

    What models that find boxes call is here: the bipartite matcher, what AutoAugment moves photos with, averages of
    weights, what counts parameters at export, hyperparameters. The rest is for quantisation, input queues and TPUs.
    """
    if is_installed("tensorflow.contrib"):
        return
    parts = ("image", "learn", "lookup", "opt", "quantize", "tfprof", "tpu", "training")
    nested = ("image.python", "image.python.ops", "quantize.python")
    unavailable("tensorflow.contrib", "tensorflow.contrib left TensorFlow with 2.0", submodules=(*parts, *nested))
    image_ops = types.SimpleNamespace(bipartite_match=bipartite_match)
    vars(sys.modules["tensorflow.contrib.image.python.ops"])["image_ops"] = image_ops
    vars(sys.modules["tensorflow.contrib.image"]).update(rotate=rotate, transform=transform, translate=translate)
    vars(sys.modules["tensorflow.contrib.opt"])["MovingAverageOptimizer"] = moving_average_optimizer()
    vars(sys.modules["tensorflow.contrib.tfprof"])["model_analyzer"] = model_analyzer()
    vars(sys.modules["tensorflow.contrib.training"])["HParams"] = HParams


class HParams:
    """Named values, as tf.contrib.training had them: read as attributes, set by set_hparam."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            self.add_hparam(name, value)

    def add_hparam(self, name: str, value: Any) -> None:
        """Adds a value; ValueError where there is one of that name."""
        if name in vars(self):
            raise ValueError(f"hyperparameter {name} is there already")
        setattr(self, name, value)

    def set_hparam(self, name: str, value: Any) -> None:
        """Replaces a value; ValueError where there is none of that name."""
        if name not in vars(self):
            raise ValueError(f"there is no hyperparameter {name}")
        setattr(self, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        """A value, or the default."""
        return vars(self).get(name, default)

    def values(self) -> dict[str, Any]:
        """All values by name."""
        return dict(vars(self))


def model_analyzer() -> types.SimpleNamespace:
    """tf.contrib.tfprof.model_analyzer, with which upstream's TF1 export counts parameters: now tf.profiler."""
    import tensorflow.compat.v1 as tf

    options = tf.profiler.ProfileOptionBuilder

    def print_model_analysis(graph: Any, tfprof_options: Any) -> Any:
        return tf.profiler.profile(graph, options=tfprof_options)

    return types.SimpleNamespace(
        print_model_analysis=print_model_analysis,
        TRAINABLE_VARS_PARAMS_STAT_OPTIONS=options.trainable_variables_parameter(),
        FLOAT_OPS_OPTIONS=options.float_operation(),
    )


def bipartite_match(distance_mat: Any, num_valid_rows: Any, top_k: int = -1) -> tuple[Any, Any]:
    """Pairs rows and columns, the nearest pair first, as tf.contrib.image did: the column of each row, and vice versa.

    Args:
        distance_mat: float32 [rows, columns].
        num_valid_rows: a scalar; rows from there on get no column.
        top_k: how many pairs at most; all that there can be where it is negative.

    Returns:
        int32 [rows] and int32 [columns], with -1 where there is no pair.
    """
    import numpy as np
    import tensorflow as tf

    def match(distances: Any, valid: Any) -> tuple[Any, Any]:
        columns = np.full(distances.shape[0], -1, np.int32)
        rows = np.full(distances.shape[1], -1, np.int32)
        left = distances[: int(valid)].astype(np.float64)
        pairs = min(left.shape)
        for _ in range(pairs if top_k < 0 else min(top_k, pairs)):
            row, column = np.unravel_index(left.argmin(), left.shape)
            columns[row], rows[column] = column, row
            left[row], left[:, column] = np.inf, np.inf
        return columns, rows

    columns, rows = tf.numpy_function(match, [distance_mat, num_valid_rows], [tf.int32, tf.int32])
    columns.set_shape(distance_mat.shape[:1])
    rows.set_shape(distance_mat.shape[1:])
    return columns, rows


def transform(images: Any, transforms: Any, interpolation: str = "NEAREST") -> Any:
    """Moves the pixels of [height, width, channels], or of a batch, as tf.contrib.image did; outside of them is 0.

    Args:
        images: any type that is a number.
        transforms: [8], a0 to c1: pixel (x, y) is taken from ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k), where
            k is c0 x + c1 y + 1.
        interpolation: "NEAREST" or "BILINEAR".
    """
    import tensorflow as tf

    images = tf.convert_to_tensor(images)
    is_batch = images.shape.rank == 4
    batch = images if is_batch else images[tf.newaxis]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=batch,
        transforms=tf.reshape(tf.cast(transforms, tf.float32), [1, 8]),
        output_shape=tf.shape(batch)[1:3],
        fill_value=0.0,
        interpolation=interpolation,
    )
    moved.set_shape(batch.shape)
    return moved if is_batch else moved[0]


def translate(images: Any, translations: Any, interpolation: str = "NEAREST") -> Any:
    """Moves a photo by [dx, dy] pixels, to the right and down, as tf.contrib.image did."""
    import tensorflow as tf

    dx, dy = tf.unstack(tf.cast(translations, tf.float32))
    return transform(images, [1.0, 0.0, -dx, 0.0, 1.0, -dy, 0.0, 0.0], interpolation)


def rotate(images: Any, angle: Any, interpolation: str = "NEAREST") -> Any:
    """Turns a photo about its middle by an angle in radians, counterclockwise, as tf.contrib.image did."""
    import tensorflow as tf

    height, width = tf.unstack(tf.cast(tf.shape(images)[-3:-1], tf.float32) - 1)
    cos, sin = tf.cos(tf.cast(angle, tf.float32)), tf.sin(tf.cast(angle, tf.float32))
    # The middle stays where it is.
    x = (width - (cos * width - sin * height)) / 2
    y = (height - (sin * width + cos * height)) / 2
    return transform(images, [cos, -sin, x, sin, cos, y, 0.0, 0.0], interpolation)


def moving_average_optimizer() -> type:
    """tf.contrib.opt.MovingAverageOptimizer: another optimizer, and averages of the variables that it changes."""
    import tensorflow.compat.v1 as tf

    class MovingAverageOptimizer(tf.train.Optimizer):  # type: ignore[misc]
        def __init__(self, opt: Any, average_decay: float = 0.9999, num_updates: Any = None) -> None:
            super().__init__(use_locking=False, name="MovingAverage")
            self._optimizer = opt
            self._ema = tf.train.ExponentialMovingAverage(average_decay, num_updates=num_updates)

        def compute_gradients(self, *arguments: Any, **options: Any) -> Any:
            return self._optimizer.compute_gradients(*arguments, **options)

        def apply_gradients(self, grads_and_vars: Any, global_step: Any = None, name: Any = None) -> Any:
            pairs = list(grads_and_vars)
            step = self._optimizer.apply_gradients(pairs, global_step=global_step, name=name)
            with tf.control_dependencies([step]):
                return self._ema.apply([variable for _, variable in pairs])

        def swapping_saver(self, var_list: Any = None, name: str = "swapping_saver", **options: Any) -> Any:
            """A Saver that writes the averages under the variables' names, and the variables under those of theirs."""
            saved = {each.op.name: each for each in var_list or tf.global_variables()}
            for variable in list(saved.values()):
                average = self._ema.average(variable)
                if average is not None:
                    saved[variable.op.name], saved[average.op.name] = average, variable
            return tf.train.Saver(saved, name=name, **options)

    return MovingAverageOptimizer


def graph_transforms() -> None:
    """tensorflow.tools.graph_transforms left with TensorFlow 2.0; upstream's TFLite export of TF1 models imports it."""
    if not is_installed("tensorflow.tools") or not is_installed("tensorflow.tools.graph_transforms"):
        unavailable("tensorflow.tools.graph_transforms", "graph_transforms left TensorFlow with 2.0")


def legacy_layers() -> None:
    """tf.compat.v1.layers looks for its classes in tf_keras.legacy_tf_layers, which tf-keras keeps in tf_keras.src."""
    if not is_installed("tf_keras") or is_installed("tf_keras.legacy_tf_layers"):
        return
    for part in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        alias(f"tf_keras.legacy_tf_layers{part}", f"tf_keras.src.legacy_tf_layers{part}")


def protobuf_runtime() -> None:
    """Modules of protoc ask protobuf's runtime_version, which came with 5.27, whether they are too new for it.

    TensorFlow up to 2.11 runs with protobuf 3.20 at the newest, whose builder of messages is the one they call.
    """
    if is_installed("google.protobuf.runtime_version"):
        return
    import google.protobuf

    module = types.ModuleType("google.protobuf.runtime_version")
    members = {"Domain": types.SimpleNamespace(PUBLIC=0), "ValidateProtobufRuntimeVersion": lambda *_version: None}
    vars(module).update(members)
    sys.modules[module.__name__] = module
    set_missing(google.protobuf, "runtime_version", module)


def absent_packages() -> None:
    """Packages that upstream imports at the top of a module and calls only in features outside box detection.

    tensorflow_io: colour conversion of the DeepMAC meta-architecture; no release for current TensorFlow.
    lvis: the metrics of the LVIS challenge; it installs OpenCV.
    """
    if not is_installed("tensorflow_io"):
        unavailable("tensorflow_io", "install tensorflow_io, which DeepMAC's colour consistency loss needs")
    if not is_installed("lvis"):
        unavailable("lvis", "install lvis, which the LVIS metrics need", submodules=("lvis", "eval", "results"))


def numpy_aliases() -> None:
    """NumPy dropped its aliases of Python's own types in 1.24, and product, string_ and NAN in 2.0."""
    import numpy

    aliases = {"bool": bool, "float": float, "int": int, "object": object, "NAN": float("nan")}
    for name, value in {**aliases, "product": numpy.prod, "string_": numpy.bytes_}.items():
        if name not in vars(numpy):
            setattr(numpy, name, value)


def font_getsize() -> None:
    """Pillow 10 dropped ImageFont.getsize, with which upstream's evaluation places the captions of boxes."""
    from PIL import ImageFont

    def getsize(font: ImageFont.ImageFont, text: str) -> tuple[int, int]:
        """Width and height of the text in pixels, measured from its origin."""
        _, _, right, bottom = font.getbbox(text)
        return int(right), int(bottom)

    for font in (ImageFont.ImageFont, ImageFont.FreeTypeFont, ImageFont.TransposedFont):
        set_missing(font, "getsize", getsize)


ENTRIES: tuple[Callable[[], None], ...] = (
    legacy_keras,
    keras_applications,
    control_flow_ops,
    array_ops,
    variable_scope,
    framework_ops,
    estimator,
    contrib,
    graph_transforms,
    legacy_layers,
    protobuf_runtime,
    absent_packages,
    numpy_aliases,
    font_getsize,
)


def apply() -> None:
    """Applies every entry; a second call changes nothing."""
    for entry in ENTRIES:
        entry()


def set_missing(owner: object, name: str, value: object) -> None:
    """Sets an attribute that the owner lacks."""
    if not hasattr(owner, name):
        setattr(owner, name, value)


def is_installed(name: str) -> bool:
    """Whether a top-level package can be imported, or stands in sys.modules."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def alias(name: str, target: str) -> None:
    """Lets `import name` give the module `target`."""
    sys.modules[name] = importlib.import_module(target)


class Unavailable(types.ModuleType):
    """A module that can be imported but says what is missing as soon as something of it is called."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.reason = reason

    def __getattr__(self, attribute: str) -> type:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        reason = self.reason

        def refuse(_self: object, *_arguments: object, **_options: object) -> None:
            raise ImportError(reason)

        # A class, since upstream derives classes of its own from some of these.
        return type(attribute, (), {"__init__": refuse})


def unavailable(name: str, reason: str, submodules: tuple[str, ...] = ()) -> Unavailable:
    """Registers an Unavailable module, with the submodules that upstream imports from it."""
    module = sys.modules[name] = Unavailable(name, reason)
    for submodule in submodules:
        child = sys.modules[f"{name}.{submodule}"] = Unavailable(f"{name}.{submodule}", reason)
        setattr(module, submodule, child)
    return module
