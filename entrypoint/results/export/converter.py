"""Runs the converter of a format in a process of its own.

Converters keep memory at every call (tensorflow#122598 is TFLite's), and can abort; and some of their packages cannot
be loaded beside others.
"""

from __future__ import annotations

from entrypoint.system import child
from entrypoint.system.errors import JobError

SHOWN = 2000  # characters of a failure


def run(module: str, name: str, *arguments: object) -> None:
    """Runs `python -m MODULE ARGUMENTS`; `name` is the converter's, for people.

    Raises:
        JobError: the converter failed, or its process ended.
    """
    result = child.run_module(module, *map(str, arguments))
    if result.returncode:
        raise JobError(f"{name} ended with {result.returncode}: {result.stderr.strip()[-SHOWN:]}")
