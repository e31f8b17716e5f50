"""The bucket's annotations -> dataset.json: photos with checked, normalised boxes, and all repairs and losses."""

from __future__ import annotations

import dataclasses
import html
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from entrypoint import workspace
from entrypoint.data import frames, losses, sizes, units
from entrypoint.data.boxes import Box, Drawn, NoBox, Unread
from entrypoint.data.formats import cloud_annotations, reading
from entrypoint.data.formats.source import Files, Labelled, Source
from entrypoint.data.frames import Measure
from entrypoint.data.images import Frame
from entrypoint.settings.schema import Settings
from entrypoint.system import bucket, files
from entrypoint.system.bucket import Entry, Place
from entrypoint.system.errors import UserError
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

LINK = "folder is a link, not followed, its photos are left out"
UNLISTED = "photo in none of the bucket's splits, trained on"
NOT_KEPT = "photo in a folder or list of a split that most photos are in none of, the split is not kept"
SMALLEST = 1e-6  # of a side of the photo: a smaller box has no area in the records' float32


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A photo by its key in the bucket, and the boxes on it. A photo without boxes shows no object."""

    key: str
    boxes: tuple[Box, ...]
    part: str | None = None  # "train" or "validation" if the bucket has its own split
    bytes: int = field(default=0, compare=False)  # of the file
    version: str = field(default="", compare=False)  # changes whenever the photo changes


@dataclass(frozen=True)
class Origin:
    """Which annotations of a bucket were read."""

    format: str  # its name, as in DATA_FORMAT
    place: str  # the file, or the folder of the files


@dataclass
class Findings:
    """All repairs and losses: kind -> the photos or labels concerned."""

    kinds: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Adds one finding."""
        self.kinds.setdefault(kind, []).append(where)


@dataclass
class Dataset:
    """The checked annotations: labels in the order of their ids, photos in the order of their keys."""

    labels: list[str]
    images: list[LabelledImage]
    findings: Findings = field(default_factory=Findings)
    unlabelled: int = 0

    @property
    def lost(self) -> list[str]:
        """The photos that cannot be used, and the files of annotations that cannot be read: one entry for each."""
        return [where for kind in losses.MENDS for where in self.findings.kinds.get(kind, [])]


def run(work: Workspace) -> str:
    """Reads and checks the annotations and writes dataset.json, or fetches it; returns a digest of it.

    Raises:
        UserError: there is no box to train on, or RECORDS_DIR holds no records.
    """
    if work.settings.records_dir:
        bucket.fetch(refuse_missing_records(work.settings.records_dir) / "dataset.json", work.dataset)
        dataset = load(work)
    else:
        dataset, origin = read_with_origin(work.settings, work.results, frames.remembering(work))
        logger.info("annotations in the format %s: %s", origin.format, origin.place)
        files.write_large_json(work.dataset, dataset)
    boxes = Counter(box.label for image in dataset.images for box in image.boxes)
    logger.info("%d photos, %d boxes, %d labels", len(dataset.images), boxes.total(), len(boxes))
    if any(image.part for image in dataset.images):
        logger.info("the bucket's own split is kept, and VALIDATION_FRACTION is not used")
    if dataset.unlabelled:
        logger.info("%d photos of the bucket carry no annotation and are not used", dataset.unlabelled)
    for kind, where in dataset.findings.kinds.items():
        logger.warning("%s: %d (%s%s)", kind, len(where), ", ".join(where[:3]), ", ..." if len(where) > 3 else "")
    return identify(dataset)


def identify(dataset: Dataset) -> str:
    """Returns a digest of labels and boxes, which does not depend on the content of the photos."""
    plain = [dataclasses.replace(image, bytes=0, version="") for image in dataset.images]
    return files.digest(dataclasses.replace(dataset, images=plain))


def load(work: Workspace) -> Dataset:
    """Returns the dataset that the step wrote, or that `convert` wrote into RECORDS_DIR.

    Raises:
        UserError: the file is damaged.
    """
    path = workspace.existing(work.dataset, "annotations")
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_hook=to_object)
        findings = Findings(document["findings"]["kinds"])
        return Dataset(document["labels"], document["images"], findings, document["unlabelled"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error!r}): remove it, or the RECORDS_DIR that it comes from, and start again"
        ) from None


def of_json(text: str) -> LabelledImage:
    """Returns a photo from its JSON."""
    image: LabelledImage = json.loads(text, object_hook=to_object)
    return image


