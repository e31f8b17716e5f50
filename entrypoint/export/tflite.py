"""model_android/: model.tflite with its post-processing built in, and anchors.json for clients that do their own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from entrypoint import engine, train, workspace
from entrypoint.workspace import Workspace


def write(work: Workspace, folder: Path) -> None:
    """Writes model.tflite (float32, signatures `detect` and `raw`, see the engine) and anchors.json."""
    import tensorflow as tf

    runner, config = engine.load(work)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        anchors = runner.export_tflite_source(config, train.last_checkpoint(work), Path(scratch))
        # The converter of several signatures wants eager execution, which the engine of TF1 models turns off.
        with tf.__internal__.eager_context.eager_mode():
            # The first signature is what a client gets that does not ask for one by name.
            converter = tf.lite.TFLiteConverter.from_saved_model(scratch, signature_keys=["detect", "raw"])
            # TFLite_Detection_PostProcess is an operation that TFLite calls custom, and brings.
            converter.allow_custom_ops = True
            (folder / "model.tflite").write_bytes(converter.convert())
    workspace.write_json(folder / "anchors.json", anchors)
