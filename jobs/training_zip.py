"""Packs training.zip: `python jobs/training_zip.py REQUIREMENTS OUT REVISION`. Equal files give equal bytes."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The earliest time that a ZIP archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)


def members(requirements: Path) -> Iterator[tuple[str, Path]]:
    """Yields the names in the archive with their files. start.sh is at the top, where cacli looks for it."""
    yield "requirements.txt", requirements
    yield "install.sh", ROOT / "jobs" / "install.sh"
    for name in ("start.sh", "LICENSE"):
        yield name, ROOT / name
    for pattern in ("entrypoint/**/*", "pipelines/*", "dist/*.tar.gz"):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix(), path


def write(requirements: Path, out: Path, revision: str) -> None:
    """Writes the archive, with the Git revision of its source in entrypoint/REVISION."""
    out.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in members(requirements):
            add(archive, name, path.read_bytes())
        add(archive, "entrypoint/REVISION", f"{revision}\n".encode())


def add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a file to the archive. Scripts are executable."""
    member = zipfile.ZipInfo(name, EPOCH)
    member.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
    member.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(member, content)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
