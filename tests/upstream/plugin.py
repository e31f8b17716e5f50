"""Runs upstream's own unit tests for `make test-upstream`, and compares their failures with tests/upstream/known.csv.

A test that is listed there must fail with the error in its line. The run fails if such a test passes or has another
error, if a test fails that is not listed, and if a line fits no test of its file. Tests of both generations are in the
same files: TF2_BEHAVIOR=0 runs the tests of TF1, TF2_BEHAVIOR=1 runs the rest.
"""

from __future__ import annotations

import csv
import fnmatch
import os
import re
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

MODE = "tf1" if os.environ.get("TF2_BEHAVIOR") == "0" else "tf2"


@dataclass(frozen=True)
class Known:
    """A test that cannot pass, `folder/file.py::Class::test`, or a file that cannot be run; both can be patterns."""

    mode: str  # tf1, tf2 or both
    test: str
    reason: str
    error: str  # a pattern of the error that the test fails with; empty for a file
    python: str  # the first version of Python whose packages make the test fail; empty if it fails on all versions

    @property
    def file(self) -> str:
        """The pattern of the file, without class and test."""
        return self.test.partition("::")[0]

    @property
    def is_file(self) -> bool:
        """Whether the line is about a whole file, which cannot be run."""
        return self.file == self.test

    @property
    def is_here(self) -> bool:
        """Whether the test fails in this mode, on this Python."""
        since = tuple(map(int, (self.python or "0").split(".")))
        return self.mode in (MODE, "both") and sys.version_info >= since


def pytest_configure() -> None:
    """Turns TensorFlow 2 off for the tests of TF1, before upstream checks the version of TensorFlow.

    Imports object_detection, so that the layer is applied for the tests of slim too, which do not import it themselves.
    The flags get their defaults, as in a test's own main. Otherwise they would be parsed from pytest's command line.
    """
    from absl import flags

    flags.FLAGS(["pytest"])
    if MODE == "tf1":
        import tensorflow as tf

        tf.compat.v1.disable_v2_behavior()
    import object_detection  # noqa: F401


def load() -> list[Known]:
    """Returns the known failures of this mode and this Python."""
    with (Path(__file__).parent / "known.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in (Known(**each) for each in csv.DictReader(file)) if row.is_here]


KNOWN = load()
ROW = pytest.StashKey[Known]()


def name_in_source(path: Path) -> str:
    """Returns the path of a file below the folder of packages that it was installed into."""
    packages = [parent for parent in path.parents if parent.name in ("site-packages", "object_detection")]
    if not packages:
        # pytest also looks into the folders above.
        return path.as_posix()
    root = packages[0] if packages[0].name == "site-packages" else packages[0].parent
    return path.relative_to(root).as_posix()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out files that cannot be imported or are not tests."""
    if collection_path.suffix != ".py":
        return None
    name = name_in_source(collection_path)
    return True if any(row.is_file and fnmatch.fnmatch(name, row.test) for row in KNOWN) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the known failures. Raises UsageError if a line for one of the collected files fits no test of the file."""
    tests = {item: "::".join([name_in_source(item.path), *item.nodeid.split("::")[1:]]) for item in items}
    fitting = set()
    for item, test in tests.items():
        for row in KNOWN:
            if fnmatch.fnmatch(test, row.test):
                item.add_marker(pytest.mark.xfail(reason=row.reason, strict=True))
                item.stash[ROW] = row
                fitting.add(row)
    files = {test.partition("::")[0] for test in tests.values()}
    idle = [row.test for row in KNOWN if row not in fitting and fnmatch.filter(files, row.file)]
    if idle:
        raise pytest.UsageError(f"known.csv has lines that fit no test of their files: {', '.join(idle)}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports a failure with another error than the known one as a failure."""
    report = yield
    row = item.stash.get(ROW, None)
    if row and call.excinfo and hasattr(report, "wasxfail"):
        error = f"{call.excinfo.typename}: {call.excinfo.value}"
        if not re.search(row.error, error, re.DOTALL):
            del report.wasxfail
            report.outcome = "failed"
            report.longrepr = f"known.csv expects a failure with /{row.error}/, but the error is {error}"
    return report