def to_object(item: dict[str, Any]) -> Any:
    """Converts an object of JSON to a photo or a box as soon as it is read; other objects stay unchanged."""
    if "xmin" in item:
        # All boxes of a label share one string.
        return Box(**{**item, "label": sys.intern(item["label"])})
    return LabelledImage(**{**item, "boxes": tuple(item["boxes"])}) if "boxes" in item else item


def read_bucket(settings: Settings, exclude: Place) -> Dataset:
    """Returns the dataset of the bucket DATA_DIR; see `read_with_origin`."""
    return read_with_origin(settings, exclude)[0]


def read_with_origin(
    settings: Settings, exclude: Place, measure: Measure = frames.measure_headers, *, measures_all: bool = False
) -> tuple[Dataset, Origin]:
    """Returns the dataset of the bucket DATA_DIR, and where it comes from.

    `exclude` is a folder in the bucket that holds no data of the user, as RECORDS_DIR is. `measure` returns the sizes
    of photos: of those whose boxes depend on it, or of all photos with annotations.

    Raises:
        UserError: there are no annotations in a known format, or they hold no box that can be used.
    """
    refuse_missing_bucket(settings.data_dir)
    root = settings.data_dir if bucket.is_remote(settings.data_dir) else settings.data_dir.resolve()
    links: list[str] = []
    own = (exclude, settings.records_dir) if settings.records_dir else (exclude,)
    listing = bucket.listing(root, own, links)
    files = Files(root, listing, settings.workers)
    source = reading.read(files, settings.data_format)
    findings = Findings()
    for key in links:
        findings.add(LINK, key)
    labelled = find_photos(source, files, findings)
    measured = measure(list(labelled) if measures_all else sized_by_photo(labelled, listing), files)
    chosen = {key: choose(key, each, measured.get(key), findings) for key, each in labelled.items()}
    labelled = sizes.decide(units.decide(chosen, measured), measured)
    sizes.refuse_many_beyond(labelled, measured, settings.max_repaired)
    images = []
    for key, each in keep_own_split(labelled, findings).items():
        if settings.empty_photos == "drop" and all(one is NoBox.NEGATIVE for one in each.annotations):
            findings.add("photo without a box, dropped (EMPTY_PHOTOS=drop)", key)
        else:
            entry = listing[key]
            found = read_image(key, each, measured.get(key), findings)
            images += [dataclasses.replace(image, bytes=entry.size, version=entry.version) for image in found]
    labels = order_labels(source.labels, images, findings)
    if not labels:
        raise UserError(
            f"{source.place} has no usable box ({describe(findings)}): {mend_for_no_box(findings)}, then start again"
        )
    unlabelled = len(files.photos - labelled.keys() - source.images.keys())
    return Dataset(labels, images, findings, unlabelled), Origin(source.format, str(source.place))


def sized_by_photo(labelled: dict[str, Labelled], listing: Mapping[str, Entry]) -> list[str]:
    """Returns the photos whose size is needed to read their boxes."""
    in_doubt = units.doubtful(labelled)
    needed = [key for key, each in labelled.items() if each.in_pixels or each.others or key in in_doubt]
    return [key for key in needed if listing[key].size]


def mend_for_no_box(findings: Findings) -> str:
    """Returns what a user can do about a bucket without a usable box."""
    if links := findings.kinds.get(LINK):
        return f"put the photos themselves into the bucket instead of a link to their folder ({', '.join(links[:3])})"
    lost = {kind: len(where) for kind, where in findings.kinds.items() if kind in losses.MENDS}
    return losses.MENDS[max(lost, key=lambda kind: lost[kind])] if lost else "draw boxes on some photos"


def find_photos(source: Source, files: Files, findings: Findings) -> dict[str, Labelled]:
    """Returns the annotations by the keys of photos that exist, in the order of the keys."""
    for kind, where in [*source.lost.items(), *source.found.items()]:
        for place in where:
            findings.add(kind, place)
    found: dict[str, Labelled] = {}
    for key, labelled in sorted(source.images.items()):
        photo = resolve(key, files, findings)
        if photo is not None and photo in found:
            # The annotations have two names for one photo, and one of them is escaped.
            found[photo].annotations.extend(labelled.annotations)
        elif photo is not None:
            found[photo] = labelled
    return dict(sorted(found.items()))


