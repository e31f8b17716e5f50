from __future__ import annotations

import pytest

from entrypoint.data import label_map


@pytest.mark.parametrize(
    "labels",
    [["cat", "dog"], ['quo"ted', "back\\slash", "new\nline", "tab\t", "ünïcode 猫", "x" * 300, "1", "\\n", "é1"]],
)
def test_upstream_reads_the_labels_back_with_ids_from_one(labels: list[str]) -> None:
    from google.protobuf import text_format
    from object_detection.protos import string_int_label_map_pb2

    parsed = text_format.Parse(label_map.to_text(labels), string_int_label_map_pb2.StringIntLabelMap())
    assert [(item.id, item.name) for item in parsed.item] == list(enumerate(labels, start=1))
