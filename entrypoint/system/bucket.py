"""Where photos come from and results go: a folder, or the address of a bucket, which fsspec reads without a mount."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter
from upath import UPath

from entrypoint.system import logs

logger = logging.getLogger("job")

# A folder or a file, here or in a bucket: what upath makes of an address has pathlib's methods, and is used by them.
Place = Path
# IBM's Cloud Object Storage speaks S3, at an endpoint of its own.
PROTOCOLS = {"s3": "s3", "cos": "s3", "gs": "gs"}
ATTEMPTS = 6
# No other attempt mends these: no space, no quota, no permission, a read-only or missing place.
FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR}

MEND = (
    "give the job the bucket's credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3:// and cos://, "
    "or GOOGLE_APPLICATION_CREDENTIALS for gs://"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing tells of it."""

    size: int  # bytes
    version: str  # another one whenever the content is another


def parse(text: str | Path) -> Place:
    """The place that a path or an address names; ValueError for an address of another kind."""
    scheme, separator, rest = str(text).partition("://")
    if not separator:
        return Path(text).absolute()
    if scheme not in PROTOCOLS:
        raise ValueError(f"neither a folder nor one of {', '.join(f'{each}://' for each in PROTOCOLS)}")
    if not urlsplit(str(text)).netloc:
        raise ValueError("an address without the name of a bucket")
    # What lies in a bucket changes while a job runs.
    return cast(Place, UPath(f"{PROTOCOLS[scheme]}://{rest.rstrip('/')}", use_listings_cache=False))


def is_remote(place: Place) -> bool:
    """Whether the place is the address of a bucket."""
    return not isinstance(place, Path)


@contextmanager
def named_errors(place: Place) -> Iterator[None]:
    """Raises OSError with the place in it for all that a bucket's client raises; each client has errors of its own."""
    try:
        yield
    except Exception as error:
        if not is_remote(place):
            raise
        number = getattr(error, "errno", None) or number_of(error)
        # Python makes the subclass of the number.
        raise OSError(number, str(error) or type(error).__name__, str(place)) from error


def number_of(error: Exception) -> int:
    """The errno that comes nearest to a client's error: s3fs has Python's classes, gcsfs HTTP's codes and words."""
    is_refused = str(getattr(error, "code", "")) in ("401", "403") or str(error).startswith("Forbidden")
    if is_refused or isinstance(error, PermissionError) or re.search("Credentials|RefreshError", type(error).__name__):
        return errno.EACCES
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    if isinstance(error, FileExistsError):
        return errno.EEXIST
    return errno.EIO


def retrying() -> Retrying:
    """ATTEMPTS over half a minute, for errors that pass."""
    return Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_exponential_jitter(initial=1, max=15),
        stop=stop_after_attempt(ATTEMPTS),
        before_sleep=logs.log_retry,
        reraise=True,
    )


def is_transient(error: BaseException) -> bool:
    """Whether an error can pass."""
    return isinstance(error, OSError) and error.errno not in FINAL


def read(place: Place) -> bytes:
    """The content of a file, tried again where that can help; OSError names the place."""
    if not is_remote(place):
        return retrying()(place.read_bytes)
    # S3's client would ask for the size first, to fetch a large file in parts; many files are in flight here anyway.
    options = {"max_concurrency": 1} if scheme_of(place) == "s3" else {}
    return bytes(asked(place, "cat_file", **options))


def read_head(place: Place, size: int) -> bytes:
    """The first bytes of a file, tried again where that can help; OSError names the place."""
    if is_remote(place):
        return bytes(asked(place, "cat_file", start=0, end=size))

    def head() -> bytes:
        with place.open("rb") as file:
            return file.read(size)

    return retrying()(head)


def asked(place: Place, method: str, **options: Any) -> Any:
    """What fsspec's method of that name says of an address, tried again where that helps; OSError names the place."""

    def ask() -> Any:
        with named_errors(place):
            return getattr(filesystem(place), method)(path_in(place), **options)

    return retrying()(ask)


def fetch(place: Place, target: Path) -> None:
    """Copies a file to local disk, whole or not at all."""
    part = target.with_name(f"{target.name}.part")
    for attempt in retrying():
        with attempt, part.open("wb") as file:
            for block in blocks(place):
                file.write(block)
    part.replace(target)


