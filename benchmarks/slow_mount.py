"""A folder as a bucket far away: `python -m benchmarks.slow_mount ROOT MOUNT SECONDS` waits so long at every open."""

from __future__ import annotations

import sys
import time

import mfusepy as fuse

from tests.mounts.refusing import Refusing


class Slow(Refusing):
    """Passes everything through, each open after a wait; calls run at the same time, as a bucket's mount has it."""

    def __init__(self, root: str, seconds: float) -> None:
        super().__init__(root, refused=set())
        self.seconds = seconds

    def open(self, path: str, flags: int) -> int:
        """Opens a file, late."""
        time.sleep(self.seconds)
        return super().open(path, flags)


if __name__ == "__main__":
    # As large reads as the kernel makes; it may cache nothing, so that each run meets the same mount.
    fuse.FUSE(Slow(sys.argv[1], float(sys.argv[3])), sys.argv[2], foreground=True, ro=True, max_read=1 << 17)
