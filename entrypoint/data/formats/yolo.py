"""YOLO's text files (docs.ultralytics.com, "Object Detection Datasets Overview"): one per photo, and a list of labels.

A line is `class x y width height`, with the middle and the size as fractions of the photo, or a polygon,
`class x1 y1 x2 y2 ...`, whose hull is the box, also of the four corners of a rotated box. The labels are listed in
data.yaml, or one per line in classes.txt or obj.names. An empty file means a photo without objects. A photo without a
file was never labelled.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, NoBox, Unread, number
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.encoding import decode
from entrypoint.data.formats.source import (
    PARTS,
    Files,
    Labelled,
    Source,
    part_of_folders,
    path_of,
    text,
)
from entrypoint.system.errors import UserError

WANTED = "one text file per photo, with data.yaml or classes.txt"
MOST_BYTES = 1 << 20  # of data.yaml and of lists of labels
BOX_WORDS = 5  # words in the line of a box
SCORED = 6  # words in the line of a box with a score
TRACKED = 7  # words in the line of a box with a score and the number of a track, or of a polygon of three points
LISTS = ("classes.txt", "obj.names")
# Names that programs give the list as well. LabelImg keeps its own list in predefined_classes.txt.
OTHER_LISTS = ("labels.txt", "predefined_classes.txt")
# Label Studio writes the ids of the labels beside classes.txt.
NOTES = "notes.json"
COMMAS = "line with commas between its numbers, read as if they were blanks"
DECIMALS = "line with commas as decimal points, read as such"
BY_NUMBER = "file of a photo whose labels are the numbers of the classes, because no file lists them"
TRACKS = "line with the number of a track behind the score, read without them"


def read(files: Files) -> Source | None:
    """Reads all text files that lie beside a photo of their name, or in `labels` if the photo is in `images`.

    Raises:
        UserError: several files list the labels, and the lists differ.
    """
    texts = [key for key in files.with_suffix(".txt") if is_of_photo(files, key)]
    # The list of labels is read only if there is something to read with it: it can belong to another format.
    names = read_names(files) if texts else Names()
    keys = [key for key in texts if key not in names.lists]
    if not keys or not (names.labels or names.may_be_numbers):
        return None
    source = Source(files.root / names.key, [])
    lines = dict(read_lines(source, files, keys, names))
    if not names.labels:
        names = numbered(source, names, lines)
    if not names.labels:
        return None
    source.labels = list(names.labels.values())
    are_tracked = has_tracks(words for file in lines.values() for _, words in file)
    claims = []
    for key, file in lines.items():
        photo = source.photo_beside(files, key)
        if photo is None:
            continue
        if are_tracked and file:
            source.tell(TRACKS, key)
        drawn = [read_line(words, names, f"{key} line {row}", are_tracked=are_tracked) for row, words in file]
        claims.append((photo, key, Labelled(drawn, part=names.lists.get(photo) or part_of_folders(photo))))
    refuse_unknown_split(source, names, claims)
    source.add_files(claims)
    return source


def read_lines(
    source: Source, files: Files, keys: list[str], names: Names
) -> Iterable[tuple[str, list[tuple[int, list[str]]]]]:
    """Yields each file with the numbers and the words of its lines; blank lines are left out."""
    for key, content in files.read_all(keys):
        lines = source.lines_of(key, content)
        if lines is None:
            continue
        if any("," in line for line in lines):
            is_decimal = any(has_decimal_commas(line) for line in lines)
            source.tell(DECIMALS if is_decimal else COMMAS, key)
            lines = [line.replace(",", "." if is_decimal else " ") for line in lines]
        yield key, [(row, words[: names.words]) for row, line in enumerate(lines, 1) if (words := line.split())]


def has_decimal_commas(line: str) -> bool:
    """Returns whether a line has five words, and commas within numbers only: `0 0,5 0,25 0,1 0,1`."""
    words = line.split()
    return len(words) == BOX_WORDS and all(re.fullmatch(r"\d+(,\d+)?", word) for word in words)


def has_tracks(lines: Iterable[list[str]]) -> bool:
    """Returns whether all lines end in a score and the number of a track, and not in the third point of a polygon.

    The coordinates of a point are fractions, and numbers of tracks are whole numbers from 1 on.
    """
    are_there = False
    for words in lines:
        last = number(words[-1])
        if len(words) != TRACKED or last is None or last < 1 or not last.is_integer():
            return False
        are_there = True
    return are_there


def is_of_photo(files: Files, key: str) -> bool:
    """Returns whether a text file can belong to a photo: a photo has its stem, or it lies in a folder `labels`."""
    path = PurePosixPath(key)
    return not is_list(files, key) and (path.stem in files.by_stem or "labels" in path.parts[:-1])


def is_list(files: Files, key: str) -> bool:
    """Returns whether a file has the name of a list of labels, and not that of a photo."""
    path = PurePosixPath(key)
    return (
        path.name in LISTS or path.suffix == ".names" or (path.name in OTHER_LISTS and path.stem not in files.by_stem)
    )


@dataclass(frozen=True)
class Names:
    """The labels and splits, which are not in the files of the photos."""

    key: str = ""  # the key of the file with the labels
    labels: dict[int, str] = field(default_factory=dict)  # number -> label
    lists: dict[str, str] = field(default_factory=dict)  # photo, or list of photos -> split
    words: int | None = None  # how many words of a line belong to the box; None for all
    unfound: tuple[str, ...] = ()  # lines of data.yaml that name photos which are not in the bucket
    may_be_numbers: bool = False  # no file lists the labels, and DATA_FORMAT says that the text files are YOLO's


def numbered(source: Source, names: Names, lines: dict[str, list[tuple[int, list[str]]]]) -> Names:
    """Returns the labels "0", "1" and so on, for all numbers of classes that are there."""
    classes = {number(words[0]) for file in lines.values() for _, words in file if len(words) >= BOX_WORDS}
    found = sorted(int(value) for value in classes if value is not None and value >= 0 and value.is_integer())
    for key in lines if found else ():
        source.tell(BY_NUMBER, key)
    return dataclasses.replace(names, labels={value: str(value) for value in found})


def read_names(files: Files) -> Names:
    """Reads labels and splits from data.yaml, or else from a list of labels and lists of photos.

    Raises:
        UserError: two files list different labels, or a list is not UTF-8.
    """
    documents = {key: parse(files, key) for key in files.with_suffix(".yaml", ".yml")}
    described = {key: labels for key, document in documents.items() if (labels := labels_of(document))}
    listed = read_label_lists(files, others=not described)
    if not described and not listed:
        is_listed = files.damaged or any(isinstance(each, dict) and "names" in each for each in documents.values())
        if is_listed or not files.is_format_named:
            return Names()
        return Names(lists=read_lists(files), may_be_numbers=True)
    key, labels = the_one(files, described | listed | read_notes(files, [*described, *listed]))
    if key not in described:
        return Names(key, labels, read_lists(files))
    # The points of a pose follow the box, and would look like the corners of a polygon.
    words = BOX_WORDS if "kpt_shape" in documents[key] else None
    parts, unfound = read_parts(files, key, documents[key])
    return Names(key, labels, parts, words, unfound)


def read_label_lists(files: Files, *, others: bool) -> dict[str, dict[int, str]]:
    """Returns the lists of labels with one label per line, by their keys.

    With `others`, files with the names that only some programs use count if there is no list of a usual name.
    """
    keys = [key for key in files.with_suffix(".txt", ".names") if is_list(files, key)]
    usual = [key for key in keys if PurePosixPath(key).name not in OTHER_LISTS]
    for chosen in (usual, keys if others else []):
        found = {}
        for key in chosen:
            lines = decode(files.read(key, MOST_BYTES), files.root / key).splitlines()
            found[key] = {number: line.strip() for number, line in enumerate(lines) if line.strip()}
        if found:
            return found
    return {}


def read_notes(files: Files, lists: list[str]) -> dict[str, dict[int, str]]:
    """Returns the labels in Label Studio's notes.json beside a list of labels, by its key."""
    folders = {str(PurePosixPath(key).parent) for key in lists}
    found = {}
    for key in files.with_suffix(".json"):
        path = PurePosixPath(key)
        if path.name != NOTES or str(path.parent) not in folders:
            continue
        try:
            document = json.loads(files.read(key, MOST_BYTES))
        except (ValueError, RecursionError):
            continue
        categories = document.get("categories") if isinstance(document, dict) else None
        rows = [each for each in categories if isinstance(each, dict)] if isinstance(categories, list) else []
        labels = {
            int(index): name
            for each in rows
            if (index := number(each.get("id"))) is not None and (name := text(each.get("name"))) is not None
        }
        if labels:
            found[key] = dict(sorted(labels.items()))
    return found


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


