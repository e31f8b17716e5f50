"""Converts a SavedModel to TensorFlow.js: `python -m entrypoint.results.export.tfjs_converter SOURCE FOLDER QUANTIZE`.

A process of its own: a model of the TF1 engine is frozen in TensorFlow's eager mode, which that engine turns off.
"""

from __future__ import annotations

import sys
from pathlib import Path

from entrypoint.results.export import converter, tfjs_files
from entrypoint.settings.choices import Quantize
from entrypoint.system.errors import JobError

NAME = "entrypoint.results.export.tfjs_converter"


def run(source: Path, folder: Path, quantize: Quantize = "none") -> None:
    """Writes the signature `detect` of a SavedModel as a graph model that computes in float32.

    Raises:
        JobError: the conversion failed, or its process ended.
    """
    converter.run(NAME, "the conversion to TensorFlow.js", source, folder, quantize)


def convert(source: Path, folder: Path, quantize: str) -> None:
    """Converts in this process; raises JobError if the graph has what TensorFlow.js does not know."""
    from entrypoint.results.export import tfjs_graph

    tfjs_files.write(folder, tfjs_graph.load(source), quantize)


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    except JobError as error:
        sys.exit(str(error))
