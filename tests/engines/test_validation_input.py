from typing import Any

import pytest
import tensorflow as tf

from entrypoint.data import annotations, label_map, records, tf_record
from entrypoint.engines.shared import validation_input
from entrypoint.workspace import Workspace
from tests.conftest import BOX, write_bucket


class Model:
    """Resizes photos as a model does whose input has one size, or leaves their sizes."""

    def __init__(self, side: int | None) -> None:
        self.side = side

    def preprocess(self, images: Any) -> tuple[Any, Any]:
        resized = tf.image.resize(images, (self.side, self.side)) if self.side else images
        return resized, tf.shape(resized)[1:][tf.newaxis]


def write_records(work: Workspace, photos: int) -> list[str]:
    """Writes record files with so many photos for validation, and returns their paths."""
    names = tuple(f"valid/{index}.png" for index in range(photos))
    write_bucket(work.settings.data_dir, {name: [BOX] for name in (*names, "train/a.png")}, (*names, "train/a.png"))
    for step in (annotations, label_map, tf_record):
        step.run(work)
    return records.load(work).validation.paths(work.records)


@pytest.fixture
def paths(work: Workspace) -> list[str]:
    """Record files with twenty photos for validation."""
    return write_records(work, 20)


@pytest.mark.parametrize(
    ("side", "trained", "expected"), [(32, 64, 8), (32, 8, 8), (32, 1, 1), (32, 3, 3), (None, 8, 1)]
)
def test_batch_is_no_larger_than_that_of_the_training(
    paths: list[str], side: int | None, trained: int, expected: int
) -> None:
    sizes = [len(keys) for keys, *_ in validation_input.batches(Model(side), paths, trained)]
    assert sum(sizes) == 20
    assert max(sizes) == expected


def test_keys_come_in_the_order_of_the_records(paths: list[str]) -> None:
    keys = [key for batch, *_ in validation_input.batches(Model(32), paths, 3) for key in batch.numpy()]
    assert len(set(keys)) == 20
    wanted = [
        tf.train.Example.FromString(each).features.feature["image/source_id"].bytes_list.value[0]
        for each in tf.data.TFRecordDataset(paths).as_numpy_iterator()
    ]
    assert keys == wanted
