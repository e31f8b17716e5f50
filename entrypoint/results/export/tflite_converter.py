"""Converts a SavedModel to TFLite: `python -m entrypoint.results.export.tflite_converter FOLDER SIGNATURE FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from entrypoint.results.export import converter

NAME = "entrypoint.results.export.tflite_converter"


def run(source: Path, signature: str, target: Path) -> None:
    """Writes one signature of a SavedModel as a float32 model with one subgraph.

    Raises:
        JobError: the converter failed, or its process ended.
    """
    converter.run(NAME, f"TFLite's converter at {target.name}", source, signature, target)


def convert(source: str, signature: str, target: str) -> None:
    """Converts in this process."""
    import tensorflow as tf

    lite = tf.lite.TFLiteConverter.from_saved_model(source, signature_keys=[signature])
    # TFLite_Detection_PostProcess is an operation that TFLite calls custom, and brings.
    lite.allow_custom_ops = True
    Path(target).write_bytes(lite.convert())


if __name__ == "__main__":
    convert(*sys.argv[1:])
