"""Makes the archive of a model of the zoo, with random weights under the published names.

`python -m tests.zoo.archives NAME FOLDER SHRINK` is a separate process, because the two generations need different
modes of TensorFlow.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from entrypoint.zoo import catalogue, pipeline_config
from tests.zoo import published

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo"
Shapes = dict[str, list[int]]
# The place of a checkpoint in its archive. The checkpoints of MobileDet have the names that converters of the published
# archives use.
PLACES = {"tf1": "model.ckpt", "tf2": "checkpoint/ckpt-0"}
MOBILEDETS = {
    "ssd_mobiledet_cpu_coco": "model.ckpt-400000",
    "ssd_mobiledet_dsp_coco": "fp32/model.ckpt-400000",
    "ssd_mobiledet_edgetpu_coco": "fp32/model.ckpt-400000",
}


def make(name: str, folder: Path, shrink: int = 1) -> dict[str, Any]:
    """Writes FOLDER/STEM.tar.gz; returns its name, and how many variables it and the published index have.

    Raises:
        AssertionError: names or shapes differ from the published index, if ../shared has it.
    """
    model = catalogue.find(name)
    config = published.config(name, shrink)
    stem = Path(model.archive).name.removesuffix(".tar.gz")
    index = find_index(model.generation, stem)
    prefix = write(model.generation, config, folder, index)
    found = shapes_of(prefix)
    if index:
        assert found == shapes_of(index), f"{name}: not the published names and shapes"
    with tarfile.open(folder / f"{stem}.tar.gz", "w:gz", compresslevel=1) as tar:
        place = MOBILEDETS.get(name, PLACES[model.generation])
        for path in prefix.parent.glob(f"{prefix.name}.*"):
            tar.add(path, f"{stem}/{place}{path.name.removeprefix(prefix.name)}")
            path.unlink()
        (folder / "pipeline.config").write_text(pipeline_config.write(config))
        tar.add(folder / "pipeline.config", f"{stem}/{'fp32/' if 'fp32' in place else ''}pipeline.config")
    return {"archive": f"{stem}.tar.gz", "variables": len(found), "published": len(found) if index else None}


def find_index(generation: str, stem: str) -> Path | None:
    """Returns the prefix of the published checkpoint's index, or None if ../shared does not have it."""
    folder = ZOO / generation / stem
    prefix = folder / ("model.ckpt" if generation == "tf1" else "checkpoint/ckpt-0")
    return prefix if prefix.with_name(f"{prefix.name}.index").is_file() else None


def shapes_of(prefix: Path) -> Shapes:
    """Returns the names and shapes of a checkpoint's variables. Reads only its index."""
    import tensorflow as tf

    return {name: list(shape) for name, shape in tf.train.list_variables(str(prefix))}


def write(generation: str, config: Any, folder: Path, index: Path | None = None) -> Path:
    """Writes a checkpoint as upstream's loop of a generation saves it; returns its prefix."""
    return write_tf1(config, folder, index) if generation == "tf1" else write_tf2(config, folder)


def write_tf2(config: Any, folder: Path) -> Path:
    """Writes a checkpoint as upstream's TF2 loop saves it; returns its prefix."""
    import object_detection  # noqa: F401 - before TensorFlow is used
    import tensorflow as tf

    from entrypoint.engines.tf2 import model

    tf.keras.utils.set_random_seed(1)
    built = model.build(config, is_training=True)
    saved = Path(tf.train.Checkpoint(model=built).save(str(folder / "ckpt")))
    for path in folder.glob(f"{saved.name}.*"):
        path.rename(folder / path.name.replace(saved.name, "ckpt-0"))
    return folder / "ckpt-0"


def write_tf1(config: Any, folder: Path, index: Path | None) -> Path:
    """Writes a checkpoint as upstream's TF1 loop saves it; returns its prefix.

    It also has the variables that only the index has: the ranges of quantisation.
    """
    from entrypoint.engines.tf1 import model  # first, since it sets TensorFlow's mode

    import tensorflow.compat.v1 as tf  # isort: skip

    with tf.Graph().as_default():
        tf.set_random_seed(1)
        built = model.build(config, is_training=False)
        images, shapes = built.preprocess(tf.zeros([1, 320, 320, 3]))
        built.postprocess(built.predict(images, shapes), shapes)
        tf.train.get_or_create_global_step()
        names = {each.op.name for each in tf.global_variables()}
        for name, shape in (shapes_of(index) if index else {}).items():
            if name not in names:
                tf.get_variable(name, shape)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False, write_state=False)
    return folder / "model.ckpt"


if __name__ == "__main__":
    print(json.dumps(make(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
