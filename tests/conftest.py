"""Shared by the tests: buckets, settings, and the job as a separate process."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image
from xdist.scheduler import LoadScopeScheduling

from entrypoint.settings.schema import NAMES, Settings
from entrypoint.system import lease, signals
from entrypoint.workspace import Workspace
from tests import demo

PATIENCE = 120  # seconds; a slow machine is no failure
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
STARTED: list[subprocess.Popen[Any]] = []
BOX = {"x": 0.25, "y": 0.25, "x2": 0.75, "y2": 0.5, "label": "cat"}


# Random documents of each format of annotations. `make test-properties` tries ten thousand in all.
hypothesis_settings.register_profile("default", max_examples=90)
hypothesis_settings.register_profile("thorough", max_examples=900)
hypothesis_settings.load_profile("default")

# A shell ignores SIGINT for what it starts in the background, and nohup ignores SIGHUP. Neither holds for the jobs that
# the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Files of long tests that can run in any worker.
SHARE_NOTHING = {"tests/end_to_end/test_zoo.py", "tests/image/test_image.py", "tests/image/test_services.py"}
# Why a test is skipped that runs the job of an older commit.
NO_HISTORY = "the Git history is not in this copy of the files"


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps the tests of a file in one worker, because they share what the file trains, but for SHARE_NOTHING."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return nodeid if path in SHARE_NOTHING else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Returns how the tests are dealt out to the workers."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long tests that share nothing first, so that no worker is idle at the end."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in SHARE_NOTHING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes names that are not UTF-8 in what a test printed: pytest's workers could not send them."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails a CI run if a test was skipped, because .ci/run installs everything that the tests need.

    A copy of the files without the Git history is the one thing that .ci/run cannot mend.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    skipped = [report for report in reports if NO_HISTORY not in str(report.longrepr)]
    if reporter and skipped and os.environ.get("CI") and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        names = ", ".join(sorted({str(report.nodeid) for report in skipped}))
        reporter.write_line(f"CI skips no test, and these were skipped: {names}", red=True)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the settings in the environment of the user who runs the tests."""
    for name in NAMES:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def _no_job_left() -> Iterator[None]:
    """Kills the jobs that a failed test has left, so that they do not run beside other tests."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def handled_signals() -> Iterator[None]:
    """Handles SIGTERM and SIGINT in the test as in a job."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signals.raise_on_sigterm()
    yield
    # This forgets the signals that arrived in the test.
    signals.raise_on_sigterm()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """Returns a workspace whose bucket, work and results are folders of the test."""
    (tmp_path / "bucket").mkdir()
    (tmp_path / "work").mkdir()
    return Workspace(make_settings(tmp_path))


@pytest.fixture(scope="session")
def demo_bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a bucket of forty demo photos. It is drawn once for all tests, and no test may write into it."""
    folder = tmp_path_factory.mktemp("demo") / "bucket"
    demo.draw_bucket(folder, photos=40)
    return folder


@pytest.fixture(scope="session")
def dog_bucket(tmp_path_factory: pytest.TempPathFactory, demo_bucket: Path) -> Path:
    """Returns a bucket of photos of which one label has the name of a label of COCO: dog. No test may write into it."""
    folder = tmp_path_factory.mktemp("dogs") / "bucket"
    shutil.copytree(demo_bucket, folder)
    document = folder / "_annotations.json"
    document.write_text(document.read_text().replace('"disc"', '"dog"'))
    return folder


@contextmanager
def hold_results(folder: Path) -> Iterator[None]:
    """Reserves RESULT_DIR as a job does."""
    lease.make_writable("RESULT_DIR", folder)
    with lease.hold("RESULT_DIR", folder):
        yield


def make_settings(folder: Path, **values: Any) -> Settings:
    """Returns settings with all places below the folder."""
    places = {"data_dir": folder / "bucket", "work_dir": folder / "work", "result_dir": folder / "results"}
    return Settings(**{**places, **values})


def write_bucket(folder: Path, annotations: Any, photos: tuple[str, ...] = (), **rest: Any) -> Path:
    """Writes _annotations.json of version 1.0, and a grey photo for each of the names."""
    folder.mkdir(exist_ok=True)
    document = {"version": "1.0", "type": "localization", "labels": [], "annotations": annotations, **rest}
    (folder / "_annotations.json").write_text(json.dumps(document))
    for name in photos:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (128, 128, 128)).save(path)
    return folder


def environment(**settings: Any) -> dict[str, str]:
    """Returns the environment of a job with only these settings."""
    # A make that runs the tests is none of the job's business.
    others = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    clean = {name: value for name, value in os.environ.items() if name.lower() not in NAMES and name not in others}
    return clean | {"PYTHONPATH": str(ROOT), **{name: str(value) for name, value in settings.items()}}


def run_job(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs the job to its end; standard error is part of standard output."""
    return run_module(sys.executable, "entrypoint", *arguments, **settings)


def run_module(python: Path | str, module: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs a module of the project to its end with that Python; standard error is part of standard output."""
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
    """Starts the job and returns its process, which is killed at the end of the test."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "entrypoint", *arguments],
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    return process


def run_in_terminal(program: str, folder: Path, kind: str = "xterm") -> str:
    """Runs a Python program whose standard output is a terminal of 120 columns; returns what it wrote there."""
    path = folder / "program.py"
    path.write_text(program)
    master, slave = pty.openpty()
    env = environment() | {"TERM": kind, "COLUMNS": "120", "LINES": "30", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(path)], stdout=slave, stderr=slave, env=env)
    os.close(slave)
    STARTED.append(process)
    written = []
    # Reading fails when the last program that has the terminal open has ended.
    with contextlib.suppress(OSError):
        while chunk := os.read(master, 1 << 16):
            written.append(chunk)
    os.close(master)
    assert process.wait() == 0
    return b"".join(written).decode()


# Linux counts the memory of the process that starts a program to the program's peak. This process is small.
MEASURE = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print("", json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]), sep="\\n")
"""


def run_measured(command: list[str], env: dict[str, str]) -> tuple[int, str, float]:
    """Runs a program; returns its exit status, its output, and its peak memory in gigabytes."""
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
    """Returns whether a line of the log reports that step or a later one. The steps between two lines vary."""
    found = re.search(r"tensorflow:loss = [\d.]+, step = (\d+)", line)
    return found is not None and int(found[1]) >= least


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Waits until something is so; it fails with `what` if that takes longer than any machine needs."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def is_running(process: int) -> bool:
    """Returns whether a process of that number is there and has not ended."""
    try:
        # The state follows the name, which is in brackets; Z is a process whose end nobody has asked for.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_line(descriptor: int) -> str:
    """Returns the next line, or an empty text at the end.

    It takes no byte behind the line: `communicate` would not return what a buffer holds already.
    """
    content = b""
    while not content.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        content += byte
    return content.decode(errors="replace")


def read_until(process: subprocess.Popen[str], is_reached: Callable[[str], bool]) -> str:
    """Returns the output up to the first line for which `is_reached` is true.

    Fails if the process ends before that line. The process is killed after ten minutes.
    """
    assert process.stdout is not None
    lines = []
    limit = threading.Timer(600, process.kill)
    limit.start()
    try:
        while line := read_line(process.stdout.fileno()):
            lines.append(line)
            if is_reached(line):
                return "".join(lines)
    finally:
        limit.cancel()
    raise AssertionError("the job ended before:\n" + "".join(lines))
