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
from urllib.parse import parse_qs, unquote, urlsplit

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, NoBox, Unread, number
from entrypoint.data.formats.encoding import decode
from entrypoint.system import bucket, parallel
from entrypoint.system.bucket import Place
from entrypoint.system.errors import UserError

# Browsers on Windows save JPEG as .jfif.
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jif", ".jfif"})
PHOTO_SUFFIXES = JPEG_SUFFIXES | {".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif"}
# Folders of pictures that belong to photos of the same names.
MASKS = frozenset({"mask", "masks", "segmentation", "segmentations", "segmentationclass", "segmentationobject"})
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
# Words beside the name of a split that do not change its meaning.
NEUTRAL_WORDS = NEUTRAL | {
    "",
    "set",
    "split",
    "data",
    "dataset",
    "image",
    "img",
    "imgs",
    "photos",
    "pictures",
    "label",
    "coco",
    "instances",
}
# As many folders of a photo are compared at most.
DEEPEST = 32
OTHER_FILE = "second file of annotations for a photo, skipped"
OTHER_SPLIT = "photo listed in two splits, taken for one"

Folders = tuple[str, ...]
Annotation = Drawn | NoBox | Unread


@dataclass(slots=True)
class Labelled:
    """The annotations of a photo, unchecked."""

    annotations: list[Annotation]
    in_pixels: bool = False  # corners are in pixels; otherwise they are fractions of width and height
    size: tuple[int, int] | None = None  # width and height of the picture that was annotated, if the format has them
    part: str | None = None  # "train", "validation" or "test", if the annotations name a split
    told: str = ""  # what was decided about the size or the unit
    is_turned: bool = False  # the boxes were drawn on the stored photo and are turned upright with it
    is_upright: bool = False  # the tool is known to draw on upright photos, whatever size it writes
    others: list[Labelled] = field(default_factory=list)  # what else the annotations have for this photo
    file: str = ""  # the key of the file, if it has the boxes of many photos, all in one unit

    @property
    def boxes(self) -> list[Drawn]:
        """The annotations that are boxes."""
        return [each for each in self.annotations if isinstance(each, Drawn)]


