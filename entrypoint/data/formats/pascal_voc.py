"""Pascal VOC's XML (host.robots.ox.ac.uk, the development kit of 2012): one file per photo.

`annotation` with `filename`, `size` and an `object` per box: `name`, and `bndbox` with its corners in pixels.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from xml.etree import ElementTree

from entrypoint.data.boxes import Drawn, number
from entrypoint.data.formats.annotation_format import AnnotationFormat
from entrypoint.data.formats.source import (
    PARTS,
    Files,
    Labelled,
    Source,
    may_be_of,
    part_of_folders,
    size_of,
)
from entrypoint.system import bucket

WANTED = "XML files of one photo each, with `annotation` as their root"


def read(files: Files) -> Source | None:
    """The boxes of all XML files whose root is `annotation`."""
    source = Source(files.root, [])
    lists = read_lists(files)
    claims = []
    is_known = False
    for key, content in files.read_all(files.with_suffix(".xml")):
        root = parse(content)
        if root is None:
            source.unreadable.append(key)
        elif root.tag == "annotation":
            is_known = True
            photo = find_photo(source, files, key, root)
            if photo is not None:
                claims.append((photo, key, read_annotation(key, root, lists)))
    source.add_files(claims)
    return source if is_known else None


def parse(content: bytes) -> ElementTree.Element | None:
    """The root of a document; None where it is damaged, or defines entities, which annotations never need."""
    if b"<!ENTITY" in content:
        return None
    try:
        return ElementTree.fromstring(content)  # noqa: S314 - without entities there is nothing to expand
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def find_photo(source: Source, files: Files, key: str, root: ElementTree.Element) -> str | None:
    """The photo of a file: that of its own name, since photos are renamed with their files, or else of that in it."""
    name = (root.findtext("filename") or "").strip()
    photo = files.beside(key) or (files.named(name, key) if name else None)
    if photo is None or not may_be_of(part_of_folders(key), photo):
        source.missing.append(name or key)
        return None
    if name and PurePosixPath(name.replace("\\", "/")).stem not in (
        PurePosixPath(photo).stem,
        PurePosixPath(photo).name,
    ):
        source.tell("photo that its file of annotations calls otherwise, taken by the name of that file", photo)
    return photo


def read_annotation(key: str, root: ElementTree.Element, lists: dict[str, str]) -> Labelled:
    """What is drawn on the photo of one file."""
    part = lists.get(PurePosixPath(key).stem) or part_of_folders(key)
    size = size_of(root.findtext("size/width"), root.findtext("size/height"))
    return Labelled([read_object(each) for each in root.findall("object")], in_pixels=True, size=size, part=part)


def read_object(element: ElementTree.Element) -> Drawn:
    """The box of an object."""
    corners = (number(element.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
    # White space is how some programs set XML in lines.
    return Drawn((element.findtext("name") or "").strip(), *corners)


def read_lists(files: Files) -> dict[str, str]:
    """The split of each photo by its stem, from ImageSets/Main/train.txt, val.txt and test.txt."""
    parts = {}
    for key in files.with_suffix(".txt"):
        path = PurePosixPath(key)
        if path.parts[-3:-1] == ("ImageSets", "Main") and path.stem in PARTS:
            for line in map(str.strip, bucket.read(files.root / key).decode(errors="replace").splitlines()):
                # Lists of one label have 1 or -1 behind the stem; stems can have blanks.
                stem = line if line in files.by_stem else line.rpartition(" ")[0].strip()
                parts[stem] = PARTS[path.stem]
    return parts


FORMAT = AnnotationFormat("pascal_voc", WANTED, read)
