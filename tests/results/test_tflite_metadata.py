"""The metadata in model.tflite, read with the flatbuffers library alone. tests/end_to_end loads it in its client."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import flatbuffers
import numpy as np
import pytest

from entrypoint.engines.engine import Normalization
from entrypoint.engines.shared import normalization
from entrypoint.results.export import tflite_metadata


def test_labels_are_a_line_each_and_equal_labels_equal_bytes() -> None:
    labels = ["cat", "two\nlines", "größer 🦝"]
    content = tflite_metadata.archive(labels)
    assert content == tflite_metadata.archive(labels)
    with zipfile.ZipFile(io.BytesIO(b"model" + content)) as file:
        assert file.read("labels.txt").decode() == "cat\ntwo lines\ngrößer 🦝\n"


def test_buffer_is_a_model_of_the_format_with_its_version_and_the_normalisation() -> None:
    content = tflite_metadata.describe(Normalization((127.5,), (64.25,)))
    assert content[4:8] == b"M001"
    root = flatbuffers.table.Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))
    # The eighth field is min_parser_version, and the first the name.
    assert root.String(root.Offset(4 + 2 * 7) + root.Pos) == b"1.2.0"
    assert root.String(root.Offset(4) + root.Pos) == b"object detector"
    for value in (127.5, 64.25):
        assert np.float32(value).tobytes() in content
    for words in (b"location", b"category", b"score", b"detection_result", b"labels.txt"):
        assert words in content


def test_score_that_is_recommended_is_the_threshold_of_the_third_output() -> None:
    def field(table: Any, slot: int) -> int:
        return int(table.Offset(4 + 2 * slot))

    def inner(table: Any, slot: int) -> Any:
        return flatbuffers.table.Table(table.Bytes, table.Indirect(field(table, slot) + table.Pos))

    def element(table: Any, slot: int, index: int) -> Any:
        return flatbuffers.table.Table(table.Bytes, table.Indirect(table.Vector(field(table, slot)) + 4 * index))

    content = tflite_metadata.describe(Normalization((127.5,), (64.25,)), threshold=0.375)
    root = flatbuffers.table.Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))
    # ModelMetadata.subgraph_metadata, SubGraphMetadata.output_tensor_metadata, TensorMetadata.process_units.
    outputs = [element(element(root, 3, 0), 3, index) for index in range(4)]
    assert [bool(field(output, 4)) for output in outputs] == [False, False, True, False]
    unit = element(outputs[2], 4, 0)
    # ProcessUnit.options_type and options: ScoreThresholdingOptions with global_score_threshold.
    assert unit.Get(flatbuffers.number_types.Uint8Flags, field(unit, 0) + unit.Pos) == 3
    options = inner(unit, 1)
    assert options.Get(flatbuffers.number_types.Float32Flags, field(options, 0) + options.Pos) == 0.375
    assert b"score" in content


@pytest.mark.parametrize(
    ("mean", "std", "wanted"),
    [
        ([127.5] * 3, [127.5] * 3, ((127.5,), (127.5,))),
        ([123.68, 116.779, 103.939], [1.0] * 3, ((123.68, 116.779, 103.939), (1.0,))),
        ([0.0] * 3, [255.0] * 3, ((0.0,), (255.0,))),
    ],
)
def test_normalisation_is_found_by_black_and_white(
    mean: list[float], std: list[float], wanted: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    def normalised(value: float) -> Any:
        return ((value - np.array(mean)) / np.array(std)).astype(np.float32)

    assert normalization.measure(normalised) == Normalization(*wanted)


def test_normalisation_that_is_more_than_that_is_refused() -> None:
    with pytest.raises(ValueError, match="mean and standard deviation do not describe"):
        normalization.measure(lambda value: np.sqrt(np.full(3, value)))
