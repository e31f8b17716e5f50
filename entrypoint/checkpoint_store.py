"""The checkpoints of the training itself: saved locally, published whole, and found again after any death.

A checkpoint is PREFIX.index, PREFIX.data-* and, written last, PREFIX.json, which holds the SHA-256 of the others: what
has no such manifest, or differs from it, is not taken.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint import checkpoint, publish, workspace
from entrypoint.engine import Trainer
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

KEPT = 2
NAME = re.compile(r"ckpt-(\d+)\.json")


@dataclass
class Saved:
    """A whole checkpoint: where it is, its step, and the losses up to it."""

    prefix: Path
    step: int
    history: list[dict[str, float]] = field(default_factory=list)


def save(trainer: Trainer, job: str, history: list[dict[str, float]], work: Workspace) -> None:
    """Writes a checkpoint into WORK_DIR, publishes it to RESULT_DIR and removes what it replaces."""
    work.checkpoints.mkdir(parents=True, exist_ok=True)
    saved = Saved(work.checkpoints / f"ckpt-{trainer.step}", trainer.step, history)
    trainer.save(saved.prefix)
    write_state(work.checkpoints, saved)
    files = {path.name: workspace.file_sha256(path) for path in parts(saved.prefix)}
    manifest = {"step": saved.step, "job": job, "files": files, "history": history}
    workspace.write_json(manifest_of(saved.prefix), manifest)
    publish_checkpoint(saved, work)
    for folder in (work.checkpoints, work.results / "checkpoint"):
        prune(folder, job)
    logger.info("checkpoint saved at step %d", saved.step)


def newest(job: str, work: Workspace) -> Saved | None:
    """The whole checkpoint of this job with the highest step, from WORK_DIR or RESULT_DIR; None where there is none.

    One that is damaged is named in the log, and the one before it taken.
    """
    found = [path for folder in folders(work) for path in folder.glob("ckpt-*.json")]
    # At equal steps the local one is taken, being nearer.
    for path in sorted(found, key=lambda path: (step_of(path), path.parent == work.checkpoints), reverse=True):
        saved = read(path, job)
        if saved:
            return saved
    return None


def folders(work: Workspace) -> tuple[Path, Path]:
    """Where checkpoints are kept."""
    return work.checkpoints, work.results / "checkpoint"


def read(path: Path, job: str) -> Saved | None:
    """The checkpoint of a manifest; None where it is damaged, or another job's."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        step, owner, files, history = (manifest[key] for key in ("step", "job", "files", "history"))
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("checkpoint %s is damaged and is not used", path)
        return None
    if owner != job:
        logger.info("checkpoint %s was made with other settings or photos and is not used", path)
        return None
    for name, sha256 in files.items():
        file = path.with_name(name)
        if not file.is_file() or workspace.file_sha256(file) != sha256:
            logger.warning("checkpoint %s is damaged (%s) and is not used", path.with_suffix(""), name)
            return None
    return Saved(path.with_suffix(""), step, history)


def publish_checkpoint(saved: Saved, work: Workspace) -> None:
    """Copies the files of a checkpoint to RESULT_DIR, its manifest last."""
    state = saved.prefix.with_name("checkpoint")
    for path in (*parts(saved.prefix), state, manifest_of(saved.prefix)):
        publish.copy_file(path, work.results / "checkpoint" / path.name)


def prune(folder: Path, job: str) -> None:
    """Removes all but the newest KEPT checkpoints of this job, each manifest first."""
    manifests = sorted(folder.glob("ckpt-*.json"), key=step_of, reverse=True)
    mine = [path for path in manifests if owner_of(path) == job]
    kept = {path.stem for path in mine[:KEPT]}
    for path in manifests:
        if path.stem not in kept:
            publish.remove(path)
    for path in folder.glob("ckpt-*"):
        if path.name.partition(".")[0] not in kept:
            publish.remove(path)


def owner_of(path: Path) -> Any:
    """The job that a manifest names; None where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(folder: Path, saved: Saved) -> None:
    """The file `checkpoint`, by which TensorFlow's own tools find the newest one."""
    workspace.write_text(folder / "checkpoint", f'model_checkpoint_path: "{saved.prefix.name}"\n')


def parts(prefix: Path) -> list[Path]:
    """A checkpoint's own files, the index last."""
    return [*checkpoint.data_files(prefix), prefix.with_name(f"{prefix.name}.index")]


def manifest_of(prefix: Path) -> Path:
    """The manifest of a checkpoint."""
    return prefix.with_name(f"{prefix.name}.json")


def step_of(path: Path) -> int:
    """The step in a manifest's name; -1 where the name is another file's."""
    match = NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1
