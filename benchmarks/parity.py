"""Whether old and current TensorFlow train alike: `python -m benchmarks.parity OTHER_PYTHON`, a table of losses.

Each model starts from one checkpoint, sees the same photos in the same order, in float32 and without augmentation, in
this environment and in that of OTHER_PYTHON; the losses of 20 steps may differ by a thousandth of themselves.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 20
TOLERANCE = 1e-3
# A one-stage and a two-stage model of each generation, and the photos of a step.
MODELS = {
    "ssd_mobilenet_v2_fpnlite_320x320": 4,
    "faster_rcnn_resnet50_v1_640x640": 1,
    "ssd_mobilenet_v2_mnasfpn_coco": 4,
    "faster_rcnn_inception_v2_coco": 1,
}
# Sums in one order, by the kernels that both have: a model far from its data is chaotic, and two runs in the same
# environment drift apart by per cents in 20 steps where several threads add up what they have as it comes.
EXACT = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
ROOT = Path(__file__).resolve().parent.parent


def main(other: str, models: list[str]) -> int:
    """Prints the table; 1 where a model is not alike."""
    from tests import demo

    print("| model | loss at step 1 | at step 20 | greatest relative difference |\n|---|---|---|---|")
    worst = 0.0
    for name in models:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            demo.draw_bucket(folder / "bucket", photos=40)
            run(sys.executable, "prepare", name, folder)
            here, there = (run(python, "train", name, folder) for python in (sys.executable, other))
        difference = max(abs(one - two) / abs(one) for one, two in zip(here, there, strict=True))
        worst = max(worst, difference)
        ends = [f"{one:.4f}, {two:.4f}" for one, two in ((here[0], there[0]), (here[-1], there[-1]))]
        print(f"| {name} | {ends[0]} | {ends[1]} | {difference:.1e} |", flush=True)
    return int(worst > TOLERANCE)


def run(python: str, action: str, name: str, folder: Path) -> Any:
    """What an action prints last, as JSON, run by that Python."""
    from tests.conftest import environment

    command = [python, "-W", "ignore", "-m", "benchmarks.parity", f"--{action}", name, str(folder)]
    result = subprocess.run(command, cwd=ROOT, env=environment(**EXACT), capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def prepare(name: str, folder: Path) -> None:
    """Records, a pipeline.config and the checkpoint that both start from, below the folder."""
    from entrypoint import job, pipeline
    from tests.zoo import published

    (folder / "pipeline.config").write_text(pipeline.write(published.config(name)))
    settings = settings_of(name, folder)
    for step in ("annotations", "label_map", "tf_record", "checkpoint", "pipeline"):
        job.run_alone(step, settings)
    build(name, folder).save(folder / "start")


def train(name: str, folder: Path) -> list[float]:
    """The losses of the steps, from that checkpoint."""
    from entrypoint.engine import LOSS

    trainer = build(name, folder)
    restored = trainer.start_from(str(folder / "start"))
    if restored.missing:
        raise SystemExit(f"not in the checkpoint: {restored.missing}")
    return [losses[LOSS] for losses in runner_of(folder).train(trainer, STEPS)]


def settings_of(name: str, folder: Path) -> Any:
    """The job's settings."""
    from entrypoint.settings import Settings

    values: dict[str, Any] = {
        "data_dir": folder / "bucket",
        "work_dir": folder / "work",
        "result_dir": folder / "results",
        "pipeline_config": folder / "pipeline.config",
        "checkpoint": "none",
        "exports": "saved_model",
        "num_steps": STEPS,
        "batch_size": MODELS[name],
    }
    return Settings(**values)


def runner_of(folder: Path) -> Any:
    """The engine of the model."""
    from entrypoint import engine, workspace

    return engine.of(workspace.read_json(folder / "work" / "pipeline_changes.json", "pipeline")["generation"])


def build(name: str, folder: Path) -> Any:
    """A model to train in which nothing is left to chance but its first weights."""
    from entrypoint import pipeline

    runner = runner_of(folder)
    config = pipeline.read(folder / "work" / "pipeline.config")
    train_config, reader = config.train_config, config.train_input_reader
    del train_config.data_augmentation_options[:]
    train_config.fine_tune_checkpoint_type = "detection"
    reader.shuffle, reader.num_readers = False, 1
    shuffle_alike()
    return runner.build(config, settings_of(name, folder), 0, None)


def shuffle_alike() -> None:
    """Has the samplers of anchors and proposals draw the same ones everywhere: what tf.random.shuffle gives is not."""
    import tensorflow as tf

    def shuffle(value: Any, seed: Any = None, name: Any = None) -> Any:
        del seed, name
        return tf.random.experimental.stateless_shuffle(value, seed=[1, 2])

    for module in (tf.random, tf.compat.v1.random):
        module.shuffle = shuffle
    tf.compat.v1.random_shuffle = shuffle


def parse() -> argparse.Namespace:
    """The command line."""
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
