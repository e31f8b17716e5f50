"""The metadata of a TFLite object detector, as MediaPipe's and ML Kit's object detectors read it.

A FlatBuffer, TFLITE_METADATA, says how a photo is normalised and what each output is, and a ZIP archive behind the
model holds the labels. The source of tables, fields and numbers is metadata_schema.fbs of MediaPipe Tasks.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np

from entrypoint.engines.engine import TFLITE_OUTPUTS, Normalization

NAME, IDENTIFIER = "TFLITE_METADATA", b"M001"
LABELS = "labels.txt"
# The first version of the format that knows groups of outputs.
PARSER = "1.2.0"
RGB, TENSOR_VALUE_LABELS, BOUNDARIES = 1, 3, 1
# The members of the union ContentProperties.
FEATURE, IMAGE, BOUNDING_BOX = 1, 2, 3
NORMALIZATION, SCORE_THRESHOLDING = 1, 3  # of the union ProcessUnitOptions
# The corners of a box in the order left, top, right, bottom: where each lies in [ymin, xmin, ymax, xmax].
CORNERS = (1, 0, 3, 2)


class Tables:
    """Writes tables of a FlatBuffer."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)

    def table(self, *fields: Any) -> int:
        """Returns a table with these fields in the order of the schema: offsets, Small numbers, floats, or None."""
        self.builder.StartObject(len(fields))
        for slot, value in enumerate(fields):
            if isinstance(value, Small):
                self.builder.PrependInt8Slot(slot, value.value, 0)
            elif isinstance(value, float):
                self.builder.PrependFloat32Slot(slot, value, 0.0)
            elif value is not None:
                self.builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        return int(self.builder.EndObject())

    def text(self, words: str) -> int:
        """Returns a string."""
        return int(self.builder.CreateString(words))

    def vector(self, offsets: Sequence[int]) -> int:
        """Returns a vector of tables or strings."""
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def numbers(self, values: Sequence[float], kind: type[np.generic]) -> int:
        """Returns a vector of numbers of that kind."""
        return int(self.builder.CreateNumpyVector(np.asarray(values, kind)))


@dataclass(frozen=True)
class Small:
    """A value of an enumeration, which has one byte."""

    value: int


def add(model: bytes, labels: Sequence[str], normalization: Normalization, threshold: float | None = None) -> bytes:
    """Returns a detector with post-processing, outputs boxes, classes, scores and number, with its metadata.

    `threshold` is the recommended lowest score.
    """
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    found = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    buffer = schema.BufferT()
    buffer.data = list(describe(normalization, threshold))
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME.encode(), len(found.buffers)
    found.buffers.append(buffer)
    found.metadata = [*(found.metadata or []), entry]
    # The clients know the outputs by their places.
    (subgraph,), (signature,) = found.subgraphs, found.signatureDefs
    places = {each.name.decode(): each.tensorIndex for each in signature.outputs}
    subgraph.outputs = [places[name] for name in TFLITE_OUTPUTS]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(found)) + archive(labels)


def archive(labels: Sequence[str]) -> bytes:
    """Returns a ZIP archive with the labels, a line each, in the order of their ids."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        # A fixed time: equal labels are equal bytes. A label can hold line breaks.
        info = zipfile.ZipInfo(LABELS, (1980, 1, 1, 0, 0, 0))
        file.writestr(info, "".join(f"{' '.join(label.split())}\n" for label in labels))
    return content.getvalue()


def describe(normalization: Normalization, threshold: float | None = None) -> bytes:
    """Returns the FlatBuffer, a ModelMetadata. `threshold` is the lowest score that clients shall show."""
    to = Tables()
    scaling = to.table(to.numbers(normalization.mean, np.float32), to.numbers(normalization.std, np.float32))
    units = to.vector([to.table(Small(NORMALIZATION), scaling)])
    photo = to.table(to.text("image"), None, None, content(to, IMAGE, to.table(Small(RGB))), units)
    # In the order of TFLITE_OUTPUTS.
    outputs = [
        output(to, "location", content(to, BOUNDING_BOX, to.table(to.numbers(CORNERS, np.uint32), Small(BOUNDARIES)))),
        output(to, "category", content(to, FEATURE, to.table()), label_file(to)),
        output(to, "score", content(to, FEATURE, to.table()), units=thresholding(to, threshold)),
        output(to, "number of detections", content(to, FEATURE, to.table())),
    ]
    names = to.vector([to.text(name) for name in ("location", "category", "score")])
    groups = to.vector([to.table(to.text("detection_result"), names)])
    subgraph = to.table(None, None, to.vector([photo]), to.vector(outputs), None, None, None, None, groups)
    name, subgraphs, parser = to.text("object detector"), to.vector([subgraph]), to.text(PARSER)
    to.builder.Finish(to.table(name, None, None, subgraphs, None, None, None, parser), IDENTIFIER)
    return bytes(to.builder.Output())


def content(to: Tables, kind: int, properties: int) -> int:
    """Returns a Content: what a tensor holds."""
    return to.table(Small(kind), properties)


def output(to: Tables, name: str, holds: int, files: int | None = None, units: int | None = None) -> int:
    """Returns the TensorMetadata of an output."""
    return to.table(to.text(name), None, None, holds, units, None, files)


def thresholding(to: Tables, threshold: float | None) -> int | None:
    """Returns the vector of one ProcessUnit: scores below are not shown."""
    return None if threshold is None else to.vector([to.table(Small(SCORE_THRESHOLDING), to.table(float(threshold)))])


def label_file(to: Tables) -> int:
    """Returns the vector of one AssociatedFile: a class is the number of a line in it, counted from 0."""
    return to.vector([to.table(to.text(LABELS), None, Small(TENSOR_VALUE_LABELS))])
