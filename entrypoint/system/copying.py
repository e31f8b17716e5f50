"""Files are copied to buckets with operations that every bucket mount supports: whole files, written once, in order.

Bucket mounts have no atomic rename, no append and no random writes. Some refuse to overwrite a file, chmod or fsync.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.system.errors import JobError, UserError

# A FIFO does not block: it is replaced.
WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Lost:
    """Names the job that has taken over RESULT_DIR from this one, for example while this machine was suspended."""

    to = ""


class _Places:
    """The places that the job writes to."""

    roots: tuple[Path, ...] = ()


def write_below(places: Iterable[Place]) -> None:
    """Names the places that the job writes to. Below them it writes through no link."""
    _Places.roots = tuple(place for place in places if not bucket.is_remote(place))


def stop_writing(owner: str) -> None:
    """Makes every later write raise JobError, because `owner` has taken over the results."""
    _Lost.to = owner


def copy_tree(source: Path, target: Place) -> list[Place]:
    """Copies every file of a folder and returns the files that it wrote.

    The files of inner folders come first. A server that waits for saved_model.pb finds the variables beside it then.
    """
    found = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: (-len(path.parts), path))
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
        UserError: a folder on the way, or the file itself, is a link.
        JobError: another job has taken over the results.
    """
    if _Lost.to:
        raise JobError(f"RESULT_DIR was taken over by {_Lost.to}: nothing more is written into it")
    try:
        with bucket.named_errors(target):
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
    if bucket.is_remote(target):
        return target.open("wb")
    folder = open_folder(target)
    try:
        try:
            return os.fdopen(os.open(target.name, WRITE, 0o666, dir_fd=folder), "wb")
        except OSError as error:
            if target.is_symlink():
                raise refused_link(target) from None
            if not target.exists() and error.errno != errno.ENXIO:
                raise
        os.unlink(target.name, dir_fd=folder)
        return os.fdopen(os.open(target.name, WRITE, 0o666, dir_fd=folder), "wb")
    finally:
        os.close(folder)


def open_folder(target: Path) -> int:
    """Returns a descriptor of the folder of a file, which it makes; no folder below a place of the job's is a link.

    Above these places, links are the user's own way to name them.
    """
    root = next((place for place in _Places.roots if target.is_relative_to(place)), target.parent)
    root.mkdir(parents=True, exist_ok=True)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in target.relative_to(root).parts[:-1]:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            raise (refused_link(target) if is_link else error) from None
        finally:
            os.close(folder)
        folder = inner
    return folder


def refused_link(target: Path) -> UserError:
    """Returns the error for a link in the way of a file that is written."""
    return UserError(f"{target} is a link, or lies behind one, and the job writes through no link: remove the link")


def refuse_links(paths: Iterable[Path]) -> None:
    """Raises UserError if one of the paths is a link, before there is anything to write."""
    for path in paths:
        if path.is_symlink():
            raise refused_link(path)
