"""The image as its users run it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from tests.image.conftest import SMOKE, docker, start, stop_in_training


def run(image: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`docker run --rm`, options first, then `--` and the job's own words."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return docker("run", "--rm", *arguments[:split], image, *arguments[split + 1 :], check=check)


def is_finished(results: Path) -> bool:
    """Whether the results hold a finished job."""
    return "tf_record" in json.loads((results / "job.json").read_text())["steps"]


def test_new_volume_can_be_written_by_the_image_s_own_user(image: str, name: str) -> None:
    docker("volume", "create", name)
    try:
        options = ("--volume", f"{name}:/data", "--entrypoint=/bin/sh")
        assert (
            run(image, *options, "--", "-c", "mkdir /data/results && stat -c %u /data/results").stdout.strip()
            == "10001"
        )
    finally:
        docker("volume", "rm", name)


def test_any_user_without_network_rights_or_a_writable_root_or_bucket(image: str, bucket: Path, tmp_path: Path) -> None:
    results = tmp_path / "elsewhere"
    results.mkdir()
    results.chmod(0o777)
    bare = ("--user=12345:0", "--read-only", "--network=none", "--cap-drop=ALL", "--tmpfs=/tmp")
    places = (f"--volume={bucket}:/data:ro", f"--volume={results}:/results", "--env=RESULT_DIR=/results")
    run(image, *SMOKE, *bare, *places, "--", "3")
    assert is_finished(results)
    assert (results / "job.json").stat().st_uid == 12345
    assert not (bucket / "results").exists()


def test_bucket_that_cannot_be_written_is_a_named_error(image: str, bucket: Path) -> None:
    result = run(image, *SMOKE, f"--volume={bucket}:/data:ro", "--", "3", check=False)
    assert result.returncode == 2
    assert "RESULT_DIR=/data/results cannot be made (Read-only file system)" in result.stdout


def test_stopped_container_is_resumed_by_the_next(image: str, name: str, bucket: Path) -> None:
    process = start(image, name, *SMOKE, f"--volume={bucket}:/data", "99")
    stopped = stop_in_training(process, name, bucket / "results" / "checkpoint", seconds=60)
    result = run(image, *SMOKE, f"--volume={bucket}:/data", "--", "99")
    assert f"resumed at step {stopped}" in result.stdout
    assert is_finished(bucket / "results")


def test_second_container_on_the_same_results_refuses(image: str, name: str, bucket: Path) -> None:
    process = start(image, name, *SMOKE, f"--volume={bucket}:/data", "1000")
    deadline = time.monotonic() + 60
    while not (bucket / "results" / ".training-job.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = run(image, *SMOKE, f"--volume={bucket}:/data", "--", "1000", check=False)
    docker("kill", name)
    process.communicate()
    assert second.returncode == 2
    assert "belongs to a running job" in second.stdout


def test_no_space_for_the_work_is_one_clear_message(image: str, bucket: Path) -> None:
    small = ("--tmpfs=/work:size=100k,mode=777", "--env=WORK_DIR=/work/job")
    result = run(image, *SMOKE, *small, f"--volume={bucket}:/data", "--", "3", check=False)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout
    assert re.search(
        r"/work/job/.*No space left on device.*: free some space, or name another place in WORK_DIR",
        result.stdout.splitlines()[-2],
    )
    assert not (bucket / "results" / "job.json").exists()


def test_no_space_for_the_results_is_one_clear_message(image: str, bucket: Path) -> None:
    small = ("--tmpfs=/results:size=200k,mode=777", "--env=RESULT_DIR=/results/job")
    result = run(image, *SMOKE, *small, f"--volume={bucket}:/data", "--", "3", check=False)
    assert result.returncode == 1
    assert re.search(
        r"No space left on device, writing [\d,]+ bytes: '/results/job/.*': free some space",
        result.stdout.splitlines()[-2],
    )


def test_commands_that_need_no_bucket(image: str) -> None:
    assert "ssd_mobilenet_v2_fpnlite_320x320" in run(image, "--", "models").stdout
    assert "--num_steps" in run(image, "--", "--help").stdout


def test_bucket_is_checked_without_training(image: str, bucket: Path) -> None:
    result = run(image, f"--volume={bucket}:/data:ro", "--", "check")
    assert "40 labelled photos" in result.stdout
    assert result.stdout.rstrip().endswith("the job can start")


def test_bucket_alone_is_enough_and_sagemaker_s_word_means_the_whole_job(image: str, bucket: Path) -> None:
    result = run(image, *SMOKE, "--env=NUM_STEPS=2", f"--volume={bucket}:/data", "--", "train")
    assert result.stdout.rstrip().endswith("CACLI-TRAINING-SUCCESS")
    assert is_finished(bucket / "results")


def test_image_holds_no_compiler_no_pip_and_nobody_s_cache(image: str) -> None:
    script = (
        "for each in gcc cc make pip pip3; do command -v $each && exit 1; done; ls /root/.cache 2>/dev/null; exit 0"
    )
    assert run(image, "--user=0", "--entrypoint=/bin/sh", "--", "-c", script).stdout == ""
