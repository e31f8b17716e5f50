"""What every format is read into, and what its reader is given."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from entrypoint.data.boxes import Drawn, NoBox, number
from entrypoint.system import bucket, parallel
from entrypoint.system.bucket import Place

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif"})
# The splits as folders and files are named by the tools that write them.
PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# Folders that part photos from annotations and say nothing of which photo is meant.
NEUTRAL = frozenset({"images", "labels", "annotations", "jpegimages", ".", ".."})
OTHER_FILE = "second file of annotations for a photo, skipped"
OTHER_SPLIT = "photo listed in two splits, taken for one"


@dataclass(slots=True)
class Labelled:
    """What was drawn on a photo, unchecked."""

    annotations: list[Drawn | NoBox]
    in_pixels: bool = False  # corners are pixels, else fractions of width and height
    size: tuple[int, int] | None = None  # width and height of the picture it was drawn on, where the format tells
    part: str | None = None  # "train", "validation" or "test", where the format tells


@dataclass
class Source:
    """What the annotations of a bucket say, whatever their format."""

    place: Place  # the file, or the folder of the files
    labels: list[str]  # those that are listed, in the order of their ids
    images: dict[str, Labelled] = field(default_factory=dict)  # by the photo's key
    missing: list[str] = field(default_factory=list)  # photos that are named, and not there or not to be told apart
    unreadable: list[str] = field(default_factory=list)  # files of annotations that are damaged
    found: dict[str, list[str]] = field(default_factory=dict)  # what else is odd: kind -> photos or files

    def tell(self, kind: str, where: str) -> None:
        """Notes what is odd in the annotations themselves."""
        self.found.setdefault(kind, []).append(where)

    def add(self, photo: str, labelled: Labelled) -> None:
        """Adds what a document of many photos has drawn on one; where splits differ, that of the photo's folder."""
        known = self.images.setdefault(photo, labelled)
        if known is labelled:
            return
        if known.part and labelled.part and known.part != labelled.part:
            self.tell(OTHER_SPLIT, photo)
            if labelled.part == part_of_folders(photo):
                self.images[photo] = labelled
            return
        known.part = known.part or labelled.part
        known.annotations += labelled.annotations

    def add_files(self, claims: list[tuple[str, str, Labelled]]) -> None:
        """Adds photos with a file of annotations each, out of (photo, file, drawn): the file nearest to a photo."""
        by_photo: dict[str, dict[str, Labelled]] = defaultdict(dict)
        for photo, key, labelled in claims:
            by_photo[photo][key] = labelled
        for photo, files in by_photo.items():
            chosen = nearest(list(files), list(PurePosixPath(photo).parts[:-1]), part_of_folders(photo)) or min(files)
            self.images[photo] = files.pop(chosen)
            for key in files:
                self.tell(OTHER_FILE, key)


class Files:
    """The files of a bucket by their keys, and which photo an annotation means."""

    def __init__(self, root: Place, entries: Mapping[str, bucket.Entry], workers: int) -> None:
        self.root = root
        self.entries = entries
        self.keys = sorted(entries)
        self.workers = workers
        self.photos = {key for key in self.keys if PurePosixPath(key).suffix.lower() in PHOTO_SUFFIXES}
        self.documents: dict[str, tuple[str, Any]] | None = None  # kind and content of JSON files, once they were read
        self.damaged: list[str] = []  # files that would hold annotations if they were whole

    @functools.cached_property
    def by_name(self) -> Index:
        """The photos by their names."""
        return Index((PurePosixPath(key).name, key) for key in sorted(self.photos))

    @functools.cached_property
    def by_stem(self) -> Index:
        """The photos by their names without what tells their format."""
        return Index((PurePosixPath(key).stem, key) for key in sorted(self.photos))

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The keys that end so, those nearest to the root first."""
        found = [key for key in self.keys if PurePosixPath(key).suffix.lower() in suffixes]
        return sorted(found, key=lambda key: (key.count("/"), key))

    def read_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The keys with their contents, many read at a time."""
        return parallel.map_in_order(lambda key: (key, bucket.read(self.root / key)), keys, self.workers)

    def spelt_like(self, key: str) -> str | None:
        """The one photo whose key differs in case, or in how accents are encoded, at most."""
        found = [each for each in self.by_name.like(PurePosixPath(key).name) if fold(each) == fold(key)]
        return found[0] if len(found) == 1 else None

    def named(self, name: str, near: str) -> str | None:
        """The photo of that name, which can have folders of another machine before it; `near` is a file's key."""
        path = PurePosixPath(name.replace("\\", "/"))
        folders = [*PurePosixPath(near).parts[:-1], *path.parts[:-1]]
        return nearest(self.by_name.candidates(path.name, folders), folders, part_of_file(near))

    def beside(self, key: str) -> str | None:
        """The photo that an annotation file of its stem belongs to, in its folder or a parallel one of its split."""
        folders, part = list(PurePosixPath(key).parts[:-1]), part_of_folders(key)
        found = self.by_stem.candidates(PurePosixPath(key).stem, folders)
        return nearest([each for each in found if may_be_of(part, each)], folders, part)


