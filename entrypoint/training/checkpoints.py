"""The checkpoints of the training itself: saved locally, published whole, and found again after any death.

A checkpoint is PREFIX.index, PREFIX.data-* and, written last, PREFIX.json, its manifest, which holds the SHA-256 of the
other files. A checkpoint without a manifest, or whose files differ from it, is not used. Before any of them
PREFIX.claim is published, which lists the names of the files, and it is removed when the manifest is there.

The checkpoint ckpt-STEP of the best evaluation is copied to best-STEP, so that it outlives the newest ones.

Others may keep files of their own in the same folders: only files that a manifest or a claim of this program lists are
ever removed or overwritten.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from entrypoint.engines.engine import Trainer
from entrypoint.system import bucket, copying, documents, files
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError
from entrypoint.training import events, length, start_checkpoint
from entrypoint.training.budget import Fit
from entrypoint.training.metrics import Evaluations
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

KEPT = 2
# The names of the newest checkpoints, and of the copy of the best one.
KINDS = ("ckpt", "best")
PART = re.compile(r"((?:ckpt|best)-\d+)\.(?:index|data-\d{5}-of-\d{5})")
# What `write_state` writes into the file `checkpoint`. TensorFlow's own tools add all_model_checkpoint_paths.
STATE = re.compile(rb'model_checkpoint_path: "ckpt-\d+"\n')


@dataclass(frozen=True)
class Manifest:
    """The manifest of a checkpoint."""

    step: int
    job: str  # the identity of the job that saved it
    files: dict[str, str]  # name -> SHA-256
    history: list[dict[str, int | float]]  # the losses and the learning rate up to the step
    evaluations: Evaluations = field(default_factory=Evaluations)  # up to the step
    fit: Fit | None = None  # of the training to MAX_MINUTES
    seconds: float = 0.0  # of the job up to the step, if MAX_MINUTES is set
    settings: dict[str, str] = field(default_factory=dict)  # what decides the training, in words
    has_ended: bool = False  # whether the training ends with this checkpoint


@dataclass(frozen=True)
class Claim:
    """The files of a checkpoint that is being published. A manifest can be read as a claim."""

    job: str
    files: tuple[str, ...] | dict[str, str]


@dataclass
class Saved:
    """A whole checkpoint: where it is, its step, the losses up to it, and the folder that it was found in."""

    prefix: Path
    step: int
    history: list[dict[str, float]] = field(default_factory=list)
    source: Place | None = None
    evaluations: Evaluations = field(default_factory=Evaluations)
    fit: Fit | None = None
    seconds: float = 0.0
    has_ended: bool = False

    def last_step(self, most: int) -> int:
        """Returns the last step of the training as far as it is decided; `most` is it if time does not matter."""
        return self.fit.last if self.fit else most


def write(trainer: Trainer, history: list[dict[str, float]], work: Workspace) -> Saved:
    """Writes the present weights into WORK_DIR. They are a checkpoint of the job as soon as `adopt` was called."""
    work.checkpoints.mkdir(parents=True, exist_ok=True)
    prefix = work.checkpoints / f"ckpt-{trainer.step}"
    trainer.save(prefix)
    return Saved(prefix, trainer.step, history)


def adopt(
    saved: Saved,
    job: str,
    work: Workspace,
    settings: dict[str, str] | None = None,
    best_weights: Path | None = None,
) -> None:
    """Makes the files in WORK_DIR a checkpoint of this job, publishes it, and removes those that it replaces.

    `settings` is what decides the training, in words.
    `best_weights` is the prefix of what is kept if its evaluation is the best. Default: the checkpoint itself.
    """
    best = saved.evaluations.best
    # The best one comes first: if the job is killed in between, the next run evaluates this step again. The averaged
    # weights of an earlier run are there already.
    if best and best.step == saved.step and work.is_chief and (best_weights or not best.is_averaged):
        keep_best(saved, best_weights or saved.prefix, job, work, settings)
    write_state(work.checkpoints, saved)
    write_manifest(saved, job, settings)
    # In a cluster one machine writes the results.
    if work.is_chief:
        publish_checkpoint(saved, job, work)
        if is_state_ours(published_in(work)):
            copying.copy_file(saved.prefix.with_name("checkpoint"), published_in(work) / "checkpoint")
        events.publish(work)
    for folder in folders(work) if work.is_chief else [work.checkpoints]:
        is_ours = folder != work.settings.checkpoint_dir
        prune(folder, saved.step, best.step if best else None, job, is_ours=is_ours)
    sweep(work.checkpoints)


def write_manifest(saved: Saved, job: str, settings: dict[str, str] | None = None) -> None:
    """Writes the manifest of a checkpoint in WORK_DIR, which makes it whole."""
    hashes = {path.name: files.file_sha256(path) for path in parts(saved.prefix)}
    manifest = Manifest(
        saved.step,
        job,
        hashes,
        saved.history,
        saved.evaluations,
        saved.fit,
        saved.seconds,
        settings or {},
        saved.has_ended,
    )
    documents.write(manifest_of(saved.prefix), manifest)


def keep_best(saved: Saved, weights: Path, job: str, work: Workspace, settings: dict[str, str] | None) -> None:
    """Copies the weights with a prefix to best-STEP and publishes them."""
    best = replace(saved, prefix=best_prefix(saved.step, work))
    for path in parts(weights):
        shutil.copyfile(path, best.prefix.with_name(path.name.replace(weights.name, best.prefix.name, 1)))
    write_manifest(best, job, settings)
    publish_checkpoint(best, job, work)


def best_prefix(step: int, work: Workspace) -> Path:
    """Returns the prefix of the copy of the best checkpoint."""
    return work.checkpoints / f"best-{step}"


def find_best(step: int, job: str, work: Workspace) -> Saved | None:
    """Returns the copy of the best checkpoint, brought to WORK_DIR; None if it is damaged or gone."""
    for folder in folders(work):
        path = folder / f"best-{step}.json"
        if bucket.matching(folder, path.name) and (saved := read(path, job, work.checkpoints)):
            if folder != work.checkpoints:
                bucket.fetch(path, manifest_of(saved.prefix))
            return saved
    return None


def published_in(work: Workspace) -> Place:
    """Returns where checkpoints outlive the machine."""
    return work.settings.checkpoint_dir or work.published_checkpoints


def newest(job: str, work: Workspace) -> Saved | None:
    """Returns the whole checkpoint of this job with the highest step, brought to WORK_DIR, or None.

    The log names a damaged checkpoint, and the one before it is used.
    """
    found = [path for folder in folders(work) for path in manifests_in(folder)]
    # Of two checkpoints of one step the local one is used, because nothing must be copied.
    for path in sorted(found, key=lambda path: (step_of(path), path.parent == work.checkpoints), reverse=True):
        saved = read(path, job, work.checkpoints)
        if saved:
            return saved
    return None


def manifests_in(folder: Place) -> list[Place]:
    """Returns the manifests of the checkpoints in a folder, without the best one."""
    return list(bucket.matching(folder, "ckpt-*.json"))


def folders(work: Workspace) -> list[Place]:
    """Returns where checkpoints are kept: in WORK_DIR, in CHECKPOINT_DIR if that is set, and in RESULT_DIR."""
    kept = work.settings.checkpoint_dir
    return [work.checkpoints, *([kept] if kept else []), work.published_checkpoints]


def read(path: Place, job: str, local: Path) -> Saved | None:
    """Returns the checkpoint of a manifest, copied to the local folder; None if it is damaged or another job's."""
    manifest = read_manifest(path)
    if manifest is None:
        logger.warning("checkpoint %s is damaged and is not used", path)
        return None
    if manifest.job != job:
        logger.info("checkpoint %s was made with other settings or photos and is not used", path)
        return None
    for name, sha256 in manifest.files.items():
        if not is_brought(path.with_name(name), local / name, sha256):
            logger.warning("checkpoint %s is damaged (%s) and is not used", path.with_suffix(""), name)
            return None
    return Saved(
        local / path.stem,
        manifest.step,
        manifest.history,
        path.parent,
        manifest.evaluations,
        manifest.fit,
        manifest.seconds,
        manifest.has_ended,
    )


