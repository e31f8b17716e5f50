"""Checks that the model of most TF1 tutorials learns from scratch: `python -m benchmarks.learning`, about ten minutes.

The model is ssd_mobilenet_v1_coco, trained on the demo's bucket without any checkpoint. Its pipeline is for fine-tuning
and is changed so that a model with random weights learns within a thousand steps. The changes follow
pipelines/smoke.config, which gives the reasons.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from entrypoint.zoo import catalogue, pipeline_config
from tests import demo
from tests.conftest import environment

MODEL = "ssd_mobilenet_v1_coco"
STEPS, BATCH = 1000, 8
LEAST = 0.5  # mAP@0.5


def main() -> int:
    """Trains the model and prints the metrics; returns 1 if the model did not learn."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo.draw_bucket(folder / "bucket")
        (folder / "pipeline.config").write_text(from_scratch())
        places = {"DATA_DIR": folder / "bucket", "WORK_DIR": folder / "work", "RESULT_DIR": folder / "results"}
        settings = {"PIPELINE_CONFIG": folder / "pipeline.config", "CHECKPOINT": "none", "EXPORTS": "saved_model"}
        command = [sys.executable, "-m", "entrypoint", str(STEPS)]
        subprocess.run(command, env=environment(**places, **settings), check=True)
        metrics = json.loads((folder / "results" / "metrics.json").read_text())["summary"]
    print(f"{MODEL}, {STEPS} steps of {BATCH} photos: mAP {metrics['mAP']:.3f}, mAP@0.5 {metrics['mAP@0.5']:.3f}")
    return int(metrics["mAP@0.5"] < LEAST)


def from_scratch() -> str:
    """Returns the model's pipeline with the changes for random weights: fan-in initializer, faster batch norm, Adam."""
    config = pipeline_config.read(catalogue.PIPELINES / f"{MODEL}.config")
    hyperparams = config.model.ssd.feature_extractor.conv_hyperparams
    config.model.ssd.feature_extractor.override_base_feature_extractor_hyperparams = True
    scaling = hyperparams.initializer.variance_scaling_initializer
    scaling.factor, scaling.uniform, scaling.mode = 2.0, False, scaling.FAN_IN
    hyperparams.batch_norm.decay = 0.97
    train = config.train_config
    train.batch_size, train.num_steps = BATCH, STEPS
    del train.data_augmentation_options[1:]  # only flips stay: crops need longer training
    rate = train.optimizer.adam_optimizer.learning_rate.cosine_decay_learning_rate
    rate.learning_rate_base, rate.warmup_learning_rate = 0.002, 0.0002
    rate.warmup_steps, rate.total_steps = STEPS // 20, STEPS
    return pipeline_config.write(config)


if __name__ == "__main__":
    sys.exit(main())
