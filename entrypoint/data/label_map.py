"""Writes label_map.pbtxt: the ids of the labels, from 1, in the text format of upstream's StringIntLabelMap."""

from pathlib import Path

from entrypoint.data import annotations
from entrypoint.system import files
from entrypoint.workspace import Workspace


def run(work: Workspace) -> str:
    """Writes the label map; returns its SHA-256."""
    files.write_text(work.label_map, to_text(annotations.load(work).labels))
    return files.file_sha256(work.label_map)


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    return [work.label_map]


def to_text(labels: list[str]) -> str:
    """Returns the label map in protocol buffer text format. The first label has id 1, because 0 is the background."""
    items = (f"item {{\n  id: {index}\n  name: {quote(label)}\n}}\n" for index, label in enumerate(labels, start=1))
    return "".join(items)


def quote(text: str) -> str:
    """Returns a string literal of the text format.

    The text is encoded as UTF-8. All bytes but those of printable ASCII are escaped.
    """
    plain = {byte: chr(byte) for byte in range(0x20, 0x7F)} | {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n"}
    return '"' + "".join(plain.get(byte, f"\\{byte:03o}") for byte in text.encode()) + '"'
