"""Jobs that are stopped, killed, damaged or misled."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from entrypoint import job
from tests.conftest import BOX, ROOT, is_at_step, read_until, run_job, start_job, write_bucket

STEPS = 60


@pytest.fixture
def settings(tmp_path: Path, demo_bucket: Path) -> dict[str, Any]:
    """A job that trains for some seconds."""
    places = {"DATA_DIR": demo_bucket, "WORK_DIR": tmp_path / "work", "RESULT_DIR": tmp_path / "results"}
    return {"MODEL": "smoke", "BATCH_SIZE": 4, "NUM_STEPS": STEPS, "EXPORTS": "saved_model", **places}


def last_step(log: str) -> int:
    return int(re.findall(r"tensorflow:loss = [\d.]*, step = (\d+)", log)[-1])


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.partition("-")[2]) for path in (folder / "checkpoint").glob("ckpt-*.json"))


def test_sigterm_saves_a_checkpoint_from_which_another_machine_goes_on(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    process = start_job(**settings)
    log = read_until(process, lambda line: is_at_step(line, 1))
    process.send_signal(signal.SIGTERM)
    log += process.communicate(timeout=120)[0]
    assert process.returncode == 143
    assert "CACLI" not in log
    stopped = last_step(log)
    assert stopped < STEPS
    assert saved_steps(tmp_path / "results") == [stopped]
    # Another machine has the results alone.
    shutil.rmtree(tmp_path / "work")
    again = run_job(**settings)
    assert again.returncode == 0, again.stdout
    assert f"resumed at step {stopped} from {tmp_path / 'results'}" in again.stdout
    assert last_step(again.stdout) == STEPS
    assert saved_steps(tmp_path / "results")[-1] == STEPS
    history = json.loads((tmp_path / "results" / "checkpoint" / f"ckpt-{STEPS}.json").read_text())["history"]
    assert [point["step"] for point in history] == list(range(1, STEPS + 1))


def test_sigkill_and_a_damaged_checkpoint_cost_no_more_than_the_steps_since_the_one_before(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    settings = {**settings, "CHECKPOINT_SECONDS": 0}
    process = start_job(**settings)
    for _ in range(3):
        read_until(process, lambda line: "checkpoint saved" in line)
    process.kill()
    process.communicate()
    places = (tmp_path / "work", tmp_path / "results")
    # The newest may not have been published any more.
    before, newest = sorted({step for place in places for step in saved_steps(place)})[-2:]
    for place in places:
        for data in (place / "checkpoint").glob(f"ckpt-{newest}.data-*"):
            data.write_bytes(data.read_bytes()[:-100])
    again = run_job(**{**settings, "CHECKPOINT_SECONDS": 300})
    assert again.returncode == 0, again.stdout
    assert f"ckpt-{newest} is damaged" in again.stdout
    assert f"resumed at step {before} from" in again.stdout
    assert last_step(again.stdout) == STEPS


def test_diverging_loss_stops_at_once_and_says_how_to_go_on(tmp_path: Path, settings: dict[str, Any]) -> None:
    text = (ROOT / "pipelines" / "smoke.config").read_text()
    text, count = re.subn(r"learning_rate_base: [\d.e-]+", "learning_rate_base: 1e30", text)
    assert count == 1
    (tmp_path / "user.config").write_text(text)
    result = run_job(**settings, PIPELINE_CONFIG=tmp_path / "user.config", CHECKPOINT="none")
    assert result.returncode == 2
    assert re.search(
        r"the loss became (nan|inf) at step \d+, learning rate .*: set LEARNING_RATE=[\d.]+e\+2\d,", result.stdout
    )
    assert result.stdout.count("CACLI-TRAINING-FAILED") == 1
    assert not (tmp_path / "results" / "job.json").exists()


@pytest.mark.parametrize(
    "step", ["label_map", "tf_record", "pipeline", "train", "evaluate", "export", "report", "publish"]
)
def test_step_alone_says_which_step_it_needs(settings: dict[str, Any], step: str) -> None:
    result = run_job(step, "--only", **settings)
    assert result.returncode == 2
    assert re.search(
        r"the step `\w+` is not done with these settings|is missing: run the step `\w+` first", result.stdout
    )


def test_step_runs_what_it_needs_with_the_settings_given(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"NUM_STEPS": 2}
    first = run_job("train", **settings)
    assert first.returncode == 0, first.stdout
    assert [name for name in job.STEP_NAMES if f"{name} ..." in first.stdout] == [*job.STEP_NAMES[:5], "train"]
    # With another number of steps, the schedule is made anew, and training does not end where it was.
    settings["NUM_STEPS"] = 4
    only = run_job("train", "--only", **settings)
    assert only.returncode == 2
    assert "--only train: the step `pipeline` is not done with these settings" in only.stdout
    again = run_job("evaluate", **settings)
    assert again.returncode == 0, again.stdout
    assert "tf_record: done already" in again.stdout
    assert last_step(again.stdout) == 4
    assert json.loads((tmp_path / "work" / "metrics.json").read_text())["step"] == 4
    assert "CACLI" not in first.stdout + again.stdout


def test_sigterm_while_the_model_is_compiled_ends_at_once(settings: dict[str, Any], tmp_path: Path) -> None:
    process = start_job(**settings)
    log = read_until(process, lambda line: "the first step compiles the model" in line)
    process.send_signal(signal.SIGTERM)
    log += process.communicate(timeout=120)[0]
    assert process.returncode == 143
    assert "CACLI" not in log
    # Not even the first step was waited for.
    assert "tensorflow:loss" not in log
    assert not list((tmp_path / "results").rglob("ckpt-*"))


def test_sigterm_before_training_ends_at_once(settings: dict[str, Any]) -> None:
    process = start_job(**{**settings, "CHECKPOINT": "http://127.0.0.1:9/ckpt.tar.gz"})
    log = read_until(process, lambda line: "trying again" in line)
    process.send_signal(signal.SIGTERM)
    log += process.communicate(timeout=120)[0]
    assert process.returncode == 143
    assert "CACLI" not in log


def test_one_photo_is_trained_on_and_nothing_is_measured(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_bucket(tmp_path / "bucket", {"a.png": [BOX]}, ("a.png",))
    result = run_job(**{**settings, "DATA_DIR": tmp_path / "bucket", "NUM_STEPS": 2})
    assert result.returncode == 0, result.stdout
    assert json.loads((tmp_path / "results" / "metrics.json").read_text())["summary"]["mAP"] is None
    assert "nothing could be measured" in (tmp_path / "results" / "report.html").read_text()
