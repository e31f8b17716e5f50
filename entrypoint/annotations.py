"""_annotations.json -> dataset.json: photos with normalised boxes, checked, and what was repaired or skipped.

The format is that of Cloud Annotations, versions 1.0 and v2, as its own programs write it.
"""

from __future__ import annotations

import html
import json
import logging
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from entrypoint import bucket, workspace
from entrypoint.bucket import Place
from entrypoint.errors import UserError
from entrypoint.workspace import Workspace

logger = logging.getLogger("job")

FILE = "_annotations.json"
# What the page writes for "mark as negative": a label without corners, on a photo that shows no object.
NEGATIVE = "Negative"
MISSING, OUTSIDE = "photo missing in the bucket, skipped", "photo outside of the bucket, skipped"
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Box:
    """A labelled box; corners as fractions of the upright photo's width and height, min < max, within 0..1."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass(frozen=True)
class LabelledImage:
    """A photo by its key in the bucket, and the boxes on it; none means that it shows no object."""

    key: str
    boxes: tuple[Box, ...]


@dataclass
class Findings:
    """What was repaired or skipped, and where: kind -> photos or labels it was found on."""

    kinds: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Notes one finding."""
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
        """The keys that the annotations name and the bucket does not hold."""
        return [key for kind in (MISSING, OUTSIDE) for key in self.findings.kinds.get(kind, [])]


def run(work: Workspace) -> str:
    """Reads and checks the annotations and writes dataset.json; returns its SHA-256.

    Raises:
        UserError: there is nothing to train on, or the file is not one of Cloud Annotations.
    """
    dataset = read_bucket(work.settings.data_dir, exclude=work.results)
    workspace.write_json(work.dataset, asdict(dataset))
    boxes = Counter(box.label for image in dataset.images for box in image.boxes)
    logger.info("%d photos, %d boxes, %d labels", len(dataset.images), boxes.total(), len(boxes))
    if dataset.unlabelled:
        logger.info("%d photos of the bucket carry no annotation and are not used", dataset.unlabelled)
    for kind, where in dataset.findings.kinds.items():
        logger.warning("%s: %d (%s%s)", kind, len(where), ", ".join(where[:3]), ", ..." if len(where) > 3 else "")
    return workspace.file_sha256(work.dataset)


def load(work: Workspace) -> Dataset:
    """The dataset that the step wrote."""
    document = workspace.read_json(work.dataset, "annotations")
    images = [LabelledImage(image["key"], tuple(Box(**box) for box in image["boxes"])) for image in document["images"]]
    return Dataset(document["labels"], images, Findings(document["findings"]["kinds"]), document["unlabelled"])


def read_bucket(root: Place, exclude: Place) -> Dataset:
    """The dataset of a bucket; `exclude` is a folder in it that holds no data of the user's."""
    refuse_missing_bucket(root)
    document = read_document(root / FILE)
    is_v2 = isinstance(document.get("images"), dict)
    raw = read_v2(document) if is_v2 else read_v1(document)
    photos = find_photos(root, exclude)
    findings = Findings()
    images, mentioned = [], set()
    for key, drawn in sorted(raw.items()):
        found = resolve(key, photos, root, findings)
        if found is not None:
            mentioned.add(found)
            images += read_image(found, drawn, findings)
    labels = order_labels(declared_labels(document), images, findings)
    if not labels:
        raise UserError(
            f"{root / FILE} has no usable box ({describe(findings)}): draw boxes on some photos, then start again"
        )
    return Dataset(labels, images, findings, unlabelled=len(photos - mentioned))


def refuse_missing_bucket(root: Place) -> None:
    """UserError where DATA_DIR is not there, or may not be read."""
    try:
        is_there = bucket.is_folder(root)
    except PermissionError as error:
        mend = bucket.MEND if bucket.is_remote(root) else "let this user read it, or start the container as its owner"
        raise UserError(f"DATA_DIR={root} may not be read ({error.strerror}): {mend}") from None
    if not is_there and bucket.is_remote(root):
        raise UserError(f"DATA_DIR={root}: there is no such bucket, or nothing in it below that address")
    if not is_there:
        raise UserError(f"DATA_DIR={root} is no folder: mount the bucket there, or name where it is mounted")


