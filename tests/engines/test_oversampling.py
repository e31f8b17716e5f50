"""Repeat factors, and that the photos come out of a dataset as often as they say."""

from __future__ import annotations

from collections import Counter

import pytest

from entrypoint.engines.shared import oversampling


def test_factor_is_the_root_of_how_much_rarer_a_label_is() -> None:
    assert oversampling.factors([100, 25, 1, 0]) == [1.0, 2.0, 10.0, 1.0]
    assert oversampling.factors([]) == []


def example_of(name: str, labels: list[int]) -> bytes:
    import tensorflow as tf

    feature = {
        "image/source_id": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
        "image/object/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=labels)),
    }
    return bytes(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def test_photos_come_as_often_as_their_rarest_label_asks_for() -> None:
    import tensorflow as tf

    wanted = {"common": [1], "rare": [2], "both": [1, 2], "empty": [], "between": [3]}
    examples = [example_of(name, labels) for name, labels in wanted.items()]
    dataset = tf.data.Dataset.from_tensor_slices(examples).repeat(400)
    shown: Counter[str] = Counter()
    for each in oversampling.repeat(dataset, [1.0, 3.0, 1.5]).as_numpy_iterator():
        name = tf.train.Example.FromString(each).features.feature["image/source_id"].bytes_list.value[0]
        shown[name.decode()] += 1
    assert (shown["common"], shown["rare"], shown["both"], shown["empty"]) == (400, 1200, 1200, 400)
    assert shown["between"] == pytest.approx(600, abs=60)


def test_upstream_s_reading_is_as_it_was_afterwards() -> None:
    from object_detection.builders import dataset_builder

    from entrypoint.engines.shared import patches

    plain = dataset_builder.read_dataset
    with patches.repeated_reading([1.0]):
        assert dataset_builder.read_dataset is not plain
    assert dataset_builder.read_dataset is plain
    with patches.repeated_reading(None):
        assert dataset_builder.read_dataset is plain
