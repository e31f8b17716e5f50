"""AUGMENT: the lists of operations, what upstream makes of them, and labels that tell left from right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection.builders import preprocessor_builder
from object_detection.core import preprocessor
from object_detection.protos import train_pb2

from entrypoint.training import augmentation
from entrypoint.training.changes import Changes
from tests.training.test_pipeline import COSINE, MODELS, TRAIN, run

OWN = "random_vertical_flip {}", "random_rotation90 {}", "autoaugment_image { policy_name: 'v0' }"


def config(*operations: str) -> Any:
    """A train_config with these operations."""
    text = "".join(f"data_augmentation_options {{ {each} }}\n" for each in operations)
    return text_format.Parse(text, train_pb2.TrainConfig())


@pytest.mark.parametrize(
    ("label", "tells"),
    [
        ("left_hand", True),
        ("TurnRight", True),
        ("RIGHT", True),
        ("Hand links", True),
        ("pie-izquierdo", True),
        ("左手", True),
        ("lefthand2", True),
        ("bright light", False),
        ("leftover", False),
        ("Copyright", False),
        ("cat", False),
        ("", False),
    ],
)
def test_words_for_left_and_right(label: str, tells: bool) -> None:
    assert augmentation.tells_sides(label) == tells


def test_augmentation_of_the_config_stays_without_a_setting() -> None:
    train, changes = config(*OWN), Changes()
    augmentation.inject(train, None, ["cat"], changes)
    assert train == config(*OWN)
    assert changes.rows == []


def test_setting_replaces_the_augmentation_of_the_config() -> None:
    for wanted, operations in augmentation.LISTS.items():
        train, changes = config(*OWN), Changes()
        augmentation.inject(train, wanted, ["cat"], changes)
        assert augmentation.names(train) == [name for name, _ in operations]
        ((_, before, after),) = changes.rows
        assert before == "random_vertical_flip, random_rotation90, autoaugment_image"
        assert after == (", ".join(augmentation.names(train)) or "none")
    strong = config()
    augmentation.inject(strong, "strong", ["cat"], Changes())
    assert strong.data_augmentation_options[1].random_crop_image.min_area == pytest.approx(0.33)


@pytest.mark.parametrize(("wanted", "kept"), [(None, ["random_rotation90"]), ("light", []), ("none", [])])
def test_nothing_is_mirrored_if_a_label_tells_left_from_right(
    wanted: str | None, kept: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    train = config(*OWN)
    with caplog.at_level("INFO", logger="job"):
        augmentation.inject(train, wanted, ["cat", "left_hand"], Changes())
    assert augmentation.names(train) == kept
    assert any("the label 'left_hand' tells left from right" in line for line in caplog.messages) == (wanted != "none")


def test_setting_is_in_the_config_that_is_trained(tmp_path: Path) -> None:
    text = f"model {{ {MODELS['ssd']} }}\n{TRAIN % COSINE}"
    written = run(tmp_path, text, checkpoint="none", augment="light")
    assert augmentation.names(written.train_config) == ["random_horizontal_flip"]


@pytest.mark.parametrize("wanted", augmentation.LISTS)
def test_upstream_augments_photos_and_keeps_boxes_in_them(wanted: str) -> None:
    train = config()
    augmentation.inject(train, wanted, ["cat"], Changes())
    operations = [preprocessor_builder.build(each) for each in train.data_augmentation_options]
    tf.random.set_seed(5)
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, [1, 60, 80, 3]), tf.float32)
    shapes = set()
    for _ in range(20):
        photo = {
            "image": image,
            "groundtruth_boxes": tf.constant([[0.25, 0.25, 0.75, 0.75]]),
            "groundtruth_classes": tf.constant([1]),
            "groundtruth_weights": tf.constant([1.0]),
        }
        arguments = preprocessor.get_default_func_arg_map()
        found = preprocessor.preprocess(photo, operations, func_arg_map=arguments)
        pixels, boxes = found["image"].numpy(), found["groundtruth_boxes"].numpy()
        shapes.add(pixels.shape)
        assert 0 <= pixels.min() <= pixels.max() <= 255
        assert len(boxes) <= 1
        assert np.all((boxes >= 0) & (boxes <= 1))
    assert (len(shapes) > 1) == (wanted in ("default", "strong"))