def read_parts(files: Files, key: str, document: dict[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns the split of each photo, and of each list of photos, that data.yaml names under train, val and test.

    Also returns the lines that name no photo of the bucket.

    Raises:
        UserError: data.yaml names some photos in two splits.
    """
    found: dict[str, set[str]] = {}
    unfound: list[str] = []
    for name, part in PARTS.items():
        entries = document.get(name)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and entry.strip():
                photos = named_by(files, key, str(document.get("path") or ""), entry)
                unfound += [] if photos else [f"{name}: {entry}"]
                found.setdefault(part, set()).update(photos)
    return parts_of(files, key, found), tuple(unfound)


def refuse_unknown_split(source: Source, names: Names, claims: list[tuple[str, str, Labelled]]) -> None:
    """Raises UserError if data.yaml names photos that are not found, and annotated photos are in none of its splits.

    They may be those that it means, and a photo for a test must not be trained on.
    """
    without = [photo for photo, _, labelled in claims if labelled.part is None]
    if names.unfound and without and len(without) < len(claims):
        raise UserError(
            f"{source.place} names photos that are not in the bucket ({'; '.join(names.unfound)}), and {len(without)} "
            f"annotated photos are in no split, such as {without[0]}: correct the paths, or remove the lines"
        )


def parts_of(files: Files, key: str, found: dict[str, set[str]]) -> dict[str, str]:
    """Returns the split of each photo; empty if training and validation are the same photos, which is no split.

    Raises:
        UserError: only some photos are in two splits.
    """
    if found.get("train") == found.get("validation"):
        found = {part: photos for part, photos in found.items() if part == "test"}
    parts: dict[str, str] = {}
    for part, photos in found.items():
        if twice := sorted(photos & parts.keys()):
            raise UserError(
                f"{files.root / key} has {len(twice)} photos in two splits, the first is {twice[0]} for "
                f"{parts[twice[0]]} and {part}: name each photo once"
            )
        parts |= dict.fromkeys(photos, part)
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
    """Returns the photos of a folder or list that data.yaml names, and the key of the list itself.

    The path can be one of another machine, of which the last folders and the name are those of the bucket.
    """
    base, path = PurePosixPath(key).parent, path_of(entry)
    folders = [base / path_of(root) / path, base / path, path]
    # A single folder, such as `images`, is the end of too many paths.
    last = 1 if path.suffix == ".txt" else 2
    folders += [PurePosixPath(*path.parts[start:]) for start in range(1, len(path.parts) - last + 1)]
    for folder in folders:
        wanted = "/".join(part for part in folder.parts if part not in (".", "..", "/"))
        if wanted in files.keys and wanted.endswith(".txt"):
            lines = decode(files.read(wanted), files.root / wanted).splitlines()
            return [wanted, *(photo for line in lines if (photo := files.named(line.strip(), wanted)))]
        if wanted and (below := [photo for photo in files.photos if photo.startswith(f"{wanted}/")]):
            return below
    return []


def read_line(words: list[str], names: Names, where: str, *, are_tracked: bool) -> Drawn | NoBox | Unread:
    """Returns the box of a line. A sixth word is a detector's score; more words are the corners of a polygon."""
    values = [number(word) for word in words]
    if None in values:
        return Unread(losses.NUMBERS, f"{where}: {' '.join(words)[:40]}")
    first = number(words[0])
    if first is None or not first.is_integer() or int(first) not in names.labels:
        known = f"{min(names.labels)} to {max(names.labels)}"
        return Unread(losses.CLASS, f"{where}: class {words[0]}, and {names.key} has {known}")
    label = names.labels[int(first)]
    if len(words) > SCORED and len(words) % 2 and not are_tracked:
        return Drawn.from_points(label, words[1::2], words[2::2])
    if len(words) not in (BOX_WORDS, SCORED) and not are_tracked:
        return Unread(losses.WORDS, f"{where}: {len(words)} words")
    if len(words) == SCORED and not 0 <= (values[-1] or 0.0) <= 1:
        return Unread(losses.NO_SCORE, f"{where}: {words[-1]}")
    return Drawn.from_centre(label, *words[1:BOX_WORDS])


FORMAT = AnnotationFormat("yolo", WANTED, read)
