"""Upstream's input pipeline for training is traced without AutoGraph, unless its augmentation needs that."""

from typing import Any

import pytest
import tensorflow as tf
from tensorflow.python.autograph.impl import api

from entrypoint.data import annotations, label_map, tf_record
from entrypoint.engines.shared import training_input
from entrypoint.training import pipeline, start_checkpoint
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config
from tests.conftest import BOX, make_settings, write_bucket


class Model:
    """Resizes photos as the smoke model does."""

    def preprocess(self, images: Any) -> tuple[Any, Any]:
        return tf.image.resize(images, (160, 160)), tf.constant([[160, 160, 3]])


@pytest.fixture
def config(work: Workspace) -> Any:
    """The pipeline.config of a job with the smoke model, without augmentation."""
    work = Workspace(make_settings(work.root.parent, model="smoke", batch_size=2))
    names = tuple(f"{index}.png" for index in range(10))
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names}, names)
    annotations.run(work)
    label_map.run(work)
    tf_record.run(work)
    start_checkpoint.run(work)
    pipeline.run(work)
    found = pipeline_config.read(work.pipeline)
    del found.train_config.data_augmentation_options[:]
    return found


def shape_of_batch(config: Any, option: str) -> tuple[int, ...]:
    """The shape of the photos in the first batch with that augmentation."""
    getattr(config.train_config.data_augmentation_options.add(), option).SetInParent()
    features, _ = next(iter(training_input.batches(config, Model())))
    return tuple(features["image"].shape)


def converted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that gets each function that AutoGraph converts from now on."""
    found: list[Any] = []
    convert = api._convert_actual

    def record(function: Any, *arguments: Any) -> Any:
        found.append(function)
        return convert(function, *arguments)

    monkeypatch.setattr(api, "_convert_actual", record)
    return found


@pytest.mark.parametrize("option", ["random_horizontal_flip", "ssd_random_crop", "autoaugment_image"])
def test_augmentation_is_not_converted(config: Any, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    found = converted(monkeypatch)
    assert shape_of_batch(config, option) == (2, 160, 160, 3)
    assert not found


def test_augmentation_that_needs_the_conversion_gets_it(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = converted(monkeypatch)
    assert shape_of_batch(config, "random_square_crop_by_scale") == (2, 160, 160, 3)
    assert found
