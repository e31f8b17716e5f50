"""The input and the output of every format's reader: `Files` and `Source`."""

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
from entrypoint.system.errors import UserError

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif"})
# Names that annotation tools give to folders and files -> the split that they mean.
PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# Folders that only separate photos from annotations. Their names do not help to identify a photo.
NEUTRAL = frozenset({"images", "labels", "annotations", "jpegimages", ".", ".."})
OTHER_FILE = "second file of annotations for a photo, skipped"
OTHER_SPLIT = "photo listed in two splits, taken for one"


@dataclass(slots=True)
class Labelled:
    """The annotations of a photo, unchecked."""

    annotations: list[Drawn | NoBox]
    in_pixels: bool = False  # corners are in pixels; otherwise they are fractions of width and height
    size: tuple[int, int] | None = None  # width and height of the picture that was annotated, if the format has them
    part: str | None = None  # "train", "validation" or "test", if the annotations name a split


@dataclass
class Source:
    """The annotations of a bucket, in the same form for every format."""

    place: Place  # the file, or the folder of the files
    labels: list[str]  # the labels that the annotations list, in the order of their ids
    images: dict[str, Labelled] = field(default_factory=dict)  # by the photo's key
    missing: list[str] = field(default_factory=list)  # named photos, or files, for which no photo or several fit
    unreadable: list[str] = field(default_factory=list)  # files of annotations that are damaged
    found: dict[str, list[str]] = field(default_factory=dict)  # other problems: kind -> photos or files

    def tell(self, kind: str, where: str) -> None:
        """Adds a problem of the annotations themselves."""
        self.found.setdefault(kind, []).append(where)

    def add(self, photo: str, labelled: Labelled) -> None:
        """Adds the annotations that a document of many photos has for one photo.

        If two documents name different splits for the photo, only the annotations of one split are kept: the split that
        the photo's folder is named after, or else the split that was added first.
        """
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
        """Adds photos that have a file of annotations each.

        `claims` are (photo, key of the file, annotations). If several files claim a photo, the nearest file is used.
        """
        by_photo: dict[str, dict[str, Labelled]] = defaultdict(dict)
        for photo, key, labelled in claims:
            by_photo[photo][key] = labelled
        for photo, files in by_photo.items():
            chosen = nearest(list(files), list(PurePosixPath(photo).parts[:-1]), part_of_folders(photo)) or min(files)
            self.images[photo] = files.pop(chosen)
            for key in files:
                self.tell(OTHER_FILE, key)


