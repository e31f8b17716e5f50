from __future__ import annotations

import ast
import contextlib
import importlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entrypoint.system.files import file_sha256
from tests.conftest import ROOT

DIST = ROOT / "dist"
NAMES = ("object_detection-0.1.tar.gz", "slim-0.1.tar.gz")


def build(out: Path, *arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "sdists" / "build.py", "--out", out, *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of tensorflow/models as far as the build reads it: upstream's source, and .proto files."""
    research = tmp_path_factory.mktemp("models") / "research"
    for name in NAMES:
        with tarfile.open(DIST / name) as tar:
            tar.extractall(research, filter="data")
        folder = research / name.removesuffix(".tar.gz")
        if name.startswith("slim"):
            folder.rename(research / "slim")
        else:
            (folder / "object_detection").rename(research / "object_detection")
    package = research / "object_detection"
    (package / "__init__.py").write_text("")
    write_protos(package / "protos")
    return research.parent


def write_protos(folder: Path) -> None:
    """Replaces two of the compiled modules by .proto files, one of which imports the other."""
    for path in folder.glob("*_pb2.py"):
        path.unlink()
    head = 'syntax = "proto2";\npackage object_detection.protos;\n'
    (folder / "leaf.proto").write_text(head + "message Leaf { optional float weight = 1 [default = 0.5]; }\n")
    (folder / "tree.proto").write_text(
        head + 'import "object_detection/protos/leaf.proto";\nmessage Tree { repeated Leaf leaves = 1; }\n'
    )


def test_same_source_gives_the_same_bytes(tmp_path: Path, source: Path) -> None:
    for run in ("1", "2"):
        result = build(tmp_path / run, "--models-dir", str(source), hash_seed=run)
        assert result.returncode == 0, result.stderr
    for name in NAMES:
        assert file_sha256(tmp_path / "1" / name) == file_sha256(tmp_path / "2" / name)


def test_clone_is_built_from_its_proto_files(tmp_path: Path, source: Path) -> None:
    build(tmp_path, "--models-dir", str(source))
    with tarfile.open(tmp_path / NAMES[0]) as tar:
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "object_detection-0.1" / "object_detection" / "protos"
    assert {path.name for path in root.glob("*_pb2.py")} == {"leaf_pb2.py", "tree_pb2.py"}
    program = (
        "import sys, types; package = types.ModuleType('object_detection'); package.__path__ = ['object_detection'];"
        "sys.modules['object_detection'] = package; from object_detection.protos import tree_pb2;"
        "print(tree_pb2.Tree(leaves=[{}]).leaves[0].weight)"
    )
    folder = tmp_path / "object_detection-0.1"
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert result.stdout == "0.5\n"


def test_folder_that_is_no_clone_is_a_named_error(tmp_path: Path) -> None:
    result = build(tmp_path, "--models-dir", str(tmp_path))
    assert result.returncode == 2
    assert "holds no research/object_detection/protos: name a clone of tensorflow/models" in result.stderr


def test_archives_hold_upstream_s_packages_and_its_tests() -> None:
    for name, packages in zip(
        NAMES, (["object_detection"], ["nets", "datasets", "deployment", "preprocessing"]), strict=True
    ):
        with tarfile.open(DIST / name) as tar:
            names = tar.getnames()
        top = name.removesuffix(".tar.gz")
        for package in packages:
            assert f"{top}/{package}/__init__.py" in names
        assert any(each.endswith("_test.py") for each in names)
        assert f"{top}/PKG-INFO" in names


@pytest.mark.parametrize(
    "module", ["nets.mobilenet.mobilenet_v2", "preprocessing.preprocessing_factory", "nets.resnet_v1"]
)
def test_slim_s_packages_can_be_imported(module: str) -> None:
    importlib.import_module("object_detection")
    importlib.import_module(module)


def test_all_protos_of_upstream_are_compiled_and_read_a_config() -> None:
    from object_detection import protos

    folder = Path(protos.__path__[0])
    assert len(list(folder.glob("*_pb2.py"))) == 34
    for path in folder.glob("*_pb2.py"):
        importlib.import_module(f"object_detection.protos.{path.stem}")


def in_new_process(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_tensorflow_imported_before_still_gives_keras_2() -> None:
    program = "import tensorflow as tf, object_detection; print(tf.keras.Model.__module__.partition('.')[0])"
    assert in_new_process(program) == "tf_keras"


def test_layer_changes_nothing_that_is_there() -> None:
    program = """
import numpy, tensorflow as tf
from PIL import ImageFont
from tensorflow.python.ops import control_flow_ops
numpy.int = marker = object()
control_flow_ops.case = ImageFont.FreeTypeFont.getsize = marker
import object_detection
assert numpy.int is control_flow_ops.case is ImageFont.FreeTypeFont.getsize is marker
"""
    in_new_process(program)


def test_every_entry_of_the_layer_says_what_is_missing_and_can_be_applied_twice() -> None:
    from object_detection import compatibility

    compatibility.apply()
    for entry in compatibility.ENTRIES:
        assert entry.__doc__


def test_everything_that_tf_slim_takes_from_tensorflow_is_there() -> None:
    import object_detection  # noqa: F401 - applies the layer
    import tf_slim

    for path in Path(tf_slim.__file__).parent.rglob("*.py"):
        if not path.name.endswith("_test.py"):
            tree = ast.parse(path.read_text())
            modules = dict(modules_of_tensorflow(tree))
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                    assert hasattr(modules[node.value.id], node.attr), f"{path}: {node.value.id}.{node.attr}"


def modules_of_tensorflow(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """The modules that a source imports by `from tensorflow... import`, by the names that it gives them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tensorflow."):
            for each in node.names:
                with contextlib.suppress(ImportError):
                    yield each.asname or each.name, importlib.import_module(f"{node.module}.{each.name}")


def test_absent_package_says_so_when_it_is_used_and_not_before() -> None:
    from object_detection.metrics import lvis_evaluation

    with pytest.raises(ImportError, match="install lvis"):
        lvis_evaluation.lvis_results.LVISResults(None, [])


def test_estimator_s_mode_keys_are_there_and_the_rest_says_that_it_is_gone() -> None:
    import object_detection  # noqa: F401
    from tensorflow.compat.v1 import estimator

    assert (estimator.ModeKeys.TRAIN, estimator.ModeKeys.EVAL, estimator.ModeKeys.PREDICT) == ("train", "eval", "infer")
    with pytest.raises(ImportError, match=r"left TensorFlow with 2.16"):
        estimator.Estimator()


def test_upstream_draws_boxes_with_captions() -> None:
    import object_detection  # noqa: F401
    from object_detection.utils import visualization_utils

    image = np.zeros((100, 100, 3), np.uint8)
    visualization_utils.draw_bounding_box_on_image_array(image, 0.2, 0.2, 0.8, 0.8, display_str_list=["caption"])
    assert image.any()


def test_nearest_rows_and_columns_are_paired_first() -> None:
    from object_detection import compatibility

    distances = np.array([[0.5, 0.1, 0.9], [0.2, 0.15, 0.8]], np.float32)
    columns, rows = compatibility.bipartite_match(distances, 2.0)
    assert (columns.numpy().tolist(), rows.numpy().tolist()) == ([1, 0], [1, 0, -1])
    columns, rows = compatibility.bipartite_match(distances, 1.0)
    assert (columns.numpy().tolist(), rows.numpy().tolist()) == ([1, -1], [-1, 0, -1])


def test_hyperparameters_are_read_as_attributes_and_only_those_that_are_there_are_set() -> None:
    from object_detection import compatibility

    values = compatibility.HParams(rate=1.0)
    values.set_hparam("rate", 0.5)
    assert (values.rate, values.values(), values.get("missing", 3)) == (0.5, {"rate": 0.5}, 3)
    with pytest.raises(ValueError, match="no hyperparameter rat"):
        values.set_hparam("rat", 1.0)
    with pytest.raises(ValueError, match="rate is there already"):
        values.add_hparam("rate", 1.0)


def test_photos_are_moved_as_contrib_moved_them() -> None:
    from object_detection import compatibility

    photo = np.zeros((4, 4, 3), np.uint8)
    photo[1, 2] = 9
    assert np.argwhere(compatibility.translate(photo, [-2, 1]).numpy()[..., 0]).tolist() == [[2, 0]]
    # A quarter of a turn, counterclockwise about the middle.
    assert np.argwhere(compatibility.rotate(photo, np.pi / 2).numpy()[..., 0]).tolist() == [[1, 1]]
    sheared = compatibility.transform(photo[np.newaxis], [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).numpy()
    assert np.argwhere(sheared[0, ..., 0]).tolist() == [[1, 1]]
    assert sheared.dtype == np.uint8


def test_averages_of_weights_follow_them_and_are_saved_under_their_names(tmp_path: Path) -> None:
    import tensorflow.compat.v1 as tf
    from object_detection import compatibility

    with tf.Graph().as_default(), tf.Session() as session:
        weight = tf.get_variable("weight", initializer=1.0)
        optimizer = compatibility.moving_average_optimizer()(tf.train.GradientDescentOptimizer(1.0), average_decay=0.5)
        step = optimizer.apply_gradients(optimizer.compute_gradients(weight))
        saver = optimizer.swapping_saver()
        session.run(tf.global_variables_initializer())
        session.run(step)
        prefix = saver.save(session, str(tmp_path / "model.ckpt"))
        assert session.run(weight) == 0.0
        assert tf.train.load_variable(prefix, "weight") == 0.5
        assert tf.train.load_variable(prefix, "weight/ExponentialMovingAverage") == 0.0
