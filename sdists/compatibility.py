"""Adds what the frozen Object Detection API needs from other packages and current releases no longer have.

`import object_detection` applies every entry of ENTRIES, in order, before it imports any other module of the package.
The docstring of an entry names what upstream needs and since when it is missing. An entry changes nothing that exists,
so that the same package runs on old and on current releases. No entry changes upstream's own modules.
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
    """Makes tf.keras Keras 2, for which upstream is written and which is still released as tf-keras.

    Since TensorFlow 2.16 tf.keras is Keras 3. TensorFlow reads the variable when tf.keras is first used, not when
    tensorflow is imported.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def keras_applications() -> None:
    """Makes `import keras` import tf-keras, unless `keras` is imported already or tf-keras is not installed.

    Since TensorFlow 2.16 `keras.applications.resnet` belongs to Keras 3, whose layers do not fit into a Keras 2 model.
    The public modules of tf-keras lack `ResNet`, the function that builds residual networks of any depth, so this
    entry adds it.
    """
    if "keras" in sys.modules or not is_installed("tf_keras"):
        return
    source = importlib.import_module("tf_keras.src.applications.resnet")
    set_missing(importlib.import_module("tf_keras.applications.resnet"), "ResNet", source.ResNet)
    alias("keras.applications", "tf_keras.applications")
    alias("keras", "tf_keras")


def control_flow_ops() -> None:
    """Adds case, cond, while_loop and Assert, which tf-slim 1.1.0 uses and which are missing since TensorFlow 2.13."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_ops

    for name in ("case", "cond", "while_loop", "Assert"):
        set_missing(control_flow_ops, name, getattr(tf.compat.v1, name))


def array_ops() -> None:
    """Adds stack and unstack, which tf-slim 1.1.0 uses and which are missing in array_ops since TensorFlow 2.14."""
    import tensorflow as tf
    from tensorflow.python.ops import array_ops as module

    for name in ("stack", "unstack"):
        set_missing(module, name, getattr(tf, name))


def variable_scope() -> None:
    """Adds variable_scope.variable, missing since TensorFlow 2.13; tf-slim 1.1.0 creates variables with it."""
    import tensorflow as tf
    from tensorflow.python.ops import variable_scope as module

    set_missing(module, "variable", tf.compat.v1.Variable)


def framework_ops() -> None:
    """Adds IndexedSlices and Tensor to framework.ops, in which tf-slim 1.1.0 looks for them.

    IndexedSlices is missing since TensorFlow 2.13, Tensor since 2.14.
    """
    import tensorflow as tf
    from tensorflow.python.framework import ops

    for name in ("IndexedSlices", "Tensor"):
        set_missing(ops, name, getattr(tf, name))


def estimator() -> None:
    """Adds `tf.compat.v1.estimator`, missing since TensorFlow 2.16; upstream imports it and uses its ModeKeys.

    The values are those that the Estimator API documents in tf.estimator.ModeKeys.
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
    """Registers tensorflow.contrib, missing since TensorFlow 2.0; the modules of slim models import parts of it.

    The parts that box detection models call are implemented: the bipartite matcher, the image transforms of
    AutoAugment, averages of weights, the parameter count at export, hyperparameters. The other parts are for
    quantisation, input queues and TPUs: they can only be imported.
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
    """Named values, with the interface of tf.contrib.training.HParams: read as attributes, set by set_hparam."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            self.add_hparam(name, value)

    def add_hparam(self, name: str, value: Any) -> None:
        """Adds a value; raises ValueError if the name exists."""
        if name in vars(self):
            raise ValueError(f"hyperparameter {name} is there already")
        setattr(self, name, value)

    def set_hparam(self, name: str, value: Any) -> None:
        """Replaces a value; raises ValueError if the name does not exist."""
        if name not in vars(self):
            raise ValueError(f"there is no hyperparameter {name}")
        setattr(self, name, value)

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a value, or the default if the name does not exist."""
        return vars(self).get(name, default)

    def values(self) -> dict[str, Any]:
        """Returns all values by their names."""
        return dict(vars(self))


def model_analyzer() -> types.SimpleNamespace:
    """Returns a tf.contrib.tfprof.model_analyzer that uses tf.profiler.

    Upstream's TF1 export counts parameters with it.
    """
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
    """Pairs rows and columns, the nearest pair first, as tf.contrib.image did.

    Args:
        distance_mat: float32 [rows, columns].
        num_valid_rows: a scalar; the rows from this index on are not paired.
        top_k: the maximum number of pairs; if it is negative, as many as possible.

    Returns:
        int32 [rows], the column of each row, and int32 [columns], the row of each column; -1 without a pair.
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
    """Moves the pixels of an image or a batch, as tf.contrib.image did. Pixels from outside of the image are 0.

    Args:
        images: [height, width, channels] or [batch, height, width, channels], of any numeric type.
        transforms: [8], a0 to c1: pixel (x, y) is taken from ((a0 x + a1 y + a2) / k, (b0 x + b1 y + b2) / k) with
            k = c0 x + c1 y + 1.
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
    """Rotates a photo around its centre by an angle in radians, counterclockwise, as tf.contrib.image did."""
    import tensorflow as tf

    height, width = tf.unstack(tf.cast(tf.shape(images)[-3:-1], tf.float32) - 1)
    cos, sin = tf.cos(tf.cast(angle, tf.float32)), tf.sin(tf.cast(angle, tf.float32))
    # These offsets keep the centre in its place.
    x = (width - (cos * width - sin * height)) / 2
    y = (height - (sin * width + cos * height)) / 2
    return transform(images, [cos, -sin, x, sin, cos, y, 0.0, 0.0], interpolation)


def moving_average_optimizer() -> type:
    """Returns tf.contrib.opt.MovingAverageOptimizer: it runs another optimizer and averages the changed variables."""
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
            """Returns a Saver that writes averages under the names of their variables, and vice versa."""
            saved = {each.op.name: each for each in var_list or tf.global_variables()}
            for variable in list(saved.values()):
                average = self._ema.average(variable)
                if average is not None:
                    saved[variable.op.name], saved[average.op.name] = average, variable
            return tf.train.Saver(saved, name=name, **options)

    return MovingAverageOptimizer


def graph_transforms() -> None:
    """Registers tensorflow.tools.graph_transforms, missing since TensorFlow 2.0.

    Upstream's TFLite export of TF1 models imports it.
    """
    if not is_installed("tensorflow.tools") or not is_installed("tensorflow.tools.graph_transforms"):
        unavailable("tensorflow.tools.graph_transforms", "graph_transforms left TensorFlow with 2.0")


def legacy_layers() -> None:
    """Registers tf_keras.legacy_tf_layers, which tf-keras keeps in tf_keras.src.

    tf.compat.v1.layers looks for its classes under the shorter name.
    """
    if not is_installed("tf_keras") or is_installed("tf_keras.legacy_tf_layers"):
        return
    for part in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        alias(f"tf_keras.legacy_tf_layers{part}", f"tf_keras.src.legacy_tf_layers{part}")


def protobuf_runtime() -> None:
    """Registers google.protobuf.runtime_version, which protobuf has only since 5.27.

    The modules that protoc generates call it to check that they are not too new for the installed protobuf. TensorFlow
    up to 2.11 needs protobuf 3.20 or older; protobuf 3.20 has the message builder that the generated modules call.
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
    """Registers packages that upstream imports at the top of a module but does not need for box detection.

    tensorflow_io: colour conversion of the DeepMAC meta-architecture; it has no release for current TensorFlow.
    lvis: the metrics of the LVIS challenge; it installs OpenCV.
    """
    if not is_installed("tensorflow_io"):
        unavailable("tensorflow_io", "install tensorflow_io, which DeepMAC's colour consistency loss needs")
    if not is_installed("lvis"):
        unavailable("lvis", "install lvis, which the LVIS metrics need", submodules=("lvis", "eval", "results"))


