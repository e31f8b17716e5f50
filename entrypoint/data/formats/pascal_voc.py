"""Pascal VOC's XML (host.robots.ox.ac.uk, the development kit of 2012): one file per photo.

The root `annotation` has `filename`, `size` and an `object` per box. An `object` has `name`, and `bndbox` with the
corners in pixels.
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

WANTED = "one XML file per photo, with the root element `annotation`"


def read(files: Files) -> Source | None:
    """Reads the boxes of all XML files whose root is `annotation`."""
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


class NoDoctype(ElementTree.TreeBuilder):
    """Builds a tree, and refuses a document type: annotations never need one, and entities are defined in it."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Raises ValueError; called at the beginning of a document type, whatever the encoding of the file."""
        raise ValueError(f"document type {name}, {public}, {system}")


def parse(content: bytes) -> ElementTree.Element | None:
    """Returns the root of a document, or None if the document is damaged or has a document type."""
    parser = ElementTree.XMLParser(target=NoDoctype())  # noqa: S314 - without entities there is nothing to expand
    try:
        parser.feed(content)
        root: ElementTree.Element = parser.close()
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
        source.missing.append(name or key)
        return None
    if name and PurePosixPath(name.replace("\\", "/")).stem not in (
        PurePosixPath(photo).stem,
        PurePosixPath(photo).name,
    ):
        source.tell("photo that its file of annotations calls otherwise, taken by the name of that file", photo)
    return photo


def read_annotation(key: str, root: ElementTree.Element, lists: dict[str, str]) -> Labelled:
    """Returns the annotations in one file."""
    part = lists.get(PurePosixPath(key).stem) or part_of_folders(key)
    size = size_of(root.findtext("size/width"), root.findtext("size/height"))
    return Labelled([read_object(each) for each in root.findall("object")], in_pixels=True, size=size, part=part)


def read_object(element: ElementTree.Element) -> Drawn:
    """Returns the box of an object."""
    corners = (number(element.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax"))
    # Some programs add white space when they break XML into lines.
    return Drawn((element.findtext("name") or "").strip(), *corners)


def read_lists(files: Files) -> dict[str, str]:
    """Returns the split of each photo by its stem, from ImageSets/Main/train.txt, val.txt and test.txt."""
    parts = {}
    for key in files.with_suffix(".txt"):
        path = PurePosixPath(key)
        if path.parts[-3:-1] == ("ImageSets", "Main") and path.stem in PARTS:
            for line in map(str.strip, files.read(key).decode(errors="replace").splitlines()):
                # A list for one label has 1 or -1 behind the stem. A stem can contain spaces.
                stem = line if line in files.by_stem else line.rpartition(" ")[0].strip()
                parts[stem] = PARTS[path.stem]
    return parts


FORMAT = AnnotationFormat("pascal_voc", WANTED, read)
