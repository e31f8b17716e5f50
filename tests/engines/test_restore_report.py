from __future__ import annotations

import logging

import pytest

from entrypoint.engines.shared.restore_report import Restored, report
from entrypoint.system.errors import UserError

BACKBONE = [f"FeatureExtractor/MobilenetV1/Conv2d_{number}/weights" for number in range(10)]
HEADS = ["BoxPredictor_0/ClassPredictor/weights", "BoxPredictor_0/ClassPredictor/biases"]


def test_counts_and_what_is_missing_are_told_by_layer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="job"):
        report(Restored(BACKBONE, HEADS), set(BACKBONE), "model.ckpt")
    assert "10 of 12 variables restored from model.ckpt" in caplog.text
    assert "BoxPredictor_0/ClassPredictor: weights, biases" in caplog.text


@pytest.mark.parametrize("restored", [[], HEADS, HEADS + BACKBONE[:4]])
def test_checkpoint_that_fills_the_backbone_by_chance_alone_is_an_error(restored: list[str]) -> None:
    missing = [name for name in BACKBONE + HEADS if name not in restored]
    with pytest.raises(UserError, match=r"of the 10 variables of the model.s backbone are in"):
        report(Restored(restored, missing), set(BACKBONE), "model.ckpt")
