from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entrypoint import publish
from entrypoint.errors import UserError
from entrypoint.workspace import Workspace
from tests.conftest import make_settings


def test_copy_replaces_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"older and longer")
    publish.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"new"


def test_tree_holds_what_the_source_holds_and_nothing_else(tmp_path: Path) -> None:
    for name in ("source/a", "source/deep/b", "target/stale", "target/deep/stale"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    publish.copy_tree(tmp_path / "source", tmp_path / "target")
    found = {
        path.relative_to(tmp_path / "target").as_posix() for path in (tmp_path / "target").rglob("*") if path.is_file()
    }
    assert found == {"a", "deep/b"}


def test_no_space_left_is_not_tried_again_and_names_the_path() -> None:
    from entrypoint.__main__ import explain_os_error

    began = time.monotonic()
    with pytest.raises(OSError, match="No space left") as caught:
        publish.write_file(Path("/dev/full"), b"x")
    assert time.monotonic() - began < 1
    assert "free some space" in explain_os_error(caught.value)


def test_credentials_are_redacted() -> None:
    assert publish.redact("https://user:pass@host/zoo/") == "https://***host/zoo/"
    assert publish.redact("https://host/a.tar.gz?X-Signature=abc") == "https://host/a.tar.gz?***"
    assert publish.redact("/some/folder?") == "/some/folder?"


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
        while not (work.results / publish.LOCK).exists():
            time.sleep(0.1)
        words = f"belongs to a running job, process {first.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=words), publish.lock(work):
            pass
    finally:
        first.kill()
        first.join()


def test_lock_of_a_dead_process_of_this_machine_does_not_block(work: Workspace) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    work.results.mkdir()
    claim = {"host": socket.gethostname(), "pid": dead.pid, "token": "t"}
    (work.results / publish.LOCK).write_bytes(publish.encode_claim(claim))
    began = time.monotonic()
    with publish.lock(work):
        assert time.monotonic() - began < 1


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
