"""Checks that old and current TensorFlow train alike: `python -m benchmarks.parity OTHER_PYTHON` prints the losses.

Each model is trained in this environment and in the environment of OTHER_PYTHON: from one checkpoint, with the same
photos in the same order, in float32 and without augmentation. The relative difference of the losses of 20 steps may be
a thousandth at most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STEPS = 20
TOLERANCE = 1e-3
# A one-stage and a two-stage model of each generation, and an SSD of TF1 with Adam, with the number of photos per step.
MODELS = {
    "ssd_mobilenet_v2_fpnlite_320x320": 4,
    "faster_rcnn_resnet50_v1_640x640": 1,
    "ssd_mobilenet_v2_mnasfpn_coco": 4,
    "ssdlite_mobilenet_v2_coco": 4,
    "faster_rcnn_inception_v2_coco": 1,
}
# Training steps before the checkpoint is written. The two-stage pipelines of TF2 normalise by the averages in the
# checkpoint, and random weights have no averages: all scores would be 0 or 1, and the last digit would decide which of
# the equal scores come first.
WARM_UP = {"faster_rcnn_resnet50_v1_640x640": 40}
# Where the pipeline's learning rate makes steps so long that rounding errors grow a thousandfold within STEPS. The loss
# of all anchors of an SSD without focal loss is in the hundreds at first.
LEARNING_RATES = {"ssdlite_mobilenet_v2_coco": 5e-5}
# With these settings both environments compute sums in one order, with kernels that both have. A model that is far from
# its data is chaotic: if several threads add up values in the order in which they arrive, two runs in the same
# environment drift apart by several per cent in 20 steps.
EXACT = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
ADAM_EPSILON = 1e-2
ROOT = Path(__file__).resolve().parent.parent


def main(other: str, models: list[str]) -> int:
    """Prints the table; returns 1 if the losses of a model differ by more than TOLERANCE."""
    from tests import demo

    print("| model | loss at step 1 | at step 20 | greatest relative difference |\n|---|---|---|---|")
    worst = 0.0
    for name in models:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            demo.draw_bucket(folder / "bucket", photos=40)
            run(sys.executable, "prepare", name, folder)
            here, there = both(name, folder, other)
        difference = max(abs(one - two) / abs(one) for one, two in zip(here, there, strict=True))
        worst = max(worst, difference)
        ends = [f"{one:.4f}, {two:.4f}" for one, two in ((here[0], there[0]), (here[-1], there[-1]))]
        print(f"| {name} | {ends[0]} | {ends[1]} | {difference:.1e} |", flush=True)
    return int(worst > TOLERANCE)


def both(name: str, folder: Path, other: str) -> list[list[float]]:
    """Returns the losses of both environments. They train at the same time, because each uses one thread."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda python: run(python, "train", name, folder), (sys.executable, other)))


