import contextlib
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entrypoint.data import annotations, images, label_map, records, tf_record
from entrypoint.data.annotations import LabelledImage
from entrypoint.data.boxes import Box
from entrypoint.data.examples import MOST_BOXES, decode_as_trained, read_photo
from entrypoint.data.records import RecordsManifest
from entrypoint.data.shards import shard_count
from entrypoint.data.split import SPLITS, split
from entrypoint.system import files
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace
from tests.conftest import BOX, ROOT, environment, make_settings, write_bucket


def photos(count: int, labels: tuple[str, ...] = ("a",)) -> list[LabelledImage]:
    rng = random.Random(count)
    return [LabelledImage(f"{index}.jpg", (Box(rng.choice(labels), 0, 0, 1, 1),)) for index in range(count)]


def keys(images: list[LabelledImage]) -> set[str]:
    return {image.key for image in images}


def test_split_stays_as_it_is_when_photos_are_added() -> None:
    before = split(photos(200), 0.2, 42)
    more = photos(200) + [LabelledImage(f"new {index}.jpg", (Box("a", 0, 0, 1, 1),)) for index in range(150)]
    after = split(more, 0.2, 42)
    for name in SPLITS:
        assert keys(before[name]) <= keys(after[name])


def test_split_has_about_the_fraction_of_every_label() -> None:
    images = photos(1000, ("a", "b", "c"))
    total = Counter(image.boxes[0].label for image in images)
    chosen = Counter(image.boxes[0].label for image in split(images, 0.2, 42)["validation"])
    for label in total:
        assert 0.14 < chosen[label] / total[label] < 0.26


@pytest.mark.parametrize("seed", range(20))
def test_rare_label_is_on_both_sides(seed: int) -> None:
    images = [*photos(50), *(LabelledImage(f"rare {index}.jpg", (Box("rare", 0, 0, 1, 1),)) for index in range(2))]
    for part in split(images, 0.2, seed).values():
        assert any(image.key.startswith("rare") for image in part)


def test_other_seed_gives_another_split() -> None:
    first, other = (keys(split(photos(100), 0.2, seed)["validation"]) for seed in (1, 2))
    assert first != other


def test_one_photo_is_for_training() -> None:
    assert [len(part) for part in split(photos(1), 0.2, 42).values()] == [1, 0]


def test_no_validation_at_fraction_zero() -> None:
    assert split(photos(100), 0, 42)["validation"] == []


@pytest.mark.parametrize(
    ("size", "count", "shards"),
    [(0, 0, 0), (10, 3, 3), (10_000_000, 1000, 8), (2_000_000_000, 5000, 13), (15_000_000_000, 50_000, 100)],
)
def test_shards_hold_100_to_200_megabytes_and_are_as_many_as_readers(size: int, count: int, shards: int) -> None:
    assert shard_count(size, count) == shards


@pytest.mark.parametrize(
    "name",
    ["/tmp/x.tfrecord", "../../x", "train-00000-of-00001.tfrecord/../../x", "train-00000-of-00001.tfrecord\n", 7, None],
)
def test_manifest_of_records_that_names_other_files_is_refused(work: Workspace, tmp_path: Path, name: Any) -> None:
    records = tmp_path / "records"
    records.mkdir()
    splits = {"train": {"shards": [{"name": name}]}, "validation": {"shards": []}}
    (records / "manifest.json").write_text(json.dumps({"splits": splits}))
    work = Workspace(make_settings(tmp_path, records_dir=records))
    before = set(tmp_path.rglob("*"))
    with pytest.raises(
        UserError, match=r"manifest\.json cannot be read \(.*it is damaged, or another program wrote it"
    ):
        tf_record.run(work)
    assert set(tmp_path.rglob("*")) == before


def run_steps(work: Workspace) -> RecordsManifest:
    annotations.run(work)
    label_map.run(work)
    tf_record.run(work)
    return records.load(work)


def examples(work: Workspace) -> dict[str, Any]:
    """Every record by its key, as upstream's own decoder gives it."""
    import tensorflow as tf
    from object_detection.data_decoders import tf_example_decoder

    decoder = tf_example_decoder.TfExampleDecoder(label_map_proto_file=str(work.label_map))
    paths = sorted(str(path) for path in work.records.glob("*.tfrecord"))
    decoded = [decoder.decode(record) for record in tf.data.TFRecordDataset(paths)]
    return {each["source_id"].numpy().decode(): each for each in decoded}


