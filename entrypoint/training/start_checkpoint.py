"""The checkpoint that training starts from: fetched with retries, verified, extracted with care.

All layouts of the zoo are read: `model.ckpt.*` (TF1) and `checkpoint/ckpt-0.*` (TF2), each beside its pipeline.config,
and `fp32/model.ckpt-400000.*` beside one of its own (MobileDet).
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import lzma
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_random_exponential,
)

from entrypoint import workspace
from entrypoint.results import publish
from entrypoint.system import bucket, logs
from entrypoint.system.errors import JobError, UserError
from entrypoint.workspace import Workspace
from entrypoint.zoo import catalogue

logger = logging.getLogger("job")

TRANSIENT_STATUS = {408, 429, *range(500, 600)}
TIMEOUT = (10, 30)  # seconds to connect, and between two packets
# A transfer of less than so many bytes in so many seconds is broken off and resumed.
SLOWEST_BYTES, SLOWEST_SECONDS = 64 * 1024, 60
# The largest archives of the zoo hold 1.5 GB in some ten files.
MAX_MEMBERS = 1000
MAX_EXTRACTED_BYTES = 8 << 30
KEPT = re.compile(r"(?:model\.ckpt(?:-\d+)?|ckpt-\d+)\.(?:index|meta|data-\d{5}-of-\d{5})|pipeline\.config")
# Where checkpoints lie: those of TF2, of TF1, and of models that are published in floats and in integers, of which the
# latter is no start for training.
PLACES = ("checkpoint/ckpt-*", "ckpt-*", "model.ckpt*", "fp32/*ckpt*", "*/*ckpt*")
# What TensorFlow 2 keeps of the objects that it saved; the first key of an index, whose blocks are not compressed.
OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


class TransientError(JobError):
    """The download may well succeed when it is tried again."""

    retry_after: float | None = None


class WrongHashError(JobError):
    """What arrived is not what was announced."""


def run(work: Workspace) -> str:
    """Puts the checkpoint into WORK_DIR and writes start.json; returns what identifies the checkpoint.

    Raises:
        UserError: there is no such checkpoint, it is not what the hash says, or its archive is unsafe.
        JobError: it could not be fetched within RETRY_SECONDS.
    """
    source = find_source(work)
    if source is None:
        logger.info("checkpoint: none, the model is trained from scratch")
        start = None
    else:
        start = (
            extract(fetch(source, work), source, work)
            if is_archive(source)
            else find_in_folder(Path(source), Path(source))
        )
        logger.info("checkpoint: %s (%s layout)", start["prefix"], start["layout"])
    workspace.write_json(work.start, start)
    return str(start["sha256"]) if start else "none"


def outputs(work: Workspace) -> list[Path]:
    """The files that the step leaves in WORK_DIR."""
    start = load(work) if work.start.exists() else None
    return [work.start, *([Path(f"{start['prefix']}.index")] if start else [])]


def fingerprint(work: Workspace) -> list[Any]:
    """Names, sizes and times of a local checkpoint's files."""
    source = find_source(work)
    if source is None or ("://" in source and not source.startswith("file://")):
        return []
    place = Path(unquote(source.removeprefix("file://"))) if "://" in source else Path(source)
    files = [place, *sorted(place.rglob("*"))] if place.exists() else []
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()]


def load(work: Workspace) -> dict[str, str] | None:
    """The checkpoint to start from: prefix, layout, sha256; None for none."""
    start = workspace.read_json(work.start, "checkpoint")
    return dict(start) if start else None


def find_source(work: Workspace) -> str | None:
    """The address or path of the archive or folder; None where the model is trained from scratch."""
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
    # A mirror has the zoo's folders; whoever fetched one archive by hand has not.
    path = Path(base).absolute() / model.archive
    return str(path if path.exists() else Path(base).absolute() / path.name)


def refuse_own(place: Path, work: Workspace) -> Path:
    """The place; UserError where this job would save its own checkpoints into it, and remove what it started from."""
    ours = (work.results, work.root, work.settings.checkpoint_dir)
    own = [folder.resolve() for folder in ours if folder and not bucket.is_remote(folder)]
    found = place.resolve()
    # A folder is read with the checkpoint/ in it.
    if any(found.is_relative_to(folder) or (found / "checkpoint") == folder for folder in own):
        raise UserError(
            f"CHECKPOINT={place} lies in RESULT_DIR, CHECKPOINT_DIR or WORK_DIR, where this job's own go: "
            "copy it elsewhere"
        )
    return place


