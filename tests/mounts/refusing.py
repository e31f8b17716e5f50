"""A filesystem over a folder that refuses operations as bucket mounts do.

`python -m tests.mounts.refusing ROOT MOUNT WHAT` mounts it. WHAT is any number of these words: rename, append,
random-write, overwrite, chmod, fsync, close (the first close of each file fails) and close-of-report (every close of
report.html fails).
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, NoReturn

import mfusepy as fuse


class Refusing(fuse.Operations):
    """Passes all operations through to the folder, except those in `refused`."""

    use_ns = True  # times are nanoseconds

    def __init__(self, root: str, refused: set[str]) -> None:
        self.root = root
        self.refused = refused
        self.closed: set[str] = set()

    def at(self, path: str) -> str:
        """Returns the path below the folder."""
        return self.root + path

    def refuse(self, what: str, number: int = errno.EPERM) -> None:
        """Raises FuseOSError if the operation is refused."""
        if what in self.refused:
            self.fail(number)

    @staticmethod
    def fail(number: int) -> NoReturn:
        """Raises the error that the caller of the operation gets."""
        raise fuse.FuseOSError(number)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        try:
            status = os.lstat(self.at(path))
        except OSError as error:
            self.fail(error.errno or errno.EIO)
        found = {name: getattr(status, name) for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size")}
        return found | {name: getattr(status, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self.at(path))]

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self.at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self.at(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self.at(path))
        return 0

    def rename(self, old: str, new: str) -> int:
        self.refuse("rename", errno.ENOSYS)
        os.rename(self.at(old), self.at(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self.refuse("chmod")
        os.chmod(self.at(path), mode)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self.refuse("chmod")
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_APPEND:
            self.refuse("append")
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.refuse("overwrite")
        return os.open(self.at(path), flags & ~os.O_APPEND)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self.refuse("overwrite")
        os.truncate(self.at(path), length)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if offset != os.fstat(fh).st_size:
            self.refuse("random-write", errno.EINVAL)
        return os.pwrite(fh, data, offset)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self.refuse("fsync", errno.ENOSYS)
        return 0

    def flush(self, path: str, fh: int) -> int:
        if path.endswith("/report.html"):
            self.refuse("close-of-report", errno.EIO)
        if path not in self.closed:
            self.closed.add(path)
            self.refuse("close", errno.EIO)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0


if __name__ == "__main__":
    fuse.FUSE(Refusing(sys.argv[1], set(sys.argv[3:])), sys.argv[2], foreground=True, nothreads=True)