def test_upstream_decodes_boxes_labels_and_pixels(work: Workspace) -> None:
    bucket = work.settings.data_dir
    boxes = [BOX, {"x": 0, "y": 0, "x2": 1, "y2": 1, "label": "dog"}]
    write_bucket(bucket, {"a.jpg": boxes, "b.png": [{"label": "Negative"}], "c.jpg": [BOX]}, labels=["dog", "cat"])
    for name in ("a.jpg", "b.png", "c.jpg"):
        Image.new("RGB", (64, 48), (200, 100, 50)).save(bucket / name)
    run_steps(work)
    found = examples(work)["a.jpg"]
    assert found["groundtruth_boxes"].numpy().tolist() == [[0.25, 0.25, 0.5, 0.75], [0, 0, 1, 1]]
    assert found["groundtruth_classes"].numpy().tolist() == [2, 1]
    assert found["filename"].numpy() == b"a.jpg"
    assert found["key"].numpy().decode() == hashlib.sha256((bucket / "a.jpg").read_bytes()).hexdigest()
    assert found["image"].shape == (48, 64, 3)
    assert abs(found["image"].numpy().mean(axis=(0, 1)) - [200, 100, 50]).max() < 3
    assert examples(work)["b.png"]["groundtruth_boxes"].shape == (0, 4)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pixels_in_the_box_of_a_rotated_photo_are_those_that_were_drawn(work: Workspace, orientation: int) -> None:
    from tests.demo import STORED_BY

    bucket = work.settings.data_dir
    write_bucket(bucket, {"a.jpg": [{"x": 0.5, "y": 0.0, "x2": 1.0, "y2": 0.5, "label": "red"}]})
    upright = Image.new("RGB", (96, 64), (90, 90, 90))
    upright.paste((250, 10, 10), (48, 0, 96, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright.transpose(STORED_BY[orientation]).save(bucket / "a.jpg", exif=exif, quality=95)
    manifest = run_steps(work)
    image = examples(work)["a.jpg"]["image"].numpy().astype(int)
    assert image[4:28, 52:92, 0].min() > 230
    assert image[36:, :, 0].max() < 130
    assert manifest.changed == {"a.jpg": (f"turned upright (orientation {orientation})",)}


def test_unreadable_photos_are_skipped_and_counted(work: Workspace) -> None:
    names = [f"{index}.png" for index in range(20)]
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names}, tuple(names))
    (work.settings.data_dir / "3.png").write_bytes(b"")
    manifest = run_steps(work)
    assert manifest.skipped == {"3.png": "file is empty"}
    assert sum(part.photos for part in manifest.splits.values()) == 19
    assert len(examples(work)) == 19


def test_missing_photos_count_towards_the_limit(work: Workspace) -> None:
    names = [f"{index}.png" for index in range(10)]
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names}, tuple(names[:8]))
    with pytest.raises(UserError, match=r"2 of 10 photos cannot be used"):
        run_steps(work)


def test_photo_that_tensorflow_cannot_read_is_encoded_anew(work: Workspace) -> None:
    bucket = work.settings.data_dir
    write_bucket(bucket, {"a.png": [BOX], "b.png": [BOX]}, ("a.png", "b.png"))
    content = (bucket / "a.png").read_bytes()
    # An unknown critical chunk, in front of the last one: Pillow passes over it, libpng refuses it.
    kind = b"ABCD"
    chunk = struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))
    (bucket / "a.png").write_bytes(content[:-12] + chunk + content[-12:])
    manifest = run_steps(work)
    assert manifest.changed == {"a.png": ("encoded anew, TensorFlow could not read it",)}
    assert examples(work)["a.png"]["image"].shape == (30, 40, 3)


def test_more_unreadable_photos_than_allowed_stop_the_job(work: Workspace) -> None:
    names = [f"{index}.png" for index in range(10)]
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names}, tuple(names))
    for name in names[:2]:
        (work.settings.data_dir / name).write_bytes(b"text")
    with pytest.raises(
        UserError, match=r"2 of 10 photos cannot be used, more than MAX_SKIPPED=0.1 allows: photo skipped, no photo"
    ):
        run_steps(work)
    assert not work.records.exists()


def test_rest_of_very_many_photos_is_not_read_once_too_many_are_lost(work: Workspace) -> None:
    names = [f"{index}.png" for index in range(400)]
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names})
    for name in names:
        (work.settings.data_dir / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"101 of 400 photos cannot be used"):
        run_steps(work)


def test_photos_that_are_missing_stop_the_job_before_any_is_read(work: Workspace) -> None:
    write_bucket(work.settings.data_dir, {"a.png": [BOX], "gone.png": [BOX]}, ("a.png",))
    with pytest.raises(UserError, match=r"1 of 2 photos cannot be used.*missing in the bucket.*the first: gone.png"):
        run_steps(work)
    assert not work.records.with_name(".records.part").exists()


def test_no_photo_left_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    work = Workspace(make_settings(tmp_path, max_skipped=1))
    write_bucket(work.settings.data_dir, {"a.png": [BOX]}, ("a.png",))
    (work.settings.data_dir / "a.png").write_bytes(b"text")
    with pytest.raises(UserError, match="no photo is left to train on"):
        run_steps(work)


def test_changed_photo_changes_the_fingerprint(work: Workspace) -> None:
    write_bucket(work.settings.data_dir, {"a.png": [BOX]}, ("a.png",))
    annotations.run(work)
    before = tf_record.fingerprint(work)
    Image.new("RGB", (50, 50)).save(work.settings.data_dir / "a.png")
    annotations.run(work)
    assert tf_record.fingerprint(work) != before