def keep_own_split(labelled: dict[str, Labelled], findings: Findings) -> dict[str, Labelled]:
    """Returns the photos with the bucket's own split if it covers at least half of them, otherwise without a split.

    Test photos are left out if there are validation photos; otherwise they become the validation photos.
    """
    count = Counter(each.part for each in labelled.values())
    if not {"train"} < count.keys() - {None}:
        return with_parts(labelled, dict.fromkeys(count))
    if 2 * count[None] > len(labelled):
        for key in (key for key, each in labelled.items() if each.part):
            findings.add(NOT_KEPT, key)
        return with_parts(labelled, dict.fromkeys(count))
    for key in (key for key, each in labelled.items() if each.part is None):
        findings.add(UNLISTED, key)
    if "validation" not in count:
        return with_parts(labelled, {"train": "train", "test": "validation", None: "train"})
    for key in (key for key, each in labelled.items() if each.part == "test"):
        findings.add("photo of the bucket's test split, left out", key)
    kept = {key: each for key, each in labelled.items() if each.part != "test"}
    return with_parts(kept, {"train": "train", "validation": "validation", None: "train"})


def with_parts(labelled: dict[str, Labelled], parts: Mapping[str | None, str | None]) -> dict[str, Labelled]:
    """Returns the photos with new names for their parts."""
    return {key: dataclasses.replace(each, part=parts[each.part]) for key, each in labelled.items()}


def refuse_missing_bucket(root: Place) -> None:
    """Raises UserError if DATA_DIR does not exist, or may not be read."""
    try:
        is_there = bucket.is_folder(root)
    except PermissionError as error:
        mend = bucket.MEND if bucket.is_remote(root) else "let this user read it, or start the container as its owner"
        raise UserError(f"DATA_DIR={root} may not be read ({error.strerror}): {mend}") from None
    except OSError as error:
        words = f"DATA_DIR={root} is not a folder ({error.strerror})"
        raise UserError(f"{words}: name the folder of the photos") from None
    if not is_there and bucket.is_remote(root):
        raise UserError(f"DATA_DIR={root}: there is no such bucket, or nothing in it below that address")
    if not is_there:
        raise UserError(f"DATA_DIR={root} is not a folder: mount the bucket there, or name the folder of its mount")


def refuse_missing_records(place: Place) -> Place:
    """Returns RECORDS_DIR; raises UserError if it holds no finished conversion."""
    if not bucket.matching(place, "manifest.json"):
        raise UserError(
            f"RECORDS_DIR={place} has no manifest.json: name the folder that `./start.sh convert` wrote, and "
            "run it until it has finished"
        )
    return place


def resolve(key: str, files: Files, findings: Findings) -> str | None:
    """Returns the key of an existing photo; None, after adding a finding, if it is missing or outside of the bucket."""
    for candidate in (key, html.unescape(key)):
        if candidate in files.photos and is_inside(files.root, candidate):
            return candidate
    alike = files.spelt_like(html.unescape(key))
    if alike and is_inside(files.root, alike):
        return alike
    parts = PurePosixPath(html.unescape(key)).parts
    outside = key in files.photos or ".." in parts or key.startswith("/")
    findings.add(losses.OUTSIDE if outside else losses.MISSING, key)
    return None


def is_inside(root: Place, key: str) -> bool:
    """Returns whether a photo of the listing lies in the bucket; a symbolic link can lead out of it."""
    path = root / key
    # The listing follows no links of folders, so only the photo itself can be one.
    return bucket.is_remote(root) or not path.is_symlink() or path.resolve().is_relative_to(root.resolve())


def choose(key: str, labelled: Labelled, frame: Frame | None, findings: Findings) -> Labelled:
    """Returns the annotations of a photo that is listed more than once: those that were made at the photo's own size.

    If this decides nothing, the photo is lost: boxes of two photos are never put together.
    """
    if not labelled.others:
        return labelled
    entries = (labelled, *labelled.others)
    fitting = [each for each in entries if frame and each.size == frame.size]
    if len(fitting) == 1 and all(each.size for each in entries):
        findings.add("photo listed more than once, taken with the boxes of the entry that has its size", key)
        return dataclasses.replace(fitting[0], part=labelled.part)
    unread = Unread(losses.REPEATED, f"{key}: {len(entries)} entries")
    return Labelled([unread], part=labelled.part)


