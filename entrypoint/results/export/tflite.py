"""model_android/: model.tflite for phones, and model_raw.tflite with anchors.json for clients that decode boxes."""

import tempfile
from pathlib import Path
from typing import Any

from entrypoint.data import annotations
from entrypoint.engines import loading
from entrypoint.results.export import tflite_converter, tflite_metadata
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.system import files
from entrypoint.training import train
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config


def write(work: Workspace, folder: Path) -> None:
    """Writes model.tflite, model_raw.tflite (both float32, one signature each, see the engine) and anchors.json.

    Raises:
        JobError: TFLite's converter failed.
    """
    engine, config = loading.load(work)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        checkpoint = train.chosen_checkpoint(work)
        source = engine.export_tflite_source(of_fixed_size(config), checkpoint, Path(scratch) / "source")
        plain = Path(scratch) / "model.tflite"
        tflite_converter.run(Path(scratch) / "source", "detect", plain)
        tflite_converter.run(Path(scratch) / "source", "raw", folder / "model_raw.tflite")
        labels = annotations.load(work).labels
        model = tflite_metadata.add(plain.read_bytes(), labels, source.normalization)
        (folder / "model.tflite").write_bytes(model)
    files.write_json(folder / "anchors.json", source.anchors)


def of_fixed_size(config: Any) -> Any:
    """Returns the config with an input of one size: a phone's client pads photos itself if the job does."""
    fixed = type(config)()
    fixed.CopyFrom(config)
    height, width = pipeline_config.input_size(config) or (0, 0)
    resizer = fixed.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height, resizer.width = height, width
    return fixed


def refusal(config: Any) -> str | None:
    """Returns why a model cannot be exported to TFLite, or None."""
    if pipeline_config.input_size(config):
        return None
    return "SSD models alone, of an input that is one size, are exported to TensorFlow Lite"


FORMAT = ExportFormat("tflite", "model_android", ("model.tflite", "model_raw.tflite", "anchors.json"), write, refusal)
