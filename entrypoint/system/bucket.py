"""Folders and buckets, the places of photos and results. fsspec reads and writes a bucket without a mount."""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from upath import UPath

from entrypoint.system import logs

logger = logging.getLogger("job")

# A folder or a file, local or in a bucket. The UPath of an address has pathlib's methods, and is used through them.
Place = Path
# IBM's Cloud Object Storage has the API of S3, at its own endpoint.
PROTOCOLS = {"s3": "s3", "cos": "s3", "gs": "gs"}
ATTEMPTS = 6
# No retry mends these errors: no space, no quota, no permission, a read-only or missing place, a name or a size that
# cannot be.
FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
FINAL |= {errno.EFBIG, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
# More than any document or photo has that fits into memory beside a model.
MOST_BYTES = 2 << 30

MEND = (
    "give the job the bucket's credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3:// and cos://, "
    "or GOOGLE_APPLICATION_CREDENTIALS for gs://"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing."""

    size: int  # bytes
    version: str  # changes whenever the content changes


def parse(text: str | Path) -> Place:
    """Returns the place of a path or an address; raises ValueError for an unknown scheme or a missing bucket name."""
    scheme, separator, rest = str(text).partition("://")
    if not separator:
        return Path(text).absolute()
    if scheme not in PROTOCOLS:
        raise ValueError(f"neither a folder nor one of {', '.join(f'{each}://' for each in PROTOCOLS)}")
    if not urlsplit(str(text)).netloc:
        raise ValueError("the address does not contain the name of a bucket")
    # The content of a bucket can change while a job runs, so listings are not cached.
    return cast(Place, UPath(f"{PROTOCOLS[scheme]}://{rest.rstrip('/')}", use_listings_cache=False))


def is_remote(place: Place) -> bool:
    """Returns whether the place is the address of a bucket."""
    return not isinstance(place, Path)


@contextmanager
def named_errors(place: Place) -> Iterator[None]:
    """Turns the errors of a bucket's client, which differ from client to client, into OSErrors that name the place."""
    try:
        yield
    except Exception as error:
        if not is_remote(place):
            raise
        number = getattr(error, "errno", None) or number_of(error)
        # Python chooses the subclass of OSError by the number.
        raise OSError(number, str(error) or type(error).__name__, str(place)) from error


def number_of(error: Exception) -> int:
    """Returns the errno nearest to a client's error: s3fs has Python's classes, gcsfs has HTTP's codes and texts."""
    is_refused = str(getattr(error, "code", "")) in ("401", "403") or str(error).startswith("Forbidden")
    if is_refused or isinstance(error, PermissionError) or re.search("Credentials|RefreshError", type(error).__name__):
        return errno.EACCES
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    if isinstance(error, FileExistsError):
        return errno.EEXIST
    return errno.EIO


def retrying() -> Retrying:
    """Returns a retry policy for errors that can pass: ATTEMPTS attempts over half a minute."""
    return Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_exponential_jitter(initial=1, max=15),
        stop=stop_after_attempt(ATTEMPTS),
        before_sleep=logs.log_retry,
        reraise=True,
    )


def is_transient(error: BaseException) -> bool:
    """Returns whether an error can pass, so that a retry makes sense."""
    return isinstance(error, OSError) and error.errno not in FINAL


def read(place: Place, root: Place | None = None, limit: int = MOST_BYTES) -> bytes:
    """Returns the content of a file. Errors that can pass are retried.

    Raises:
        OSError: the file cannot be read, is not a regular file, has more than `limit` bytes, or, through links, lies
            outside of the folder `root`. The error names the place.
    """
    if not is_remote(place):
        try:
            return read_regular(place, root, limit)
        except OSError as error:
            if not is_transient(error):
                raise
        # tenacity takes as long as the reading of a small file.
        return retrying()(read_regular, place, root, limit)
    # S3's client would ask for the size first, to fetch a large file in parts; many files are in flight here anyway.
    options = {"max_concurrency": 1} if scheme_of(place) == "s3" else {}
    return bytes(asked(place, "cat_file", **options))


def read_regular(path: Path, root: Path | None, limit: int) -> bytes:
    """Returns the content of a local file, as `read` does, without retries."""
    with open_regular(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, and {limit:,} are the most that is read", str(path))
        # Python reserves memory for as many bytes as are asked for, which takes longer than to read a photo.
        content = file.read(min(size + 1, limit))
        if len(content) > size:
            # The file has grown, or its filesystem does not know the size.
            content += file.read(limit - len(content))
        return content


def read_head(place: Place, size: int, root: Place | None = None) -> bytes:
    """Returns the first `size` bytes of a file. Errors that can pass are retried; an OSError names the place."""
    if is_remote(place):
        return bytes(asked(place, "cat_file", start=0, end=size))

    def head() -> bytes:
        with open_regular(place, root) as file:
            return file.read(size)

    return retrying()(head)


def open_regular(path: Path, root: Path | None = None) -> BinaryIO:
    """Opens a local file for reading, if it is a regular file and lies below the folder `root`, links followed.

    The file that was opened is checked, not its name: the name can become a link between a check and the opening. A
    FIFO does not block.

    Raises:
        PermissionError: it is not a regular file, or lies outside.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        refuse_unfit(descriptor, path, root)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_unfit(descriptor: int, path: Path, root: Path | None) -> None:
    """Raises OSError if an open file is not a regular one, or lies outside of the folder `root`."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise PermissionError(errno.EPERM, "is not a regular file", str(path))
    if root is not None and not os.readlink(f"/proc/self/fd/{descriptor}").startswith(inside(root)):
        raise PermissionError(errno.EPERM, "is a link out of the bucket", str(path))


@functools.lru_cache(maxsize=16)
def inside(root: Path) -> str:
    """Returns how the paths of all files in a folder begin, links followed."""
    return str(root.resolve()).rstrip("/") + "/"


def asked(place: Place, method: str, **options: Any) -> Any:
    """Calls fsspec's method of that name for an address. Retries errors that can pass; an OSError names the place."""

    def ask() -> Any:
        with named_errors(place):
            return getattr(filesystem(place), method)(path_in(place), **options)

    return retrying()(ask)


def fetch(place: Place, target: Path) -> None:
    """Copies a file to local disk, completely or not at all."""
    part = target.with_name(f"{target.name}.part")
    for attempt in retrying():
        with attempt, part.open("wb") as file:
            for block in blocks(place):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    part.replace(target)


def blocks(place: Place) -> Iterator[bytes]:
    """Yields the content of a file, a megabyte at a time; an OSError names the place."""
    with named_errors(place), place.open("rb") if is_remote(place) else open_regular(place) as source:
        while block := source.read(1 << 20):
            yield block


def is_folder(place: Place) -> bool:
    """Returns whether the folder exists, or, for an address, whether the bucket has anything below it."""
    return bool(names_below(place)) if is_remote(place) else place.is_dir()


def names_below(place: Place) -> list[str]:
    """Returns the names directly below an address, or an empty list if nothing is there.

    An outage raises OSError. fsspec's `isdir` would return False.
    """
    try:
        return [str(name).rpartition("/")[2] for name in asked(place, "ls", detail=False)]
    except FileNotFoundError:
        return []


def matching(folder: Place, pattern: str) -> list[Place]:
    """Returns the files of a folder whose names match a pattern, or an empty list if the folder is missing.

    Characters such as `*` have no meaning in the name of the folder itself.
    """
    names = names_below(folder) if is_remote(folder) else [path.name for path in folder.glob("*")]
    return [folder / name for name in names if fnmatch(name, pattern)]


def remove(place: Place) -> None:
    """Deletes a file, which may be gone already."""
    with named_errors(place), suppress(FileNotFoundError):
        if is_remote(place):
            # UPath's `unlink` would treat the key as a pattern.
            filesystem(place).rm_file(path_in(place))
        else:
            place.unlink()


def listing(root: Place, exclude: Sequence[Place] = (), links: list[str] | None = None) -> dict[str, Entry]:
    """Returns every file below the root by its key, without hidden folders and the files that macOS adds.

    The folders of `exclude` are left out. Folders that are links are not followed, since they can lead anywhere; their
    keys are added to `links`.
    """
    passed: list[str] = [] if links is None else links
    found = list_remote(root, exclude) if is_remote(root) else retrying()(list_folder, root, exclude, passed)
    return {key: entry for key, entry in found.items() if not is_hidden(key)}


def is_hidden(key: str) -> bool:
    """Returns whether a program made the file for itself: it lies in a hidden folder, or macOS added it."""
    *folders, name = key.split("/")
    return name.startswith("._") or any(folder.startswith(".") or folder == "__MACOSX" for folder in folders)


def list_folder(root: Path, exclude: Sequence[Place], links: list[str]) -> dict[str, Entry]:
    """Returns the files below a folder. Raises OSError if a folder cannot be listed, unless permission is denied."""
    found = {}
    links.clear()
    left_out = {place.resolve() for place in exclude if not is_remote(place)}
    for folder, folders, files in os.walk(root, onerror=pass_over):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(folder, name) not in left_out]
        links += [os.path.relpath(path, root) for name in folders if os.path.islink(path := os.path.join(folder, name))]
        for name in files:
            path = os.path.join(folder, name)
            if status := status_of(path):
                found[os.path.relpath(path, root)] = Entry(status.st_size, str(status.st_mtime_ns))
    return found


def status_of(path: str) -> os.stat_result | None:
    """Returns size and times of a regular file, or None for anything else, such as a link that leads nowhere."""
    try:
        status = os.stat(path)
        return status if stat.S_ISREG(status.st_mode) else None
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def pass_over(error: OSError) -> None:
    """Logs a folder that may not be read, such as `lost+found`; raises other errors, such as that of a broken mount."""
    if not isinstance(error, PermissionError):
        raise error
    logger.warning("%s may not be read (%s) and is left out", error.filename, error.strerror)


def list_remote(root: Place, exclude: Sequence[Place]) -> dict[str, Entry]:
    """Returns the files below an address from the bucket's own listing, a thousand keys per request."""
    prefix = folder_of(root)
    # Results that lie below the photos are left out. If the photos lie below the results, all of them are read.
    below = (folder_of(place) for place in exclude if is_remote(place))
    left_out = tuple(folder for folder in below if folder.startswith(prefix) and folder != prefix)
    found = {}
    for name, facts in asked(root, "find", detail=True).items():
        if not name.startswith(left_out):
            version = facts.get("ETag") or facts.get("etag") or facts.get("LastModified") or facts.get("updated")
            found[name.removeprefix(prefix)] = Entry(int(facts["size"]), str(version))
    return found


def folder_of(place: Place) -> str:
    """Returns the prefix that the names of all files below an address have."""
    return f"{path_in(place).rstrip('/')}/"


def filesystem(place: Any) -> Any:
    """Returns fsspec's filesystem of an address."""
    return place.fs


def scheme_of(place: Any) -> str:
    """Returns the scheme of an address, one of the values of PROTOCOLS."""
    return str(place.protocol)


def path_in(place: Any) -> str:
    """Returns an address in the form that its filesystem expects: `bucket/key`."""
    return str(place.path)