class Index:
    """Photos by their names, so that of many with one name few are compared."""

    def __init__(self, photos: Iterable[tuple[str, str]]) -> None:
        self.by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.by_folder: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, key in photos:
            self.by_name[fold(name)].append((name, key))
            self.by_folder[last_of(PurePosixPath(key).parts[:-1]), name].append(key)

    def __contains__(self, name: str) -> bool:
        return bool(self.like(name))

    def candidates(self, name: str, folders: list[str]) -> list[str]:
        """The photos of that name: those in a folder of the last one's name, or else all of them."""
        return self.by_folder.get((last_of(folders), name)) or self.like(name)

    def like(self, name: str) -> list[str]:
        """The photos of that name, or else those that differ from it in case or in how accents are encoded."""
        found = self.by_name.get(fold(name), [])
        return [key for exact, key in found if exact == name] or [key for _, key in found]


def fold(name: str) -> str:
    """A name without what file systems change in it: macOS takes accents apart, others mend the case."""
    return unicodedata.normalize("NFC", name).casefold()


def last_of(folders: Iterable[str]) -> str:
    """The last folder that tells one photo from another; empty for none."""
    return next(reversed(meaningful(folders)), "")


def nearest(keys: list[str], folders: list[str], part: str | None) -> str | None:
    """The key whose folders agree most with those given, and then with the split; None for none, or two alike."""
    wanted = meaningful(folders)

    def rank(key: str) -> tuple[int, int, bool, int]:
        found = meaningful(PurePosixPath(key).parts[:-1])
        is_of_part = part is not None and part_of_folders(key) == part
        return common(found[::-1], wanted[::-1]), common(found, wanted), is_of_part, -len(found)

    ranked = sorted(keys, key=rank)
    if not ranked or (len(ranked) > 1 and rank(ranked[-1]) == rank(ranked[-2])):
        return None
    return ranked[-1]


def meaningful(folders: Iterable[str]) -> list[str]:
    """The folders that tell one photo from another of its name."""
    return [folder for folder in folders if folder.lower() not in NEUTRAL]


def common(first: list[str], second: list[str]) -> int:
    """How many items are the same before the first that differs."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def part_of_folders(key: str) -> str | None:
    """The split that a folder of the key is named after: `train`, `valid`, `val2017`."""
    for folder in PurePosixPath(key).parts[:-1]:
        if (name := folder.lower().rstrip("0123456789")) in PARTS:
            return PARTS[name]
    return None


def may_be_of(part: str | None, photo: str) -> bool:
    """Whether no folder says that a photo is of another split: photos are numbered anew in each."""
    return part is None or part_of_folders(photo) in (None, part)


def part_of_file(key: str) -> str | None:
    """The split that a file or a folder of its is named after: `instances_train2017.json`, `valid/data.json`."""
    for word in re.split("[^a-z]+", PurePosixPath(key).stem.lower()):
        if word in PARTS:
            return PARTS[word]
    return part_of_folders(key)


def text(value: Any) -> str | None:
    """A label, also one that was written as a number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    return str(value)


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height in pixels; None unless both are positive numbers."""
    sides = [side for side in (number(width), number(height)) if side is not None and side >= 1]
    return (int(sides[0]), int(sides[1])) if len(sides) > 1 else None