CONVERT = """
from entrypoint.main import main
for step in ("annotations", "label_map", "tf_record"):
    assert main([step]).exit_code == 0
"""


def test_records_are_the_same_bytes_whatever_hash_seed_and_number_of_workers(tmp_path: Path, demo_bucket: Path) -> None:
    found = []
    for hash_seed, workers in ((0, 1), (1, 8)):
        folder = tmp_path / f"work {hash_seed}"
        settings = {"DATA_DIR": demo_bucket, "WORK_DIR": folder, "RESULT_DIR": tmp_path / "results"}
        env = environment(**settings, WORKERS=workers, PYTHONHASHSEED=hash_seed)
        subprocess.run([sys.executable, "-c", CONVERT], env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        shards = sorted((folder / "records").glob("*.tfrecord"))
        found.append([(path.name, files.file_sha256(path)) for path in shards])
    assert found[0] == found[1]
    assert len(found[0]) > 8
    assert os.listdir(tmp_path / "results") == []


def test_photo_that_has_gone_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(images.UnusablePhotoError, match="cannot be read"):
        read_photo(tmp_path, "a.jpg")


def test_photo_whose_name_is_not_utf_8_is_trained_on(work: Workspace) -> None:
    name = os.fsdecode(b"gr\xfcn.png")
    names = (name, *(f"{index}.png" for index in range(9)))
    write_bucket(work.settings.data_dir, {key: [BOX] for key in names}, names)
    manifest = run_steps(work)
    assert sum(part.photos for part in manifest.splits.values()) == 10
    assert {image.key for image in annotations.load(work).images} == set(names)


def test_photo_whose_name_is_not_utf_8_is_skipped_by_name(work: Workspace) -> None:
    name = os.fsdecode(b"gr\xfcn.png")
    names = (name, *(f"{index}.png" for index in range(19)))
    write_bucket(work.settings.data_dir, {key: [BOX] for key in names}, names)
    (work.settings.data_dir / name).write_bytes(b"")
    assert run_steps(work).skipped == {name: "file is empty"}


def test_photo_that_becomes_a_link_between_two_steps_is_not_in_the_records(work: Workspace, tmp_path: Path) -> None:
    names = tuple(f"{index}.png" for index in range(20))
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names}, names)
    write_bucket(tmp_path / "elsewhere", {}, ("secret.png",))
    annotations.run(work)
    label_map.run(work)
    (work.settings.data_dir / "3.png").unlink()
    (work.settings.data_dir / "3.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    tf_record.run(work)
    assert records.load(work).skipped == {"3.png": "cannot be read (is a link out of the bucket)"}


def test_photo_with_too_many_boxes_is_skipped(work: Workspace) -> None:
    names = tuple(f"{index}.png" for index in range(20))
    crowd = [{**BOX, "x2": 0.3 + index / 10_000} for index in range(MOST_BOXES + 1)]
    write_bucket(work.settings.data_dir, {name: [BOX] for name in names} | {"3.png": crowd}, names)
    manifest = run_steps(work)
    assert manifest.skipped == {"3.png": "2,001 boxes, more than 2,000: cut it into tiles"}
    assert manifest.max_boxes == 1


def noisy_jpeg(**options: Any) -> bytes:
    """A photo of 320 x 240 pixels with detail in all places."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 5}], ids=str)
def test_damaged_photo_that_is_stored_unchanged_can_be_decoded_in_training(options: dict[str, Any]) -> None:
    """Pillow decodes it at a quarter of its size, and the training in full."""
    rng = random.Random(1)
    content = noisy_jpeg(**options)
    stored = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        del damaged[rng.choice([len(damaged), rng.randrange(len(damaged))]) :]
        with contextlib.suppress(images.UnusablePhotoError):
            photo = images.load(bytes(damaged), as_trained=decode_as_trained)
            assert decode_as_trained(photo.encoded) is not None
            stored += photo.encoded == damaged
    assert 30 < stored < 270


@pytest.mark.parametrize("behind", [b"", b"behind the end"])
def test_whole_jpeg_stays_as_it_is(behind: bytes) -> None:
    photo = images.load(noisy_jpeg() + behind, as_trained=decode_as_trained)
    assert photo.encoded == noisy_jpeg() + behind


def test_jpeg_without_an_end_is_encoded_anew() -> None:
    """Pillow has all pixels then, and TensorFlow reads on to the end of the image."""
    # A comment that is longer than the rest of the file stands in front of the end.
    content = noisy_jpeg()[:-2] + b"\xff\xfe\xff\xff" + images.END_OF_IMAGE
    assert decode_as_trained(content) is None
    photo = images.load(content, as_trained=decode_as_trained)
    assert photo.facts.changes
    assert decode_as_trained(photo.encoded) is not None
