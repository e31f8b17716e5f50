"""YOLO's text files (docs.ultralytics.com, "Object Detection Datasets Overview"): one per photo, and a list of labels.

A line is `class x y width height`, the middle and the size as fractions of the photo; or `class x1 y1 x2 y2 ...`, a
polygon, of which the hull is taken. The labels stand in data.yaml, or one a line in classes.txt or obj.names. An empty
file is a photo without objects; a photo without a file was never labelled.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import yaml

from entrypoint import bucket
from entrypoint.formats.source import PARTS, Files, Labelled, Source, box, box_of_centre, number, part_of_folders

WANTED = "text files of one photo each, with data.yaml or classes.txt"
SCORED = 6  # numbers in a line with a score
LISTS = ("classes.txt", "obj.names")


def read(files: Files) -> Source | None:
    """The boxes of all text files that lie beside a photo of their name, or in `labels` where that is in `images`."""
    place, labels, lists = read_labels(files)
    keys = [key for key in files.with_suffix(".txt") if is_of_photo(files, key, lists)]
    if not labels or not keys:
        return None
    source = Source(files.root / place, list(labels.values()))
    for key, content in files.read_all(keys):
        photo = files.beside(key)
        if photo is None:
            source.missing.append(key)
            continue
        lines = content.decode(errors="replace").splitlines()
        drawn = [read_line(line.split(), labels) for line in lines if line.strip()]
        source.images[photo] = Labelled(drawn, part=lists.get(photo) or part_of_folders(photo))
    return source


def is_of_photo(files: Files, key: str, lists: dict[str, str]) -> bool:
    """Whether a text file can be a photo's: it shares its stem with one, or lies in a folder of labels."""
    path = PurePosixPath(key)
    if path.name in LISTS or key in lists:
        return False
    return path.stem in files.by_stem or "labels" in path.parts[:-1]


def read_labels(files: Files) -> tuple[str, dict[int, str], dict[str, str]]:
    """The file of the labels, the labels by their numbers, and the splits by key."""
    for key in files.with_suffix(".yaml", ".yml"):
        document = parse(bucket.read(files.root / key))
        names = document.get("names") if isinstance(document, dict) else None
        if isinstance(names, list):
            names = dict(enumerate(names))
        if isinstance(names, dict) and names:
            labels = {int(number): str(name) for number, name in names.items() if str(number).isdecimal()}
            return key, dict(sorted(labels.items())), read_parts(files, key, document)
    for key in files.with_suffix(".txt", ".names"):
        if PurePosixPath(key).name in LISTS:
            lines = bucket.read(files.root / key).decode("utf-8-sig", errors="replace").splitlines()
            return key, {number: line.strip() for number, line in enumerate(lines) if line.strip()}, {}
    return "", {}, {}


def parse(content: bytes) -> Any:
    """The document; None where it is damaged."""
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError):
        return None


def read_parts(files: Files, key: str, document: dict[str, Any]) -> dict[str, str]:
    """The split of each photo, and of each list of photos, that data.yaml names under train, val and test."""
    parts: dict[str, str] = {}
    for name, part in PARTS.items():
        entries = document.get(name)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str):
                parts |= dict.fromkeys(named_by(files, key, str(document.get("path") or ""), entry), part)
    return parts


def named_by(files: Files, key: str, root: str, entry: str) -> list[str]:
    """The photos in a folder, or in a list of photos, that data.yaml names; the list is among them."""
    base = PurePosixPath(key).parent
    for folder in (base / root / entry, base / entry, PurePosixPath(entry)):
        wanted = "/".join(part for part in folder.parts if part not in (".", "..", "/"))
        if wanted in files.keys and wanted.endswith(".txt"):
            lines = bucket.read(files.root / wanted).decode(errors="replace").split("\n")
            return [wanted, *(photo for line in lines if (photo := files.named(line.strip(), wanted)))]
        if below := [photo for photo in files.photos if photo.startswith(f"{wanted}/")]:
            return below
    return []


def read_line(words: list[str], labels: dict[int, str]) -> Any:
    """The box of a line; a sixth number is a detector's score, more are the corners of a polygon."""
    values = [number(word) for word in words]
    label = labels.get(int(values[0])) if values[0] is not None and values[0].is_integer() else None
    if len(values) > SCORED and len(values) % 2:
        xs, ys = ([value for value in values[start::2] if value is not None] for start in (1, 2))
        return box(label, min(xs, default=None), min(ys, default=None), max(xs, default=None), max(ys, default=None))
    if len(values) not in (SCORED - 1, SCORED):
        return None
    return box_of_centre(label, *values[1:5])