def read_manifest(path: Place) -> Manifest | None:
    """Returns the manifest of a checkpoint, or None if it is damaged, gone, or not this program's."""
    try:
        manifest = documents.read(Manifest, path)
    except (FileNotFoundError, UserError):
        return None
    is_whole = len(manifest.files) > 1 and any(name.endswith(".index") for name in manifest.files)
    is_whole &= has_own_names(path, manifest.files) and manifest.step == step_of(path)
    return manifest if is_whole else None


def read_claim(path: Place) -> Claim | None:
    """Returns a claim, or a manifest as a claim; None if it is damaged, gone, or not this program's."""
    try:
        claim = documents.read(Claim, path)
    except (FileNotFoundError, UserError):
        return None
    return claim if claim.files and has_own_names(path, claim.files) else None


def has_own_names(path: Place, names: Iterable[str]) -> bool:
    """Returns whether all names are those of the checkpoint that a manifest or claim belongs to.

    The document lay in a bucket where anybody may write: other names could be those of any file.
    """
    return all((found := PART.fullmatch(name)) and found[1] == path.stem for name in names)


def is_brought(source: Place, target: Path, sha256: str) -> bool:
    """Returns whether a file of a checkpoint with that SHA-256 is in the local folder, after copying it if need be."""
    if target.is_file() and files.file_sha256(target) == sha256:
        return True
    if source == target:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        bucket.fetch(source, target)
    except FileNotFoundError:
        return False
    return files.file_sha256(target) == sha256


