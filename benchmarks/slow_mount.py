"""Mounts a folder like a distant bucket: `python -m benchmarks.slow_mount ROOT MOUNT SECONDS`.

Every open of a file waits for SECONDS.
"""

from __future__ import annotations

import sys
import time

import mfusepy as fuse

from tests.mounts.refusing import Refusing


class Slow(Refusing):
    """Passes every call through, each open after a wait. Calls run at the same time, as on a bucket's mount."""

    def __init__(self, root: str, seconds: float) -> None:
        super().__init__(root, refused=set())
        self.seconds = seconds

    def open(self, path: str, flags: int) -> int:
        """Opens a file after the wait."""
        time.sleep(self.seconds)
        return super().open(path, flags)


if __name__ == "__main__":
    # max_read is the largest read of the kernel, which may not cache anything, so that each run meets the same mount.
    fuse.FUSE(Slow(sys.argv[1], float(sys.argv[3])), sys.argv[2], foreground=True, ro=True, max_read=1 << 17)
