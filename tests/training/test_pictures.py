"""Photos with boxes in TensorBoard."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from entrypoint.data import annotations, label_map, records, tf_record
from entrypoint.engines.engine import Detections
from entrypoint.training.events import Events
from entrypoint.training.pictures import FOUND, PHOTOS, Pictures
from entrypoint.workspace import Workspace
from tests.conftest import write_bucket

BOX = {"x": 0.5, "y": 0.5, "x2": 0.75, "y2": 0.75, "label": "cat"}


def found_on(key: str) -> Detections:
    """A sure detection in the upper left of the photo, and one that is not sure in its middle."""
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.4, 0.4, 0.6, 0.6]])
    return Detections(key, 80, 100, boxes, np.array([1, 1]), np.array([0.9, 0.1]))


def test_boxes_that_were_drawn_and_found_are_on_the_photos(work: Workspace) -> None:
    names = tuple(f"valid/{index}.png" for index in range(9))
    write_bucket(work.settings.data_dir, {name: [BOX] for name in (*names, "train/a.png")}, (*names, "train/a.png"))
    for step in (annotations, label_map, tf_record):
        step.run(work)
    paths = records.load(work).validation.paths(work.records)
    pictures = Pictures(paths, annotations.load(work))
    drawn = pictures.draw([found_on(name) for name in names])
    assert pictures.keys == ["valid/0.png", "valid/2.png", "valid/4.png", "valid/6.png"]
    for encoded in drawn:
        with Image.open(io.BytesIO(encoded)) as photo:
            pixels = np.asarray(photo.convert("RGB")).astype(int)
        height, width = pixels.shape[:2]
        found = np.array([int(FOUND[index : index + 2], 16) for index in (1, 3, 5)])
        # JPEG blurs colours.
        assert np.abs(pixels[round(0.2 * height), round(0.1 * width)] - found).max() < 90
        assert pixels[round(0.6 * height), round(0.5 * width)].min() > 120
        # Where nothing is sure, the photo is as it was.
        middle = pixels[round(0.5 * height), round(0.4 * width)]
        with Image.open(io.BytesIO(pictures.photos[names[0]])) as photo:
            before = photo.convert("RGB").getpixel((round(0.4 * photo.width), round(0.5 * photo.height)))
        assert np.abs(middle - np.array(before)).max() < 60
    again = pictures.draw([found_on(name) for name in reversed(names)])
    assert again == drawn


def test_tensorboard_shows_them_at_their_step(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "JPEG")
    events = Events(tmp_path / "events", [])
    events.write_pictures(7, [buffer.getvalue()] * PHOTOS)
    events.close()
    read = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0})
    read.Reload()
    tags = [f"validation/photo {index}" for index in range(1, PHOTOS + 1)]
    assert sorted(read.Tags()["images"]) == tags
    (image,) = read.Images(tags[0])
    assert (image.step, image.encoded_image_string) == (7, buffer.getvalue())
