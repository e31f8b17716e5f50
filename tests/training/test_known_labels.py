"""Which labels of a training its start checkpoint knows, by the files beside it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from entrypoint.data import label_map
from entrypoint.training import known_labels
from entrypoint.training.start_checkpoint import Start

LABELS = ["wagon", "Dog", "hot-dog"]


def start_in(folder: Path) -> Start:
    return Start(str(folder / "ckpt-0"), "tf2", "")


@pytest.mark.parametrize("inside", [".", "checkpoint"], ids=["TF1", "TF2"])
def test_checkpoint_of_the_zoo_knows_the_labels_of_coco(tmp_path: Path, inside: str) -> None:
    (tmp_path / "pipeline.config").write_text("# num_classes: 3\nmodel {\n  ssd {\n    num_classes: 90\n  }\n}\n")
    found = known_labels.find(start_in(tmp_path / inside), LABELS)
    assert found is not None
    # COCO's ids: 18 is dog, 58 is hot dog.
    assert (found.count, found.places, found.names) == (90, {1: 17, 2: 57}, ("Dog", "hot-dog"))


def test_checkpoint_of_a_job_knows_the_labels_of_its_label_map(tmp_path: Path) -> None:
    (tmp_path / "label_map.pbtxt").write_text(label_map.to_text(["hot dog", "tram", "wagon"]))
    (tmp_path / "pipeline.config").write_text("model { ssd { num_classes: 3 } }")
    found = known_labels.find(start_in(tmp_path / "checkpoint"), LABELS)
    assert found is not None
    assert (found.count, found.places, found.names) == (3, {0: 2, 2: 0}, ("wagon", "hot-dog"))


def test_names_that_are_shown_count_in_upstream_s_label_maps(tmp_path: Path) -> None:
    text = 'item { name: "/m/0bt9lr" id: 2 display_name: "dog" } item { name: "background" id: 0 }'
    (tmp_path / "label_map.pbtxt").write_text(text)
    found = known_labels.find(start_in(tmp_path), LABELS)
    assert found is not None
    assert (found.count, found.places) == (2, {1: 1})


@pytest.mark.parametrize(
    "text", ["", "model { ssd { num_classes: 37 } }", "model { ssd { num_classes: 90 } }"], ids=["none", "pets", "COCO"]
)
def test_nothing_is_known_without_common_labels(tmp_path: Path, text: str) -> None:
    if text:
        (tmp_path / "pipeline.config").write_text(text)
    labels = ["wagon"] if "90" in text else LABELS
    assert known_labels.find(start_in(tmp_path), labels) is None


def test_file_that_is_no_label_map_is_named_and_does_not_stop_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "label_map.pbtxt"
    path.write_bytes(b"\xff\xfe item {")
    with caplog.at_level(logging.WARNING, "job"):
        assert known_labels.find(start_in(tmp_path), LABELS) is None
    assert str(path) in caplog.text
    assert "its labels are not known" in caplog.text


def test_label_map_of_another_model_in_the_parent_folder_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "label_map.pbtxt").write_text(label_map.to_text(["wagon", "dog"]))
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "pipeline.config").write_text("model { ssd { num_classes: 90 } }")
    found = known_labels.find(start_in(tmp_path / "zoo"), LABELS)
    assert found is not None
    assert (found.count, found.places, found.fresh) == (90, {1: 17, 2: 57}, ("wagon",))


def test_labels_that_differ_in_case_alone_keep_their_own_outputs(tmp_path: Path) -> None:
    (tmp_path / "label_map.pbtxt").write_text(label_map.to_text(["Stop", "stop", "-", "Dog"]))
    found = known_labels.find(start_in(tmp_path), ["stop", "Stop", "STOP", "_", "dog"])
    assert found is not None
    assert found.places == {0: 1, 1: 0, 4: 3}
    assert found.fresh == ("STOP", "_")


def test_label_map_of_an_editor_that_marks_the_byte_order_is_read(tmp_path: Path) -> None:
    (tmp_path / "label_map.pbtxt").write_text(label_map.to_text(["dog"]), encoding="utf-8-sig")
    found = known_labels.find(start_in(tmp_path), LABELS)
    assert found is not None
    assert found.places == {1: 0}
