from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.system.archive import MOST_AT_ONCE, open_tar
from tests.tar import pack

NAME, EXTENSION = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE


PLAIN = pack({"a": b"1" * 5000, "b": b"2"}, mode="w")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_every_compression_is_read(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(compress(PLAIN))
    with open_tar(tmp_path / "a.tar", 1 << 20) as tar:
        contents = {member.name: file.read() for member in tar if (file := tar.extractfile(member))}
    assert contents == {"a": b"1" * 5000, "b": b"2"}


@pytest.mark.parametrize("kind", [NAME, EXTENSION])
def test_header_that_says_it_is_long_is_not_read(kind: bytes, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, MOST_AT_ONCE + 1
    evil = header.tobuf(tarfile.GNU_FORMAT) + b"A" * 512 * 20
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(evil))
    with pytest.raises(tarfile.ReadError, match="a header of"), open_tar(tmp_path / "a.tar.gz", 1 << 40) as tar:
        tar.getmembers()


def test_data_after_the_end_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(PLAIN + b"\0" * (40 << 20)))
    with pytest.raises(tarfile.ReadError, match="more than"), open_tar(tmp_path / "a.tar.gz", 1 << 20) as tar:
        tar.getmembers()


def test_checksum_at_the_end_is_verified(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(PLAIN))
    content[-6] ^= 1
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(OSError, match="CRC check failed"), open_tar(tmp_path / "a.tar.gz", 1 << 20) as tar:
        tar.getmembers()
