"""Training loops that are timed against each other, each in a process of its own.

`python -m benchmarks.loops KIND WORK_DIR STEPS PRECISION` prints one JSON object. WORK_DIR is that of a job whose step
`pipeline` is done. KIND is one of these:

job       the job's own loop
upstream  the loop of upstream's model_main_tf2, on the same config and records, without summaries
backbone  forward and backward through the backbone alone, on one batch of noise
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 3  # of STEPS steps each, after the first one, which compiles the model; the fastest counts


def run(kind: str, work: Path, steps: int, precision: str = "float32", limit: float | None = None) -> dict[str, float]:
    """Returns what a loop prints; raises CalledProcessError or TimeoutExpired if it fails or takes too long."""
    command = [sys.executable, "-m", "benchmarks.loops", kind, str(work), str(steps), precision]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def prepare(
    folder: Path, bucket: Path, model: str, batch: int | None = None, limit: float | None = None, **settings: Any
) -> Path:
    """Runs the steps of a job before the training, from random weights, and returns its WORK_DIR.

    Raises what `run` raises.
    """
    work = folder / "work"
    words = ["pipeline", "--data-dir", bucket, "--work-dir", work, "--result-dir", folder / "results", "--model", model]
    words += ["--batch-size", batch] if batch else []
    words += ["--checkpoint", "none", *(f"--{name}={value}" for name, value in settings.items())]
    command = [sys.executable, "-m", "entrypoint", *map(str, words)]
    # The log of a job goes to its standard output.
    subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True, timeout=limit)
    return work


def batch_of(work: Path) -> int:
    """Returns the number of photos of a step."""
    from entrypoint.zoo import pipeline_config

    return int(pipeline_config.read(work / "pipeline.config").train_config.batch_size)


def settings_of(work: Path, precision: str) -> Any:
    """Returns the settings with which a loop runs."""
    from entrypoint.settings import command_line, environment

    words = ["--data-dir", work, "--work-dir", work, "--result-dir", work.parent / "results", "--precision", precision]
    settings = command_line.load([str(word) for word in words]).settings
    environment.prepare(settings)
    return settings


def fastest(train: Callable[[int], Any], steps: int) -> float:
    """Returns the seconds of a step, in the fastest of ROUNDS rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        train(steps)
        seconds.append((time.perf_counter() - began) / steps)
    return min(seconds)


def job(work: Path, steps: int, precision: str) -> dict[str, float]:
    """Times the job's own loop, its first step, its input alone, and two evaluations."""
    settings = settings_of(work, precision)
    from entrypoint.data import records
    from entrypoint.engines import loading
    from entrypoint.workspace import Workspace

    began = time.perf_counter()
    space = Workspace(settings)
    engine, config = loading.load(space)
    trainer = engine.build(config, settings, 0, None, averages=True)
    trainer.train(1)
    first = time.perf_counter() - began
    trainer.train(steps)
    found = {"step": fastest(trainer.train, steps), "first": first, "input": trainer.seconds_of_input(steps)}
    validation = records.load(space).validation
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(Path(folder) / "ckpt-0")
        for name in ("evaluation", "later_evaluation"):
            began = time.perf_counter()
            list(trainer.detect(Path(folder) / "ckpt-0", validation.paths(space.records)))
            found[name] = (time.perf_counter() - began) / validation.photos
    return found


def upstream(work: Path, steps: int, precision: str) -> dict[str, float]:
    """Times upstream's own loop: its first round compiles the model."""
    settings_of(work, precision)
    from object_detection import model_lib_v2

    found: dict[str, float] = {}

    def keep(metrics: dict[str, float], _: str) -> None:
        found["step"] = 1 / metrics["steps_per_sec_max"]

    with tempfile.TemporaryDirectory() as folder:
        model_lib_v2.train_loop(
            str(work / "pipeline.config"),
            folder,
            train_steps=(ROUNDS + 1) * steps,
            record_summaries=False,
            num_steps_per_iteration=steps,
            performance_summary_exporter=keep,
        )
    return found


def backbone(work: Path, steps: int, precision: str) -> dict[str, float]:
    """Times the gradients of the backbone's outputs, with batch norm in training, as every training needs them."""
    settings_of(work, precision)
    import tensorflow as tf

    from entrypoint.engines.shared import patches
    from entrypoint.engines.tf2 import model as models
    from entrypoint.zoo import pipeline_config

    config = pipeline_config.read(work / "pipeline.config")
    model = models.build(config, is_training=True)
    patches.set_training(model, is_training=True)
    layers = model._feature_extractor.classification_backbone
    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    images = tf.random.uniform([config.train_config.batch_size, resizer.height, resizer.width, 3], -1.0, 1.0)

    def descend() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(output) for output in tf.nest.flatten(layers(images))])
        # Every gradient must be computed, and nothing else.
        return tf.add_n([tf.reduce_sum(each) for each in tape.gradient(loss, layers.trainable_variables)])

    compiled = tf.function(descend, autograph=False)

    def train(count: int) -> None:
        for _ in range(count):
            compiled().numpy()

    train(steps)
    return {"step": fastest(train, steps)}


if __name__ == "__main__":
    kinds = {"job": job, "upstream": upstream, "backbone": backbone}
    print(json.dumps(kinds[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
