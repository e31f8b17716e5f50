"""Writes the index of a checkpoint with any content, as only a program that means harm would.

The index is a sorted table of LevelDB (its doc/table_format.md), with TensorFlow's tensor_bundle.proto in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tensorflow.core.protobuf import tensor_bundle_pb2

MAGIC = 0xDB4775248B80FB57
CASTAGNOLI = 0x82F63B78


def index_of(entries: Mapping[str, tensor_bundle_pb2.BundleEntryProto]) -> bytes:
    """Returns the index of a checkpoint with one data file."""
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=1)
    header.version.producer = 1
    rows = {b"": header.SerializeToString()}
    rows |= {name.encode(): entry.SerializeToString() for name, entry in sorted(entries.items())}
    data = block(rows)
    meta = block({})
    handles = [(0, len(data) - 5), (len(data), len(meta) - 5)]
    index = block({b"\xff": varints(*handles[0])})
    footer = varints(*handles[1]) + varints(len(data) + len(meta), len(index) - 5)
    return data + meta + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def block(rows: Mapping[bytes, bytes]) -> bytes:
    """Returns a block of a table: its rows, one restart, no compression, and the checksum."""
    content = b"".join(varints(0, len(key), len(value)) + key + value for key, value in rows.items())
    content += struct.pack("<II", 0, 1) + b"\0"
    checksum = crc32c(content)
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return content + struct.pack("<I", masked)


def varints(*numbers: int) -> bytes:
    """Returns numbers in groups of seven bits, the lowest first."""
    found = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            found.append(rest & 0x7F | 0x80)
            rest >>= 7
        found.append(rest)
    return bytes(found)


def crc32c(content: bytes) -> int:
    """Returns the CRC-32C (RFC 3720, appendix B.4) of a content, bit by bit."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (CASTAGNOLI if value & 1 else 0)
    return value ^ 0xFFFFFFFF
