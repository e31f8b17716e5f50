"""Files are copied to buckets with operations that every bucket mount supports: whole files, written once, in order.

Bucket mounts have no atomic rename, no append and no random writes. Some refuse to overwrite a file, chmod or fsync.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.system.errors import JobError


class _Lost:
    """Names the job that has taken over RESULT_DIR from this one, for example while this machine was suspended."""

    to = ""


def stop_writing(owner: str) -> None:
    """Makes every later write raise JobError, because `owner` has taken over the results."""
    _Lost.to = owner


def copy_tree(source: Path, target: Place) -> list[Place]:
    """Copies every file of a folder and returns the files that it wrote."""
    found = sorted(path for path in source.rglob("*") if path.is_file())
    return [copy_file(file, target / file.relative_to(source)) for file in found]


def copy_file(source: Path, target: Place) -> Place:
    """Copies a file, with retries, and returns the target. The copy is complete when this returns."""
    if not bucket.is_remote(target) and target.exists() and target.samefile(source):
        raise JobError(f"{target} would be copied onto itself")
    for attempt in bucket.retrying():
        with attempt, source.open("rb") as reader:
            write_once(reader, target, source.stat().st_size)
    return target


def write_file(target: Place, content: bytes) -> None:
    """Writes a file as `copy_file` does."""
    for attempt in bucket.retrying():
        with attempt:
            write_once(io.BytesIO(content), target, len(content))


def write_once(reader: Any, target: Place, size: int) -> None:
    """Writes a whole file sequentially.

    Raises:
        OSError: not all of the file arrived; the message has the path and the size.
        JobError: another job has taken over the results.
    """
    if _Lost.to:
        raise JobError(f"RESULT_DIR was taken over by {_Lost.to}: nothing more is written into it")
    try:
        with bucket.named_errors(target):
            if not bucket.is_remote(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            with open_for_writing(target) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                # Some mounts refuse fsync. The mounts that need it report their errors when the file is closed.
                with contextlib.suppress(OSError):
                    os.fsync(writer.fileno())
            written = target.stat().st_size
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, writing {size:,} bytes", str(target)) from error
    if written != size:
        raise OSError(errno.EIO, f"{written:,} of {size:,} bytes arrived", str(target))


def open_for_writing(target: Place) -> Any:
    """Opens a new file. If an old one cannot be overwritten, it is deleted first."""
    try:
        return target.open("wb")
    except OSError:
        if not target.exists():
            raise
        target.unlink()
        return target.open("wb")
