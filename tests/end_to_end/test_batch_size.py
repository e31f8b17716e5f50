"""BATCH_SIZE=auto in a job: a trial trains and detects, and another machine goes on with the batch that was found."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests import demo
from tests.conftest import ROOT, environment, is_at_step, read_until, run_job, start_job

# A trial on a machine with little memory.
LITTLE = """
import sys
from entrypoint.system import memory
from entrypoint.training import trial
memory.free = lambda: 300 << 20
sys.exit(trial.main(*sys.argv[1:]))
"""


def test_batch_is_tried_and_kept_for_another_machine(tmp_path: Path) -> None:
    demo.draw_bucket(tmp_path / "bucket", photos=20)
    places = {"DATA_DIR": tmp_path / "bucket", "RESULT_DIR": tmp_path / "results"}
    settings = {**places, "MODEL": "smoke", "BATCH_SIZE": "auto", "NUM_STEPS": 60, "CHECKPOINT_SECONDS": 1}
    process = start_job("train", **settings, WORK_DIR=tmp_path / "work")
    log = read_until(process, lambda line: is_at_step(line, 1))
    # A quarter of the photos for training.
    assert "BATCH_SIZE=auto: 4 photos fit: " in log
    assert "BATCH_SIZE=auto: 4 photos\n" in log
    read_until(process, lambda line: "checkpoint saved" in line)
    process.send_signal(signal.SIGKILL)
    process.wait()

    given = json.dumps(
        {name.lower(): str(value) for name, value in settings.items()} | {"work_dir": f"{tmp_path}/work"}
    )
    words = [sys.executable, "-c", LITTLE, str(tmp_path / "work" / "pipeline.config")]
    env = environment(PYTHONPATH=ROOT)
    result = subprocess.run(words, env=env, input=given, capture_output=True, text=True, check=False)
    assert result.returncode == 3, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["error"] == "it takes more than 0.2 GiB of memory"

    shutil.rmtree(tmp_path / "work")
    # Where more would fit, the training goes on with the batch that it had.
    again = run_job("train", **settings, WORK_DIR=tmp_path / "other")
    assert again.returncode == 0, again.stdout
    assert "BATCH_SIZE=auto: 4 photos, as in the checkpoint that is there" in again.stdout
    assert "photos fit" not in again.stdout
    assert "resumed at step" in again.stdout