def numpy_aliases() -> None:
    """Adds the names that NumPy removed and upstream uses.

    The aliases of Python's own types are missing since NumPy 1.24, and product, string_ and NAN since 2.0.
    """
    import numpy

    aliases = {"bool": bool, "float": float, "int": int, "object": object, "NAN": float("nan")}
    for name, value in {**aliases, "product": numpy.prod, "string_": numpy.bytes_}.items():
        if name not in vars(numpy):
            setattr(numpy, name, value)


def font_getsize() -> None:
    """Adds ImageFont.getsize, missing since Pillow 10; upstream's evaluation places the captions of boxes with it."""
    from PIL import ImageFont

    def getsize(font: ImageFont.ImageFont, text: str) -> tuple[int, int]:
        """Returns the width and height of the text in pixels, measured from its origin."""
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
    """Sets an attribute unless the owner already has it."""
    if not hasattr(owner, name):
        setattr(owner, name, value)


def is_installed(name: str) -> bool:
    """Returns whether a module can be imported or is in sys.modules."""
    return name in sys.modules or importlib.util.find_spec(name) is not None


def alias(name: str, target: str) -> None:
    """Makes `import name` return the module `target`."""
    sys.modules[name] = importlib.import_module(target)


class Unavailable(types.ModuleType):
    """A module that can be imported, but raises ImportError with a reason as soon as one of its members is called."""

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

        # The attribute is a class, because upstream derives its own classes from some of them.
        return type(attribute, (), {"__init__": refuse})


def unavailable(name: str, reason: str, submodules: tuple[str, ...] = ()) -> Unavailable:
    """Registers an Unavailable module, with the submodules that upstream imports from it."""
    module = sys.modules[name] = Unavailable(name, reason)
    for submodule in submodules:
        child = sys.modules[f"{name}.{submodule}"] = Unavailable(f"{name}.{submodule}", reason)
        setattr(module, submodule, child)
    return module
