from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from entrypoint.system import copying, lease
from entrypoint.system.errors import JobError, Stopped, UserError
from entrypoint.workspace import Workspace
from tests.conftest import BOX, hold_results, make_settings, run_job, write_bucket


def test_lock_is_gone_after_the_job(work: Workspace) -> None:
    with hold_results(work.results):
        claim = json.loads((work.results / lease.LOCK).read_text())
        assert (claim["pid"], claim["host"]) == (os.getpid(), socket.gethostname())
    assert not (work.results / lease.LOCK).exists()


def hold(folder: str, seconds: float) -> None:
    with hold_results(make_settings(Path(folder)).result_dir):
        time.sleep(seconds)


def test_second_job_refuses_and_names_the_first(work: Workspace, tmp_path: Path) -> None:
    first = multiprocessing.get_context("spawn").Process(target=hold, args=(str(tmp_path), 60))
    first.start()
    try:
        deadline = time.monotonic() + 60
        while not (work.results / lease.LOCK).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        words = f"belongs to a running job, process {first.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=words), hold_results(work.results):
            pass
    finally:
        first.kill()
        first.join()


def test_lock_of_a_dead_process_of_this_machine_does_not_block(
    work: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    work.results.mkdir()
    claim = {**lease.place_of_process(), "pid": dead.pid, "token": "t"}
    (work.results / lease.LOCK).write_bytes(lease.encode_claim(claim))
    with caplog.at_level(logging.INFO), hold_results(work.results):
        assert json.loads((work.results / lease.LOCK).read_text())["pid"] == os.getpid()
    assert "waiting to see" not in caplog.text


def test_live_process_of_the_same_number_in_another_container_is_not_taken_for_dead() -> None:
    claim = {**lease.place_of_process(), "namespace": "pid:[1]", "pid": os.getpid()}
    assert not lease.is_dead_here(claim)


def take(folder: str, barrier: Any, outcome: Any) -> None:
    lease.RENEWAL_SECONDS = 0.5
    barrier.wait()
    try:
        with hold_results(make_settings(Path(folder)).result_dir):
            outcome.put("ran")
            time.sleep(5)
    except UserError:
        outcome.put("refused")


def test_of_two_jobs_that_start_at_once_one_runs(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, outcome = context.Barrier(2), context.Queue()
    jobs = [context.Process(target=take, args=(str(tmp_path), barrier, outcome)) for _ in range(2)]
    for job in jobs:
        job.start()
    assert sorted(outcome.get(timeout=60) for _ in jobs) == ["ran", "refused"]
    for job in jobs:
        job.join()


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_lock_that_nobody_renews_does_not_block_for_ever(
    work: Workspace, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DEAD_SECONDS", 2)
    work.results.mkdir()
    claim = {"host": "another machine", "pid": 1, "token": "t"}
    (work.results / lease.LOCK).write_bytes(lease.encode_claim(claim) if content is None else content)
    with hold_results(work.results):
        assert json.loads((work.results / lease.LOCK).read_text())["pid"] == os.getpid()


def test_results_that_cannot_be_made_are_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    work = Workspace(make_settings(tmp_path, result_dir=tmp_path / "file" / "results"))
    with pytest.raises(UserError, match=r"RESULT_DIR=.* cannot be made"), hold_results(work.results):
        pass


def test_job_that_lost_its_results_writes_no_more_into_them(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.2)
    monkeypatch.setattr(copying._Lost, "to", "")
    got: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: got.append(number))
    with hold_results(work.results):
        deadline = time.monotonic() + 60
        while not got and time.monotonic() < deadline:
            # A renewal that was under way may have written over it.
            (work.results / lease.LOCK).write_bytes(lease.encode_claim({"host": "other", "pid": 7, "token": "t"}))
            time.sleep(0.5)
        assert got == [signal.SIGTERM]
        with pytest.raises(JobError, match="taken over by process 7 on other"):
            copying.write_file(work.results / "x", b"x")
    assert (work.results / lease.LOCK).exists()


def test_lock_that_is_a_link_is_refused(work: Workspace, tmp_path: Path) -> None:
    work.results.mkdir()
    (work.results / lease.LOCK).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a link, or lies behind one"), hold_results(work.results):
        pass
    assert not (tmp_path / "nowhere").exists()


def test_lock_that_is_a_pipe_does_not_block(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "DEAD_SECONDS", 2)
    work.results.mkdir()
    os.mkfifo(work.results / lease.LOCK)
    with hold_results(work.results):
        assert (work.results / lease.LOCK).is_file()


def test_two_jobs_do_not_share_a_place_for_checkpoints(tmp_path: Path) -> None:
    write_bucket(tmp_path / "bucket", {"a.png": [BOX]}, ("a.png",))
    with lease.hold("CHECKPOINT_DIR", tmp_path):
        places = {"DATA_DIR": tmp_path / "bucket", "RESULT_DIR": tmp_path / "results", "WORK_DIR": tmp_path / "work"}
        second = run_job("1", MODEL="smoke", CHECKPOINT_DIR=tmp_path, **places)
    assert second.returncode == 2


@pytest.mark.usefixtures("handled_signals")
def test_signal_that_comes_when_the_lock_was_just_written_leaves_no_lock(tmp_path: Path) -> None:
    def stop() -> None:
        while not lease.read_claim(tmp_path / lease.LOCK):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped), lease.hold("RESULT_DIR", tmp_path):
        pytest.fail("the signal came before the block")
    thread.join()
    assert not (tmp_path / lease.LOCK).exists()
