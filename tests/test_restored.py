from __future__ import annotations

import logging

import pytest

from entrypoint.errors import UserError
from entrypoint.restored import Restored, report

BACKBONE = "FeatureExtractor/MobilenetV1/Conv2d_0/weights"
HEADS = ["BoxPredictor_0/ClassPredictor/weights", "BoxPredictor_0/ClassPredictor/biases"]


def test_counts_and_what_is_missing_are_told_by_layer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="job"):
        report(Restored([BACKBONE], HEADS), "model.ckpt")
    assert "1 of 3 variables restored from model.ckpt" in caplog.text
    assert "BoxPredictor_0/ClassPredictor: weights, biases" in caplog.text


@pytest.mark.parametrize("restored", [[], HEADS])
def test_checkpoint_that_fills_nothing_of_the_backbone_is_an_error(restored: list[str]) -> None:
    with pytest.raises(UserError, match=f"no variable of the model's backbone .* only {len(restored)} of its heads"):
        report(Restored(restored, [BACKBONE]), "model.ckpt")