def run(python: str, action: str, name: str, folder: Path) -> Any:
    """Runs an action with the given Python and returns the JSON in the last line that it prints."""
    from tests.conftest import environment

    command = [python, "-W", "ignore", "-m", "benchmarks.parity", f"--{action}", name, str(folder)]
    result = subprocess.run(command, cwd=ROOT, env=environment(**EXACT), capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def prepare(name: str, folder: Path) -> None:
    """Writes the records, a pipeline.config and the checkpoint that both environments start from, into the folder."""
    from entrypoint import job
    from entrypoint.zoo import pipeline_config
    from tests.zoo import published

    (folder / "pipeline.config").write_text(pipeline_config.write(without_ties(published.config(name))))
    settings = settings_of(name, folder)
    job.run(settings, "pipeline")
    trainer = build(name, folder, is_warming_up=name in WARM_UP)
    if name in WARM_UP:
        warm_up(trainer, WARM_UP[name])
    trainer.save(folder / "start")


def without_ties(config: Any) -> Any:
    """Changes a config so that the last digit of a score or of a gradient decides nothing, and returns it."""
    optimizer = config.train_config.optimizer
    if optimizer.HasField("adam_optimizer"):
        # Adam's first steps are as long for a gradient of 1e-7 as for one of 1: the sign of a rounding error would
        # decide where a weight goes.
        optimizer.adam_optimizer.epsilon = ADAM_EPSILON
    if config.model.WhichOneof("model") == "ssd":
        # All anchors count. If the hard ones were mined, one anchor more or less would change the others.
        config.model.ssd.loss.ClearField("hard_example_miner")
    else:
        model = config.model.faster_rcnn
        # All proposals count. If they were sampled, one proposal more or less would change the sample.
        model.second_stage_batch_size = model.first_stage_max_proposals
        resizer = model.image_resizer.keep_aspect_ratio_resizer
        if resizer.pad_to_max_dimension:
            # Photos are stretched, because all padded areas are alike and have equal scores.
            side = resizer.max_dimension
            square = model.image_resizer.fixed_shape_resizer
            square.height = square.width = side
    return config


def warm_up(trainer: Any, steps: int) -> None:
    """Trains some steps, in which the backbone finds the averages that it normalises by."""
    import tensorflow as tf

    for layer in trainer.model.submodules:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.9  # the average covers about as many steps, not thousands
    trainer.train(steps)


def train(name: str, folder: Path) -> list[float]:
    """Trains STEPS steps from the common checkpoint and returns their losses."""
    from entrypoint.engines.engine import LOSS

    trainer = build(name, folder)
    restored = trainer.start_from(str(folder / "start"))
    if restored.missing:
        raise SystemExit(f"the checkpoint lacks the variables {restored.missing}")
    return [losses[LOSS] for losses in trainer.train(STEPS)]


def settings_of(name: str, folder: Path) -> Any:
    """Returns the job's settings."""
    from entrypoint.settings.schema import Settings

    values: dict[str, Any] = {
        "data_dir": folder / "bucket",
        "work_dir": folder / "work",
        "result_dir": folder / "results",
        "pipeline_config": folder / "pipeline.config",
        "checkpoint": "none",
        "exports": "saved_model",
        "num_steps": STEPS,
        "batch_size": MODELS[name],
        **({"learning_rate": LEARNING_RATES[name]} if name in LEARNING_RATES else {}),
    }
    return Settings(**values)


def build(name: str, folder: Path, *, is_warming_up: bool = False) -> Any:
    """Returns a trainer in which only the first weights are random. A warm-up trains batch norm too."""
    from entrypoint.engines import loading
    from entrypoint.workspace import Workspace

    engine, config = loading.load(Workspace(settings_of(name, folder)))
    train_config, reader = config.train_config, config.train_input_reader
    if is_warming_up:
        config.model.faster_rcnn.feature_extractor.batch_norm_trainable = True
    del train_config.data_augmentation_options[:]
    train_config.fine_tune_checkpoint_type = "detection"
    reader.shuffle, reader.num_readers = False, 1
    shuffle_alike()
    return engine.build(config, settings_of(name, folder), 0, None)


def shuffle_alike() -> None:
    """Makes the samplers of anchors and proposals draw the same ones in both environments.

    The results of tf.random.shuffle differ between them. Values are ordered by a hash of each value (Knuth's
    multiplicative hash) instead, so that one anchor more or less does not change the order of the others.
    """
    import tensorflow as tf

    def shuffle(value: Any, seed: Any = None, name: Any = None) -> Any:
        del seed, name
        hashes = tf.cast(tf.reshape(value, [-1]), tf.int64) * 2654435761 % 2**32
        return tf.gather(value, tf.argsort(hashes))

    for module in (tf.random, tf.compat.v1.random):
        module.shuffle = shuffle
    tf.compat.v1.random_shuffle = shuffle


def parse() -> argparse.Namespace:
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("other", help="the Python of the other environment")
    parser.add_argument("models", nargs="*", help=f"by default {', '.join(MODELS)}")
    return parser.parse_args()


if __name__ == "__main__":
    arguments = parse()
    if arguments.prepare:
        prepare(arguments.other, Path(arguments.models[0]))
        print("null")
    elif arguments.train:
        print(json.dumps(train(arguments.other, Path(arguments.models[0]))))
    else:
        sys.exit(main(arguments.other, arguments.models or list(MODELS)))
