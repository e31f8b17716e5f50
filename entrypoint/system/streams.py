"""The standard streams: none of them is closed, and what is printed need not be read."""

from __future__ import annotations

import os
import sys


def open_all() -> None:
    """Opens /dev/null for each standard stream that is closed: the next file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def put(text: str) -> None:
    """Prints a text. Nobody need read it: what became of the job does not depend on that."""
    try:
        print(text, flush=True)
    except OSError:
        # Python would fail once more when it flushes the stream at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
