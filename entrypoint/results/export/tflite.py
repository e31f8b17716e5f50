"""model_android/: model.tflite with its post-processing built in, and anchors.json for clients that do their own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from entrypoint.engines import loading
from entrypoint.results.export.export_format import ExportFormat
from entrypoint.system import files
from entrypoint.training import train
from entrypoint.workspace import Workspace
from entrypoint.zoo import pipeline_config


def write(work: Workspace, folder: Path) -> None:
    """Writes model.tflite (float32, signatures `detect` and `raw`, see the engine) and anchors.json."""
    import tensorflow as tf

    engine, config = loading.load(work)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        anchors = engine.export_tflite_source(of_fixed_size(config), train.chosen_checkpoint(work), Path(scratch))
        # The converter of several signatures needs eager execution, which the engine of TF1 models turns off.
        with tf.__internal__.eager_context.eager_mode():
            # A client that asks for no signature by name gets the first one.
            converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=["detect", "raw"])
            # TFLite_Detection_PostProcess is an operation that TFLite calls custom, and brings.
            converter.allow_custom_ops = True
            (folder / "model.tflite").write_bytes(converter.convert())
    files.write_json(folder / "anchors.json", anchors)


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


FORMAT = ExportFormat("tflite", "model_android", ("model.tflite", "anchors.json"), write, refusal)
