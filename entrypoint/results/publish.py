"""Finished files -> RESULT_DIR, with operations that every bucket mount supports: whole files, written once, in order.

Bucket mounts know no atomic rename, no append and no random writes; some refuse to overwrite, chmod or fsync. The
manifest job.json is removed first and written last: where it stands, the results beside it are whole.
"""

import contextlib
import errno
import importlib.metadata
import io
import json
import logging
import os
import platform
import re
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint import workspace
from entrypoint.data import annotations, quality, tf_record
from entrypoint.results import export
from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.system.errors import JobError, UserError
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

MANIFEST = "job.json"
LOCK = ".training-job.lock"
RENEWAL_SECONDS = 10.0
# A lock that was not renewed for so long belongs to a job that is dead.
DEAD_SECONDS = 35.0
SETTLE_SECONDS = 1.0
# A renewal that is under way when a job ends is waited for, with its tries: it would make the lock anew.
RELEASE_SECONDS = 60.0
# Files of a finished job as this program names them. Checkpoints are not among them: they are removed when a newer one
# is there.
REPLACED = re.compile(
    r"label_map\.pbtxt|pipeline\.config|metrics\.json|report\.html|checkpoint/events/[^/\x00]+"
    rf"|(?:{'|'.join(export.FOLDERS.values())})/[^\x00]+"
)
# What checkpoint_store writes into the file `checkpoint`; TensorFlow's own tools add all_model_checkpoint_paths.
STATE = re.compile(rb'model_checkpoint_path: "ckpt-\d+"\n')
SHOWN = 20  # of the places of a finding
VERSIONS = ("tensorflow", "tensorflow-cpu", "tf-keras", "object_detection", "slim", "numpy", "protobuf", "pillow")


def run(work: Workspace) -> str:
    """Copies what the steps made into RESULT_DIR, the manifest last; returns the manifest's SHA-256."""
    files = {
        "label_map": work.label_map,
        "pipeline": work.pipeline,
        "evaluate": work.metrics,
        "report": work.report,
    }
    for step, path in files.items():
        workspace.existing(path, step)
    retract(work)
    published = [copy_file(path, work.results / path.name) for path in files.values()]
    published += copy_checkpoints(work.checkpoints, work.results / work.checkpoints.name)
    for folder in export_folders(work):
        published += copy_tree(folder, work.results / folder.name)
    publish_events(work)
    names = sorted(path.relative_to(work.results).as_posix() for path in published)
    for path in replaced_files(work):
        if path not in published:
            bucket.remove(path)
    content = json.dumps({**manifest(work), "files": names}, indent=1, default=str).encode()
    write_file(work.results / MANIFEST, content)
    bucket.remove(work.replaced)
    return workspace.digest(content.decode())


def publish_events(work: Workspace) -> None:
    """Copies TensorBoard's events to TENSORBOARD_DIR, where that is another place than among the results."""
    if work.settings.tensorboard_dir and work.events.is_dir():
        copy_tree(work.events, work.settings.tensorboard_dir)


def retract(work: Workspace) -> None:
    """Removes the manifest of a job that is about to be replaced, and remembers which files it spoke of."""
    path = work.results / MANIFEST
    try:
        content = bucket.read(path).decode(errors="replace")
    except FileNotFoundError:
        return
    workspace.write_json(work.replaced, {"results": str(work.results), "manifest": content})
    bucket.remove(path)


def replaced_files(work: Workspace) -> list[Place]:
    """The files in RESULT_DIR of the job before, of which those that this job has not written anew are stale.

    The manifest that names them lay in a bucket where anybody may write: only files below RESULT_DIR count, and only
    those that are called as this job calls its own.
    """
    if not work.replaced.exists():
        return []
    replaced = workspace.read_json(work.replaced, "publish")
    try:
        names = json.loads(replaced["manifest"])["files"]
    except (ValueError, KeyError, TypeError):
        return []
    if replaced["results"] != str(work.results) or not isinstance(names, list):
        return []
    root = work.results.resolve()
    paths = [work.results / name for name in names if isinstance(name, str) and REPLACED.fullmatch(name)]
    with bucket.named_errors(root):
        return [path for path in paths if path.resolve().is_relative_to(root) and path.is_file()]


def export_folders(work: Workspace) -> list[Path]:
    """The folders of the formats that were asked for."""
    return [work.root / export.FOLDERS[name] for name in export.chosen(work)]


def manifest(work: Workspace) -> dict[str, Any]:
    """What job.json says: settings, versions, the data's fingerprint, the steps done and their times."""
    marks = {name: mark for name, mark in workspace.read_marks(work).items() if name != "publish"}
    return {
        "settings": shown_settings(work),
        "versions": versions(),
        "data": {"sha256": marks["tf_record"]["output"], **found(work)},
        "steps": {name: {"began": mark["began"], "seconds": mark["seconds"]} for name, mark in marks.items()},
        "metrics": workspace.read_json(work.metrics, "evaluate")["summary"],
    }