def is_archive(source: str) -> bool:
    """Whether the source is a file to unpack rather than a folder to read."""
    return "://" in source or not Path(source).is_dir()


def fetch(source: str, work: Workspace) -> Path:
    """The local path of the archive, verified against CHECKPOINT_SHA256 where that is given."""
    try:
        parts = urlsplit(source)
    except ValueError as error:
        raise UserError(f"CHECKPOINT or ZOO_URL: {publish.redact(source)} is no address ({error})") from None
    if parts.scheme in ("http", "https"):
        return download(source, work)
    if parts.scheme in bucket.PROTOCOLS:
        return bring(source, work)
    if "://" in source and parts.scheme != "file":
        schemes = ", ".join(f"{each}://" for each in ("http", "https", "file", *bucket.PROTOCOLS))
        raise UserError(f"CHECKPOINT or ZOO_URL: {publish.redact(source)} is none of {schemes}")
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(source)
    if not path.is_file():
        raise UserError(f"{path} is missing: CHECKPOINT, or ZOO_URL with {work.settings.model}'s archive, must name it")
    verify(path, work.settings.checkpoint_sha256, str(path), UserError)
    return path


def download(url: str, work: Workspace) -> Path:
    """Fetches the archive into WORK_DIR/zoo, unless it is there; a wrong hash is fetched once more, then refused."""
    target = folder_of(url, work) / (Path(urlsplit(url).path).name or "archive")
    known = target.with_name(f"{target.name}.sha256")
    if target.is_file() and known.is_file() and known.read_text().strip() == workspace.file_sha256(target):
        verify(target, work.settings.checkpoint_sha256, publish.redact(url), UserError)
        logger.info("checkpoint: %s was fetched before", target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in (1, 2):
        try:
            fetch_with_retries(url, target, work)
            break
        except WrongHashError as error:
            if attempt == 2:
                raise UserError(
                    f"{error}; fetched twice: the archive at ZOO_URL or CHECKPOINT is not the right one"
                ) from None
            logger.warning("%s; fetching it once more", error)
    workspace.write_text(known, workspace.file_sha256(target) + "\n")
    return target


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
    verify(target, work.settings.checkpoint_sha256, source, UserError)
    return target


def folder_of(source: str, work: Workspace) -> Path:
    """Where an archive is kept and unpacked; two of one name from two places do not share it."""
    return work.zoo / workspace.digest(source)[:12]


def fetch_with_retries(url: str, target: Path, work: Workspace) -> None:
    """Transfers until the file is whole; what is transient is tried again for RETRY_SECONDS, the rest never."""
    try:
        for attempt in Retrying(
            retry=retry_if_exception_type(TransientError),
            wait=wait_as_told,
            stop=stop_before_delay(work.settings.retry_seconds),
            before_sleep=logs.log_retry,
            reraise=True,
        ):
            with attempt:
                transfer(url, target, work)
    except TransientError as error:
        raise JobError(
            f"{error}; tried again for RETRY_SECONDS={work.settings.retry_seconds:g}. Without network, put the archive "
            "into a folder and name the folder with ZOO_URL, or set CHECKPOINT=none to train from scratch"
        ) from None


def wait_as_told(state: RetryCallState) -> float:
    """The server's Retry-After where it sent one, else exponential back-off with jitter, at most a minute."""
    error = state.outcome.exception() if state.outcome else None
    told = error.retry_after if isinstance(error, TransientError) else None
    return told if told is not None else wait_random_exponential(multiplier=0.5, max=60)(state)


def transfer(url: str, target: Path, work: Workspace) -> None:
    """One request: goes on where the last one broke off, if the server still has the same file."""
    part = target.with_name(f"{target.name}.part")
    state = target.with_name(f"{target.name}.part.json")
    headers = resume_headers(part, state)
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            refuse_status(response, url, part, work)
            if response.status_code == requests.codes.partial_content and not continues(response, part):
                part.unlink()
                raise TransientError(f"{publish.redact(url)} answered with another part than was asked for")
            append = response.status_code == requests.codes.partial_content
            remember(response, state)
            receive(response, part, append=append)
            check_length(response, part, url)
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise TransientError(f"{publish.redact(url)}: {innermost(error)}") from None
    except requests.RequestException as error:
        words = f"{type(error).__name__}: {publish.redact(str(error))}"
        raise UserError(f"CHECKPOINT or ZOO_URL: {publish.redact(url)} cannot be fetched ({words})") from None
    announced = json.loads(state.read_text())
    try:
        verify(part, work.settings.checkpoint_sha256, publish.redact(url), WrongHashError)
        verify_announced(part, announced, publish.redact(url))
    except WrongHashError:
        part.unlink()
        raise
    part.replace(target)
    state.unlink()


def innermost(error: Exception) -> str:
    """What went wrong, out of the errors that requests and urllib3 wrap around it: `[Errno 111] Connection refused`."""
    wrapped = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    return publish.redact(str(getattr(wrapped, "reason", wrapped)).rpartition(": ")[2])


def resume_headers(part: Path, state: Path) -> dict[str, str]:
    """The headers that ask for the rest of a file, on condition that it is still the same file (RFC 9110, 14.2)."""
    headers = {"Accept-Encoding": "identity"}
    known = json.loads(state.read_text()) if state.exists() else {}
    validator = known.get("etag") or known.get("last_modified")
    if part.exists() and part.stat().st_size and validator:
        headers |= {"Range": f"bytes={part.stat().st_size}-", "If-Range": validator}
    return headers


def refuse_status(response: requests.Response, url: str, part: Path, work: Workspace) -> None:
    """TransientError or UserError for an answer that is not the file."""
    if response.status_code in (requests.codes.ok, requests.codes.partial_content):
        return
    told = f"{publish.redact(url)} answered {response.status_code} {response.reason}"
    if response.status_code == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)
        raise TransientError(f"{told}: starting again")
    if response.status_code in TRANSIENT_STATUS:
        error = TransientError(told)
        error.retry_after = seconds_told(response.headers.get("Retry-After", ""))
        raise error
    raise UserError(f"{told} for MODEL={work.settings.model}: check ZOO_URL or CHECKPOINT")


