"""Records in RECORDS_DIR that mean harm, or were damaged: a named error before the training, and nothing is kept."""

import io
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image

from entrypoint.data import annotations, label_map, records, tf_record
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from tests.conftest import BOX, make_settings, write_bucket

Change = Callable[[Any], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of ten photos with one label, as `convert` leaves them."""
    root = tmp_path_factory.mktemp("made")
    names = tuple(f"{index}.png" for index in range(10))
    write_bucket(root / "bucket", {name: [BOX] for name in names}, names)
    work = Workspace(make_settings(root))
    for step in (annotations, label_map, tf_record):
        step.run(work)
    (work.records / "dataset.json").write_bytes(work.dataset.read_bytes())
    return work.records


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of the records that a test may change."""
    folder = tmp_path / "records"
    folder.mkdir()
    for path in made.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def fetch(folder: Path, tmp_path: Path) -> Workspace:
    work = Workspace(make_settings(tmp_path, records_dir=folder))
    tf_record.run(work)
    return work


def change_first(folder: Path, change: Change) -> None:
    """Changes the features of the first photo to train on."""
    path = min(folder.glob("train-*"))
    example = tf.train.Example.FromString(next(tf.compat.v1.io.tf_record_iterator(str(path))))
    change(example.features.feature)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(example.SerializeToString())


def label(number: int) -> Change:
    def change(feature: Any) -> None:
        feature["image/object/class/label"].int64_list.value[0] = number

    return change


def corner(name: str, value: float) -> Change:
    def change(feature: Any) -> None:
        feature[f"image/object/bbox/{name}"].float_list.value[0] = value

    return change


def photo(content: bytes) -> Change:
    def change(feature: Any) -> None:
        feature["image/encoded"].bytes_list.value[0] = content

    return change


def bomb() -> bytes:
    """A PNG whose header says that it has ten billion pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def no_corner(feature: Any) -> None:
    del feature["image/object/bbox/ymax"]


def test_records_of_the_job_s_own_are_taken(copied: Path, tmp_path: Path) -> None:
    work = fetch(copied, tmp_path)
    assert sum(part.photos for part in records.load(work).splits.values()) == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (label(999), "label 999, and the manifest has labels 1 to 1"),
        (label(-5), "label -5, and"),
        (label(0), "label 0, and"),
        (corner("xmin", math.nan), "a box of nan, "),
        (corner("xmax", 7.5), "which are no corners within the photo"),
        (corner("ymin", 0.9), "which are no corners within the photo"),
        (no_corner, "not as many corners as labels"),
        (photo(b"no photo"), "its image/encoded is not one JPEG or PNG"),
        (photo(bomb()), "100,000 x 100,000 pixels|not one JPEG or PNG"),
    ],
    ids=["999", "-5", "0", "nan", "outside", "inverted", "corner", "text", "bomb"],
)
def test_photo_that_cannot_be_trained_on_is_a_named_error(
    copied: Path, tmp_path: Path, change: Change, words: str
) -> None:
    change_first(copied, change)
    with pytest.raises(UserError, match=rf"RECORDS_DIR: train-00000-of-0000\d.tfrecord, photo 1: .*({words})"):
        fetch(copied, tmp_path)
    assert not (tmp_path / "work" / "records").exists()


@pytest.mark.parametrize("content", [b"", b"damaged", None], ids=["empty", "damaged", "cut off"])
def test_damaged_file_is_a_named_error(copied: Path, tmp_path: Path, content: bytes | None) -> None:
    path = min(copied.glob("train-*"))
    path.write_bytes(path.read_bytes()[:-3] if content is None else content)
    with pytest.raises(UserError, match=r"RECORDS_DIR: (the files for train hold|train-\S+ is damaged)"):
        fetch(copied, tmp_path)
