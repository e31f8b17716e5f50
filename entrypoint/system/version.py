"""Which release of this program runs, and which revision of its source."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import entrypoint

SOURCE = Path(entrypoint.__file__).resolve().parent
# An image and training.zip bring the revision in this file, since they have no Git repository.
REVISION = SOURCE / "REVISION"


@functools.lru_cache(maxsize=1)
def revision() -> str:
    """Returns the commit of the source, with `-dirty` if files were changed since; `unknown` without a repository."""
    if REVISION.is_file():
        return REVISION.read_text(encoding="ascii").strip() or "unknown"
    command = ["git", "-C", str(SOURCE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def describe() -> str:
    """Returns the release and the revision: `1.0.0 (0123abcd...)`."""
    return f"{entrypoint.__version__} ({revision()})"
