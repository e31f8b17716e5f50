"""The checkpoint that training starts from: it is downloaded, verified, and extracted safely.

All layouts of the zoo are read: `model.ckpt.*` (TF1) and `checkpoint/ckpt-0.*` (TF2), each next to its pipeline.config,
and `fp32/model.ckpt-400000.*` next to its own pipeline.config (MobileDet).
"""

from __future__ import annotations

import logging
import re
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from entrypoint import workspace
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, documents, download, files, foreign
from entrypoint.system.archive import open_tar
from entrypoint.system.download import RefusedError, TransientError, WrongHashError
from entrypoint.system.errors import JobError, UserError
from entrypoint.system.printable import redact
from entrypoint.training import foreign_checkpoint, trust
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue

logger = logging.getLogger("job")

# The largest archives of the zoo hold 1.5 GB in about ten files.
MAX_MEMBERS = 1000
MAX_EXTRACTED_BYTES = 8 << 30
MAX_INDEX_BYTES = 64 << 20
KEPT = re.compile(
    r"(?:model\.ckpt(?:-\d+)?|ckpt-\d+)\.(?:index|meta|data-\d{5}-of-\d{5})|pipeline\.config|label_map\.pbtxt"
)
# The places of checkpoints in a folder: of TF2, of TF1, and of models that are published in floats and in integers.
# Training cannot start from the integers.
PLACES = ("checkpoint/ckpt-*", "ckpt-*", "model.ckpt*", "fp32/*ckpt*", "*/*ckpt*")
# The key under which TensorFlow 2 stores the graph of the saved objects. It is the first key of an index, whose blocks
# are not compressed.
OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True)
class Start:
    """The checkpoint that training starts from."""

    prefix: str  # the path without .index and .data-*
    layout: str  # the generation that wrote it: "tf1" or "tf2"
    sha256: str  # of all its files together
    archive: str = ""  # the address that its archive was downloaded from
    archive_sha256: str = ""


@dataclass(frozen=True)
class StartDocument:
    """The content of start.json. If `start` is None, the model is trained from scratch."""

    start: Start | None


def run(work: Workspace) -> str:
    """Puts the checkpoint into WORK_DIR, reads it once, and writes start.json; returns a digest of the checkpoint.

    Raises:
        UserError: the checkpoint is missing or damaged, its hash is wrong, or its archive is unsafe.
        JobError: the archive could not be downloaded within RETRY_SECONDS.
    """
    start = obtain(work)
    if start is None:
        return "none"
    foreign_checkpoint.refuse_unreadable(start.prefix, start.archive or start.prefix)
    return start.sha256


def obtain(work: Workspace) -> Start | None:
    """Puts the checkpoint into WORK_DIR and writes start.json; returns the checkpoint, or None if there is none.

    Raises what `run` raises, but for the errors of a checkpoint that is there and damaged.
    """
    source = find_source(work)
    if source is None:
        logger.info("checkpoint: none, the model is trained from scratch")
        start = None
    else:
        start = from_archive(source, work) if is_archive(source) else find_in_folder(Path(source), Path(source))
        logger.info("checkpoint: %s (%s layout)", start.prefix, start.layout)
    documents.write(work.start, StartDocument(start))
    return start


def outputs(work: Workspace) -> list[Path]:
    """Returns the files that the step leaves in WORK_DIR."""
    if not work.start.exists():
        return [work.start]
    start = load(work)
    return [work.start, *([Path(f"{start.prefix}.index")] if start else [])]


def fingerprint(work: Workspace) -> list[list[str | int]]:
    """Returns names, sizes and times of a local checkpoint's files."""
    source = find_source(work)
    if source is None or ("://" in source and not source.startswith("file://")):
        return []
    place = Path(unquote(source.removeprefix("file://"))) if "://" in source else Path(source)
    found = [place, *sorted(place.rglob("*"))] if place.exists() else []
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in found if file.is_file()]


def load(work: Workspace) -> Start | None:
    """Returns the checkpoint to start from, or None if the model is trained from scratch."""
    return documents.read(StartDocument, workspace.existing(work.start, "checkpoint")).start


def find_source(work: Workspace) -> str | None:
    """Returns the address or path of the archive or folder, or None if the model is trained from scratch."""
    choice = work.settings.checkpoint
    if choice == "none":
        return None
    if choice != "zoo":
        return choice if "://" in choice else str(refuse_own(Path(choice).absolute(), work))
    model = catalogue.find(work.settings.model)
    if not model.archive:
        return None
    base = work.settings.zoo_url
    if "://" in base:
        return f"{base.rstrip('/')}/{model.archive}"
    # A mirror has the folders of the zoo. An archive that was downloaded by hand lies directly in ZOO_URL.
    path = Path(base).absolute() / model.archive
    return str(path if path.exists() else Path(base).absolute() / path.name)


