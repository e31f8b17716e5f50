from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.system.errors import UserError
from entrypoint.zoo import catalogue, input_size, pipeline_config
from entrypoint.zoo.input_size import InputSize, Storage
from tests.conftest import make_settings
from tests.zoo import published


@pytest.mark.parametrize("name", sorted(model.name for model in catalogue.load().values() if model.pipeline))
def test_our_pipelines_have_the_size_of_the_catalogue(name: str) -> None:
    model = catalogue.find(name)
    assert model.pipeline is not None
    found = input_size.of_config(model.pipeline.read_text())
    named = input_size.of_name(model.input_size)
    assert found is not None
    assert found == named


def test_every_model_has_a_size() -> None:
    unknown = [model.name for model in catalogue.load().values() if input_size.of_name(model.input_size) is None]
    assert unknown == []


@pytest.mark.parametrize("name", ["efficientdet_d0", "faster_rcnn_inception_v2_coco", "ssd_mobilenet_v1_coco"])
def test_published_configs_are_read(name: str) -> None:
    assert input_size.of_config(pipeline_config.write(published.config(name))) is not None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("image_resizer { fixed_shape_resizer { height: 200 width: 400 } }", InputSize(200, 400)),
        ("image_resizer: {\n fixed_shape_resizer: {\n height: 200\n # width: 1\n width: 400 } }", InputSize(200, 400)),
        ("image_resizer { fixed_shape_resizer { } }", InputSize(300, 300)),
        ("image_resizer{keep_aspect_ratio_resizer{max_dimension:90 min_dimension:60}}", InputSize(60, 90, True)),
        ("image_resizer { identity_resizer { } }", None),
        ("model { }", None),
    ],
)
def test_size_of_a_config(text: str, size: InputSize | None) -> None:
    assert input_size.of_config(text) == size


def test_config_that_cannot_be_read_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"PIPELINE_CONFIG=.*gone"):
        input_size.of_model(make_settings(tmp_path, pipeline_config=tmp_path / "gone.config"))


@pytest.mark.parametrize(
    ("size", "photo", "stored"),
    [
        # Both sides have at least twice the pixels of the input, and one side has exactly twice the pixels.
        (InputSize(300, 300), (4000, 3000), (800, 600)),
        (InputSize(300, 300), (3000, 4000), (600, 800)),
        (InputSize(640, 640), (4000, 3000), (1707, 1280)),
        # The shorter side becomes 600, or the longer one 1024.
        (InputSize(600, 1024, True), (6000, 4000), (1800, 1200)),
        (InputSize(600, 1024, True), (8000, 1000), (2048, 256)),
        # Photos are never enlarged, and are not encoded again to save a few pixels.
        (InputSize(300, 300), (640, 480), None),
        (InputSize(300, 300), (800, 800), None),
        (InputSize(300, 300), (10, 10), None),
    ],
)
def test_photos_are_stored_at_twice_the_input(
    size: InputSize, photo: tuple[int, int], stored: tuple[int, int] | None
) -> None:
    assert Storage(size).shrink(*photo) == stored


def test_setting_decides(tmp_path: Path) -> None:
    assert input_size.storage(make_settings(tmp_path, train_image_size="original")) is None
    given = input_size.storage(make_settings(tmp_path, train_image_size="500"))
    assert given is not None
    assert given.shrink(4000, 3000) == (667, 500)
    auto = input_size.storage(make_settings(tmp_path, model="ssd_mobilenet_v1_coco"))
    assert auto == Storage(InputSize(300, 300))


def test_many_blanks_in_a_config_take_no_time_to_speak_of() -> None:
    text = "image_resizer" + " " * 100_000 + "x"
    # A regular expression that tries every division of the blanks would not end within the test's time.
    assert input_size.of_config(text * 3) is None
