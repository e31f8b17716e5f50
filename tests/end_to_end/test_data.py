"""A job on a bucket of everything awkward: what TensorFlow decodes, and what job.json, the report and `check` tell."""

import html
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from entrypoint.data import losses
from tests import awkward
from tests.conftest import run_job


class Done(NamedTuple):
    """A job that was run, and where the objects are on its photos."""

    root: Path
    drawn: dict[str, dict[str, float]]
    facts: dict[str, Any]  # job.json's

    @property
    def bucket(self) -> Path:
        return self.root / "bucket"

    @property
    def report(self) -> str:
        return html.unescape((self.root / "results" / "report.html").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = tmp_path_factory.mktemp("awkward")
    drawn = awkward.write(root / "bucket")
    places = {"DATA_DIR": root / "bucket", "WORK_DIR": root / "work", "RESULT_DIR": root / "results"}
    result = run_job("2", MODEL="smoke", BATCH_SIZE=4, EXPORTS="saved_model", MAX_SKIPPED=0.5, **places)
    assert result.returncode == 0, result.stdout
    return Done(root, drawn, json.loads((root / "results" / "job.json").read_text()))


def records_of(root: Path) -> dict[str, dict[str, Any]]:
    """Every record by its key, as upstream's own decoder gives it."""
    import tensorflow as tf
    from object_detection.data_decoders.tf_example_decoder import TfExampleDecoder

    paths = sorted(str(path) for path in (root / "work" / "records").glob("*.tfrecord"))
    decoder = TfExampleDecoder()
    found = {}
    for serialized in tf.data.TFRecordDataset(paths):
        decoded = {name: value.numpy() for name, value in decoder.decode(serialized).items()}
        found[decoded["source_id"].decode()] = decoded
    return found


def test_objects_lie_in_their_boxes_in_every_format_and_orientation(done: Done) -> None:
    records = records_of(done.root)
    for key, corners in done.drawn.items():
        record = records[key]
        pixels = record["image"].astype(int)
        assert pixels.ndim == 3, key
        height, width = pixels.shape[:2]
        assert width > height, key
        (ymin, xmin, ymax, xmax), *rest = record["groundtruth_boxes"]
        assert not rest, key
        assert (xmin, ymin, xmax, ymax) == pytest.approx(tuple(corners.values()), abs=1e-6), key
        top, bottom, left, right = round(ymin * height), round(ymax * height), round(xmin * width), round(xmax * width)
        is_grey = "grey" in key or "sixteen" in key
        wanted = [(luma(each),) * 3 if is_grey else each for each in (awkward.OBJECT, awkward.GROUND)]
        inside = pixels[top + 2 : bottom - 2, left + 2 : right - 2]
        assert np.abs(inside - wanted[0]).max() <= tolerance(key), key
        around = np.ones((height, width), bool)
        around[top - 2 : bottom + 2, left - 2 : right + 2] = False
        assert np.abs(pixels[around] - wanted[1]).max() <= tolerance(key), key


def luma(colour: tuple[int, int, int]) -> int:
    """The grey of a colour, ITU-R BT.601."""
    return round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])


def tolerance(key: str) -> int:
    """By how much a format's colours may be off, of 255."""
    return 25 if key.endswith(("jpg", "webp", "heic", "heif")) else 2


def test_nothing_that_cannot_be_used_is_in_the_records(done: Done) -> None:
    keys = set(records_of(done.root))
    assert keys == {*done.drawn, "plain-2.jpg", "one-pixel.png"}


def counts(done: Done) -> dict[str, int]:
    return {kind: found["count"] for kind, found in done.facts["data"]["found"].items()}


def test_counts_and_reasons_are_in_job_json(done: Done) -> None:
    found = counts(done)
    assert found[losses.OUTSIDE] == len(awkward.OUTSIDE_KEYS)
    assert found[losses.MISSING] == 1
    assert done.facts["data"]["found"][losses.MISSING]["where"] == ["gone.jpg"]
    assert found[losses.CORNERS] == 2
    assert found["box without area, skipped"] == 1
    assert found["box outside of the photo, skipped"] == 1
    assert found["box with corners swapped, put in order"] == 1
    assert found["box drawn twice, taken once"] == 1
    for _, reason in awkward.BROKEN.values():
        assert any(kind.startswith("photo skipped: ") and reason in kind for kind in found), reason
    for orientation in range(2, 9):
        assert found[f"photo turned upright (orientation {orientation})"] == 4
    assert found["photo stored smaller, at the size that the model can use"] == 20
    assert found["photo colours converted from CMYK"] == 2
    assert done.facts["data"]["unlabelled"] == 1
    splits = done.facts["data"]["splits"].values()
    assert sum(split["photos"] for split in splits) == len(done.drawn) + 2
    assert sum(split["empty"] for split in splits) == 1


def test_labels_are_whole(done: Done) -> None:
    labels = json.loads((done.root / "results" / "model" / "labels.json").read_text())
    assert set(awkward.LABELS) <= set(labels)
    assert any("differ" in kind for kind in counts(done)), counts(done)


def test_report_shows_the_photos_to_look_at(done: Done) -> None:
    _, _, cards = done.report.partition("Photos to look at")
    assert cards.count("data:image/jpeg") >= 3
    assert "<b>box outside of the photo, skipped</b><br>outside.png" in cards


def test_report_tells_the_same(done: Done) -> None:
    for kind, count in counts(done).items():
        assert kind in done.report
        row = done.report[done.report.index(f'<th scope="row">{kind}</th>') :]
        assert f'<td class="number">{count}</td>' in row[: row.index("</tr>")]


def test_check_tells_the_same(done: Done) -> None:
    result = run_job("check", "--json", DATA_DIR=done.bucket, RESULT_DIR=done.root / "none", MODEL="smoke")
    # MAX_SKIPPED is at its default here.
    assert result.returncode == 2
    found = {kind: len(where) for kind, where in json.loads(result.stdout)["found"].items()}
    assert found == counts(done)