def publish_checkpoint(saved: Saved, job: str, work: Workspace) -> None:
    """Copies the files of a checkpoint to where they outlive the machine, the manifest last."""
    folder = published_in(work)
    if not is_published(manifest_of(saved.prefix), folder):
        paths = parts(saved.prefix)
        claim = folder / f"{saved.prefix.name}.claim"
        # If the job is killed between two files, no manifest lists them.
        claimed = Claim(job, tuple(path.name for path in paths))
        copying.write_file(claim, files.to_json(claimed).encode())
        hashes = load(saved.prefix).files
        for path in paths:
            # A file that is there already stays whole, whatever happens meanwhile.
            if not has_sha256(folder / path.name, hashes[path.name]):
                copying.copy_file(path, folder / path.name)
        copying.copy_file(manifest_of(saved.prefix), folder / manifest_of(saved.prefix).name)
        bucket.remove(claim)


def has_sha256(place: Place, sha256: str) -> bool:
    """Returns whether a file is there and has that SHA-256."""
    try:
        return files.file_sha256(place) == sha256
    except OSError:
        return False


def publish_all(work: Workspace) -> list[Place]:
    """Copies checkpoints and events into RESULT_DIR unless they are there, and returns the files that are there.

    A whole checkpoint is not copied again: while it is overwritten there would be none, and the next job may have no
    other.
    """
    source, target = work.checkpoints, work.published_checkpoints
    whole = {path.stem for kind in KINDS for path in source.glob(f"{kind}-*.json") if is_published(path, target)}
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    if not is_state_ours(target):
        names.remove(Path("checkpoint"))
    for name in names:
        if str(name).partition(".")[0] not in whole:
            copying.copy_file(source / name, target / name)
    return [target / name for name in names]


def is_published(manifest: Path, target: Place) -> bool:
    """Returns whether a folder has the very checkpoint of a local manifest."""
    try:
        if bucket.read(target / manifest.name) != manifest.read_bytes():
            return False
    except OSError:
        return False
    return all(has_sha256(target / name, sha256) for name, sha256 in documents.read(Manifest, manifest).files.items())


