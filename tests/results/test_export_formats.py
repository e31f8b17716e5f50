from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from entrypoint.results.export import formats, tflite
from entrypoint.results.report_tables import for_model
from entrypoint.system.errors import UserError
from entrypoint.zoo import pipeline_config
from tests.conftest import make_settings

SSD = "model { ssd { image_resizer { %s } } }"
FIXED = "fixed_shape_resizer { height: 320 width: 320 }"
PADDED = "keep_aspect_ratio_resizer { min_dimension: 512 max_dimension: 512 pad_to_max_dimension: true }"
CENTER_NET = "model { center_net { image_resizer { %s } } }"
FASTER_RCNN = "model { faster_rcnn { image_resizer { %s } } }"


def choose(folder: Path, text: str, **settings: Any) -> tuple[str, ...]:
    return formats.choose(pipeline_config.parse(text), make_settings(folder, **settings))


def test_every_format_is_declared_under_its_own_name_with_a_folder_of_its_own() -> None:
    found = [formats.format_of(name) for name in formats.NAMES]
    assert [each.name for each in found] == list(formats.NAMES)
    assert len({each.folder for each in found}) == len(found)
    assert all(each.files for each in found)


def test_version_for_tensorflow_serving_is_a_folder_of_the_saved_model_alone(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, serving_version=3)
    places = [formats.format_of(name).place(settings) for name in formats.NAMES]
    assert places == ["model/3", *formats.folders()[1:]]
    program = for_model(formats.format_of("saved_model"), "model/3", None) or ""
    assert 'FOLDER = "model/3"\n' in program
    assert '"model"' not in program


def test_center_net_is_exported_to_tflite_without_the_files_of_anchors_and_not_to_tensorflow_js(tmp_path: Path) -> None:
    text = CENTER_NET % PADDED
    assert choose(tmp_path, text, exports="saved_model,tflite") == ("saved_model", "tflite")
    config, format_ = pipeline_config.parse(text), formats.format_of("tflite")
    assert format_.files_for(config) == ("model.tflite", "normalization.json")
    assert {"model_raw.tflite", "anchors.json"} < set(format_.files_for(pipeline_config.parse(SSD % FIXED)))
    with pytest.raises(UserError, match="EXPORTS=tfjs: SSD models alone"):
        choose(tmp_path, text, exports="saved_model,tfjs")


def test_center_net_is_not_exported_with_integers(tmp_path: Path) -> None:
    text = CENTER_NET % PADDED
    with pytest.raises(UserError, match=r"EXPORTS=tflite: .*QUANTIZE=dynamic works.*; set EXPORTS=saved_model"):
        choose(tmp_path, text, exports="saved_model,tflite", quantize="int8")
    assert choose(tmp_path, text, exports="saved_model,tflite", quantize="dynamic") == ("saved_model", "tflite")
    assert choose(tmp_path, SSD % FIXED, exports="saved_model,tflite", quantize="int8") == ("saved_model", "tflite")


@pytest.mark.parametrize("resizer", [FIXED, PADDED])
def test_model_of_an_input_of_one_size_may_be_exported_to_tflite(tmp_path: Path, resizer: str) -> None:
    assert choose(tmp_path, SSD % resizer, exports="saved_model,tflite") == ("saved_model", "tflite")


def test_client_pads_photos_to_the_square_that_training_pads_them_to() -> None:
    for text, name in ((SSD, "ssd"), (CENTER_NET, "center_net")):
        model = tflite.of_fixed_size(pipeline_config.parse(text % PADDED)).model
        fixed = getattr(model, name).image_resizer.fixed_shape_resizer
        assert (fixed.height, fixed.width) == (512, 512)


@pytest.mark.parametrize("text", [FASTER_RCNN % FIXED, SSD % PADDED.replace("pad_to_max_dimension: true", "")])
def test_export_that_does_not_fit_is_refused_if_it_was_asked_for_and_left_out_otherwise(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(UserError, match=r"EXPORTS=tflite: .* of an input that is one size.* set EXPORTS=saved_model"):
        choose(tmp_path, text, exports="saved_model,tflite")
    assert choose(tmp_path, text) == ("saved_model",)


def test_export_that_does_not_fit_a_pipeline_of_ours_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="EXPORTS=tflite"):
        formats.refuse_early(make_settings(tmp_path, model="faster_rcnn_resnet50_v1_640x640", exports="tflite"))
