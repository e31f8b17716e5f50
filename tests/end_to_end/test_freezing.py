"""FREEZE=backbone in a job of each engine: the backbone of the checkpoint is in the trained model, to the last bit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from entrypoint.engines.shared import backbone
from tests.conftest import run_job
from tests.test_whole_jobs import tf1_config

# The weights of convolutions in the checkpoints of both generations, without the optimizer's own values.
WEIGHT = re.compile(r"(/|^)(depthwise_)?(kernel|weights)(/\.ATTRIBUTES/VARIABLE_VALUE)?$")


def is_frozen(name: str) -> bool:
    """Whether a value of a checkpoint belongs to the backbone, by the names of either generation."""
    return "/classification_backbone/" in name or backbone.is_part(name)


@pytest.mark.parametrize("generation", ["tf1", "tf2"])
def test_backbone_stays_and_the_rest_is_trained(generation: str, tmp_path: Path, demo_bucket: Path) -> None:
    config: dict[str, Any] = {"PIPELINE_CONFIG": tf1_config(tmp_path)} if generation == "tf1" else {"MODEL": "smoke"}
    settings = {"DATA_DIR": demo_bucket, "BATCH_SIZE": 4, "NUM_STEPS": 3, "EVALUATE_EVERY": 0}
    first, second = ({"WORK_DIR": tmp_path / name, "RESULT_DIR": tmp_path / f"{name} results"} for name in "ab")
    start = {"CHECKPOINT": first["RESULT_DIR"] / "checkpoint", "PIPELINE_CONFIG": first["WORK_DIR"] / "pipeline.config"}
    for job in (
        {**settings, **config, **first, "CHECKPOINT": "none"},
        {**settings, **second, **start, "FREEZE": "backbone"},
    ):
        result = run_job("train", **job)
        assert result.returncode == 0, result.stdout
    before, after = (tf.train.load_checkpoint(str(each["WORK_DIR"] / "checkpoint/ckpt-3")) for each in (first, second))
    names = [name for name in after.get_variable_to_shape_map() if WEIGHT.search(name) and before.has_tensor(name)]
    same = {name for name in names if np.array_equal(before.get_tensor(name), after.get_tensor(name))}
    frozen = {name for name in names if is_frozen(name)}
    assert len(frozen) > 20
    assert frozen <= same
    # The heads for objects of sizes that no photo shows get no gradient.
    assert len(same - frozen) < len(set(names) - frozen) / 4
