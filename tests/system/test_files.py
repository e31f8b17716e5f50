"""JSON in pieces: the bytes are those of the whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from entrypoint.system import files


@dataclasses.dataclass
class Pair:
    """An object with fields in another order than that of their names."""

    second: Any
    first: Any


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        None,
        "text",
        {"b": [1, 2.5, {"d": None, "c": [True]}], "a": {"y": {"z": "é"}, "x": ()}},
        [Pair([Pair(1, "2")], {"k": Pair(3, 4)}), Path("a/b")],
        Pair({"b": [], "a": {}}, {1: "number as a key", 2: []}),
        {"nested": [[[1], [2]], {"deep": {"deeper": [Pair(5, 6)]}}]},
        (1, (2, (3,))),
    ],
)
def test_document_in_pieces_is_the_document(document: Any, tmp_path: Path) -> None:
    whole = files.encoder().encode(document)
    assert "".join(files.pieces(document)) == whole
    files.write_large_json(tmp_path / "document.json", document)
    assert (tmp_path / "document.json").read_text() == f"{whole}\n"