@dataclass
class Source:
    """The annotations of a bucket, in the same form for every format."""

    place: Place  # the file, or the folder of the files
    labels: list[str]  # the labels that the annotations list, in the order of their ids
    images: dict[str, Labelled] = field(default_factory=dict)  # by the photo's key
    lost: dict[str, list[str]] = field(default_factory=dict)  # key of `losses.MENDS` -> photos or files of annotations
    found: dict[str, list[str]] = field(default_factory=dict)  # other problems: kind -> photos or files
    format: str = ""  # the name of the format

    def lose(self, reason: str, where: str) -> None:
        """Adds a photo that is lost. `reason` is a key of `losses.MENDS`."""
        self.lost.setdefault(reason, []).append(where)

    def lose_photo(self, name: str, several: list[str]) -> None:
        """Adds an annotation for which no photo fits. `several` are the photos of that name: none of them is nearer."""
        if len(several) > 1:
            self.lose(losses.SEVERAL, f"{name}: {', '.join(several[:3])}")
        else:
            self.lose(losses.MISSING, name)

    def photo_named(self, files: Files, name: str, near: str) -> str | None:
        """Returns the photo that `files.named` finds; None, after adding a loss, if no photo or several photos fit."""
        photo = files.named(name, near)
        if photo is None:
            self.lose_photo(name, files.named_alike(name))
        return photo

    def photo_beside(self, files: Files, key: str) -> str | None:
        """Returns the photo that `files.beside` finds; None, after adding a loss, if no photo or several photos fit."""
        photo = files.beside(key)
        if photo is None:
            self.lose_photo(key, files.all_beside(key))
        return photo

    def lines_of(self, key: str, content: bytes) -> list[str] | None:
        """Returns the lines of the file of one photo; None, after adding a loss, if it is in an unknown encoding."""
        try:
            return decode(content, PurePosixPath(key)).splitlines()
        except UserError as error:
            self.lose(losses.ENCODING, str(error))
            return None

    def tell(self, kind: str, where: str) -> None:
        """Adds a problem of the annotations themselves."""
        self.found.setdefault(kind, []).append(where)

    def add(self, photo: str, labelled: Labelled) -> None:
        """Adds the annotations that a document of many photos has for one photo.

        If documents name different splits for the photo, only the annotations of one split are kept: the split that the
        photo's folder is named after, or else the split that was added first. Annotations that differ are never put
        together: the size of the photo can tell later which of them belong to it.
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
        if (labelled.annotations, labelled.size) != (known.annotations, known.size):
            known.others.append(labelled)

    def add_files(self, claims: list[tuple[str, str, Labelled]]) -> None:
        """Adds photos that have a file of annotations each.

        `claims` are (photo, key of the file, annotations). If several files claim a photo, the nearest file is used.
        """
        by_photo: dict[str, dict[str, Labelled]] = defaultdict(dict)
        for photo, key, labelled in claims:
            by_photo[photo][key] = labelled
        for photo, files in by_photo.items():
            near = Namesakes(list(files)).nearest(folders_of(photo), part_of_folders(photo))
            chosen = near or min(files)
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
        self.by_suffix: dict[str, list[str]] = defaultdict(list)
        for key in self.keys:
            self.by_suffix[suffix_of(key).lower()].append(key)
        self.photos = {key for suffix in PHOTO_SUFFIXES for key in self.by_suffix.get(suffix, ())}
        self.documents: dict[str, tuple[str, Any]] | None = None  # kind and content of JSON files, once read
        self.first_rows: dict[str, list[str]] = {}  # the cells in the first row of tables, once read
        self.damaged: list[str] = []  # damaged files that may hold annotations
        self.is_format_named = False  # DATA_FORMAT names the format

    @functools.cached_property
    def by_name(self) -> Index:
        """The photos by their file names."""
        return Index((name_of(key), key) for key in sorted(self.photos))

    @functools.cached_property
    def by_stem(self) -> Index:
        """The photos by their file names without suffix."""
        return Index((name_of(key).removesuffix(suffix_of(key)), key) for key in sorted(self.photos))

    @functools.cached_property
    def by_spelling(self) -> dict[str, list[str]]:
        """The photos by their keys without differences of case and of the encoding of accents."""
        found: dict[str, list[str]] = defaultdict(list)
        for key in sorted(self.photos):
            found[fold(key)].append(key)
        return found

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Returns the keys with one of these suffixes, the keys nearest to the root first."""
        found = [key for suffix in suffixes for key in self.by_suffix.get(suffix, ())]
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
        found = self.by_spelling.get(fold(key), [])
        return found[0] if len(found) == 1 else None

    def named(self, name: str, near: str) -> str | None:
        """Returns the photo of that name, or None if no photo or several photos fit.

        The name can start with folders of another machine. `near` is the key of the file that contains the name.
        """
        for each in readings(name):
            *others, last = parts_of(each) or [""]
            if photo := self.by_name.of(last).nearest((*folders_of(near), *others), part_of_file(near)):
                return photo
        return None

    def named_alike(self, name: str) -> list[str]:
        """Returns the photos of that name in all folders."""
        return next((keys for each in readings(name) if (keys := self.by_name.of(path_of(each).name).keys)), [])

    def beside(self, key: str) -> str | None:
        """Returns the photo with the same stem as an annotation file, or None if no photo or several photos fit.

        The photo lies in the same folder as the file, or in a parallel folder of the same split.
        """
        return self._beside(key).nearest(folders_of(key), part_of_folders(key))

    def all_beside(self, key: str) -> list[str]:
        """Returns the photos with the same stem as an annotation file that can be of its split."""
        return self._beside(key).keys

    def _beside(self, key: str) -> Namesakes:
        path = PurePosixPath(key)
        return self.by_stem.of(path.stem).of_split(part_of_folders(key), path.parts[:-1])


def readings(name: str) -> Iterator[str]:
    """Yields a name as it is, then as an address: the path that Label Studio puts behind `?d=`, and without escapes.

    A file can have a percent sign in its name, so the name as it is comes first.
    """
    yield name
    if "%" in name or "?" in name or "://" in name:
        try:
            parts = urlsplit(name)
        except ValueError:
            return
        yield from (unquote(value) for value in parse_qs(parts.query).get("d", []))
        yield unquote(parts.path)


def parts_of(name: str) -> list[str]:
    """Returns folders and file in a name, which can be one of Windows.

    Making a `PurePosixPath` of every name would take many times as long.
    """
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]


def path_of(name: str) -> PurePosixPath:
    """Returns the path in a name, which can be one of Windows."""
    return PurePosixPath(name.replace("\\", "/"))


class Index:
    """Photos by their names."""

    def __init__(self, photos: Iterable[tuple[str, str]]) -> None:
        self.by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name, key in photos:
            self.by_name[fold(name)].append((name, key))
        self.known: dict[str, Namesakes] = {}

    def __contains__(self, name: str) -> bool:
        return fold(name) in self.by_name

    def of(self, name: str) -> Namesakes:
        """Returns the photos of exactly that name, or else those that differ in case or in the encoding of accents."""
        if name not in self.known:
            found = self.by_name.get(fold(name), [])
            keys = [key for exact, key in found if exact == name] or [key for _, key in found]
            # A mask has the name of its photo.
            self.known[name] = Namesakes([key for key in keys if not is_mask(key)] or keys)
        return self.known[name]