def found(work: Workspace) -> dict[str, Any]:
    """What the data is, as it was counted, and what was repaired or skipped: how often, and the first few places."""
    dataset, records = annotations.load(work), tf_record.load_manifest(work)
    kinds = dataset.findings.kinds | quality.kinds_of(records["skipped"], records["changed"])
    return {
        "splits": {
            name: {key: value for key, value in split.items() if key != "shards"}
            for name, split in records["splits"].items()
        },
        "unlabelled": dataset.unlabelled,
        "found": {kind: {"count": len(where), "where": where[:SHOWN]} for kind, where in kinds.items()},
        "advice": quality.sentences(records["advice"]),
    }


def shown_settings(work: Workspace) -> dict[str, Any]:
    """The settings in JSON's types, without the user names and passwords that an address can hold."""
    values = work.settings.model_dump(mode="json")
    return {key: redact(value) if isinstance(value, str) else value for key, value in values.items()}


def redact(text: str) -> str:
    """Text without the credentials and the signed queries of the addresses in it."""
    return re.sub(r"\?\S+", "?***", re.sub(r"(?<=://)[^/\s]+@", "***@", text))


def versions() -> dict[str, str]:
    """Python's version and those of the packages that decide the result."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def copy_tree(source: Path, target: Place) -> list[Place]:
    """Copies every file of a folder; the files it wrote."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return [copy_file(file, target / file.relative_to(source)) for file in files]


def copy_checkpoints(source: Path, target: Place) -> list[Place]:
    """Copies every file of a folder of checkpoints and events that is not there; those that are there then.

    While a checkpoint is copied once more there is none, and the next job may have no other.
    """
    whole = {path.stem for path in source.glob("ckpt-*.json") if is_published(path, target)}
    names = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    if not is_state_ours(target):
        names.remove(Path("checkpoint"))
    for name in names:
        if str(name).partition(".")[0] not in whole:
            copy_file(source / name, target / name)
    return [target / name for name in names]


def is_state_ours(folder: Place) -> bool:
    """Whether the file `checkpoint` of a folder is this program's, or is not there."""
    try:
        return STATE.fullmatch(bucket.read(folder / "checkpoint")) is not None
    except FileNotFoundError:
        return True


def is_published(manifest: Path, target: Place) -> bool:
    """Whether a folder has the very checkpoint of a local manifest; what cannot be read there is none."""
    content = manifest.read_bytes()
    files = json.loads(content)["files"]
    try:
        return bucket.read(target / manifest.name) == content and all(
            workspace.file_sha256(target / name) == sha256 for name, sha256 in files.items()
        )
    except OSError:
        return False


def copy_file(source: Path, target: Place) -> Place:
    """Copies a file; tried again where that can help, and complete when this returns the target."""
    if not bucket.is_remote(target) and target.exists() and target.samefile(source):
        raise JobError(f"{target} would be copied onto itself")
    for attempt in bucket.retrying():
        with attempt, source.open("rb") as reader:
            write_once(reader, target, source.stat().st_size)
    return target


def write_file(target: Place, content: bytes) -> None:
    """Writes a file as copy_file does."""
    for attempt in bucket.retrying():
        with attempt:
            write_once(io.BytesIO(content), target, len(content))


def write_once(reader: Any, target: Place, size: int) -> None:
    """One sequential write of a whole file; OSError, with path and size, where not all of it arrived."""
    if _Lost.to:
        raise JobError(f"RESULT_DIR was taken over by {_Lost.to}: nothing more is written into it")
    try:
        with bucket.named_errors(target):
            if not bucket.is_remote(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            with open_for_writing(target) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                # Some mounts refuse it; where it counts, errors surface when the file is closed.
                with contextlib.suppress(OSError):
                    os.fsync(writer.fileno())
            written = target.stat().st_size
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, writing {size:,} bytes", str(target)) from error
    if written != size:
        raise OSError(errno.EIO, f"{written:,} of {size:,} bytes arrived", str(target))


def open_for_writing(target: Place) -> Any:
    """Opens a new file, in place of an old one also where that must be deleted first."""
    try:
        return target.open("wb")
    except OSError:
        if not target.exists():
            raise
        target.unlink()
        return target.open("wb")


class _Lost:
    """Who has RESULT_DIR now, where this job lost it, such as while its machine was suspended."""

    to = ""


@contextlib.contextmanager
def lock(work: Workspace) -> Iterator[None]:
    """Keeps RESULT_DIR to this job; UserError where another job, which is alive, has it."""
    path = work.results / LOCK
    places = {"RESULT_DIR": work.results, "CHECKPOINT_DIR": work.settings.checkpoint_dir}
    for name, place in {**places, "TENSORBOARD_DIR": work.settings.tensorboard_dir}.items():
        if place:
            make_writable(name, place)
    mine = {**place_of_process(), "pid": os.getpid(), "token": uuid.uuid4().hex}
    acquire(path, mine, work.results)
    stop = threading.Event()
    renewal = threading.Thread(target=renew, args=(path, mine, stop), daemon=True, name="lock")
    renewal.start()
    try:
        yield
    finally:
        stop.set()
        renewal.join(timeout=RELEASE_SECONDS)
        with contextlib.suppress(OSError):
            if is_mine(read_claim(path), mine):
                bucket.remove(path)


def acquire(path: Place, mine: dict[str, Any], results: Place) -> None:
    """Makes the lock; UserError where another job, which is alive, has it."""
    while True:
        claim = read_claim(path)
        if claim is not None:
            wait_for_dead_owner(path, claim, results)
            bucket.remove(path)
        try:
            with bucket.named_errors(path), path.open("xb") as file:
                file.write(encode_claim(mine))
            break
        except FileExistsError:
            logger.info("RESULT_DIR=%s: another job was faster", results)
        except OSError:
            # On some mounts errors surface when a file is closed. This one was made by us, and is written again.
            write_file(path, encode_claim(mine))
            break
    # Bucket mounts let two jobs make one file, and a dead job's lock may be removed by two at once: who wrote last
    # has it.
    time.sleep(SETTLE_SECONDS)
    refuse_other_owner(read_claim(path), mine, results)


def make_writable(name: str, folder: Place) -> None:
    """UserError where the folder of that setting cannot be made or written to."""
    if bucket.is_remote(folder):
        probe(name, folder)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name}={folder} cannot be made ({error.strerror}): {mend_for_user()}") from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{name}={folder} cannot be written to: {mend_for_user()}")


