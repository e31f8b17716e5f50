"""Builds dist/object_detection-0.1.tar.gz and dist/slim-0.1.tar.gz from upstream's published source.

The source is the PyPI sdist that source.txt pins by hash or, with --models-dir, a clone of tensorflow/models. The build
changes two things. The protocol buffer modules are compiled again, because protobuf 4 and later refuse the modules of
the sdist, which an old protoc wrote. `object_detection/__init__.py` imports the compatibility layer,
`object_detection/compatibility.py`. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import gzip
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
VERSION = "0.1"
# A fixed time makes the archives reproducible. Wheels are ZIP archives, which cannot hold a time before 1980.
MTIME = 315532800

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "{version}"
description = "{description}"
requires-python = ">=3.10"

[tool.setuptools.packages.find]
include = {packages}
namespaces = false
"""


def main() -> int:
    """Parses the arguments, builds both archives and prints their paths."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("dist"), help="the folder for the archives")
    parser.add_argument("--models-dir", type=Path, help="a clone of tensorflow/models to use instead of the sdist")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            research = find_research(arguments.models_dir) if arguments.models_dir else download(Path(scratch))
            for path in (build_object_detection(research, arguments.out), build_slim(research, arguments.out)):
                print(path)
        except SourceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


class SourceError(Exception):
    """The upstream source is missing or is not what this script expects."""


def find_research(models_dir: Path) -> Path:
    """Returns the research folder of a clone of tensorflow/models; raises SourceError if there is no such folder."""
    research = models_dir / "research"
    if not (research / "object_detection" / "protos").is_dir():
        raise SourceError(
            f"MODELS_DIR={models_dir} holds no research/object_detection/protos: name a clone of tensorflow/models"
        )
    return research


def download(scratch: Path) -> Path:
    """Downloads the pinned sdist with pip, which verifies its hash; returns the folder of the unpacked source."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # With isolation pip would need a second package to read the sdist's metadata.
    command += ["--no-build-isolation", "--no-binary", ":all:", "--require-hashes"]
    result = subprocess.run([*command, "-r", HERE / "source.txt", "-d", scratch], check=False)
    if result.returncode:
        raise SourceError("pip could not download the source that sdists/source.txt pins: see pip's messages above")
    (archive,) = scratch.glob("tf_models_research_object_detection-*.tar.gz")
    with tarfile.open(archive) as tar:
        # The first releases of Python 3.10 and 3.11 have no filters. The archive was verified by its hash.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(scratch)  # noqa: S202
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def build_object_detection(research: Path, out: Path) -> Path:
    """Writes object_detection-0.1.tar.gz: upstream's package, new protocol buffer modules, the compatibility layer."""
    source = research / "object_detection"
    files = read_tree(source, "object_detection")
    files.update(compile_protos(research))
    files["object_detection/compatibility.py"] = (HERE / "compatibility.py").read_bytes()
    layer = b"from object_detection import compatibility as _compatibility\n\n_compatibility.apply()\n"
    files["object_detection/__init__.py"] = files.get("object_detection/__init__.py", b"") + layer
    return write_sdist(
        out, "object_detection", ["object_detection", "object_detection.*"], "TensorFlow Object Detection API", files
    )


def build_slim(research: Path, out: Path) -> Path:
    """Writes slim-0.1.tar.gz with upstream's top-level packages nets, datasets, deployment and preprocessing."""
    names = ["datasets", "deployment", "nets", "preprocessing"]
    files: dict[str, bytes] = {}
    for name in names:
        files.update(read_tree(research / "slim" / name, name))
    patterns = [pattern for name in names for pattern in (name, f"{name}.*")]
    return write_sdist(out, "slim", patterns, "TF-Slim image models", files)


def read_tree(folder: Path, prefix: str) -> dict[str, bytes]:
    """Returns the Python and data files below a folder, by their paths below `prefix`.

    An empty __init__.py is added to each folder without one.
    """
    kept = {".py", ".pbtxt", ".config"}
    paths = sorted(path for path in folder.rglob("*") if path.suffix in kept)
    if not paths:
        raise SourceError(f"{folder} is missing or empty")
    files = {f"{prefix}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}
    for name in list(files):
        # Upstream's data folders have no __init__.py, and setuptools includes only packages.
        files.setdefault(f"{name.rpartition('/')[0]}/__init__.py", b"")
    return files


def compile_protos(research: Path) -> dict[str, bytes]:
    """Returns the object_detection.protos modules, compiled from .proto files or the descriptors in old modules."""
    folder = research / "object_detection" / "protos"
    with tempfile.TemporaryDirectory() as scratch:
        protos = sorted(folder.glob("*.proto"))
        if protos:
            names = [f"object_detection/protos/{path.name}" for path in protos]
            arguments = [f"--proto_path={research}", f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}"]
        else:
            descriptors = collect_descriptors(folder)
            names = [file.name for file in descriptors.file]
            descriptor_set = Path(scratch) / "protos.pb"
            descriptor_set.write_bytes(descriptors.SerializeToString(deterministic=True))
            arguments = [f"--descriptor_set_in={descriptor_set}"]
        if protoc.main(["protoc", *arguments, f"--python_out={scratch}", *names]):
            raise SourceError(f"protoc could not compile the protocol buffers of {folder}")
        return {name: (Path(scratch) / name).read_bytes() for name in map(module_of, names)}


def module_of(proto: str) -> str:
    """Returns the path of the Python module that protoc writes for a .proto file."""
    return proto.removesuffix(".proto") + "_pb2.py"


def collect_descriptors(folder: Path) -> descriptor_pb2.FileDescriptorSet:
    """Returns the FileDescriptorProto that each old module holds as `serialized_pb`, dependencies first."""
    files = {}
    for path in sorted(folder.glob("*_pb2.py")):
        file = descriptor_pb2.FileDescriptorProto.FromString(serialized_descriptor(path))
        files[file.name] = file
    order = graphlib.TopologicalSorter({name: sorted(file.dependency) for name, file in files.items()})
    return descriptor_pb2.FileDescriptorSet(file=[files[name] for name in order.static_order()])


def serialized_descriptor(path: Path) -> bytes:
    """Returns the bytes after `serialized_pb=` in a module of a protoc before 3.20, without importing the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "serialized_pb" and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, bytes):
                return value
    raise SourceError(f"{path} has no serialized_pb")


def write_sdist(out: Path, name: str, packages: list[str], description: str, files: dict[str, bytes]) -> Path:
    """Writes NAME-0.1.tar.gz: the files, a pyproject.toml and PKG-INFO, all with the same owner, mode and time."""
    quoted = "[" + ", ".join(f'"{package}"' for package in packages) + "]"
    pyproject = PYPROJECT.format(name=name, version=VERSION, description=description, packages=quoted)
    # PEP 643: pip reads Metadata-Version, Name and Version of an sdist from PKG-INFO.
    pkg_info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\nSummary: {description}\n"
    content = {"PKG-INFO": pkg_info.encode(), "pyproject.toml": pyproject.encode(), **files}
    content["MANIFEST.in"] = b"global-include *.pbtxt *.config\n"
    path = out / f"{name}-{VERSION}.tar.gz"
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as compressed,
        tarfile.open(mode="w", fileobj=compressed, format=tarfile.PAX_FORMAT) as tar,
    ):
        for member in sorted(content):
            entry = tarfile.TarInfo(f"{name}-{VERSION}/{member}")
            entry.size, entry.mtime, entry.mode = len(content[member]), MTIME, 0o644
            tar.addfile(entry, io.BytesIO(content[member]))
    return path


if __name__ == "__main__":
    sys.exit(main())
