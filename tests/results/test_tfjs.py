"""model_web/ read back into TensorFlow finds what the model finds. tests/end_to_end loads it in its clients."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow.core.framework import graph_pb2

from entrypoint.results.export import tfjs, tfjs_files
from entrypoint.zoo import pipeline_config
from tests.conftest import ROOT, environment

DTYPES = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}
# A model with random weights is exported in the mode of its engine. The reference is upstream's own post-processing,
# before duplicates are removed, with boxes as fractions of the photo instead of the padded input.
EXPORT = """
import sys
from pathlib import Path
import numpy as np
from entrypoint.engines import loading
from entrypoint.results.export import tfjs_converter
from entrypoint.settings import environment
from entrypoint.settings.schema import Settings
from entrypoint.zoo import pipeline_config
environment.prepare(Settings())
generation, config, folder = sys.argv[1], pipeline_config.read(Path(sys.argv[2])), Path(sys.argv[3])
engine = loading.engine_of(generation)
photo = np.load(folder / "photo.npy")
prefix = folder / "ckpt"
import tensorflow.compat.v1 as tf1
def reference(model):
    images, shapes = model.preprocess(tf1.cast(photo, tf1.float32))
    found = model.postprocess(model.predict(images, shapes), shapes)
    return found["raw_detection_scores"], found["raw_detection_boxes"], images, shapes
if generation == "tf2":
    import tensorflow as tf
    from entrypoint.engines.tf2 import model as models
    model = models.build(config, is_training=False)
    values = [each.numpy() for each in reference(model)]
    tf.train.Checkpoint(model=model).write(str(prefix))
else:
    from entrypoint.engines.tf1 import model as models
    with tf1.Graph().as_default(), tf1.Session() as session:
        tensors = reference(models.build(config, is_training=False))
        session.run(tf1.global_variables_initializer())
        values = session.run(tensors)
        tf1.train.Saver().save(session, str(prefix))
scores, boxes, images, shapes = values
padding = np.array(images.shape[1:3]) / shapes[0, :2]
np.savez(folder / "wanted.npz", scores=scores, boxes=boxes * np.tile(padding, 2))
engine.export_web_source(config, prefix, folder / "source")
(folder / "web").mkdir()
tfjs_converter.run(folder / "source", folder / "web")
(folder / "float16").mkdir()
tfjs_converter.run(folder / "source", folder / "float16", "float16")
"""
PADDED = "keep_aspect_ratio_resizer { min_dimension: 160 max_dimension: 160 pad_to_max_dimension: true }"


def read_back(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Returns a GraphDef with its constants, and the whole document."""
    document = json.loads((folder / "model.json").read_text())
    (group,) = document["weightsManifest"]
    content, start = b"".join((folder / path).read_bytes() for path in group["paths"]), 0
    graph = json_format.ParseDict(document["modelTopology"], graph_pb2.GraphDef())
    nodes = {node.name: node for node in graph.node}
    for weight in group["weights"]:
        dtype = np.dtype(DTYPES[weight["dtype"]])
        stored = np.dtype(weight["quantization"]["dtype"]) if "quantization" in weight else dtype
        size = int(np.prod(weight["shape"], dtype=int)) * stored.itemsize
        values = np.frombuffer(content[start : start + size], stored).astype(dtype)
        nodes[weight["name"]].attr["value"].tensor.tensor_content = values.tobytes()
        start += size
    assert start == len(content)
    return graph, document


def run(graph: Any, photo: Any) -> dict[str, Any]:
    """Returns the outputs of a graph for a photo."""
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph, name="")
        found: dict[str, Any] = session.run({"scores": "scores:0", "boxes": "boxes:0"}, {"image:0": photo})
        return found


def pipeline(name: str, folder: Path, resizer: str | None = None) -> Path:
    """Returns the path of a pipeline of ours, with another resizer if one is given."""
    path = ROOT / "pipelines" / f"{name}.config"
    if resizer is None:
        return path
    config = pipeline_config.read(path)
    changed = pipeline_config.parse(f"model {{ ssd {{ image_resizer {{ {resizer} }} }} }}")
    config.model.ssd.image_resizer.CopyFrom(changed.model.ssd.image_resizer)
    (folder / "pipeline.config").write_text(str(config))
    return folder / "pipeline.config"