def refuse_missing(settings: Settings) -> None:
    """Raises UserError if the checkpoint to start from is a local file or folder that does not exist."""
    source = find_source(Workspace(settings))
    if source and "://" not in source and not Path(source).exists():
        raise missing(source, settings)


def missing(source: str, settings: Settings) -> UserError:
    """Returns the error for a checkpoint that does not exist."""
    return UserError(f"{source} is missing: correct CHECKPOINT, or put {settings.model}'s archive into ZOO_URL")


def refuse_own(place: Path, work: Workspace) -> Path:
    """Returns the place; raises UserError if this job would save checkpoints there and remove the start checkpoint."""
    ours = (work.results, work.root, work.settings.checkpoint_dir)
    own = [folder.resolve() for folder in ours if folder and not bucket.is_remote(folder)]
    found = place.resolve()
    # A checkpoint is also found in the folder `checkpoint` of the given folder.
    if any(found.is_relative_to(folder) or (found / "checkpoint") == folder for folder in own):
        raise UserError(
            f"CHECKPOINT={place} lies in RESULT_DIR, CHECKPOINT_DIR or WORK_DIR, where this job "
            "saves its own checkpoints: copy it elsewhere"
        )
    return place


def is_archive(source: str) -> bool:
    """Returns whether the source is an archive to unpack, and not a folder to read."""
    return "://" in source or not Path(source).is_dir()


def from_archive(source: str, work: Workspace) -> Start:
    """Returns the checkpoint in an archive, unpacked, with the archive's address and SHA-256."""
    archive = fetch(source, work)
    start = extract(archive, source, work)
    return replace(start, archive=redact(source), archive_sha256=files.file_sha256(archive))


def fetch(source: str, work: Workspace) -> Path:
    """Returns the local path of the archive, verified against CHECKPOINT_SHA256 if that is set."""
    try:
        parts = urlsplit(source)
        parts.port  # noqa: B018 - reading the port checks it
    except ValueError as error:
        raise UserError(f"CHECKPOINT or ZOO_URL: {redact(source)} is not a valid address ({error})") from None
    if parts.scheme in ("http", "https"):
        return download_archive(source, work)
    if parts.scheme in bucket.PROTOCOLS:
        return bring(source, work)
    if "://" in source and parts.scheme != "file":
        schemes = ", ".join(f"{each}://" for each in ("http", "https", "file", *bucket.PROTOCOLS))
        raise UserError(f"CHECKPOINT or ZOO_URL: {redact(source)} does not begin with one of {schemes}")
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(source)
    if not path.is_file():
        raise missing(str(path), work.settings)
    return verified(path, str(path), work)


def verified(path: Path, name: str, work: Workspace) -> Path:
    """Returns the path of an archive; raises UserError if its SHA-256 is not CHECKPOINT_SHA256."""
    try:
        download.verify(path, work.settings.checkpoint_sha256, name)
    except WrongHashError as error:
        raise UserError(f"{error}, which is CHECKPOINT_SHA256") from None
    return path


def download_archive(url: str, work: Workspace) -> Path:
    """Downloads the archive into WORK_DIR/zoo unless it is there. A wrong hash leads to one more download."""
    target = folder_of(url, work) / (Path(urlsplit(url).path).name or "archive")
    known = target.with_name(f"{target.name}.sha256")
    if target.is_file() and known.is_file() and known.read_text().strip() == files.file_sha256(target):
        logger.info("checkpoint: %s was fetched before", target)
        return verified(target, redact(url), work)
    target.parent.mkdir(parents=True, exist_ok=True)
    address = download.prefer_https(url)
    for attempt in (1, 2):
        try:
            download_once(address, target, work)
            break
        except WrongHashError as error:
            if attempt == 2:
                raise UserError(
                    f"{error}; fetched twice: the archive at ZOO_URL or CHECKPOINT is not the right one"
                    f"{', or CHECKPOINT_SHA256 belongs to another archive' if work.settings.checkpoint_sha256 else ''}"
                ) from None
            logger.warning("%s; fetching it once more", error)
    sha256 = files.file_sha256(target)
    if not work.settings.checkpoint_sha256:
        trust.refuse_changed(redact(url), sha256, work)
    files.write_text(known, sha256 + "\n")
    return target


