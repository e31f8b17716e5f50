import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.data import annotations, losses
from entrypoint.data.annotations import Dataset
from entrypoint.data.boxes import Box
from entrypoint.settings import command_line
from entrypoint.system.errors import UserError
from tests.conftest import BOX, write_bucket


def read(folder: Path) -> Dataset:
    return annotations.read_bucket(command_line.load(["--data_dir", str(folder)]).settings, exclude=folder / "results")


def read_one(tmp_path: Path, *boxes: Any) -> Dataset:
    """A bucket with the boxes on one photo, and a good box on another."""
    return read(write_bucket(tmp_path / "b", {"a.png": list(boxes), "good.png": [BOX]}, ("a.png", "good.png")))


def boxes_of(dataset: Dataset, key: str) -> list[Box]:
    return [box for image in dataset.images if image.key == key for box in image.boxes]


def test_version_1_gives_normalised_boxes_by_key(tmp_path: Path) -> None:
    dataset = read(write_bucket(tmp_path / "b", {"deep/er/ä b.png": [{**BOX, "id": "1"}]}, ("deep/er/ä b.png",)))
    assert dataset.labels == ["cat"]
    assert boxes_of(dataset, "deep/er/ä b.png") == [Box("cat", 0.25, 0.25, 0.75, 0.5)]


def test_version_2_gives_the_hull_of_the_targets(tmp_path: Path) -> None:
    targets = [
        {"id": str(i), "x": x, "y": y} for i, (x, y) in enumerate([(0.6, 0.2), (0.1, 0.2), (0.1, 0.4), (0.6, 0.4)])
    ]
    folder = write_bucket(
        tmp_path / "b",
        {"7": {"id": "7", "label": "l", "tool": "box", "targets": targets}},
        ("a.png", "empty.png", "open.png"),
        version="v2",
        labels={"l": {"id": "l", "name": "dog"}, "m": {"id": "m", "name": "unused"}},
        images={
            "a.png": {"id": "a.png", "status": "success", "date": 1, "annotations": ["7"]},
            "empty.png": {"id": "empty.png", "status": "success", "date": 1, "annotations": []},
            "open.png": {"id": "open.png", "annotations": []},
        },
    )
    dataset = read(folder)
    assert boxes_of(dataset, "a.png") == [Box("dog", 0.1, 0.2, 0.6, 0.4)]
    assert [image.key for image in dataset.images] == ["a.png", "empty.png"]
    assert dataset.unlabelled == 1
    assert "label without a box, left out" in dataset.findings.kinds


def test_escaped_ampersand_finds_its_photo(tmp_path: Path) -> None:
    assert boxes_of(read(write_bucket(tmp_path / "b", {"a&amp;b.png": [BOX]}, ("a&b.png",))), "a&b.png")


def test_photo_that_is_named_twice_has_the_boxes_of_both(tmp_path: Path) -> None:
    other = {**BOX, "label": "dog"}
    dataset = read(write_bucket(tmp_path / "b", {"a&amp;b.png": [BOX], "a&b.png": [other]}, ("a&b.png",)))
    assert [image.key for image in dataset.images] == ["a&b.png"]
    assert sorted(box.label for box in dataset.images[0].boxes) == ["cat", "dog"]


def test_photo_marked_as_negative_stays_without_becoming_a_class(tmp_path: Path) -> None:
    dataset = read_one(tmp_path, {"label": "Negative"})
    assert dataset.labels == ["cat"]
    assert [len(image.boxes) for image in dataset.images] == [0, 1]


def test_box_labelled_negative_is_a_class(tmp_path: Path) -> None:
    assert read_one(tmp_path, {**BOX, "label": "Negative"}).labels == ["Negative", "cat"]


def test_labels_keep_the_order_of_the_file_and_only_used_ones_count(tmp_path: Path) -> None:
    boxes = [{**BOX, "label": label} for label in ("zebra", "ant", "new", "bee")]
    folder = write_bucket(tmp_path / "b", {"a.png": boxes}, ("a.png",), labels=["bee", "ant", "unused", "zebra"])
    assert read(folder).labels == ["bee", "ant", "zebra", "new"]


