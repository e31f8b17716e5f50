"""The JSON documents of a bucket, for the formats that are known by what is in them."""

from __future__ import annotations

import json
from typing import Any

from entrypoint.formats.source import Files

# Tools that write a JSON file per photo write another format, and reading them all would be for nothing.
MOST = 50


def all_in(files: Files) -> dict[str, Any]:
    """The first MOST JSON files from the root down that can be read, by their keys."""
    keys = files.with_suffix(".json")[:MOST]
    if files.documents is None:
        found = {key: parse(content) for key, content in files.read_all(keys)}
        files.documents = {key: document for key, document in found.items() if document is not None}
    return files.documents


def parse(content: bytes) -> Any:
    """The document; None where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
