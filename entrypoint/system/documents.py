"""JSON documents that one step writes and others read: frozen dataclasses, checked when they are read.

A field whose key in JSON is no Python name, such as `AP@0.5`, carries pydantic's alias:
`ap50: Annotated[float | None, Field(alias="AP@0.5")]`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from entrypoint.system import bucket, files, foreign
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

T = TypeVar("T")

MEND = "it is damaged, or another program wrote it; remove it, and make it again"


def read(kind: type[T], place: Place) -> T:
    """Reads a document from a file.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: the file is damaged, or is not a document of this kind.
    """
    return parse(kind, bucket.read(place), place)


def parse(kind: type[T], content: bytes, place: Place) -> T:
    """Returns the document in the content of a file.

    Raises:
        UserError: the content is damaged, or is not a document of this kind; the message names the place.
    """
    try:
        with foreign.parsing(str(place), MEND):
            # Python's reader accepts the lone surrogates of file names that are not UTF-8; pydantic's does not.
            values = json.loads(content)
        document: T = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        words = f"{where}: {first['msg']}" if where else first["msg"]
    else:
        return document
    raise UserError(f"{place} cannot be read ({words}): {MEND}")


def write(path: Path, document: Any, *, is_large: bool = False) -> None:
    """Writes a document to a local file, whole or not at all; a large one on one line, which takes less time."""
    write_plain = files.write_large_json if is_large else files.write_json
    write_plain(path, to_plain(document))


def to_plain(document: Any) -> Any:
    """Returns a document as the dictionaries, lists and values that its JSON has."""
    return TypeAdapter(type(document)).dump_python(document, by_alias=True)
