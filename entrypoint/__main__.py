"""The parent process of the job: it prints the mark and returns the exit code, whatever ends the job's process.

It imports little, so that it is there before the first signal, and is small when memory runs out.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from entrypoint.system import child, streams


def watch(arguments: Sequence[str]) -> int:
    """Runs a command in a child process, prints the mark that services look for, and returns the exit code."""
    streams.open_all()
    ended = child.run(lambda: run(arguments))
    code, _, mark = (ended.text or died(ended.status)).partition(" ")
    if mark:
        streams.put(mark)
    return int(code)


def run(arguments: Sequence[str]) -> str:
    """Runs a command and returns its exit code and its mark."""
    from entrypoint import main

    return str(main.main(arguments))


def died(status: int) -> str:
    """Reports that the child process ended without a result; returns the exit code and the mark."""
    with contextlib.suppress(Exception):
        from entrypoint import main

        return str(main.report_death(status))
    return "1 CACLI-TRAINING-FAILED"


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
