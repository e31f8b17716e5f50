"""The files through which the steps speak: everything below WORK_DIR, written whole or not at all."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entrypoint.settings.schema import Settings
from entrypoint.system import bucket
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError


@dataclass(frozen=True)
class Workspace:
    """The settings of a job and the places of its files."""

    settings: Settings

    @property
    def root(self) -> Path:
        """WORK_DIR."""
        return self.settings.work_dir

    @property
    def is_chief(self) -> bool:
        """Whether this machine writes the results; in a cluster one of them does."""
        return self.settings.tf_config is None or self.settings.tf_config.is_chief

    @property
    def results(self) -> Place:
        """RESULT_DIR."""
        return self.settings.result_dir

    @property
    def dataset(self) -> Path:
        """The checked annotations, as `annotations` writes them."""
        return self.root / "dataset.json"

    @property
    def label_map(self) -> Path:
        """The label map, in upstream's text format."""
        return self.root / "label_map.pbtxt"

    @property
    def records(self) -> Path:
        """The folder of the TFRecord shards and their manifest."""
        return self.root / "records"

    @property
    def zoo(self) -> Path:
        """The folder of downloaded archives and what was extracted from them."""
        return self.root / "zoo"

    @property
    def start(self) -> Path:
        """Which checkpoint training starts from, as `checkpoint` writes it."""
        return self.root / "start.json"

    @property
    def pipeline(self) -> Path:
        """The pipeline.config that is run."""
        return self.root / "pipeline.config"

    @property
    def changes(self) -> Path:
        """What this job changed in the pipeline.config, as `pipeline` writes it."""
        return self.root / "pipeline_changes.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of training checkpoints and TensorBoard events."""
        return self.root / "checkpoint"

    @property
    def events(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.checkpoints / "events"

    @property
    def metrics(self) -> Path:
        """The metrics of the validation split."""
        return self.root / "metrics.json"

    @property
    def detections(self) -> Path:
        """What the model found on the validation split, for the report."""
        return self.root / "detections.json"

    @property
    def report(self) -> Path:
        """The report, one HTML page."""
        return self.root / "report.html"

    @property
    def replaced(self) -> Path:
        """The files in RESULT_DIR of the finished job that this one replaces."""
        return self.root / "replaced.json"

    @property
    def marks(self) -> Path:
        """The folder of the marks of finished steps."""
        return self.root / "steps"


MARKER = ".training-job"


@contextmanager
def claim(work: Workspace) -> Iterator[None]:
    """Makes WORK_DIR and keeps it to this process.

    Raises:
        UserError: it is another job's, or another user's, or a folder of the user's with something else in it, which
            the steps would replace.
    """
    root = work.root
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UserError(f"WORK_DIR={root} cannot be made ({error.strerror}): name a folder to write to") from None
    if not os.access(root, os.W_OK | os.X_OK):
        raise UserError(f"WORK_DIR={root} cannot be written to: name another folder")
    # The default place lies where anybody can make folders, and what lies in ours is trusted.
    if root.parent == Path(tempfile.gettempdir()) and root.stat().st_uid != os.getuid():
        raise UserError(f"WORK_DIR={root} belongs to user {root.stat().st_uid}: name another folder")
    if not (root / MARKER).exists() and any(root.iterdir()):
        raise UserError(f"WORK_DIR={root} holds files that are none of this job's: name an empty or a new folder")
    with (root / MARKER).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"WORK_DIR={root} is in use by another job: name another folder") from None
        yield


def read_json(path: Path, needed_step: str, to_object: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The document that an earlier step wrote; UserError names the step where it has not run.

    `to_object` makes of each object in it, the inner ones first, what is to stand in its place.
    """
    return json.loads(existing(path, needed_step).read_text(encoding="utf-8"), object_hook=to_object)


def existing(path: Path, needed_step: str) -> Path:
    """The path of what an earlier step wrote; UserError names the step where it has not run."""
    if not path.exists():
        raise UserError(f"{path} is missing: run the step `{needed_step}` first, or the whole job")
    return path


def remove_mark(step: str, work: Workspace) -> None:
    """Forgets that a step was finished."""
    (work.marks / f"{step}.json").unlink(missing_ok=True)


def read_marks(work: Workspace) -> dict[str, Any]:
    """The marks of the finished steps by name, in the order in which they ran."""
    found = [(path.stem, read_mark(path.stem, work)) for path in work.marks.glob("*.json")]
    marks = [(name, mark) for name, mark in found if mark]
    return dict(sorted(marks, key=lambda item: float(item[1]["began"])))


def read_mark(step: str, work: Workspace) -> dict[str, Any] | None:
    """The mark of a step; None where it has not finished."""
    try:
        return dict(json.loads((work.marks / f"{step}.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def output_of(step: str, work: Workspace) -> str | None:
    """What identifies the output of a finished step; None where it has not finished."""
    mark = read_mark(step, work)
    return str(mark["output"]) if mark else None


def write_json(path: Path, document: Any) -> None:
    """Writes a document with keys in order, so that equal documents are equal bytes; dataclasses as their fields."""
    write_chunks(path, itertools.chain(encoder(indent=1).iterencode(document), "\n"))


def to_json(document: Any) -> str:
    """A document as text, the same for equal documents."""
    return encoder(indent=1).encode(document) + "\n"


def encoder(indent: int | None = None) -> json.JSONEncoder:
    """How documents are written: keys in order, dataclasses as their fields, one after another."""
    return json.JSONEncoder(indent=indent, sort_keys=True, allow_nan=False, default=fields_of)


def fields_of(item: Any) -> Any:
    """The fields of a dataclass by their names; of anything else its text."""
    if dataclasses.is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return str(item)


def write_text(path: Path, text: str) -> None:
    """Writes a file of WORK_DIR so that a killed job leaves the old file or the new one."""
    write_chunks(path, (text,))


def write_chunks(path: Path, chunks: Iterable[str]) -> None:
    """The same for a text in pieces, which need not be in memory together."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    # File names that are no UTF-8 come as lone surrogates.
    with temporary.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(chunks)
    temporary.replace(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A scratch folder that takes the place of `path` when the block ends well, and vanishes when it does not."""
    scratch = path.with_name(f".{path.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    scratch.replace(path)


def digest(document: Any) -> str:
    """SHA-256 of a JSON document, whatever the order of its keys."""
    sha256 = hashlib.sha256()
    for chunk in encoder().iterencode(document):
        sha256.update(chunk.encode())
    return sha256.hexdigest()


def file_sha256(place: Place) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits; OSError names the place."""
    sha256 = hashlib.sha256()
    for block in bucket.blocks(place):
        sha256.update(block)
    return sha256.hexdigest()
