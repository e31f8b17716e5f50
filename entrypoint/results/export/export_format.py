"""What an export format declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.workspace import Workspace


@dataclass(frozen=True)
class ExportFormat:
    """A format in which the trained model is exported; its module has it as FORMAT."""

    name: str  # in EXPORTS
    folder: str  # in RESULT_DIR
    files: tuple[str, ...]  # in the folder, beside labels.json
    write: Callable[[Workspace, Path], None]  # writes the files into an empty folder
    refusal: Callable[[Any], str | None]  # why a model of this config cannot be exported, or None
