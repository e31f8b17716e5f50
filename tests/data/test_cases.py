"""Exports of labelling tools, tests/cases: the records hold what a person saw, or the job names its doubt."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from entrypoint.data import annotations as annotations_step
from entrypoint.data import label_map, records, tf_record
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from tests.conftest import make_settings

CASES = Path(__file__).resolve().parent.parent / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/EXPECT") if not path.parent.name.startswith("pipeline-"))
LEAST_IOU = 0.95
PART = {"train": "train", "val": "validation", "validation": "validation"}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
Row = tuple[str, float, float, float, float]


def convert(case: Path, folder: Path) -> dict[str, tuple[str, list[Row]]] | UserError:
    """Runs the steps up to the records; returns split and boxes of each photo in them, or what the job refused."""
    work = Workspace(make_settings(folder, data_dir=case / "bucket"))
    work.root.mkdir()
    try:
        annotations_step.run(work)
        label_map.run(work)
        tf_record.run(work)
    except UserError as error:
        return error
    found = {}
    for split, part in records.load(work).splits.items():
        for name in part.names:
            for serialized in tf.data.TFRecordDataset(str(work.records / name)).as_numpy_iterator():
                key, rows = boxes_in(serialized)
                found[key] = (split, rows)
    return found


def boxes_in(serialized: bytes) -> tuple[str, list[Row]]:
    """The key of a photo in a record, and its boxes."""
    feature = tf.train.Example.FromString(serialized).features.feature
    labels = [label.decode() for label in feature["image/object/class/text"].bytes_list.value]
    columns = [feature[f"image/object/bbox/{corner}"].float_list.value for corner in CORNERS]
    key = feature["image/source_id"].bytes_list.value[0].decode(errors="surrogateescape")
    return key, list(zip(labels, *columns, strict=True))


def iou(first: Row, second: Row) -> float:
    """Intersection over union of two boxes; 0 if their labels differ."""
    if first[0] != second[0]:
        return 0.0
    width = min(first[3], second[3]) - max(first[1], second[1])
    height = min(first[4], second[4]) - max(first[2], second[2])
    common = max(0.0, width) * max(0.0, height)
    areas = sum((row[3] - row[1]) * (row[4] - row[2]) for row in (first, second))
    return common / (areas - common)


def differences(found: dict[str, tuple[str, list[Row]]], truth: dict[str, Any]) -> list[str]:
    """What is in the records and not true, or the other way round."""
    known = {key: photo for key, photo in truth["photos"].items() if photo.get("known", True)}
    told = [f"{key} is not in the records" for key in known.keys() - found.keys()]
    told += [f"{key} is in the records" for key in found.keys() - known.keys()]
    for key in known.keys() & found.keys():
        split, rows = found[key]
        left = [tuple(row) for row in known[key]["boxes"]]
        if PART.get(known[key].get("part"), split) != split:
            told.append(f"{key} is for {split}")
        for row in rows:
            best = max(left, key=lambda other: iou(row, other), default=None)
            if best is None or iou(row, best) < LEAST_IOU:
                told.append(f"{key} has {row}")
            else:
                left.remove(best)
        told += [f"{key} lacks {row}" for row in left]
    return sorted(told)


@pytest.mark.parametrize("name", NAMES)
def test_export_is_read_as_a_person_saw_it_or_doubted(name: str, tmp_path: Path) -> None:
    verdict, _, words = (CASES / name / "EXPECT").read_text(encoding="utf-8").strip().partition(": ")
    truth = json.loads((CASES / name / "truth.json").read_text(encoding="utf-8"))
    outcome = convert(CASES / name, tmp_path)
    if isinstance(outcome, UserError):
        assert verdict != "right", outcome
        assert re.search(words, str(outcome), re.IGNORECASE | re.DOTALL), outcome
    else:
        assert verdict != "doubt"
        assert not differences(outcome, truth)
