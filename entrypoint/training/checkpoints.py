"""The checkpoints of the training itself: saved locally, published whole, and found again after any death.

A checkpoint is PREFIX.index, PREFIX.data-* and, written last, PREFIX.json, which holds the SHA-256 of the others: what
has no such manifest, or differs from it, is not taken. Before any of them PREFIX.claim is published, which lists their
names, and it is removed after the manifest is there.

Others may keep files of their own in the same folders: only what a manifest or a claim of this program lists is ever
removed or written over.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint import workspace
from entrypoint.engines.engine import Trainer
from entrypoint.results import publish
from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.training import start_checkpoint
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

KEPT = 2
NAME = re.compile(r"ckpt-(\d+)\.json")
PART = re.compile(r"(ckpt-\d+)\.(?:index|data-\d{5}-of-\d{5})")


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
        publish_checkpoint(saved, job, work)
    for folder in folders(work) if work.is_chief else [work.checkpoints]:
        prune(folder, saved.step, job, is_ours=folder != work.settings.checkpoint_dir)
    sweep(work.checkpoints)


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
    manifest = read_manifest(path)
    if manifest is None or not is_complete(manifest, step_of(path)):
        logger.warning("checkpoint %s is damaged and is not used", path)
        return None
    if manifest["job"] != job:
        logger.info("checkpoint %s was made with other settings or photos and is not used", path)
        return None
    for name, sha256 in manifest["files"].items():
        if not is_brought(path.with_name(name), local / name, sha256):
            logger.warning("checkpoint %s is damaged (%s) and is not used", path.with_suffix(""), name)
            return None
    return Saved(local / path.stem, manifest["step"], manifest["history"], path.parent)


def read_manifest(path: Place) -> dict[str, Any] | None:
    """A checkpoint's manifest, or claim; None where it is damaged or gone, or is a file of somebody else's.

    It lay in a bucket where anybody may write: it can list the files of its own checkpoint alone.
    """
    try:
        manifest = json.loads(bucket.read(path))
        names = [PART.fullmatch(name) for name in manifest["files"]]
        is_ours = bool(names) and all(name and name[1] == path.stem for name in names) and "job" in manifest
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(manifest) if is_ours else None


def is_complete(manifest: dict[str, Any], step: int) -> bool:
    """Whether a manifest has all that training goes on from: the step of its name, hashes of all files, the losses."""
    files = manifest["files"]
    return (
        isinstance(files, dict)
        and len(files) > 1
        and any(name.endswith(".index") for name in files)
        and manifest.get("step") == step
        and isinstance(manifest.get("history"), list)
    )


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


def publish_checkpoint(saved: Saved, job: str, work: Workspace) -> None:
    """Copies the files of a checkpoint to where they outlive the machine, its manifest last."""
    folder = work.settings.checkpoint_dir or work.results / "checkpoint"
    if not publish.is_published(manifest_of(saved.prefix), folder):
        files = parts(saved.prefix)
        claim = folder / f"{saved.prefix.name}.claim"
        # A job that is killed in between leaves files that no manifest lists.
        publish.write_file(claim, workspace.to_json({"job": job, "files": [path.name for path in files]}).encode())
        for path in (*files, manifest_of(saved.prefix)):
            publish.copy_file(path, folder / path.name)
        bucket.remove(claim)
    if publish.is_state_ours(folder):
        publish.copy_file(saved.prefix.with_name("checkpoint"), folder / "checkpoint")
    publish.publish_events(work)


def refuse_foreign(work: Workspace) -> None:
    """Checks that no checkpoint of this job would be written over a file of somebody else's.

    Raises:
        UserError: it would, and the message names the file.
    """
    for folder in folders(work)[1:] if work.is_chief else []:
        found = {path.name: path for path in bucket.matching(folder, "ckpt-*")}
        for name, path in found.items():
            part = PART.fullmatch(name)
            is_ours = part and (f"{part[1]}.json" in found or f"{part[1]}.claim" in found)
            if part and not is_ours and 0 < int(part[1].removeprefix("ckpt-")) <= work.settings.num_steps:
                raise UserError(
                    f"{path} was not made by this job, and a checkpoint of this job could have the same name: move it "
                    "elsewhere, or name another RESULT_DIR or CHECKPOINT_DIR"
                )


def prune(folder: Place, step: int, job: str, *, is_ours: bool) -> None:
    """Removes all but the newest KEPT checkpoints of this job up to a step, each manifest first.

    Later ones were found damaged. Those of other jobs go too where only this job writes checkpoints into the folder.
    Files that no manifest and no claim lists stay.
    """
    listed = listed_files(folder)
    mine = [name for name, (owner, _) in listed.items() if owner == job and step_of(folder / f"{name}.json") <= step]
    whole = {path.stem for path in bucket.matching(folder, "ckpt-*.json")}
    kept = sorted(whole.intersection(mine), key=lambda name: -step_of(folder / f"{name}.json"))[:KEPT]
    for name, (owner, files) in listed.items():
        if name not in kept and (is_ours or owner == job):
            for each in (f"{name}.json", *files, f"{name}.claim"):
                bucket.remove(folder / each)


def listed_files(folder: Place) -> dict[str, tuple[str, list[str]]]:
    """The job and the files of each checkpoint that this program made in a folder, whole or not."""
    found = {}
    for path in (*bucket.matching(folder, "ckpt-*.claim"), *bucket.matching(folder, "ckpt-*.json")):
        if manifest := read_manifest(path):
            found[path.stem] = (str(manifest["job"]), list(manifest["files"]))
    return found


def sweep(folder: Path) -> None:
    """Removes what killed saves left in a folder of WORK_DIR, which is the job's alone.

    TensorFlow writes into a folder of its own first, and leaves it behind.
    """
    listed = listed_files(folder)
    for path in folder.glob("ckpt-*"):
        if path.name.partition(".")[0] not in listed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_state(folder: Path, saved: Saved) -> None:
    """The file `checkpoint`, by which TensorFlow's own tools find the newest one."""
    workspace.write_text(folder / "checkpoint", f'model_checkpoint_path: "{saved.prefix.name}"\n')


def parts(prefix: Path) -> list[Path]:
    """A checkpoint's own files, the index last."""
    return [*start_checkpoint.data_files(prefix), prefix.with_name(f"{prefix.name}.index")]


def manifest_of(prefix: Path) -> Path:
    """The manifest of a checkpoint."""
    return prefix.with_name(f"{prefix.name}.json")


def step_of(path: Place) -> int:
    """The step in a manifest's name; -1 where the name is another file's."""
    match = NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1