def read_document(path: Place) -> dict[str, Any]:
    """The JSON object in the file; UserError where there is none, or it is not of photos with boxes."""
    try:
        document = json.loads(bucket.read(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: DATA_DIR must name the bucket's root, where {FILE} lies") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 at byte {error.start}: export the annotations again") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({error}): it is cut off or damaged; export the annotations again"
        ) from None
    if not isinstance(document, dict):
        raise UserError(f"{path} holds a JSON {type(document).__name__} where an object is expected")
    if document.get("type", "localization") != "localization":
        raise UserError(
            f"{path} has type {document['type']!r}: a detector needs boxes; label the photos in a localization project"
        )
    if not isinstance(document.get("annotations"), dict):
        raise UserError(f"{path} has no `annotations` object: it is not a file of Cloud Annotations 1.0 or v2")
    return document


def read_v1(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Version 1.0: annotations by object key, each box with x, y, x2, y2 and label."""
    return {key: value if isinstance(value, list) else [value] for key, value in document["annotations"].items()}


def read_v2(document: dict[str, Any]) -> dict[str, list[Any]]:
    """Version v2: images, labels and annotations by id; a box is the hull of its four targets."""
    labels = document.get("labels")
    entries = labels if isinstance(labels, dict) else {}
    names = {key: entry.get("name") for key, entry in entries.items() if isinstance(entry, dict)}
    raw: dict[str, list[Any]] = {}
    for key, entry in document["images"].items():
        image = entry if isinstance(entry, dict) else {}
        ids = image["annotations"] if isinstance(image.get("annotations"), list) else []
        if not ids and image.get("status") in (None, "unlabeled", "unlabelled"):
            continue
        raw[str(image.get("id", key))] = [hull(document["annotations"].get(str(each)), names) for each in ids]
    return raw


def hull(annotation: Any, names: dict[str, Any]) -> Any:
    """A v2 annotation in the form of version 1.0; what it lacks stays missing, for read_box to find."""
    if not isinstance(annotation, dict):
        return None
    box: dict[str, Any] = {"label": names.get(str(annotation.get("label")))}
    targets = annotation.get("targets")
    if isinstance(targets, list) and targets and all(isinstance(target, dict) for target in targets):
        for axis in ("x", "y"):
            values = [number(target.get(axis)) for target in targets]
            box[axis] = min((value for value in values if value is not None), default=None)
            box[f"{axis}2"] = max((value for value in values if value is not None), default=None)
    return box


def find_photos(root: Place, exclude: Place) -> set[str]:
    """The keys of the photos in the bucket, by their suffix; `exclude` and hidden folders are left out."""
    if not bucket.is_remote(root):
        root, exclude = root.resolve(), exclude.resolve()
    return {key for key in bucket.listing(root, exclude) if PurePosixPath(key).suffix.lower() in PHOTO_SUFFIXES}


def resolve(key: str, photos: set[str], root: Place, findings: Findings) -> str | None:
    """The key of a photo that is there; None, and a finding, where it is missing or outside of the bucket."""
    for candidate in (key, html.unescape(key)):
        if candidate in photos and is_inside(root, candidate):
            return candidate
    parts = PurePosixPath(html.unescape(key)).parts
    outside = key in photos or ".." in parts or key.startswith("/")
    findings.add(OUTSIDE if outside else MISSING, key)
    return None


def is_inside(root: Place, key: str) -> bool:
    """Whether a photo lies in the bucket; a symbolic link can lead out of it."""
    return bucket.is_remote(root) or (root / key).resolve().is_relative_to(root.resolve())


def read_image(key: str, annotations: list[Any], findings: Findings) -> list[LabelledImage]:
    """The photo with its usable boxes; nothing where all of its boxes are unusable, since it is no negative then."""
    drawn = [annotation for annotation in annotations if not is_negative(annotation)]
    boxes = [box for annotation in drawn if (box := read_box(key, annotation, findings)) is not None]
    unique = tuple(dict.fromkeys(boxes))
    if len(unique) < len(boxes):
        findings.add("box drawn twice, taken once", key)
    if drawn and not unique:
        findings.add("photo without a usable box, skipped", key)
        return []
    return [LabelledImage(key, unique)]


def is_negative(annotation: Any) -> bool:
    """Whether an annotation only says that the photo shows no object."""
    corners = ("x", "y", "x2", "y2")
    return (
        isinstance(annotation, dict)
        and annotation.get("label") == NEGATIVE
        and not any(corner in annotation for corner in corners)
    )


def read_box(key: str, annotation: Any, findings: Findings) -> Box | None:
    """The box in order and within the photo, or None; what was wrong becomes a finding."""
    if not isinstance(annotation, dict):
        findings.add("annotation is no box, skipped", key)
        return None
    label = annotation.get("label")
    if not isinstance(label, str) or not label.strip():
        findings.add("box without a label, skipped", key)
        return None
    corners = [number(annotation.get(name)) for name in ("x", "y", "x2", "y2")]
    if any(corner is None for corner in corners):
        findings.add("box with a corner missing or no number, skipped", key)
        return None
    # JavaScript cuts an emoji in two where it counts to a limit; half of one cannot be written in UTF-8.
    label = label.strip().encode(errors="replace").decode()
    return repair_box(key, label, [corner for corner in corners if corner is not None], findings)


def repair_box(key: str, label: str, corners: list[float], findings: Findings) -> Box | None:
    """Puts corners in order, cuts them to the photo and drops what has no area left."""
    x, y, x2, y2 = corners
    xmin, xmax, ymin, ymax = min(x, x2), max(x, x2), min(y, y2), max(y, y2)
    if xmin == xmax or ymin == ymax:
        findings.add("box without area, skipped", key)
        return None
    if (xmin, ymin) != (x, y):
        findings.add("box with corners swapped, put in order", key)
    clipped = [min(max(value, 0.0), 1.0) for value in (xmin, ymin, xmax, ymax)]
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        findings.add("box outside of the photo, skipped", key)
        return None
    if clipped != [xmin, ymin, xmax, ymax]:
        findings.add("box reaching out of the photo, cut to it", key)
    return Box(label, *clipped)


def number(value: Any) -> float | None:
    """A finite number, also out of a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def declared_labels(document: dict[str, Any]) -> list[str]:
    """The labels that the file lists, in its order."""
    labels = document.get("labels")
    if isinstance(labels, dict):
        labels = [entry.get("name") for entry in labels.values() if isinstance(entry, dict)]
    return [label.strip() for label in labels if isinstance(label, str)] if isinstance(labels, list) else []


def order_labels(declared: list[str], images: list[LabelledImage], findings: Findings) -> list[str]:
    """The labels that boxes use: first those that the file lists, in its order, then the others by name."""
    used = {box.label for image in images for box in image.boxes}
    ordered = [label for label in dict.fromkeys([*declared, *sorted(used)]) if label in used]
    for label in dict.fromkeys(declared):
        if label not in used and label != NEGATIVE:
            findings.add("label without a box, left out", label)
    for first, second in same_but_for_case(ordered):
        findings.add("labels that differ in case or white space alone, kept apart", f"{first!r} and {second!r}")
    return ordered


def same_but_for_case(labels: list[str]) -> Iterator[tuple[str, str]]:
    """Pairs of labels that a reader would take for one."""
    seen: dict[str, str] = {}
    for label in labels:
        folded = " ".join(label.casefold().split())
        if folded in seen:
            yield seen[folded], label
        seen.setdefault(folded, label)


def describe(findings: Findings) -> str:
    """The findings with their counts, in one line."""
    return "; ".join(f"{kind}: {len(where)}" for kind, where in findings.kinds.items()) or "no annotations at all"
