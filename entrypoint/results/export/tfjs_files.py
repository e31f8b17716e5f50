"""The files of a graph model of TensorFlow.js: model.json and the shards of its weights.

The source of the format is the code that reads it: `io.ModelJSON` and `decodeWeights` of @tensorflow/tfjs-core, and
`GraphModel` and `OperationMapper` of @tensorflow/tfjs-converter, in the versions 1.0.0 and 4.22.0.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import entrypoint

FILE = "model.json"
SHARD_BYTES = 4 << 20  # browsers cache files of this size
DTYPES = ("float32", "int32", "bool")  # that TensorFlow.js 1.0.0 knows
# What the entry of a weight says if its bytes are those of float16. Clients compute in float32.
FLOAT16 = {"quantization": {"dtype": "float16", "original_dtype": "float32"}}
LARGE = 256  # weights; smaller kernels are not worth a loss of precision


@dataclass(frozen=True)
class TensorSpec:
    """An input or an output of the graph."""

    name: str  # of the node in the graph
    dtype: str  # TensorFlow's name, such as DT_FLOAT
    shape: tuple[int, ...]  # -1 for a side of any length


@dataclass(frozen=True)
class WebGraph:
    """A graph in the operations of TensorFlow.js."""

    topology: dict[str, Any]  # a GraphDef in protobuf's JSON, its constants without their values
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]  # in the order in which clients get them
    weights: dict[str, np.ndarray[Any, Any]]  # the constants' values by node


def write(folder: Path, graph: WebGraph, quantize: str = "none") -> None:
    """Writes model.json and group1-shard1of1.bin and so on into a folder.

    With `float16`, the kernels of convolutions take half the bytes.
    """
    halved = frozenset(name for name, value in graph.weights.items() if quantize == "float16" and is_halved(value))
    stored = [value.astype(np.float16) if name in halved else value for name, value in graph.weights.items()]
    content = b"".join(map(as_bytes, stored))
    shards = list(parts(content))
    names = [f"group1-shard{number}of{len(shards)}.bin" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        (folder / name).write_bytes(shard)
    # The order of the outputs is the order in which a client gets them.
    (folder / FILE).write_text(json.dumps(document(graph, names, halved), separators=(",", ":")))


def is_halved(value: np.ndarray[Any, Any]) -> bool:
    """Returns whether a constant is a large kernel, and so has nearly all bytes of a model, whose values fit float16.

    Anchors and batch norm keep their digits: boxes and the scales of whole channels depend on them.
    """
    is_large_kernel = value.dtype == np.float32 and value.ndim == 4 and value.size >= LARGE
    return is_large_kernel and bool(np.abs(value).max() <= np.finfo(np.float16).max)


def document(graph: WebGraph, paths: Sequence[str], halved: Collection[str] = ()) -> dict[str, Any]:
    """Returns the content of model.json. `halved` are the weights that are stored as float16."""
    weights = [
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype), **(FLOAT16 if name in halved else {})}
        for name, value in graph.weights.items()
    ]
    return {
        "format": "graph-model",
        "generatedBy": "TensorFlow",
        "convertedBy": f"training job {entrypoint.__version__}",
        "signature": {"inputs": entries(graph.inputs), "outputs": entries(graph.outputs)},
        "modelTopology": graph.topology,
        "weightsManifest": [{"paths": list(paths), "weights": weights}],
    }


def entries(specs: dict[str, TensorSpec]) -> dict[str, Any]:
    """Returns the inputs or the outputs of a signature, as protobuf's JSON has a TensorInfo."""
    return {
        key: {
            "name": f"{spec.name}:0",
            "dtype": spec.dtype,
            "tensorShape": {"dim": [{"size": str(size)} for size in spec.shape]},
        }
        for key, spec in specs.items()
    }


def parts(content: bytes) -> Iterator[bytes]:
    """Yields the weights in shards of SHARD_BYTES; the last one can be shorter."""
    for start in range(0, len(content), SHARD_BYTES):
        yield content[start : start + SHARD_BYTES]


def as_bytes(value: np.ndarray[Any, Any]) -> bytes:
    """Returns the values in little-endian order, a byte for each bool."""
    return value.astype(value.dtype.newbyteorder("<")).tobytes()