@pytest.mark.parametrize(
    ("change", "expected", "finding"),
    [
        ({"x": 0.75, "x2": 0.25}, (0.25, 0.25, 0.75, 0.5), "box with corners swapped, put in order"),
        ({"x": -0.5}, (0.0, 0.25, 0.75, 0.5), "box reaching out of the photo, cut to it"),
        ({"y2": 1.5}, (0.25, 0.25, 0.75, 1.0), "box reaching out of the photo, cut to it"),
        ({"x": "0.25"}, (0.25, 0.25, 0.75, 0.5), None),
        ({"label": "  cat\n"}, (0.25, 0.25, 0.75, 0.5), "label with white space around it, taken without"),
    ],
)
def test_box_is_repaired(
    tmp_path: Path, change: dict[str, Any], expected: tuple[float, ...], finding: str | None
) -> None:
    dataset = read_one(tmp_path, {**BOX, **change})
    assert boxes_of(dataset, "a.png") == [Box("cat", *expected)]
    assert dataset.findings.kinds == ({finding: ["a.png"]} if finding else {})


@pytest.mark.parametrize(
    ("annotation", "finding"),
    [
        ({**BOX, "x": float("nan")}, losses.CORNERS),
        ({**BOX, "x": float("inf")}, losses.CORNERS),
        ({**BOX, "x": True}, losses.CORNERS),
        ({**BOX, "x": "left"}, losses.CORNERS),
        ({"label": "cat", "x": 0.1}, losses.CORNERS),
        ({**BOX, "label": 7}, losses.LABEL),
        ({**BOX, "label": " "}, losses.LABEL),
        ("box", losses.NO_BOX),
        (None, losses.NO_BOX),
    ],
)
def test_photo_with_an_object_that_cannot_be_read_is_lost(tmp_path: Path, annotation: Any, finding: str) -> None:
    """It would be trained on as background."""
    dataset = read_one(tmp_path, annotation, BOX)
    assert [image.key for image in dataset.images] == ["good.png"]
    assert dataset.findings.kinds == {finding: ["a.png"]}
    assert dataset.lost == ["a.png"]


@pytest.mark.parametrize(
    ("annotation", "finding"),
    [
        ({**BOX, "x2": 0.25}, "box without area, skipped"),
        ({**BOX, "x": 1.5, "x2": 1.75}, "box outside of the photo, skipped"),
    ],
)
def test_unusable_box_is_skipped_and_its_photo_is_no_negative(tmp_path: Path, annotation: Any, finding: str) -> None:
    dataset = read_one(tmp_path, annotation)
    assert [image.key for image in dataset.images] == ["good.png"]
    assert dataset.findings.kinds == {finding: ["a.png"], losses.UNUSABLE: ["a.png"]}
    assert dataset.lost == ["a.png"]


def test_box_drawn_twice_counts_once(tmp_path: Path) -> None:
    dataset = read_one(tmp_path, BOX, BOX)
    assert len(boxes_of(dataset, "a.png")) == 1
    assert "box drawn twice, taken once" in dataset.findings.kinds


def test_labels_that_differ_in_case_alone_are_told(tmp_path: Path) -> None:
    dataset = read_one(tmp_path, {**BOX, "label": "Cat"})
    assert dataset.findings.kinds == {
        "labels that differ in case or white space alone, kept apart": ["'Cat' and 'cat'"]
    }


@pytest.mark.parametrize("key", ["../secret.png", "/etc/secret.png", "link.png"])
def test_photo_outside_of_the_bucket_is_refused(tmp_path: Path, key: str) -> None:
    folder = write_bucket(tmp_path / "b", {key: [BOX], "good.png": [BOX]}, ("good.png",))
    write_bucket(tmp_path / "outside", {}, ("secret.png",))
    (folder / "link.png").symlink_to(tmp_path / "outside" / "secret.png")
    dataset = read(folder)
    assert [image.key for image in dataset.images] == ["good.png"]
    assert dataset.findings.kinds == {"photo outside of the bucket, skipped": [key]}


def test_missing_photo_is_skipped_and_told(tmp_path: Path) -> None:
    dataset = read(write_bucket(tmp_path / "b", {"gone.png": [BOX], "good.png": [BOX]}, ("good.png",)))
    assert dataset.findings.kinds == {"photo missing in the bucket, skipped": ["gone.png"]}


