"""Local files: JSON in one canonical form, writes that leave either the old file or the new one, and digests."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from entrypoint.system import bucket
from entrypoint.system.bucket import Place


def write_json(path: Path, document: Any) -> None:
    """Writes a document as JSON with sorted keys, so that equal documents are equal bytes.

    Dataclasses are written as objects with their fields. The text is written piece by piece, so that a large document
    is never in memory as text.
    """
    write_chunks(path, itertools.chain(encoder(indent=1).iterencode(document), "\n"))


def write_large_json(path: Path, document: Any) -> None:
    """Writes a document as `write_json` does, on one line, which takes a fraction of the time."""
    write_chunks(path, itertools.chain(pieces(document), "\n"))


def to_large_json(document: Any) -> str:
    """Returns a document as the text that `write_large_json` writes."""
    return "".join(itertools.chain(pieces(document), "\n"))


def pieces(document: Any, depth: int = 2) -> Iterator[str]:
    """Yields the JSON of a document in pieces: the entries of its lists and objects, down to some depth.

    Python's encoder in C encodes whole objects only, and is several times as fast as the one that encodes step by step.
    """
    if dataclasses.is_dataclass(document):
        document = fields_of(document)
    encode = encoder().encode
    if depth and isinstance(document, dict) and all(isinstance(key, str) for key in document):
        yield "{"
        for index, key in enumerate(sorted(document)):
            yield f"{', ' if index else ''}{encode(key)}: "
            yield from pieces(document[key], depth - 1)
        yield "}"
    elif depth and isinstance(document, (list, tuple)):
        yield "["
        for index, entry in enumerate(document):
            yield f"{', ' if index else ''}{encode(entry)}"
        yield "]"
    else:
        yield encode(document)


def to_json(document: Any) -> str:
    """Returns a document as the text that `write_json` writes."""
    return encoder(indent=1).encode(document) + "\n"


def encoder(indent: int | None = None) -> json.JSONEncoder:
    """Returns the encoder of all of the job's documents: sorted keys, no NaN, dataclasses by their fields."""
    return json.JSONEncoder(indent=indent, sort_keys=True, allow_nan=False, default=fields_of)


def fields_of(item: Any) -> Any:
    """Returns the fields of a dataclass by their names, and the text of any other object."""
    if dataclasses.is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return str(item)


def write_text(path: Path, text: str) -> None:
    """Writes a text file. If the job is killed meanwhile, either the old file or the new one is there."""
    write_chunks(path, (text,))


def write_chunks(path: Path, chunks: Iterable[str]) -> None:
    """Writes a text file out of pieces, as `write_text` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    # Python represents file names that are not UTF-8 with lone surrogates, which UTF-8 cannot encode.
    with temporary.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(chunks)
        flush(file)
    temporary.replace(path)


def flush(file: IO[Any]) -> None:
    """Waits until a file is on the disk: after a loss of power, a renamed file could be empty."""
    file.flush()
    os.fsync(file.fileno())


def flush_all(paths: Iterable[Path]) -> None:
    """Waits until files that others wrote are on the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a scratch folder that replaces `path` if the block succeeds, and that is deleted if the block fails."""
    scratch = path.with_name(f".{path.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    scratch.replace(path)


def digest(document: Any) -> str:
    """Returns the SHA-256 of a JSON document as hexadecimal digits. The order of its keys does not matter."""
    sha256 = hashlib.sha256()
    for piece in pieces(document):
        sha256.update(piece.encode())
    return sha256.hexdigest()


def file_sha256(place: Place) -> str:
    """Returns the SHA-256 of a file's bytes as hexadecimal digits; an OSError names the place."""
    sha256 = hashlib.sha256()
    for block in bucket.blocks(place):
        sha256.update(block)
    return sha256.hexdigest()