def is_state_ours(folder: Place) -> bool:
    """Returns whether this program wrote the file `checkpoint` of a folder, or the file is missing."""
    try:
        return STATE.fullmatch(bucket.read(folder / "checkpoint")) is not None
    except FileNotFoundError:
        return True


def refuse_foreign(work: Workspace) -> None:
    """Checks that no checkpoint of this job would overwrite a file that another program made.

    Raises:
        UserError: there is such a file; the message names it.
    """
    for folder in folders(work)[1:] if work.is_chief else []:
        found = {path.name: path for kind in KINDS for path in bucket.matching(folder, f"{kind}-*")}
        for name, path in found.items():
            part = PART.fullmatch(name)
            is_ours = part and (f"{part[1]}.json" in found or f"{part[1]}.claim" in found)
            if part and not is_ours and 0 < step_of(path.with_name(f"{part[1]}.json")) <= length.most(work):
                raise UserError(
                    f"{path} was not made by this job, and a checkpoint of this job could have the same name: move it "
                    "elsewhere, or name another RESULT_DIR or CHECKPOINT_DIR"
                )


def prune(folder: Place, step: int, best: int | None, job: str, *, is_ours: bool) -> None:
    """Removes all but the best and the newest KEPT checkpoints of this job up to a step, each manifest first.

    Checkpoints of later steps were found damaged. Those of other jobs are removed too if only this job writes
    checkpoints into the folder.
    """
    listed = listed_files(folder)
    mine = [name for name, claim in listed.items() if claim.job == job and step_of(folder / f"{name}.json") <= step]
    whole = {path.stem for path in bucket.matching(folder, "ckpt-*.json")}
    newest_ones = sorted(whole.intersection(mine), key=lambda name: -step_of(folder / f"{name}.json"))[:KEPT]
    kept = {*newest_ones, f"best-{best}"}
    for name, claim in listed.items():
        if name not in kept and (is_ours or claim.job == job):
            for each in (f"{name}.json", *claim.files, f"{name}.claim"):
                bucket.remove(folder / each)


def listed_files(folder: Place) -> dict[str, Claim]:
    """Returns the job and the files of each checkpoint that this program made in a folder, whole or not."""
    paths = [path for kind in KINDS for end in ("claim", "json") for path in bucket.matching(folder, f"{kind}-*.{end}")]
    return {path.stem: claim for path in paths if (claim := read_claim(path))}


def sweep(folder: Path) -> None:
    """Removes what killed saves left in a folder of WORK_DIR, which belongs to this job alone.

    TensorFlow writes into a folder of its own first, and leaves it behind if it is killed.
    """
    listed = listed_files(folder)
    for path in (each for kind in KINDS for each in folder.glob(f"{kind}-*")):
        if path.name.partition(".")[0] not in listed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_state(folder: Path, saved: Saved) -> None:
    """Writes the file `checkpoint`, by which TensorFlow's own tools find the newest checkpoint."""
    files.write_text(folder / "checkpoint", f'model_checkpoint_path: "{saved.prefix.name}"\n')


def parts(prefix: Path) -> list[Path]:
    """Returns the files of a checkpoint without its manifest, the index last."""
    return [*start_checkpoint.data_files(prefix), prefix.with_name(f"{prefix.name}.index")]


def manifest_of(prefix: Path) -> Path:
    """Returns where the manifest of a checkpoint lies."""
    return prefix.with_name(f"{prefix.name}.json")


def load(prefix: Path) -> Manifest:
    """Returns the manifest of a checkpoint in WORK_DIR."""
    return documents.read(Manifest, manifest_of(prefix))


def step_of(path: Place) -> int:
    """Returns the step in the name of a manifest, or -1 for another file."""
    match = re.fullmatch(r"(?:ckpt|best)-(\d+)\.json", path.name)
    return int(match.group(1)) if match else -1