def probe(name: str, folder: Place) -> None:
    """UserError where a bucket does not take what is written; the file that was tried is removed again."""
    path = folder / f"{LOCK}.{uuid.uuid4().hex}"
    try:
        write_file(path, b"written to see whether it can be")
        bucket.remove(path)
    except FileNotFoundError:
        raise UserError(f"{name}={folder}: there is no such bucket") from None
    except PermissionError as error:
        raise UserError(f"{name}={folder} cannot be written to ({error.strerror}): {bucket.MEND}") from None


def mend_for_user() -> str:
    """How to come to a folder that can be written to."""
    return (
        f"name a folder that user {os.getuid()} may write to, mount the bucket for writing, or start the container as "
        'its owner with --user "$(id -u)"'
    )


def place_of_process() -> dict[str, Any]:
    """What tells two machines, or two containers on one machine, apart: only within it a process number means one."""
    return {
        "host": socket.gethostname(),
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        "namespace": Path("/proc/self/ns/pid").readlink().name,
    }


def encode_claim(claim: dict[str, Any]) -> bytes:
    """The lock's content; the time makes every renewal a change."""
    return json.dumps({**claim, "renewed": time.time()}).encode()


def renew(path: Place, mine: dict[str, Any], stop: threading.Event) -> None:
    """Shows that the job is alive until it ends; stops it where another job took its place."""
    while not stop.wait(RENEWAL_SECONDS):
        # Whatever a bucket's client raises, the next renewal may go well.
        with contextlib.suppress(Exception):
            claim = read_claim(path)
            if claim and not is_mine(claim, mine):
                _Lost.to = f"process {claim.get('pid')} on {claim.get('host')}"
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if not stop.is_set():
                write_file(path, encode_claim(mine))


def is_mine(claim: dict[str, Any] | None, mine: dict[str, Any]) -> bool:
    """Whether a lock is the one that this job wrote."""
    return claim is not None and claim.get("token") == mine["token"]


def wait_for_dead_owner(path: Place, first: dict[str, Any], results: Place) -> None:
    """Returns when the owner of the lock is known to be dead, did not renew it for DEAD_SECONDS, or released it."""
    if is_dead_here(first):
        return
    logger.info(
        "RESULT_DIR=%s is locked by process %s on %s: waiting to see whether it lives",
        results,
        first.get("pid"),
        first.get("host"),
    )
    deadline = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < deadline:
        time.sleep(1)
        claim = read_claim(path)
        if claim is None:
            return
        refuse_other_owner(claim, first, results)


def refuse_other_owner(claim: dict[str, Any] | None, known: dict[str, Any], results: Place) -> None:
    """UserError where the lock is another than the known one, or was renewed since."""
    if claim and {**known, "renewed": known.get("renewed", claim.get("renewed"))} != claim:
        raise UserError(
            f"RESULT_DIR={results} belongs to a running job, process {claim.get('pid')} on {claim.get('host')}: "
            "wait for it, stop it, or name another RESULT_DIR"
        )


def read_claim(path: Place) -> dict[str, Any] | None:
    """The lock's content, or None where there is none; an unreadable one counts as a lock without an owner."""
    try:
        with bucket.named_errors(path):
            claim = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return claim if isinstance(claim, dict) else {}


def is_dead_here(claim: dict[str, Any]) -> bool:
    """Whether the owner was a process beside this one that is no more, or had this process's own number."""
    if any(claim.get(name) != value for name, value in place_of_process().items()):
        return False
    pid = claim.get("pid")
    return isinstance(pid, int) and (pid == os.getpid() or not Path(f"/proc/{pid}").exists())