@pytest.mark.parametrize(
    ("generation", "name", "resizer", "has_background"),
    [
        ("tf1", "ssd_mobilenet_v2_coco", None, True),
        ("tf2", "smoke", PADDED, True),
        # Its input is a multiple of 128.
        ("tf2", "efficientdet_d0", PADDED.replace("160", "256"), False),
    ],
)
def test_graph_in_the_files_finds_what_the_model_finds_before_nms(
    tmp_path: Path, generation: str, name: str, resizer: str | None, has_background: bool
) -> None:
    photo = np.random.default_rng(3).integers(0, 256, [1, 90, 140, 3], np.int32)
    np.save(tmp_path / "photo.npy", photo)
    command = [sys.executable, "-c", EXPORT, generation, str(pipeline(name, tmp_path, resizer)), str(tmp_path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    graph, document = read_back(tmp_path / "web")
    found, wanted = run(graph, photo), np.load(tmp_path / "wanted.npz")
    labels = wanted["scores"].shape[2] - has_background
    assert found["scores"].shape == (*wanted["scores"].shape[:2], labels)
    assert found["scores"] == pytest.approx(wanted["scores"][:, :, -labels:], abs=1e-5)
    assert found["boxes"][:, :, 0] == pytest.approx(wanted["boxes"], abs=1e-5)
    # 1.0.0 takes the outputs from the order of the nodes, later versions from the signature.
    assert [node.name for node in graph.node][-2:] == list(document["signature"]["outputs"]) == ["scores", "boxes"]
    assert {"Switch", "Merge"} <= {node.op for node in graph.node}
    assert sum(node.op == "Placeholder" for node in graph.node) == 1
    check_float16(tmp_path, found, photo)


def check_float16(folder: Path, found: dict[str, Any], photo: Any) -> None:
    """Asserts that kernels in half the bytes change scores and boxes by no more than their digits do."""
    graph, document = read_back(folder / "float16")
    halved = run(graph, photo)
    assert halved["scores"] == pytest.approx(found["scores"], abs=0.01)
    assert halved["boxes"] == pytest.approx(found["boxes"], abs=0.01)
    (group,) = document["weightsManifest"]
    entries = [each["quantization"] for each in group["weights"] if "quantization" in each]
    assert entries
    assert all(each == {"dtype": "float16", "original_dtype": "float32"} for each in entries)
    whole, half = (sum(path.stat().st_size for path in (folder / name).glob("*.bin")) for name in ("web", "float16"))
    assert 0.5 < half / whole < 0.6


def test_weights_are_cut_into_shards_that_join_to_the_whole(tmp_path: Path) -> None:
    weights = {
        "large": np.arange(3 << 19, dtype=np.float32).reshape(3, -1),
        "flag": np.array(True),
        "sizes": np.array([1, -2], np.int32),
    }
    tfjs_files.write(tmp_path, tfjs_files.WebGraph({"node": []}, {}, {}, weights))
    names = ["group1-shard1of2.bin", "group1-shard2of2.bin"]
    assert [(tmp_path / name).stat().st_size for name in names] == [4 << 20, (2 << 20) + 9]
    content = b"".join((tmp_path / name).read_bytes() for name in names)
    assert content == b"".join(each.tobytes() for each in weights.values())
    (group,) = json.loads((tmp_path / "model.json").read_text())["weightsManifest"]
    assert group["paths"] == names
    assert [(each["name"], each["shape"], each["dtype"]) for each in group["weights"]] == [
        ("large", [3, 1 << 19], "float32"),
        ("flag", [], "bool"),
        ("sizes", [2], "int32"),
    ]


def test_kernels_alone_are_halved_and_only_if_float16_holds_them(tmp_path: Path) -> None:
    kernel = np.linspace(-1, 1, 3 * 3 * 8 * 16, dtype=np.float32).reshape(3, 3, 8, 16)
    weights = {
        "kernel": kernel,
        "too large": kernel * np.float32(1e5),
        "small kernel": kernel[:1, :1],
        "anchors": np.linspace(0, 1, 4000, dtype=np.float32).reshape(1000, 4),
        "sizes": np.ones((4, 4, 4, 4), np.int32),
    }
    tfjs_files.write(tmp_path, tfjs_files.WebGraph({"node": []}, {}, {}, weights), "float16")
    (group,) = json.loads((tmp_path / "model.json").read_text())["weightsManifest"]
    assert [each["name"] for each in group["weights"] if "quantization" in each] == ["kernel"]
    assert {each["name"]: each["dtype"] for each in group["weights"]} == {
        name: str(value.dtype) for name, value in weights.items()
    }
    stored = weights | {"kernel": kernel.astype(np.float16)}
    assert (tmp_path / "group1-shard1of1.bin").read_bytes() == b"".join(each.tobytes() for each in stored.values())


@pytest.mark.parametrize(
    "model", ["center_net { }", "faster_rcnn { }", "ssd { image_resizer { identity_resizer { } } }"]
)
def test_model_that_is_no_ssd_of_one_input_size_is_refused(model: str) -> None:
    assert "SSD models alone" in str(tfjs.FORMAT.refusal(pipeline_config.parse(f"model {{ {model} }}"), "none"))


def test_operation_that_clients_do_not_know_is_named() -> None:
    program = """
from tensorflow.core.framework import graph_pb2
from entrypoint.results.export import tfjs_graph
graph = graph_pb2.GraphDef()
graph.node.add(op="Bincount", name="heads/count")
tfjs_graph.refuse_unknown(graph)
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert "JobError: TensorFlow.js does not know Bincount, used by heads/count" in result.stderr