class Namesakes:
    """Files with one name, by their folders: a search takes no longer if there are many."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.by_split: dict[tuple[Folders, str | None], Namesakes] = {}
        self.by_beginning: dict[Folders, dict[Folders, list[str]]] = {}
        self.chosen: dict[tuple[Folders, Folders, str | None], str | None] = {}

    @functools.cached_property
    def by_end(self) -> dict[Folders, list[str]]:
        """The keys by each of the ends of their folders, the last folder first."""
        return grouped(self.keys, reverse=True)

    def of_split(self, part: str | None, folders: Folders) -> Namesakes:
        """Returns those that can be of that split.

        If some lie in a folder that is named like the last of the given folders, the others are left out first: photos
        are numbered anew in many folders, and the photo that belongs here may be missing.
        """
        end = longest(self.by_end, meaningful(folders)[-1:])
        if (end, part) not in self.by_split:
            self.by_split[end, part] = Namesakes([key for key in self.by_end[end] if may_be_of(part, key)])
        return self.by_split[end, part]

    def nearest(self, folders: Folders, part: str | None) -> str | None:
        """Returns the key whose folders agree most with the given folders, first at their end, then at their beginning.

        Of keys that agree equally, those of the split come first, and then those with fewer folders. Returns None if
        there are no keys, or if two keys are equal in all of this.
        """
        if len(self.keys) < 2:
            return next(iter(self.keys), None)
        end = longest(self.by_end, meaningful(folders)[::-1])
        if end not in self.by_beginning:
            self.by_beginning[end] = grouped(self.by_end[end], reverse=False)
        beginning = longest(self.by_beginning[end], meaningful(folders))
        place = (end, beginning, part)
        if place not in self.chosen:
            self.chosen[place] = first_of(self.by_beginning[end][beginning], part)
        return self.chosen[place]


def grouped(keys: Iterable[str], *, reverse: bool) -> dict[Folders, list[str]]:
    """Returns keys by each beginning of their folders, up to DEEPEST of them; `reverse` begins at the last folder."""
    found: dict[Folders, list[str]] = defaultdict(list, {(): []})
    for key in keys:
        folders = meaningful(folders_of(key))
        folders = folders[::-1][:DEEPEST] if reverse else folders[:DEEPEST]
        for count in range(len(folders) + 1):
            found[folders[:count]].append(key)
    return dict(found)


def longest(groups: Mapping[Folders, list[str]], folders: Folders) -> Folders:
    """Returns the longest beginning of the folders for which there is a group. The empty one is always there."""
    return next(folders[:count] for count in range(min(len(folders), DEEPEST), -1, -1) if folders[:count] in groups)


def first_of(keys: list[str], part: str | None) -> str | None:
    """Returns the key of the split with the fewest folders; None if two keys are equal in this."""

    def rank(key: str) -> tuple[bool, int]:
        is_of_part = part is not None and part_of_folders(key) == part
        return is_of_part, -len(meaningful(folders_of(key)))

    ranked = sorted(keys, key=rank)
    return None if len(ranked) > 1 and rank(ranked[-1]) == rank(ranked[-2]) else ranked[-1]


def folders_of(key: str) -> Folders:
    """Returns the folders in a key. A path takes many times as long, and there are many keys."""
    return tuple(key.split("/")[:-1])


def name_of(key: str) -> str:
    """Returns the name of the file in a key."""
    return key.rpartition("/")[2]


def suffix_of(key: str) -> str:
    """Returns the suffix of the file in a key, with its dot; a name that only begins with a dot has none."""
    stem, dot, suffix = name_of(key).rpartition(".")
    return dot + suffix if stem else ""


def is_mask(key: str) -> bool:
    """Returns whether a picture lies in a folder of masks, which belong to photos of the same names."""
    return any(folder.lower() in MASKS for folder in folders_of(key))


def fold(name: str) -> str:
    """Returns a name in a form that file systems do not change: macOS decomposes accents, others change the case."""
    return unicodedata.normalize("NFC", name).casefold()


@functools.lru_cache(maxsize=1 << 12)
def meaningful(folders: Folders) -> Folders:
    """Returns the folders that distinguish photos of one name."""
    return tuple(folder for folder in folders if folder.lower() not in NEUTRAL)


def part_of_folders(key: str) -> str | None:
    """Returns the split that a folder of the key is named after, such as `val2017` and `Training Set`, or None."""
    return next(filter(None, map(part_of_name, folders_of(key))), None)


@functools.lru_cache(maxsize=1 << 12)
def part_of_name(name: str) -> str | None:
    """Returns the split that a name means if it has no other meaning: a `train_station` is no split."""
    words = [word for word in re.split("[^a-z]+", name.lower()) if word not in NEUTRAL_WORDS]
    return PARTS.get(words[0]) if len(words) == 1 else None


def may_be_of(part: str | None, photo: str) -> bool:
    """Returns whether a photo can be of that split: its folders do not name another split.

    Photos are numbered anew in each split, so that photos of two splits can have the same name.
    """
    return part is None or part_of_folders(photo) in (None, part)


@functools.lru_cache(maxsize=1 << 12)
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