def seconds_told(retry_after: str) -> float | None:
    """Retry-After as seconds from now, given as a number or as a date (RFC 9110, 10.2.3); None for neither."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds())


def continues(response: requests.Response, part: Path) -> bool:
    """Whether a 206 answer starts where our part ends."""
    return response.headers.get("Content-Range", "").startswith(f"bytes {part.stat().st_size}-")


def remember(response: requests.Response, state: Path) -> None:
    """Keeps what the server says of the file: what a resumed request and the check at the end go by."""
    hashes = response.headers.get("x-goog-hash", "")  # Google Cloud Storage: `crc32c=...,md5=...`
    md5 = re.search(r"md5=([A-Za-z0-9+/=]+)", hashes)
    weak = response.headers.get("ETag", "").startswith("W/")
    known = {
        "etag": None if weak else response.headers.get("ETag"),
        "last_modified": response.headers.get("Last-Modified"),
        "md5": md5.group(1) if md5 else response.headers.get("Content-MD5"),
    }
    # A partial answer's Content-MD5 would be that of the part.
    if response.status_code == requests.codes.ok or not state.exists():
        workspace.write_json(state, known)


def receive(response: requests.Response, part: Path, *, append: bool) -> None:
    """Writes the body to the part; TransientError where it trickles."""
    began, received = time.monotonic(), 0
    with part.open("ab" if append else "wb") as file:
        # read1 gives what has come; the others wait until so much has come.
        while block := response.raw.read1(1 << 16, decode_content=False):
            file.write(block)
            received += len(block)
            if time.monotonic() - began > SLOWEST_SECONDS:
                if received < SLOWEST_BYTES:
                    raise TransientError(f"only {received} bytes came in {SLOWEST_SECONDS} seconds")
                began, received = time.monotonic(), 0


def check_length(response: requests.Response, part: Path, url: str) -> None:
    """TransientError where the connection ended before the announced length."""
    whole = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
    if whole.isdigit() and part.stat().st_size != int(whole):
        raise TransientError(f"{publish.redact(url)} broke off at {part.stat().st_size} of {whole} bytes")


def verify(path: Path, sha256: str | None, name: str, error: type[JobError]) -> None:
    """Raises `error` where the file is not what CHECKPOINT_SHA256 says."""
    if sha256 and (found := workspace.file_sha256(path)) != sha256:
        raise error(f"{name} has SHA-256 {found}, not CHECKPOINT_SHA256={sha256}")


def verify_announced(path: Path, announced: Mapping[str, str | None], name: str) -> None:
    """Raises WrongHashError where the file has not the MD5 that the server announced."""
    if announced.get("md5"):
        with path.open("rb") as file:
            md5 = hashlib.md5(usedforsecurity=False)
            while block := file.read(1 << 20):
                md5.update(block)
        found = base64.b64encode(md5.digest()).decode()
        if found != announced["md5"]:
            raise WrongHashError(f"{name} has MD5 {found}, not {announced['md5']} as its server says")


def extract(archive: Path, source: str, work: Workspace) -> dict[str, str]:
    """Unpacks the checkpoint and its pipeline.config, and nothing else, and says where they are."""
    folder = folder_of(source, work) / "extracted"
    with workspace.new_folder(folder) as scratch:
        try:
            with tarfile.open(archive) as tar:
                extract_members(tar, scratch, archive)
                # What a checksum at the end speaks of is only checked by reading to the end.
                while tar.fileobj and tar.fileobj.read(1 << 20):
                    pass
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            if archive.is_relative_to(work.zoo):
                archive.with_name(f"{archive.name}.sha256").unlink(missing_ok=True)
            raise UserError(f"{archive} is no archive, or it is damaged ({error}): fetch it again") from None
        start = find_in_folder(scratch, archive)
    return {**start, "prefix": str(folder / Path(start["prefix"]).relative_to(scratch))}


def extract_members(tar: tarfile.TarFile, folder: Path, archive: Path) -> None:
    """Writes the members that are wanted below the folder; UserError for an archive that means harm."""
    size = 0
    for count, member in enumerate(tar, start=1):
        refuse_unsafe(member, archive)
        size += member.size
        if count > MAX_MEMBERS or size > MAX_EXTRACTED_BYTES:
            raise UserError(f"{archive} holds more than a checkpoint can ({count} files, {size:,} bytes): refused")
        path = PurePosixPath(member.name)
        content = tar.extractfile(member) if KEPT.fullmatch(path.name) and member.isfile() else None
        if content:
            # The first folder is the archive's own.
            target = folder.joinpath(*path.parts[1:] or path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


def refuse_unsafe(member: tarfile.TarInfo, archive: Path) -> None:
    """UserError for a member that is no plain file or folder below the archive's own root."""
    unsafe = member.name.startswith(("/", "\\")) or ".." in Path(member.name).parts
    if unsafe or not (member.isfile() or member.isdir()):
        raise UserError(f"{archive} holds {member.name!r}, which no checkpoint needs: the archive is refused")


def find_in_folder(folder: Path, source: Path) -> dict[str, str]:
    """The checkpoint in a folder, at the first of PLACES where there is one, the highest number first.

    Raises:
        UserError: none is there, or not whole; the message names `source`, where the folder's content is from.
    """
    for pattern in PLACES:
        found = sorted(folder.glob(f"{pattern}.index"), key=lambda path: (len(path.name), path.name))
        if found:
            index = found[-1]
            prefix = index.with_suffix("")
            data = data_files(prefix)
            if not data:
                raise UserError(f"{source}: {index.name} has no data file beside it: the checkpoint is not whole")
            layout = "tf2" if OBJECT_GRAPH in index.read_bytes() else "tf1"
            sha256 = workspace.digest([workspace.file_sha256(path) for path in (index, *data)])
            return {"prefix": str(prefix), "layout": layout, "sha256": sha256}
    raise UserError(f"{source} holds no checkpoint: neither checkpoint/ckpt-N.index nor model.ckpt.index is in it")


def data_files(prefix: Path) -> list[Path]:
    """The files with a checkpoint's values."""
    return sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