class Files:
    """The files of a bucket by their keys. Finds the photo that an annotation belongs to."""

    def __init__(self, root: Place, entries: Mapping[str, bucket.Entry], workers: int) -> None:
        self.root = root
        self.entries = entries
        self.keys = sorted(entries)
        self.workers = workers
        self.photos = {key for key in self.keys if PurePosixPath(key).suffix.lower() in PHOTO_SUFFIXES}
        self.documents: dict[str, tuple[str, Any]] | None = None  # kind and content of JSON files, once read
        self.damaged: list[str] = []  # damaged files that may hold annotations

    @functools.cached_property
    def by_name(self) -> Index:
        """The photos by their file names."""
        return Index((PurePosixPath(key).name, key) for key in sorted(self.photos))

    @functools.cached_property
    def by_stem(self) -> Index:
        """The photos by their file names without suffix."""
        return Index((PurePosixPath(key).stem, key) for key in sorted(self.photos))

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Returns the keys with one of these suffixes, the keys nearest to the root first."""
        found = [key for key in self.keys if PurePosixPath(key).suffix.lower() in suffixes]
        return sorted(found, key=lambda key: (key.count("/"), key))

    def read(self, key: str, limit: int = bucket.MOST_BYTES) -> bytes:
        """Returns the content of a file of annotations.

        Raises:
            UserError: the file is a link out of the bucket, has more than `limit` bytes, or cannot be read.
        """
        try:
            return bucket.read(self.root / key, self.root, limit)
        except OSError as error:
            if error.errno not in bucket.FINAL:
                raise
            raise UserError(
                f"{self.root / key} cannot be read ({error.strerror}): put a readable file in its place, or remove it"
            ) from None

    def read_all(self, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yields the keys with their contents. Many files are read at a time."""
        return parallel.map_in_order(lambda key: (key, self.read(key)), keys, self.workers)

    def spelt_like(self, key: str) -> str | None:
        """Returns the photo whose key is the same but for case and the encoding of accents.

        Returns None if there is no such photo, or more than one.
        """
        found = [each for each in self.by_name.like(PurePosixPath(key).name) if fold(each) == fold(key)]
        return found[0] if len(found) == 1 else None

    def named(self, name: str, near: str) -> str | None:
        """Returns the photo of that name, or None if no photo or several photos fit.

        The name can start with folders of another machine. `near` is the key of the file that contains the name.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        folders = [*PurePosixPath(near).parts[:-1], *path.parts[:-1]]
        return nearest(self.by_name.candidates(path.name, folders), folders, part_of_file(near))

    def beside(self, key: str) -> str | None:
        """Returns the photo with the same stem as an annotation file, or None if no photo or several photos fit.

        The photo lies in the same folder as the file, or in a parallel folder of the same split.
        """
        folders, part = list(PurePosixPath(key).parts[:-1]), part_of_folders(key)
        found = self.by_stem.candidates(PurePosixPath(key).stem, folders)
        return nearest([each for each in found if may_be_of(part, each)], folders, part)


class Index:
    """Photos by their names and last folders, so that only a few of many photos with one name are compared."""

    def __init__(self, photos: Iterable[tuple[str, str]]) -> None:
        self.by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.by_folder: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, key in photos:
            self.by_name[fold(name)].append((name, key))
            self.by_folder[last_of(PurePosixPath(key).parts[:-1]), name].append(key)

    def __contains__(self, name: str) -> bool:
        return bool(self.like(name))

    def candidates(self, name: str, folders: list[str]) -> list[str]:
        """Returns the photos of that name in a folder named like the last of `folders`, or else all of that name."""
        return self.by_folder.get((last_of(folders), name)) or self.like(name)

    def like(self, name: str) -> list[str]:
        """Returns the photos of exactly that name, or else those that differ in case or in the encoding of accents."""
        found = self.by_name.get(fold(name), [])
        return [key for exact, key in found if exact == name] or [key for _, key in found]


def fold(name: str) -> str:
    """Returns a name in a form that file systems do not change: macOS decomposes accents, others change the case."""
    return unicodedata.normalize("NFC", name).casefold()


def last_of(folders: Iterable[str]) -> str:
    """Returns the last folder that distinguishes photos of one name, or an empty string if there is none."""
    return next(reversed(meaningful(folders)), "")


def nearest(keys: list[str], folders: list[str], part: str | None) -> str | None:
    """Returns the key whose folders agree most with the given folders.

    Of keys that agree equally, those of the split come first, and then those with fewer folders. Returns None if there
    are no keys, or if two keys are equal in all of this.
    """
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
    """Returns the folders that distinguish photos of one name."""
    return [folder for folder in folders if folder.lower() not in NEUTRAL]


def common(first: list[str], second: list[str]) -> int:
    """Returns how many items are the same before the first difference."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def part_of_folders(key: str) -> str | None:
    """Returns the split that a folder of the key is named after: `train`, `valid`, `val2017`; None if there is none."""
    for folder in PurePosixPath(key).parts[:-1]:
        if (name := folder.lower().rstrip("0123456789")) in PARTS:
            return PARTS[name]
    return None


def may_be_of(part: str | None, photo: str) -> bool:
    """Returns whether a photo can be of that split: its folders do not name another split.

    Photos are numbered anew in each split, so that photos of two splits can have the same name.
    """
    return part is None or part_of_folders(photo) in (None, part)


def part_of_file(key: str) -> str | None:
    """Returns the split that a file or one of its folders is named after, or None if there is none.

    Examples are `instances_train2017.json` and `valid/data.json`.
    """
    for word in re.split("[^a-z]+", PurePosixPath(key).stem.lower()):
        if word in PARTS:
            return PARTS[word]
    return part_of_folders(key)


def text(value: Any) -> str | None:
    """Returns a label as text, also a label that was written as a number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    return str(value)


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Returns width and height in pixels, or None unless both are numbers of at least 1."""
    sides = [side for side in (number(width), number(height)) if side is not None and side >= 1]
    return (int(sides[0]), int(sides[1])) if len(sides) > 1 else None
