"""A job that an older revision began is killed, and the present code goes on at the same step."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import NO_HISTORY, ROOT, STARTED, environment, is_at_step, read_until, run_job

# The last revision whose modules lay in one folder.
OLDER = "7e34242"


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The job of the older revision, out of the Git history."""
    command = ["git", "-C", str(ROOT), "archive", OLDER, "entrypoint", "pipelines"]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        pytest.skip(f"{NO_HISTORY}: {result.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(result.stdout)) as tar:
        tar.extractall(tmp_path / "older")  # noqa: S202 - it is our own
    return tmp_path / "older"


def test_job_that_an_older_revision_began_goes_on_at_its_step(older: Path, tmp_path: Path, demo_bucket: Path) -> None:
    places = {"DATA_DIR": demo_bucket, "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    job = {"MODEL": "smoke", "BATCH_SIZE": 4, "EXPORTS": "saved_model", "CHECKPOINT_SECONDS": 0, **places}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "entrypoint", "12"],
        env={**environment(**job), "PYTHONPATH": str(older)},
        cwd=older,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    STARTED.append(process)
    log = read_until(process, lambda line: is_at_step(line, 4))
    assert "detection training job" not in log
    process.kill()
    process.communicate()
    result = run_job("12", **job)
    assert result.returncode == 0, result.stdout
    found = re.search(r"resumed at step (\d+)", result.stdout)
    assert found is not None, result.stdout
    # The last checkpoint may not have been written to its end.
    assert int(found[1]) >= 1
    assert "tf_record: done already" in result.stdout
    assert result.stdout.endswith("CACLI-TRAINING-SUCCESS\n")
