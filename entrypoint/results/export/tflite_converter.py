"""Converts a SavedModel to TFLite.

`python -m entrypoint.results.export.tflite_converter SAVED_MODEL SIGNATURE FILE QUANTIZE PHOTOS` converts. PHOTOS is a
folder of the arrays that `int8` measures ranges with, a file each, as the model takes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from entrypoint.results.export import converter
from entrypoint.settings.choices import Quantize

NAME = "entrypoint.results.export.tflite_converter"


def run(source: Path, signature: str, target: Path, quantize: Quantize, photos: Path) -> None:
    """Writes one signature of a SavedModel as a model with one subgraph, whose input and outputs are float32.

    Raises:
        JobError: the converter failed, or its process ended.
    """
    converter.run(NAME, f"TFLite's converter at {target.name}", source, signature, target, quantize, photos)


def convert(source: str, signature: str, target: str, quantize: str, photos: str) -> None:
    """Converts in this process."""
    import tensorflow as tf

    lite = tf.lite.TFLiteConverter.from_saved_model(source, signature_keys=[signature])
    # TFLite_Detection_PostProcess is an operation that TFLite calls custom, and brings.
    lite.allow_custom_ops = True
    if quantize != "none":
        lite.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        lite.target_spec.supported_types = [tf.float16]
    if quantize == "int8":
        lite.representative_dataset = lambda: ([np.load(path)] for path in sorted(Path(photos).iterdir()))
    Path(target).write_bytes(lite.convert())


if __name__ == "__main__":
    convert(*sys.argv[1:])