def blocks(place: Place) -> Iterator[bytes]:
    """The content of a file, a megabyte at a time; OSError names the place."""
    with named_errors(place), place.open("rb") as source:
        while block := source.read(1 << 20):
            yield block


def is_folder(place: Place) -> bool:
    """Whether the folder exists, or the bucket has anything below the address."""
    return bool(names_below(place)) if is_remote(place) else place.is_dir()


def names_below(place: Place) -> list[str]:
    """The names right below an address, none where nothing is there; unlike fsspec's own answers, an outage is none."""
    try:
        return [str(name).rpartition("/")[2] for name in asked(place, "ls", detail=False)]
    except FileNotFoundError:
        return []


def matching(folder: Place, pattern: str) -> list[Place]:
    """The files of a folder, which need not be there, that fit a pattern of names; the folder's name is none itself."""
    names = names_below(folder) if is_remote(folder) else [path.name for path in folder.glob("*")]
    return [folder / name for name in names if fnmatch(name, pattern)]


def remove(place: Place) -> None:
    """Deletes a file that may be gone already."""
    with named_errors(place), suppress(FileNotFoundError):
        if is_remote(place):
            # Deleting by pathlib's word would take the key for a pattern.
            filesystem(place).rm_file(path_in(place))
        else:
            place.unlink()


def listing(root: Place, exclude: Place | None = None, links: list[str] | None = None) -> dict[str, Entry]:
    """Returns every file below the root by its key, without hidden folders and the files that macOS adds.

    `exclude` is a folder that is left out. Folders that are links are not followed, since they can lead anywhere; their
    keys are added to `links`.
    """
    passed: list[str] = [] if links is None else links
    found = list_remote(root, exclude) if is_remote(root) else retrying()(list_folder, root, exclude, passed)
    return {key: entry for key, entry in found.items() if not is_hidden(key)}


def is_hidden(key: str) -> bool:
    """Whether a file is a program's own: in a hidden folder, or macOS's second half of a file."""
    *folders, name = key.split("/")
    return name.startswith("._") or any(folder.startswith(".") or folder == "__MACOSX" for folder in folders)


def list_folder(root: Path, exclude: Path | None, links: list[str]) -> dict[str, Entry]:
    """Returns the files below a folder; raises OSError if a folder cannot be listed, except for folders of others."""
    found = {}
    links.clear()
    for folder, folders, files in os.walk(root, onerror=pass_over):
        folders[:] = [name for name in folders if not name.startswith(".") and Path(folder, name) != exclude]
        links += [os.path.relpath(path, root) for name in folders if os.path.islink(path := os.path.join(folder, name))]
        for name in files:
            path = os.path.join(folder, name)
            if status := status_of(path):
                found[os.path.relpath(path, root)] = Entry(status.st_size, str(status.st_mtime_ns))
    return found


def status_of(path: str) -> os.stat_result | None:
    """Size and times of a file; None for a link that leads nowhere, or in a circle."""
    try:
        return os.stat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def pass_over(error: OSError) -> None:
    """Logs that a folder may not be read, as `lost+found` of a volume; raises where it cannot, as on a broken mount."""
    if not isinstance(error, PermissionError):
        raise error
    logger.warning("%s may not be read (%s) and is left out", error.filename, error.strerror)


def list_remote(root: Place, exclude: Place | None) -> dict[str, Entry]:
    """The files below an address, by the bucket's own listing, a thousand keys a request."""
    prefix = folder_of(root)
    left_out = folder_of(exclude) if exclude is not None and is_remote(exclude) else prefix
    # Results beside the photos are a folder of many; photos below the results are photos.
    is_below = left_out.startswith(prefix) and left_out != prefix
    found = {}
    for name, facts in asked(root, "find", detail=True).items():
        if not (is_below and name.startswith(left_out)):
            version = facts.get("ETag") or facts.get("etag") or facts.get("LastModified") or facts.get("updated")
            found[name.removeprefix(prefix)] = Entry(int(facts["size"]), str(version))
    return found


def folder_of(place: Place) -> str:
    """An address as the beginning of the names of what lies below it."""
    return f"{path_in(place).rstrip('/')}/"


def filesystem(place: Any) -> Any:
    """Fsspec's filesystem of an address."""
    return place.fs


def scheme_of(place: Any) -> str:
    """The kind of an address, one of PROTOCOLS's values."""
    return str(place.protocol)


def path_in(place: Any) -> str:
    """An address as its filesystem wants it: `bucket/key`."""
    return str(place.path)
