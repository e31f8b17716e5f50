"""Converts a SavedModel to TFLite: `python -m entrypoint.results.export.tflite_converter FOLDER SIGNATURE FILE`.

A process of its own: TensorFlow's converter keeps memory at every call (tensorflow#122598), and can abort.
"""

from __future__ import annotations

import sys
from pathlib import Path

from entrypoint.system import child
from entrypoint.system.errors import JobError

NAME = "entrypoint.results.export.tflite_converter"
SHOWN = 2000  # characters of a failure


def run(source: Path, signature: str, target: Path) -> None:
    """Writes one signature of a SavedModel as a float32 model with one subgraph.

    Raises:
        JobError: the converter failed, or its process ended.
    """
    result = child.run_module(NAME, str(source), signature, str(target))
    if result.returncode:
        raise JobError(
            f"TFLite's converter ended with {result.returncode} at {target.name}; EXPORTS=saved_model leaves it out: "
            f"{result.stderr.strip()[-SHOWN:]}"
        )


def convert(source: str, signature: str, target: str) -> None:
    """Converts in this process."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(source, signature_keys=[signature])
    # TFLite_Detection_PostProcess is an operation that TFLite calls custom, and brings.
    converter.allow_custom_ops = True
    Path(target).write_bytes(converter.convert())


if __name__ == "__main__":
    convert(*sys.argv[1:])
