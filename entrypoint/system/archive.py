"""Archives from outside are read within limits: of bytes after decompression, and of bytes at once.

Python's tarfile reads the headers of long names and of extensions (pax) whole, however long they say they are. A few
kilobytes of compressed zeros stand for gigabytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

# No name and no header of a real archive is longer. Contents are copied in smaller pieces.
MOST_AT_ONCE = 1 << 22
# How compressed files begin, and what opens them.
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


class Capped:
    """A file that ends with an error at a number of bytes, and refuses to read many bytes at once."""

    def __init__(self, file: Any, most_bytes: int) -> None:
        self.file = file
        self.most_bytes = most_bytes

    def read(self, size: int = -1) -> bytes:
        """Reads so many bytes.

        Raises:
            tarfile.ReadError: that is too many, or the file is too long.
        """
        if not 0 <= size <= MOST_AT_ONCE:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.refuse_beyond(self.file.tell() + size)
        content: bytes = self.file.read(size)
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a place in the file; raises tarfile.ReadError beyond the limit."""
        if whence == 0:
            self.refuse_beyond(offset)
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        """Returns the place in the file."""
        return int(self.file.tell())

    def read_to_end(self) -> None:
        """Reads what is left: a checksum at the end is verified only then."""
        while self.read(1 << 20):
            pass

    def refuse_beyond(self, offset: int) -> None:
        """Raises tarfile.ReadError for a place beyond the limit."""
        if offset > self.most_bytes + MOST_AT_ONCE:
            raise tarfile.ReadError(f"more than {self.most_bytes:,} bytes")


@contextmanager
def open_tar(path: Path, most_bytes: int) -> Iterator[tarfile.TarFile]:
    """Opens a tar archive, compressed or not; at the end of the block it is read to its end.

    Raises:
        tarfile.TarError: it is not an archive, or exceeds the limits; decompressors raise errors of their own.
    """
    with path.open("rb") as file:
        magic = file.read(8)
    opener = next((found for start, found in OPENERS.items() if magic.startswith(start)), open)
    with opener(path, "rb") as content:
        capped = Capped(content, most_bytes)
        with tarfile.open(fileobj=cast(Any, capped), mode="r:") as tar:
            yield tar
            capped.read_to_end()
