"""Runs upstream's own unit tests, as `make test-upstream` does, and expects of each what tests/upstream/known.csv says.

A test that is listed there fails with the error that stands beside it, or the run fails; so does one that fails and is
not listed, and so does a line for a test that its file has not. Tests of both generations are in the same files:
TF2_BEHAVIOR=0 runs those of TF1, TF2_BEHAVIOR=1 the rest.
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
    error: str  # a pattern of what the test fails with; empty for a file
    python: str  # the first version whose packages make it fail, where others have older ones; empty for all

    @property
    def file(self) -> str:
        """The pattern of the file alone."""
        return self.test.partition("::")[0]

    @property
    def is_file(self) -> bool:
        """Whether the whole file cannot be run."""
        return self.file == self.test

    @property
    def is_here(self) -> bool:
        """Whether it fails in this mode, on this Python."""
        since = tuple(map(int, (self.python or "0").split(".")))
        return self.mode in (MODE, "both") and sys.version_info >= since


def pytest_configure() -> None:
    """Turns TensorFlow 2 off for the tests of TF1, before upstream looks which of the two it is.

    The layer is applied for the tests of slim too, which do not import object_detection themselves. Flags have their
    defaults, as in a test's own main: they would be looked for among pytest's words.
    """
    from absl import flags

    flags.FLAGS(["pytest"])
    if MODE == "tf1":
        import tensorflow as tf

        tf.compat.v1.disable_v2_behavior()
    import object_detection  # noqa: F401


def load() -> list[Known]:
    """What is known to fail here."""
    with (Path(__file__).parent / "known.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in (Known(**each) for each in csv.DictReader(file)) if row.is_here]


KNOWN = load()
ROW = pytest.StashKey[Known]()


def name_in_source(path: Path) -> str:
    """The path of a file below the folder of packages that it was installed into."""
    packages = [parent for parent in path.parents if parent.name in ("site-packages", "object_detection")]
    if not packages:
        # Folders above are looked through on the way.
        return path.as_posix()
    root = packages[0] if packages[0].name == "site-packages" else packages[0].parent
    return path.relative_to(root).as_posix()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out files that cannot be imported or are no tests."""
    if collection_path.suffix != ".py":
        return None
    name = name_in_source(collection_path)
    return True if any(row.is_file and fnmatch.fnmatch(name, row.test) for row in KNOWN) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is known to fail; a line for one of these files that fits no test of it is an error."""
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
    """Takes a failure with another error than the known one for what it is."""
    report = yield
    row = item.stash.get(ROW, None)
    if row and call.excinfo and hasattr(report, "wasxfail"):
        error = f"{call.excinfo.typename}: {call.excinfo.value}"
        if not re.search(row.error, error, re.DOTALL):
            del report.wasxfail
            report.outcome = "failed"
            report.longrepr = f"fails, and not with /{row.error}/, as known.csv has it: {error}"
    return report
