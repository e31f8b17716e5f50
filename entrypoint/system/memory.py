"""The memory of this machine, or of the container if that has a limit."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

# The root of the kernel's fixed paths.
ROOT = Path("/")
# Control groups of version 2 and of version 1: the file with the limit, the file with the memory in use, and the names
# of the lines in that file that count the memory that the kernel cannot reclaim: of processes, and files in memory.
CONTROL_GROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.stat", ("anon", "shmem")),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.stat", ("total_rss", "total_shmem")),
)


def limit() -> int | None:
    """Returns the number of bytes that this container may use, or None if there is no limit."""
    for path, _, _ in CONTROL_GROUPS:
        if (ROOT / path).exists():
            text = (ROOT / path).read_text().strip()
            # Version 1 writes the largest multiple of a page in 63 bits if there is no limit.
            return int(text) if text.isdigit() and int(text) < 1 << 60 else None
    return None


def used() -> int:
    """Returns the number of bytes in use that the kernel cannot reclaim. The file cache does not count."""
    for _, path, names in CONTROL_GROUPS:
        if (ROOT / path).exists():
            counts = dict(line.split() for line in (ROOT / path).read_text().splitlines())
            return sum(int(counts.get(name, 0)) for name in names)
    return 0


def total() -> int:
    """Returns the number of bytes that this job can use at most."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(physical, limit() or physical)


def free() -> int:
    """Returns the number of bytes that processes can still take, without those that the kernel can reclaim."""
    lines = (line.split() for line in (ROOT / "proc/meminfo").read_text().splitlines())
    available = next(int(words[1]) << 10 for words in lines if words[0] == "MemAvailable:")
    most = limit()
    return available if most is None else min(available, most - used())


def give_back() -> None:
    """Gives freed memory back to the kernel: glibc keeps it for the thread that freed it. Other libraries do not."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def of_process() -> int:
    """Returns the number of bytes of memory that this process occupies."""
    pages = int((ROOT / "proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
