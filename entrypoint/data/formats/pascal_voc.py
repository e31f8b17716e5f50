"""Pascal VOC's XML (host.robots.ox.ac.uk, the development kit of 2012): one file per photo.

The root `annotation` has `filename`, `size` and an `object` per box. An `object` has `name`, and `bndbox` with the
corners in pixels.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from xml.etree import ElementTree

from entrypoint.data import losses
from entrypoint.data.boxes import Drawn, number
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.encoding import decode, decode_xml, where
from entrypoint.data.formats.source import (
    PARTS,
    Files,
    Labelled,
    Source,
    may_be_of,
    part_of_folders,
    path_of,
    size_of,
)
from entrypoint.system.errors import UserError

# The declaration of a document names its encoding, and the decoded document has another one.
DECLARED = re.compile(r"^\s*<\?xml[^>]*\?>")
TOGETHER = "trainval"
WANTED = "one XML file per photo, with the root element `annotation`"


def read(files: Files) -> Source | None:
    """Reads the boxes of all XML files whose root is `annotation`."""
    source = Source(files.root, [])
    lists = read_lists(files)
    claims = []
    is_known = False
    for key, content in files.read_all(files.with_suffix(".xml")):
        try:
            root = parse(content)
        except UnicodeError as error:
            source.lose(losses.ENCODING, f"{key} ({where(content, error)})")
            continue
        if root is None:
            source.lose(losses.DAMAGED, key)
        elif root.tag == "annotation":
            is_known = True
            photo = find_photo(source, files, key, root)
            if photo is not None:
                claims.append((photo, key, read_annotation(key, root, lists.get(photo))))
    source.add_files(claims)
    return source if is_known else None


class NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree, and refuses a document type: annotations never need one, and entities are defined in it."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Raises ValueError; called at the beginning of a document type, whatever the encoding of the file."""
        raise ValueError(f"document type {name}, {public}, {system}")


def parse(content: bytes) -> ElementTree.Element | None:
    """Returns the root of a document, or None if the document is damaged or has a document type.

    Raises:
        UnicodeError: the document is not in the encoding that it names.
    """
    parser = ElementTree.XMLParser(target=NoDoctype(), encoding="utf-8")  # noqa: S314 - it expands no entities
    try:
        # The standard library's parser knows only a few encodings.
        parser.feed(DECLARED.sub("", decode_xml(content), count=1).encode())
        root: ElementTree.Element = parser.close()
    except UnicodeError:
        raise
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    return root


def find_photo(source: Source, files: Files, key: str, root: ElementTree.Element) -> str | None:
    """Returns the photo of an annotation file. Returns None if there is no such photo, and notes it in `source`.

    The photo has the file's own name, because photos are renamed together with their files. If there is no such photo,
    the `filename` in the file counts.
    """
    name = (root.findtext("filename") or "").strip()
    photo = files.beside(key) or (files.named(name, key) if name else None)
    if photo is None or not may_be_of(part_of_folders(key), photo):
        source.lose_photo(name or key, files.all_beside(key) if photo is None else [])
        return None
    if name and PurePosixPath(name.replace("\\", "/")).stem not in (
        PurePosixPath(photo).stem,
        PurePosixPath(photo).name,
    ):
        source.tell("photo that its file of annotations calls otherwise, taken by the name of that file", photo)
    return photo


def read_annotation(key: str, root: ElementTree.Element, listed: str | None) -> Labelled:
    """Returns the annotations in one file. `listed` is the split of its photo in the lists of the bucket."""
    part = listed or part_of_folders(key)
    size = size_of(root.findtext("size/width"), root.findtext("size/height"))
    return Labelled([read_object(each) for each in root.findall("object")], in_pixels=True, size=size, part=part)


def read_object(element: ElementTree.Element) -> Drawn:
    """Returns the box of an object."""
    # Some programs add white space when they break XML into lines.
    label = (element.findtext("name") or "").strip()
    if element.find("robndbox") is not None:
        # roLabelImg: the middle, the size, and the angle in radians.
        sides = (element.findtext(f"robndbox/{name}") for name in ("cx", "cy", "w", "h"))
        angle = number(element.findtext("robndbox/angle"))
        return Drawn.from_centre(label, *sides).rotated(math.degrees(angle or 0.0))
    corners = (number(element.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
    return Drawn(label, *corners).rotated(rotation_of(element))


def rotation_of(element: ElementTree.Element) -> float:
    """Returns the degrees by which CVAT's box was rotated, which CVAT writes among the attributes of an object."""
    for attribute in element.iterfind("attributes/attribute"):
        if attribute.findtext("name") == "rotation":
            return number(attribute.findtext("value")) or 0.0
    return 0.0


def read_lists(files: Files) -> dict[str, str]:
    """Returns the split of each photo from ImageSets/Main: train.txt, val.txt, trainval.txt and test.txt.

    A list of training and validation together counts for the photos that are in no list of their own.

    Raises:
        UserError: a list names photos, and none of them is in the bucket.
    """
    parts: dict[str, str] = {}
    found = [key for key in files.with_suffix(".txt") if is_list(PurePosixPath(key))]
    for key in sorted(found, key=lambda key: PurePosixPath(key).stem.lower() == TOGETHER):
        lines = [line for line in decode(files.read(key), files.root / key).splitlines() if line.strip()]
        photos = [photo for line in lines if (photo := listed_photo(files, line.strip(), key))]
        if lines and not photos:
            raise UserError(
                f"{files.root / key} lists {lines[0].strip()!r} and others, and none of them is a photo of the bucket: "
                "correct the list, or remove it, so that no photo gets into the wrong split"
            )
        stem = PurePosixPath(key).stem.lower()
        for photo in photos:
            parts.setdefault(photo, "train" if stem == TOGETHER else PARTS[stem])
    return parts


def is_list(path: PurePosixPath) -> bool:
    """Returns whether a file lists the photos of a split; lists of one label have its name before the split."""
    return path.parts[-3:-1] == ("ImageSets", "Main") and path.stem.lower() in {*PARTS, TOGETHER}


def listed_photo(files: Files, line: str, near: str) -> str | None:
    """Returns the photo in the line of a list: a name with or without an ending, and perhaps 1 or -1 behind it."""
    for name in (line, line.rpartition(" ")[0].strip()):
        stem = path_of(name).name
        found = files.by_stem.of(stem).keys if stem else []
        if len(found) == 1:
            return found[0]
        if name and (photo := files.named(name, near)):
            return photo
    return None


FORMAT = AnnotationFormat("pascal_voc", WANTED, read)