def read_image(key: str, labelled: Labelled, frame: Frame | None, findings: Findings) -> list[LabelledImage]:
    """Returns the photo with its usable boxes; an empty list if it is lost.

    A photo is lost if an object on it was drawn and cannot be read, or if all of its boxes are unusable: it would be
    trained on as background.
    """
    part = labelled.part
    drawn = [each for each in labelled.annotations if each is not NoBox.NEGATIVE]
    if unread := next(filter(None, (unread_of(key, each) for each in drawn)), None):
        findings.add(unread.reason, unread.where)
        return []
    read = [each for each in drawn if not isinstance(each, Unread)]
    size = labelled.size or (frame.size if frame else None)
    if labelled.told and (size or not labelled.in_pixels):
        findings.add(labelled.told, key)
    if labelled.in_pixels:
        if size is None:
            # Without the size, pixels cannot become fractions. The conversion skips a photo whose header cannot be
            # read, and reports why.
            return [LabelledImage(key, (), part)]
        read = [each.to_fractions(*size) if isinstance(each, Drawn) else each for each in read]
    boxes = [box for annotation in read if (box := read_box(key, annotation, findings)) is not None]
    unique = tuple(dict.fromkeys(boxes))
    for _ in boxes[len(unique) :]:
        findings.add("box drawn twice, taken once", key)
    if read and not unique:
        findings.add(losses.UNUSABLE, key)
        return []
    if labelled.is_turned and frame is not None:
        unique = tuple(box.turned(frame.orientation) for box in unique)
    return [LabelledImage(key, unique, part)]


def unread_of(key: str, annotation: Drawn | NoBox | Unread) -> Unread | None:
    """Returns why an annotation cannot be read, or None if it can."""
    if isinstance(annotation, Unread):
        return annotation
    if isinstance(annotation, NoBox):
        return Unread(losses.NO_BOX, key) if annotation is NoBox.UNKNOWN else None
    if not isinstance(annotation.label, str) or not annotation.label.strip():
        return Unread(losses.LABEL, key)
    has_corners = None not in (annotation.x, annotation.y, annotation.x2, annotation.y2)
    return None if has_corners else Unread(losses.CORNERS, key)


def read_box(key: str, annotation: Drawn | NoBox, findings: Findings) -> Box | None:
    """Returns the box, in order and within the photo, or None. A fault becomes a finding."""
    if isinstance(annotation, NoBox):
        findings.add("region of a crowd, skipped", key)
        return None
    label = annotation.label
    if label != label.strip():
        findings.add("label with white space around it, taken without", key)
    # JavaScript cuts an emoji in two when it counts to a limit. UTF-8 cannot encode half an emoji.
    label = label.strip().encode(errors="replace").decode()
    corners = [annotation.x, annotation.y, annotation.x2, annotation.y2]
    return repair_box(key, label, [value for value in corners if value is not None], findings)


def repair_box(key: str, label: str, corners: list[float], findings: Findings) -> Box | None:
    """Puts corners in order and cuts them to the photo. Returns None if no area is left."""
    x, y, x2, y2 = corners
    xmin, xmax, ymin, ymax = min(x, x2), max(x, x2), min(y, y2), max(y, y2)
    if xmax - xmin < SMALLEST or ymax - ymin < SMALLEST:
        findings.add("box without area, skipped", key)
        return None
    if (xmin, ymin) != (x, y):
        findings.add("box with corners swapped, put in order", key)
    clipped = [min(max(value, 0.0), 1.0) for value in (xmin, ymin, xmax, ymax)]
    if clipped[2] - clipped[0] < SMALLEST or clipped[3] - clipped[1] < SMALLEST:
        findings.add("box outside of the photo, skipped", key)
        return None
    if clipped != [xmin, ymin, xmax, ymax]:
        findings.add("box reaching out of the photo, cut to it", key)
    return Box(sys.intern(label), *clipped)


def order_labels(declared: list[str], images: list[LabelledImage], findings: Findings) -> list[str]:
    """Returns the labels that boxes use: first those that the file lists, in its order, then the others by name."""
    declared = [label.strip() for label in declared]
    used = {box.label for image in images for box in image.boxes}
    ordered = [label for label in dict.fromkeys([*declared, *sorted(used)]) if label in used]
    for label in dict.fromkeys(declared):
        if label not in used and label != cloud_annotations.NEGATIVE:
            findings.add("label without a box, left out", label)
    for first, second in same_but_for_case(ordered):
        findings.add("labels that differ in case or white space alone, kept apart", f"{first!r} and {second!r}")
    return ordered


def same_but_for_case(labels: list[str]) -> Iterator[tuple[str, str]]:
    """Yields pairs of labels that differ only in case or white space."""
    seen: dict[str, str] = {}
    for label in labels:
        folded = " ".join(label.casefold().split())
        if folded in seen:
            yield seen[folded], label
        seen.setdefault(folded, label)


def describe(findings: Findings) -> str:
    """Returns the findings with their counts, in one line."""
    return "; ".join(f"{kind}: {len(where)}" for kind, where in findings.kinds.items()) or "no annotations at all"
