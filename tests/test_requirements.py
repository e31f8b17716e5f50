from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment

LOCKS = [
    "requirements.txt",
    "requirements-cpu.txt",
    "requirements-tensorflow-gpu.txt",
    "requirements-dev.txt",
    "sdists/requirements.txt",
]
# Everything that a job can import, in the order in which it does.
EVERYTHING = """
import importlib, importlib.metadata, pkgutil, re, sys
import entrypoint
from entrypoint.results import charts
from entrypoint.settings import environment
from entrypoint.settings.schema import Settings
environment.prepare(Settings())
for module in pkgutil.walk_packages(entrypoint.__path__, "entrypoint."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from object_detection import model_lib_v2, exporter_lib_v2, export_tflite_graph_lib_tf2
from pycocotools import coco
import google.protobuf.text_format, requests, tenacity, tensorflow as tf
import fsspec
for name in ("s3", "gs"):
    fsspec.filesystem(name, use_listings_cache=False)
import aiobotocore.session, google.oauth2.service_account
import cryptography.hazmat.bindings.openssl.binding  # what keys are read and used with
aiobotocore.session.get_session().create_client("s3")
with tf.summary.create_file_writer(sys.argv[1]).as_default():
    tf.summary.scalar("loss", 0.0, step=1)
charts.draw("chart", lambda axes: None)
from ai_edge_litert import interpreter
from entrypoint.system import display
display.make_live()
found = importlib.metadata.packages_distributions()
names = {name for module in list(sys.modules) for name in found.get(module.partition(".")[0], [])}
print(*sorted(re.sub("[-_.]+", "-", name).lower() for name in names))
"""
# Matplotlib's contour lines, which pyplot imports at its top in the releases for Python 3.10 and 3.11, and what aiohttp
# takes on 3.10. Rich takes the others for tracebacks and for Markdown.
SOMETIMES = {"contourpy", "async-timeout", "markdown-it-py", "mdurl", "pygments"}


def locked(path: Path) -> dict[str, list[str]]:
    """Versions by name; there is more than one where Python's version decides."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_has_hashes(name: str) -> None:
    text = (ROOT / name).read_text()
    pins = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)


def test_cpu_lock_differs_from_the_gpu_lock_in_tensorflow_and_cuda_alone() -> None:
    gpu, cpu = locked(ROOT / "requirements.txt"), locked(ROOT / "requirements-cpu.txt")
    assert cpu.pop("tensorflow-cpu") == gpu.pop("tensorflow")
    assert {name: versions for name, versions in gpu.items() if not name.startswith("nvidia-")} == cpu


@pytest.mark.parametrize("name", ["requirements", "requirements-tensorflow-gpu"])
def test_direct_dependencies_are_locked(name: str) -> None:
    names = re.findall(r"^([a-z][a-z0-9-]*)", (ROOT / f"{name}.in").read_text(), re.MULTILINE)
    assert len(names) > 15
    assert set(names) <= set(locked(ROOT / f"{name}.txt"))


def test_lock_for_cuda_11_has_what_the_job_imports_but_keras_2_under_its_old_name() -> None:
    old, new = locked(ROOT / "requirements-tensorflow-gpu.txt"), locked(ROOT / "requirements-cpu.txt")
    assert old["tensorflow-gpu"] == ["2.11.0"]
    names = re.findall(r"^([a-z][a-z0-9-]*)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    assert {name for name in names if name in new} - set(old) == {"tf-keras"}


def test_nothing_is_installed_that_the_job_does_not_import(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EVERYTHING, str(tmp_path)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.split("\n")[-2].split())
    assert set(locked(ROOT / "requirements-cpu.txt")) - imported - SOMETIMES == set()


# What the job can import without TensorFlow, which is too large to install for a test.
WITHOUT_TENSORFLOW = """
import importlib, pkgutil
import entrypoint
imported = 0
for module in pkgutil.walk_packages(entrypoint.__path__, "entrypoint.", onerror=lambda _: None):
    try:
        importlib.import_module(module.name)
        imported += 1
    except ModuleNotFoundError as error:
        assert not error.name.startswith("entrypoint"), error
print(imported)
"""


def test_oldest_python_runs_what_needs_no_tensorflow(tmp_path: Path, demo_bucket: Path) -> None:
    """Names of the standard library that only newer versions have are found by no other check."""
    oldest = re.search(r'requires-python = ">=([\d.]+),', (ROOT / "pyproject.toml").read_text())
    assert oldest is not None
    python = find_python(oldest[1])
    if python is None:
        pytest.skip(f"there is no Python {oldest[1]}")
    lines = (ROOT / "requirements-cpu.txt").read_text().splitlines()
    pins = tmp_path / "pins.txt"
    pins.write_text("\n".join(line.rstrip(" \\") for line in lines if re.match(r"[\w.-]+==", line)))
    names = [line for line in (ROOT / "requirements.in").read_text().splitlines() if re.fullmatch(r"[\w-]+", line)]
    wanted = [name for name in names if not re.match("tensor|tf-|gin-|ai-edge", name)]
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    venv = tmp_path / "venv" / "bin" / "python"
    subprocess.run([venv, "-m", "pip", "install", "--quiet", "-c", pins, *wanted], check=True)
    variables = environment(DATA_DIR=demo_bucket, RESULT_DIR=tmp_path / "results", PYTHONPATH=ROOT)
    for words in (["-m", "entrypoint", "check"], ["-c", WITHOUT_TENSORFLOW]):
        found = subprocess.run([venv, *words], env=variables, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
    assert int(found.stdout) > 100


def find_python(version: str) -> str | None:
    """Returns an interpreter of a version, on the PATH or of pyenv, whose commands on the PATH may lead nowhere."""
    known = [shutil.which(f"python{version}"), *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for each in filter(None, known):
        if subprocess.run([each, "--version"], capture_output=True, check=False).returncode == 0:
            return each
    return None
