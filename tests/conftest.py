"""What the tests share: buckets, settings, and the job as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from entrypoint.settings.schema import NAMES, Settings
from entrypoint.system import signals
from entrypoint.workspace import Workspace
from tests import demo

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
STARTED: list[subprocess.Popen[str]] = []
BOX = {"x": 0.25, "y": 0.25, "x2": 0.75, "y2": 0.5, "label": "cat"}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests are not those of the tests."""
    for name in NAMES:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _no_job_left() -> Iterator[None]:
    """Of a test that failed, no job goes on beside the others."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def handled_signals() -> Iterator[None]:
    """SIGTERM and SIGINT are handled in the test as in a job."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signals.raise_on_sigterm()
    yield
    # Of what came in the test nothing is left.
    signals.raise_on_sigterm()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """A workspace whose bucket, work and results are folders of the test."""
    (tmp_path / "bucket").mkdir()
    (tmp_path / "work").mkdir()
    return Workspace(make_settings(tmp_path))


@pytest.fixture(scope="session")
def demo_bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of the demo's, drawn once for all tests; nobody writes into it."""
    folder = tmp_path_factory.mktemp("demo") / "bucket"
    demo.draw_bucket(folder, photos=40)
    return folder


def make_settings(folder: Path, **values: Any) -> Settings:
    """Settings with all places below the folder."""
    places = {"data_dir": folder / "bucket", "work_dir": folder / "work", "result_dir": folder / "results"}
    return Settings(**{**places, **values})


def write_bucket(folder: Path, annotations: Any, photos: tuple[str, ...] = (), **rest: Any) -> Path:
    """Writes _annotations.json of version 1.0, and the named photos, all grey."""
    folder.mkdir(exist_ok=True)
    document = {"version": "1.0", "type": "localization", "labels": [], "annotations": annotations, **rest}
    (folder / "_annotations.json").write_text(json.dumps(document))
    for name in photos:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (128, 128, 128)).save(path)
    return folder


def environment(**settings: Any) -> dict[str, str]:
    """The environment of a job with these settings and no others."""
    clean = {name: value for name, value in os.environ.items() if name.lower() not in NAMES}
    return clean | {"PYTHONPATH": str(ROOT), **{name: str(value) for name, value in settings.items()}}


def run_job(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs the job to its end; standard error is part of standard output."""
    return run_module(sys.executable, "entrypoint", *arguments, **settings)


def run_module(python: Path | str, module: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program of the project to its end by that Python; standard error is part of standard output."""
    return subprocess.run(
        [str(python), "-m", module, *arguments],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1200,
    )


def start_job(*arguments: str, **settings: Any) -> subprocess.Popen[str]:
    """Starts the job and returns its process, which does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "entrypoint", *arguments],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


# Linux counts to a program's peak what the process that starts it had in memory: this one is small.
MEASURE = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print("", json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]), sep="\\n")
"""


def run_measured(command: list[str], env: dict[str, str]) -> tuple[int, str, float]:
    """Exit status, output and peak memory, in gigabytes, of a program."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    output, _, measured = result.stdout.rstrip().rpartition("\n")
    status, kilobytes = json.loads(measured)
    return status, output, kilobytes * 1024 / 1e9


def is_at_step(line: str, least: int) -> bool:
    """Whether a line of the log tells of that step or a later one; how many are trained between two lines varies."""
    found = re.search(r"tensorflow:loss = [\d.]+, step = (\d+)", line)
    return found is not None and int(found[1]) >= least


def read_until(process: subprocess.Popen[str], is_reached: Callable[[str], bool]) -> str:
    """What the process prints up to the first line that is reached; fails where it ends before, or within minutes."""
    assert process.stdout is not None
    lines = []
    limit = threading.Timer(600, process.kill)
    limit.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if is_reached(line):
                return "".join(lines)
    finally:
        limit.cancel()
    raise AssertionError("the job ended before:\n" + "".join(lines))
