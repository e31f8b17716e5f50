"""Archives for tests."""

from __future__ import annotations

import io
import tarfile
from typing import Literal


def pack(files: dict[str, bytes], *members: tarfile.TarInfo, mode: Literal["w", "w:gz"] = "w:gz") -> bytes:
    """Returns an archive of files by their names, and of members without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return buffer.getvalue()
