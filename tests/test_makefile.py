from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT, environment


def make(*arguments: str, folder: Path = ROOT) -> str:
    """What make prints."""
    command = ["make", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    return result.stdout


def test_training_zip_depends_on_everything_that_is_in_it() -> None:
    database = make("--print-data-base", "--dry-run", "clean")
    (rule,) = (line for line in database.splitlines() if line.startswith("dist/training.zip:"))
    needed = set(rule.split())
    assert {"jobs/install.sh", "jobs/training_zip.py", "start.sh", "dist/training-zip.txt"} <= needed
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "entrypoint").rglob("*.py")}
    assert modules <= needed


def test_training_zip_is_made_again_for_another_list_of_packages(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    stamp = tmp_path / "dist" / "training-zip.txt"
    make("dist/training-zip.txt", "REQUIREMENTS=requirements-cpu.txt", folder=tmp_path)
    first = stamp.stat().st_mtime_ns
    make("dist/training-zip.txt", "REQUIREMENTS=requirements-cpu.txt", folder=tmp_path)
    assert stamp.stat().st_mtime_ns == first
    make("dist/training-zip.txt", "REQUIREMENTS=requirements.txt", folder=tmp_path)
    assert stamp.stat().st_mtime_ns > first
    assert stamp.read_text().startswith("requirements.txt ")
