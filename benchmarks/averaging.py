"""Averaged weights and batch norm: `python -m benchmarks.averaging BUCKET [STEPS]`, a quarter of an hour.

The smoke model is trained on a bucket from random weights. At each sixth of the steps four models are evaluated on the
validation photos: the present weights, and the averaged ones with the averages of batch norm as they are, computed anew
on some batches, and averaged as the weights are.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from entrypoint import job
from entrypoint.data import annotations, records
from entrypoint.engines import loading
from entrypoint.settings import command_line, environment
from entrypoint.training import coco, length
from entrypoint.workspace import Workspace

BATCH, ANEW = 8, 60
HEAD = (
    "| step | present weights | averaged | averaged, batch norm computed anew | both averaged |\n|---|---|---|---|---|"
)


def main() -> None:
    """Trains the model and prints a table of mAP."""
    steps = sys.argv[2] if len(sys.argv) > 2 else "600"
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--data_dir", sys.argv[1], "--work_dir", f"{folder}/work", "--result_dir", f"{folder}/results"]
        command = command_line.load(
            ["pipeline", *flags, "--num_steps", steps, "--batch_size", str(BATCH), "--model", "smoke"]
        )
        environment.prepare(command.settings)
        job.run(command.settings, "pipeline")
        print(HEAD)
        measure(Workspace(command.settings))


def measure(work: Workspace) -> None:
    """Trains, and prints a row at each sixth of the steps."""
    from entrypoint.engines.shared import averaging
    from entrypoint.engines.tf2 import model as models

    engine, config = loading.load(work)
    trainer: Any = engine.build(config, work.settings, 0, None, averages=True)
    statistics = [each for name, each in models.named_variables(trainer.model) if "moving_" in name]
    averages = [each.numpy() for each in statistics]
    steps = length.scheduled(work)
    for step in range(1, steps + 1):
        trainer.train(1)
        share = averaging.rate(step).numpy()
        averages = [
            average + share * (each.numpy() - average) for average, each in zip(averages, statistics, strict=True)
        ]
        if step % (steps // 6) == 0:
            print(f"| {step} | {' | '.join(f'{value:.3f}' for value in row(trainer, statistics, averages, work))} |")


def row(trainer: Any, statistics: list[Any], averages: list[Any], work: Workspace) -> list[float]:
    """Returns mAP of the four models, and leaves the model as it was."""
    present = [each.numpy() for each in statistics]
    values = [score(trainer, work)]
    with trainer.averaged():
        values.append(score(trainer, work))
        compute_anew(trainer)
        values.append(score(trainer, work))
        fill(statistics, averages)
        values.append(score(trainer, work))
    fill(statistics, present)
    return values


def score(trainer: Any, work: Workspace) -> float:
    """Returns mAP of the present weights on the validation photos."""
    found = list(trainer.detect(Path(), records.load(work).validation.paths(work.records)))
    return coco.measure(annotations.load(work), found, trainer.step).summary.map or 0.0


def compute_anew(trainer: Any) -> None:
    """Runs some batches through the model in training, which moves the averages of batch norm and nothing else."""
    import tensorflow as tf

    from entrypoint.engines.shared import patches

    patches.set_training(trainer.model, is_training=True)
    predict = tf.function(lambda images, shapes: trainer.model.predict(images, shapes) and None, autograph=False)
    for _ in range(ANEW):
        features, _ = next(trainer.batches)
        predict(features["image"], features["true_image_shape"])


def fill(variables: list[Any], values: list[Any]) -> None:
    """Assigns values to variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


if __name__ == "__main__":
    main()