def test_results_in_the_bucket_are_never_data(tmp_path: Path) -> None:
    folder = write_bucket(tmp_path / "b", {"a.png": [BOX], "results/x.png": [BOX]}, ("a.png", "results/x.png"))
    dataset = read(folder)
    assert [image.key for image in dataset.images] == ["a.png"]
    assert dataset.unlabelled == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing: DATA_DIR must name the bucket's root"),
        (b"", "is not JSON"),
        (b'{"annotations": {"a.png": [', "is not JSON"),
        (b"\xff\xfe\xfa", "is not JSON in UTF-8"),
        (b"[]", "JSON list, but an object is expected"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"version": "1.0", "type": "classification", "annotations": {}}', "a detector needs boxes"),
        (b'{"labels": []}', "no `annotations` object"),
        (b'{"annotations": {}}', "has no usable box"),
    ],
)
def test_unusable_file_is_a_named_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "_annotations.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert words in str(caught.value)
    assert "_annotations.json" in str(caught.value)


def test_missing_bucket_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"DATA_DIR=.*nowhere is not a folder"):
        read(tmp_path / "nowhere")


def test_type_may_be_missing_and_a_byte_order_mark_may_stand_first(tmp_path: Path) -> None:
    folder = write_bucket(tmp_path / "b", {}, ("a.png",))
    (folder / "_annotations.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"annotations": {"a.png": [BOX]}}).encode())
    assert read(folder).labels == ["cat"]


def test_ten_thousand_labels_work(tmp_path: Path) -> None:
    boxes = [{**BOX, "label": f"label {index}"} for index in range(10_000)]
    assert len(read_one(tmp_path, *boxes).labels) == 10_001


@pytest.mark.parametrize(
    ("labels", "images", "annotations"),
    [
        ({"l": "cat"}, {"a.png": {"annotations": ["7"]}}, {"7": {"label": "l", "targets": [{"x": 0, "y": 0}]}}),
        ({"l": {"name": "cat"}}, {"a.png": {"annotations": 5, "status": "done"}}, {}),
        ({"l": {"name": "cat"}}, {"a.png": {"annotations": ["7"]}}, {"7": {"label": "deleted", "targets": []}}),
        ({"l": {"name": "cat"}}, {"a.png": None}, {"7": None}),
        ([], {"a.png": {"annotations": [None, {}, ["7"]]}}, {"7": {"label": ["l"], "targets": 3}}),
    ],
)
def test_version_2_with_parts_of_other_types_is_no_traceback(
    tmp_path: Path, labels: Any, images: Any, annotations: Any
) -> None:
    folder = write_bucket(tmp_path / "b", annotations, ("a.png",), labels=labels, images=images, version="v2")
    with pytest.raises(UserError, match="has no usable box"):
        read(folder)


def test_half_an_emoji_in_a_label_can_be_written(tmp_path: Path) -> None:
    assert read_one(tmp_path, {**BOX, "label": "cat \ud83d"}).labels == ["cat", "cat ?"]


def test_number_of_five_thousand_digits_is_a_named_error(tmp_path: Path) -> None:
    folder = write_bucket(tmp_path / "b", {}, ("a.png",))
    (folder / "_annotations.json").write_text('{"annotations": {"a.png": [{"label": "cat", "x": %s}]}}' % ("9" * 5000))
    with pytest.raises(UserError, match=r"_annotations.json"):
        read(folder)


def test_annotated_photo_that_is_skipped_does_not_count_as_unlabelled(tmp_path: Path) -> None:
    assert read_one(tmp_path, {**BOX, "x2": 0.25}).unlabelled == 0


def test_photos_in_a_folder_that_is_a_link_are_named_with_the_mend(tmp_path: Path) -> None:
    write_bucket(tmp_path / "elsewhere", {}, ("a.png",))
    write_bucket(tmp_path / "b", {"photos/a.png": [BOX]})
    (tmp_path / "b" / "photos").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"put the photos themselves into the bucket instead of a link .*\(photos\)"):
        read(tmp_path / "b")
    write_bucket(tmp_path / "b", {"photos/a.png": [BOX], "good.png": [BOX]}, ("good.png",))
    found = read(tmp_path / "b").findings.kinds
    assert found["folder is a link, not followed, its photos are left out"] == ["photos"]


def test_bucket_whose_photos_are_missing_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="put the photos into the bucket under the names that the annotations have"):
        read(write_bucket(tmp_path / "b", {"a.png": [BOX]}))