def download_once(url: str, target: Path, work: Workspace) -> None:
    """Downloads the archive within RETRY_SECONDS; the errors name the settings to change."""
    settings = work.settings
    try:
        download.fetch(url, target, settings.checkpoint_sha256, settings.retry_seconds)
    except RefusedError as error:
        raise UserError(f"{error} for MODEL={settings.model}: check ZOO_URL or CHECKPOINT") from None
    except TransientError as error:
        raise JobError(
            f"{error}; tried again for RETRY_SECONDS={settings.retry_seconds:g}. Without network, put the archive "
            "into a folder and name the folder with ZOO_URL, or set CHECKPOINT=none to train from scratch"
        ) from None


def bring(source: str, work: Workspace) -> Path:
    """Copies the archive out of a bucket into WORK_DIR/zoo."""
    target = folder_of(source, work) / Path(source).name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        bucket.fetch(bucket.parse(source), target)
    except ValueError as error:
        raise UserError(f"CHECKPOINT or ZOO_URL: {source}: {error}") from None
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"CHECKPOINT or ZOO_URL: {source} cannot be read ({error.strerror}): {bucket.MEND}") from None
    return verified(target, source, work)


def folder_of(source: str, work: Workspace) -> Path:
    """Returns the folder for an archive and its files; archives of one name from two places have separate folders."""
    return work.zoo / files.digest(source)[:12]


def extract(archive: Path, source: str, work: Workspace) -> Start:
    """Unpacks only the checkpoint and its pipeline.config; returns the checkpoint."""
    folder = folder_of(source, work) / "extracted"
    with files.new_folder(folder) as scratch:
        try:
            with (
                foreign.parsing(str(archive), "it is not an archive, or it is damaged; fetch it again"),
                open_tar(archive, MAX_EXTRACTED_BYTES) as tar,
            ):
                extract_members(tar, scratch, archive)
        except UserError:
            if archive.is_relative_to(work.zoo):
                archive.with_name(f"{archive.name}.sha256").unlink(missing_ok=True)
            raise
        start = find_in_folder(scratch, archive)
    return replace(start, prefix=str(folder / Path(start.prefix).relative_to(scratch)))


def extract_members(tar: tarfile.TarFile, folder: Path, archive: Path) -> None:
    """Writes the needed members below the folder; raises UserError for an unsafe archive."""
    size = 0
    for count, member in enumerate(tar, start=1):
        refuse_unsafe(member, archive)
        size += member.size
        is_large_index = member.name.endswith(".index") and member.size > MAX_INDEX_BYTES
        if count > MAX_MEMBERS or size > MAX_EXTRACTED_BYTES or is_large_index:
            raise UserError(
                f"{archive} holds more than a checkpoint can ({count} files, {size:,} bytes): the archive is refused"
            )
        path = PurePosixPath(member.name)
        content = tar.extractfile(member) if KEPT.fullmatch(path.name) and member.isfile() else None
        if content:
            # The first folder in the path is the archive's own.
            target = folder.joinpath(*path.parts[1:] or path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


def refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    """Raises UserError for a member that is not a plain file or folder below the archive's own root."""
    unsafe = member.name.startswith(("/", "\\")) or ".." in Path(member.name).parts
    if unsafe or member.issparse() or not (member.isfile() or member.isdir()):
        raise UserError(f"{archive} holds {member.name!r}, which no checkpoint needs: the archive is refused")


def find_in_folder(folder: Path, source: Path) -> Start:
    """Returns the checkpoint in a folder: the one with the highest number at the first of PLACES that has any.

    Raises:
        UserError: the checkpoint is missing or incomplete; the message names `source`, the origin of the folder.
    """
    for pattern in PLACES:
        found = sorted(folder.glob(f"{pattern}.index"), key=lambda path: (len(path.name), path.name))
        if found:
            index = found[-1]
            prefix = index.with_suffix("")
            data = data_files(prefix)
            if not data:
                raise UserError(f"{source}: {index.name} has no data file beside it: the checkpoint is incomplete")
            layout = "tf2" if OBJECT_GRAPH in index.read_bytes() else "tf1"
            sha256 = files.digest([files.file_sha256(path) for path in (index, *data)])
            return Start(str(prefix), layout, sha256)
    raise UserError(f"{source} holds no checkpoint: neither checkpoint/ckpt-N.index nor model.ckpt.index is in it")


def data_files(prefix: Path) -> list[Path]:
    """Returns the files with a checkpoint's values."""
    return sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
