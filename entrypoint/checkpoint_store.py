"""The checkpoints of the training itself: saved locally, published whole, and found again after any death.

A checkpoint is PREFIX.index, PREFIX.data-* and, written last, PREFIX.json, which holds the SHA-256 of the others: what
has no such manifest, or differs from it, is not taken.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint import bucket, checkpoint, publish, workspace
from entrypoint.bucket import Place
from entrypoint.engine import Trainer
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

KEPT = 2
NAME = re.compile(r"ckpt-(\d+)\.json")


@dataclass
class Saved:
    """A whole checkpoint: where it is, its step, the losses up to it, and the folder that it was found in."""

    prefix: Path
    step: int
    history: list[dict[str, float]] = field(default_factory=list)
    source: Place | None = None


def save(trainer: Trainer, job: str, history: list[dict[str, float]], work: Workspace) -> None:
    """Writes a checkpoint into WORK_DIR, publishes it to RESULT_DIR and removes what it replaces."""
    work.checkpoints.mkdir(parents=True, exist_ok=True)
    saved = Saved(work.checkpoints / f"ckpt-{trainer.step}", trainer.step, history)
    trainer.save(saved.prefix)
    adopt(saved, job, work)
    logger.info("checkpoint saved at step %d", saved.step)


def adopt(saved: Saved, job: str, work: Workspace) -> None:
    """Makes the files in WORK_DIR a checkpoint of this job, publishes it, and removes those that it replaces."""
    write_state(work.checkpoints, saved)
    files = {path.name: workspace.file_sha256(path) for path in parts(saved.prefix)}
    manifest = {"step": saved.step, "job": job, "files": files, "history": saved.history}
    workspace.write_json(manifest_of(saved.prefix), manifest)
    # Of a cluster's machines one writes the results.
    if work.is_chief:
        publish_checkpoint(saved, work)
    for folder in folders(work) if work.is_chief else [work.checkpoints]:
        prune(folder, saved.step, job, is_ours=folder != work.settings.checkpoint_dir)


def newest(job: str, work: Workspace) -> Saved | None:
    """The whole checkpoint of this job with the highest step, brought to WORK_DIR; None where there is none.

    One that is damaged is named in the log, and the one before it taken.
    """
    found = [path for folder in folders(work) for path in bucket.matching(folder, "ckpt-*.json")]
    # At equal steps the local one is taken, being nearer.
    for path in sorted(found, key=lambda path: (step_of(path), path.parent == work.checkpoints), reverse=True):
        saved = read(path, job, work.checkpoints)
        if saved:
            return saved
    return None


def folders(work: Workspace) -> list[Place]:
    """Where checkpoints are kept: at hand, where they outlive the machine, and among the results."""
    kept = work.settings.checkpoint_dir
    return [work.checkpoints, *([kept] if kept else []), work.results / "checkpoint"]


def read(path: Place, job: str, local: Path) -> Saved | None:
    """The checkpoint of a manifest, copied to the local folder; None where it is damaged, or another job's."""
    try:
        manifest = json.loads(bucket.read(path))
        step, owner, files, history = (manifest[key] for key in ("step", "job", "files", "history"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        logger.warning("checkpoint %s is damaged and is not used", path)
        return None
    if owner != job:
        logger.info("checkpoint %s was made with other settings or photos and is not used", path)
        return None
    for name, sha256 in files.items():
        if not is_brought(path.with_name(name), local / name, sha256):
            logger.warning("checkpoint %s is damaged (%s) and is not used", path.with_suffix(""), name)
            return None
    return Saved(local / path.stem, step, history, path.parent)


def is_brought(source: Place, target: Path, sha256: str) -> bool:
    """Whether a checkpoint's file is in the local folder, or was copied there, with that SHA-256."""
    if target.is_file() and workspace.file_sha256(target) == sha256:
        return True
    if source == target:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        bucket.fetch(source, target)
    except FileNotFoundError:
        return False
    return workspace.file_sha256(target) == sha256


def publish_checkpoint(saved: Saved, work: Workspace) -> None:
    """Copies the files of a checkpoint to where they outlive the machine, its manifest last."""
    folder = work.settings.checkpoint_dir or work.results / "checkpoint"
    if not publish.is_published(manifest_of(saved.prefix), folder):
        for path in (*parts(saved.prefix), manifest_of(saved.prefix)):
            publish.copy_file(path, folder / path.name)
    publish.copy_file(saved.prefix.with_name("checkpoint"), folder / "checkpoint")
    publish.publish_events(work)


def prune(folder: Place, step: int, job: str, *, is_ours: bool) -> None:
    """Removes all but the newest KEPT checkpoints of this job up to a step, each manifest first.

    Later ones were found damaged. Those of other jobs go too, and what was never finished, where the folder is this
    job's alone.
    """
    manifests = sorted(bucket.matching(folder, "ckpt-*.json"), key=step_of, reverse=True)
    owners = {path.stem: owner_of(path) for path in manifests}
    kept = [path.stem for path in manifests if owners[path.stem] == job and step_of(path) <= step][:KEPT]
    if not is_ours:
        kept += [name for name, owner in owners.items() if owner != job]
    for path in manifests:
        if path.stem not in kept:
            bucket.remove(path)
    for path in bucket.matching(folder, "ckpt-*"):
        name = path.name.partition(".")[0]
        if name in kept or not (is_ours or name in owners):
            continue
        if not bucket.is_remote(path) and path.is_dir():
            # TensorFlow writes into one of its own first, which it leaves behind when it is killed.
            shutil.rmtree(path)
        else:
            bucket.remove(path)


def owner_of(path: Place) -> Any:
    """The job that a manifest names; None where it names none."""
    try:
        return json.loads(bucket.read(path))["job"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
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


def step_of(path: Place) -> int:
    """The step in a manifest's name; -1 where the name is another file's."""
    match = NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1
