"""model_android/: model.tflite with its post-processing built in, and anchors.json for clients that do their own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from entrypoint import workspace
from entrypoint.engines import engine
from entrypoint.training import pipeline, train
from entrypoint.workspace import Workspace


def write(work: Workspace, folder: Path) -> None:
    """Writes model.tflite (float32, signatures `detect` and `raw`, see the engine) and anchors.json."""
    import tensorflow as tf

    runner, config = engine.load(work)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        anchors = runner.export_tflite_source(of_fixed_size(config), train.last_checkpoint(work), Path(scratch))
        # The converter of several signatures wants eager execution, which the engine of TF1 models turns off.
        with tf.__internal__.eager_context.eager_mode():
            # The first signature is what a client gets that does not ask for one by name.
            converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=["detect", "raw"])
            # TFLite_Detection_PostProcess is an operation that TFLite calls custom, and brings.
            converter.allow_custom_ops = True
            (folder / "model.tflite").write_bytes(converter.convert())
    workspace.write_json(folder / "anchors.json", anchors)


def of_fixed_size(config: Any) -> Any:
    """The config with an input of one size: a phone's client pads photos itself where the job does."""
    fixed = type(config)()
    fixed.CopyFrom(config)
    height, width = pipeline.input_size(config) or (0, 0)
    resizer = fixed.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height, resizer.width = height, width
    return fixed
