"""YOLO's text files (docs.ultralytics.com, "Object Detection Datasets Overview"): one per photo, and a list of labels.

A line is `class x y width height`, with the middle and the size as fractions of the photo, or a polygon,
`class x1 y1 x2 y2 ...`, whose hull is the box. The labels are listed in data.yaml, or one per line in classes.txt or
obj.names. An empty file means a photo without objects. A photo without a file was never labelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from entrypoint.data.boxes import Drawn, NoBox, number
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import (
    PARTS,
    Files,
    Labelled,
    Source,
    part_of_folders,
    text,
)
from entrypoint.system.errors import UserError

WANTED = "one text file per photo, with data.yaml or classes.txt"
MOST_BYTES = 1 << 20  # of data.yaml and of lists of labels
BOX_WORDS = 5  # words in the line of a box
SCORED = 6  # words in the line of a box with a score
LISTS = ("classes.txt", "obj.names")


def read(files: Files) -> Source | None:
    """Reads all text files that lie beside a photo of their name, or in `labels` if the photo is in `images`.

    Raises:
        UserError: several files list the labels, and the lists differ.
    """
    names = read_names(files)
    keys = [key for key in files.with_suffix(".txt") if is_of_photo(files, key, names.lists)]
    if not names.labels or not keys:
        return None
    source = Source(files.root / names.key, list(names.labels.values()))
    claims = []
    for key, content in files.read_all(keys):
        photo = files.beside(key)
        if photo is None:
            source.missing.append(key)
            continue
        lines = content.decode(errors="replace").splitlines()
        drawn = [read_line(line.split()[: names.words], names.labels) for line in lines if line.strip()]
        claims.append((photo, key, Labelled(drawn, part=names.lists.get(photo) or part_of_folders(photo))))
    source.add_files(claims)
    return source


def is_of_photo(files: Files, key: str, lists: dict[str, str]) -> bool:
    """Returns whether a text file can belong to a photo: a photo has its stem, or it lies in a folder `labels`."""
    path = PurePosixPath(key)
    if path.name in LISTS or key in lists:
        return False
    return path.stem in files.by_stem or "labels" in path.parts[:-1]


@dataclass(frozen=True)
class Names:
    """The labels and splits, which are not in the files of the photos."""

    key: str = ""  # the key of the file with the labels
    labels: dict[int, str] = field(default_factory=dict)  # number -> label
    lists: dict[str, str] = field(default_factory=dict)  # photo, or list of photos -> split
    words: int | None = None  # how many words of a line belong to the box; None for all


def read_names(files: Files) -> Names:
    """Reads labels and splits from data.yaml, or else from classes.txt or obj.names and lists of photos."""
    documents = {key: parse(files, key) for key in files.with_suffix(".yaml", ".yml")}
    found = {key: labels for key, document in documents.items() if (labels := labels_of(document))}
    if found:
        key, labels = the_one(files, found)
        # The points of a pose follow the box, and would look like the corners of a polygon.
        words = BOX_WORDS if "kpt_shape" in documents[key] else None
        return Names(key, labels, read_parts(files, key, documents[key]), words)
    for key in files.with_suffix(".txt", ".names"):
        if PurePosixPath(key).name in LISTS:
            lines = files.read(key, MOST_BYTES).decode("utf-8-sig", errors="replace").splitlines()
            found[key] = {number: line.strip() for number, line in enumerate(lines) if line.strip()}
    if not found:
        return Names()
    return Names(*the_one(files, found), read_lists(files))


def the_one(files: Files, found: dict[str, dict[int, str]]) -> tuple[str, dict[int, str]]:
    """Returns the first list of labels with its key.

    Raises:
        UserError: another list differs, so that a number could mean two labels.
    """
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            raise UserError(
                f"{files.root / first} and {files.root / other} list different labels: use the same numbers in the "
                "whole bucket, and remove the wrong file"
            )
    return first, found[first]


class Loader(yaml.SafeLoader):
    """Reads YAML without aliases: a few nested ones stand for more values than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Composes a node, as yaml.SafeLoader does.

        Raises:
            yaml.YAMLError: the node is an alias.
        """
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def parse(files: Files, key: str) -> Any:
    """Returns the document in a YAML file. If the file is damaged, notes that and returns None."""
    try:
        return yaml.load(files.read(key, MOST_BYTES), Loader)  # noqa: S506 - it is a SafeLoader
    except (MemoryError, UserError):
        raise
    except Exception:
        # PyYAML raises almost anything for values such as `!!timestamp x`.
        files.damaged.append(key)
        return None


def labels_of(document: Any) -> dict[int, str]:
    """Returns the labels of data.yaml by their numbers. A label that is not text or a number is left out."""
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return {}
    known = {key: label for key, name in names.items() if (label := text(name)) is not None}
    return dict(sorted((int(key), label.strip()) for key, label in known.items() if str(key).isdecimal()))


def read_parts(files: Files, key: str, document: dict[str, Any]) -> dict[str, str]:
    """Returns the split of each photo, and of each list of photos, that data.yaml names under train, val and test."""
    parts: dict[str, str] = {}
    for name, part in PARTS.items():
        entries = document.get(name)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str):
                parts |= dict.fromkeys(named_by(files, key, str(document.get("path") or ""), entry), part)
    return parts


def read_lists(files: Files) -> dict[str, str]:
    """Returns the split of each photo, and of each list of photos, from Darknet's lists train.txt and valid.txt."""
    parts: dict[str, str] = {}
    for key in files.with_suffix(".txt"):
        path = PurePosixPath(key)
        if path.stem.lower() in PARTS and path.stem not in files.by_stem:
            parts |= dict.fromkeys(named_by(files, key, "", path.name), PARTS[path.stem.lower()])
    return parts


def named_by(files: Files, key: str, root: str, entry: str) -> list[str]:
    """Returns the photos of a folder or list that data.yaml names, and the key of the list itself."""
    base = PurePosixPath(key).parent
    for folder in (base / root / entry, base / entry, PurePosixPath(entry)):
        wanted = "/".join(part for part in folder.parts if part not in (".", "..", "/"))
        if wanted in files.keys and wanted.endswith(".txt"):
            lines = files.read(wanted).decode(errors="replace").split("\n")
            return [wanted, *(photo for line in lines if (photo := files.named(line.strip(), wanted)))]
        if below := [photo for photo in files.photos if photo.startswith(f"{wanted}/")]:
            return below
    return []


def read_line(words: list[str], labels: dict[int, str]) -> Drawn | NoBox:
    """Returns the box of a line. A sixth word is a detector's score; more words are the corners of a polygon."""
    first = number(words[0])
    label = labels.get(int(first)) if first is not None and first.is_integer() else None
    if len(words) > SCORED and len(words) % 2:
        return Drawn.from_points(label, words[1::2], words[2::2])
    if len(words) not in (BOX_WORDS, SCORED):
        return NoBox.UNKNOWN
    return Drawn.from_centre(label, *words[1:5])


FORMAT = AnnotationFormat("yolo", WANTED, read)
