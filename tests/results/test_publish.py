from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from entrypoint.results import publish
from entrypoint.system.errors import JobError, UserError, explain
from entrypoint.workspace import Workspace
from tests.conftest import make_settings


def test_copy_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"older and longer")
    publish.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"


def test_tree_is_copied_beside_what_the_user_has_there(tmp_path: Path) -> None:
    for name in ("source/a", "source/deep/b", "target/photo.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    publish.copy_tree(tmp_path / "source", tmp_path / "target")
    found = {
        path.relative_to(tmp_path / "target").as_posix() for path in (tmp_path / "target").rglob("*") if path.is_file()
    }
    assert found == {"a", "deep/b", "photo.jpg"}


def test_no_space_left_is_not_tried_again_and_names_the_path(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        publish.write_file(Path("/dev/full"), b"x")
    assert "trying again" not in caplog.text
    assert "writing 1 bytes: '/dev/full': free some space" in explain(caught.value)


def test_credentials_are_redacted() -> None:
    assert publish.redact("https://user:pass@host/zoo/") == "https://***@host/zoo/"
    assert publish.redact("https://user:p@ss@host/zoo/") == "https://***@host/zoo/"
    assert publish.redact("https://host/a.tar.gz?X-Signature=abc") == "https://host/a.tar.gz?***"
    assert publish.redact("Max retries for url: /a?X-Signature=abc (timed out)") == (
        "Max retries for url: /a?*** (timed out)"
    )


def test_lock_is_gone_after_the_job(work: Workspace) -> None:
    with publish.lock(work):
        claim = json.loads((work.results / publish.LOCK).read_text())
        assert (claim["pid"], claim["host"]) == (os.getpid(), socket.gethostname())
    assert not (work.results / publish.LOCK).exists()


def hold(folder: str, seconds: float) -> None:
    with publish.lock(Workspace(make_settings(Path(folder)))):
        time.sleep(seconds)


def test_second_job_refuses_and_names_the_first(work: Workspace, tmp_path: Path) -> None:
    first = multiprocessing.get_context("spawn").Process(target=hold, args=(str(tmp_path), 60))
    first.start()
    try:
        deadline = time.monotonic() + 60
        while not (work.results / publish.LOCK).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        words = f"belongs to a running job, process {first.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=words), publish.lock(work):
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
    claim = {**publish.place_of_process(), "pid": dead.pid, "token": "t"}
    (work.results / publish.LOCK).write_bytes(publish.encode_claim(claim))
    with caplog.at_level(logging.INFO), publish.lock(work):
        assert json.loads((work.results / publish.LOCK).read_text())["pid"] == os.getpid()
    assert "waiting to see" not in caplog.text


def test_live_process_of_the_same_number_in_another_container_is_not_taken_for_dead() -> None:
    claim = {**publish.place_of_process(), "namespace": "pid:[1]", "pid": os.getpid()}
    assert not publish.is_dead_here(claim)


def take(folder: str, barrier: Any, outcome: Any) -> None:
    publish.RENEWAL_SECONDS = 0.5
    barrier.wait()
    try:
        with publish.lock(Workspace(make_settings(Path(folder)))):
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
    monkeypatch.setattr(publish, "DEAD_SECONDS", 2)
    work.results.mkdir()
    claim = {"host": "another machine", "pid": 1, "token": "t"}
    (work.results / publish.LOCK).write_bytes(publish.encode_claim(claim) if content is None else content)
    with publish.lock(work):
        assert json.loads((work.results / publish.LOCK).read_text())["pid"] == os.getpid()


def test_results_that_cannot_be_made_are_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    work = Workspace(make_settings(tmp_path, result_dir=tmp_path / "file" / "results"))
    with pytest.raises(UserError, match=r"RESULT_DIR=.* cannot be made"), publish.lock(work):
        pass


def test_files_of_a_replaced_job_are_remembered_and_none_outside_of_the_results(work: Workspace) -> None:
    (work.results / "model_android").mkdir(parents=True)
    (work.results / "model_android" / "model.tflite").write_text("")
    outside = work.root / "thesis.doc"
    outside.write_text("")
    others = [work.results / name for name in ("photo.jpg", "models/mine.h5", "checkpoint/ckpt-0.index")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("the user's")
    strange = [str(path.relative_to(work.results)) for path in others]
    names = [
        *strange,
        "model_android/model.tflite",
        "model_android",
        "gone",
        str(outside),
        "../work/thesis.doc",
        5,
        ["x"],
    ]
    (work.results / "job.json").write_text(json.dumps({"files": names}))
    publish.retract(work)
    publish.retract(work)
    assert not (work.results / "job.json").exists()
    assert publish.replaced_files(work) == [work.results / "model_android" / "model.tflite"]


@pytest.mark.parametrize("content", ["", "[]", '{"files": 5}', "no json"])
def test_manifest_that_is_none_is_retracted_too(work: Workspace, content: str) -> None:
    work.results.mkdir()
    (work.results / "job.json").write_text(content)
    publish.retract(work)
    assert publish.replaced_files(work) == []
    assert not (work.results / "job.json").exists()


def test_job_that_lost_its_results_writes_no_more_into_them(work: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "RENEWAL_SECONDS", 0.2)
    monkeypatch.setattr(publish._Lost, "to", "")
    got: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: got.append(number))
    with publish.lock(work):
        deadline = time.monotonic() + 60
        while not got and time.monotonic() < deadline:
            # A renewal that was under way may have written over it.
            (work.results / publish.LOCK).write_bytes(publish.encode_claim({"host": "other", "pid": 7, "token": "t"}))
            time.sleep(0.5)
        assert got == [signal.SIGTERM]
        with pytest.raises(JobError, match="taken over by process 7 on other"):
            publish.write_file(work.results / "x", b"x")
    assert (work.results / publish.LOCK).exists()
