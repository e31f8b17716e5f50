from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tarfile
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from entrypoint.system import download
from entrypoint.system.errors import JobError, UserError
from entrypoint.training import last_job, start_checkpoint
from entrypoint.workspace import Workspace
from tests.conftest import make_settings
from tests.server import Answer, serve, serve_tls
from tests.tar import pack

ARCHIVE = "tf2/20200711/ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.tar.gz"
TOP = "ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8"
TF2 = {
    f"{TOP}/checkpoint/ckpt-0.index": b"index with _CHECKPOINTABLE_OBJECT_GRAPH",
    f"{TOP}/checkpoint/ckpt-0.data-00000-of-00001": os.urandom(300_000),
    f"{TOP}/checkpoint/checkpoint": b"state",
    f"{TOP}/pipeline.config": b"model {}",
    f"{TOP}/saved_model/saved_model.pb": b"not needed",
}
TF1 = {
    f"{TOP}/model.ckpt.index": b"index",
    f"{TOP}/model.ckpt.meta": b"meta",
    f"{TOP}/model.ckpt.data-00000-of-00001": b"data",
    f"{TOP}/frozen_inference_graph.pb": b"not needed",
    f"{TOP}/pipeline.config": b"model {}",
}


def kept_archive(work: Workspace) -> Path:
    (path,) = work.zoo.glob(f"*/{Path(ARCHIVE).name}")
    return path


def layout_of(work: Workspace) -> str:
    start = start_checkpoint.load(work)
    assert start is not None
    return start.layout


def prefix_of(work: Workspace) -> str:
    start = start_checkpoint.load(work)
    assert start is not None
    return start.prefix


def workspace_for(tmp_path: Path, **settings: Any) -> Workspace:
    (tmp_path / "work").mkdir(exist_ok=True)
    return Workspace(make_settings(tmp_path, **{"retry_seconds": 20, **settings}))


@pytest.mark.parametrize(
    ("files", "layout", "prefix", "kept"),
    [
        (TF2, "tf2", "checkpoint/ckpt-0", {"ckpt-0.index", "ckpt-0.data-00000-of-00001", "pipeline.config"}),
        (
            TF1,
            "tf1",
            "model.ckpt",
            {"model.ckpt.index", "model.ckpt.meta", "model.ckpt.data-00000-of-00001", "pipeline.config"},
        ),
    ],
)
def test_both_layouts_are_fetched_and_only_the_checkpoint_is_kept(
    tmp_path: Path, files: dict[str, bytes], layout: str, prefix: str, kept: set[str]
) -> None:
    with serve(pack(files)) as server:
        work = workspace_for(tmp_path, zoo_url=f"{server.address}/models/")
        start_checkpoint.obtain(work)
    start = start_checkpoint.load(work)
    assert start is not None
    folder = Path(start.prefix.removesuffix(f"/{prefix}"))
    assert start.layout == layout
    assert folder.is_relative_to(work.zoo)
    assert {path.name for path in folder.rglob("*") if path.is_file()} == kept
    assert Path(f"{start.prefix}.data-00000-of-00001").read_bytes() == files[f"{TOP}/{prefix}.data-00000-of-00001"]
    assert server.requests == [(f"/models/{ARCHIVE}", None)]


def test_transient_failures_are_retried_and_a_broken_transfer_is_resumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = pack(TF2)
    script = (Answer(503), Answer(503), Answer(send=0.5))
    with serve(content, *script) as server, caplog.at_level(logging.WARNING):
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))
    *first, (_, resumed) = server.requests
    assert [wanted for _, wanted in first] == [None, None, None]
    assert resumed is not None
    assert 0 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= len(content) // 2
    assert "answered 503" in caplog.text


MOBILEDET = {
    f"{TOP}/fp32/model.ckpt-400000.index": b"index of floats",
    f"{TOP}/fp32/model.ckpt-400000.data-00000-of-00001": b"floats",
    f"{TOP}/fp32/pipeline.config": b"model { floats }",
    f"{TOP}/uint8/model.ckpt-400000.index": b"index of integers",
    f"{TOP}/uint8/model.ckpt-400000.data-00000-of-00001": b"integers",
    f"{TOP}/uint8/pipeline.config": b"model { integers }",
}
NUMBERED = {
    f"{TOP}/model.ckpt-400000.index": b"index",
    f"{TOP}/model.ckpt-400000.data-00000-of-00001": b"floats",
    f"{TOP}/pipeline.config": b"model { floats }",
}


@pytest.mark.parametrize("files", [MOBILEDET, dict(reversed(MOBILEDET.items())), NUMBERED])
def test_of_floats_and_integers_the_floats_are_taken_with_their_own_config(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    with serve(pack(files)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        start_checkpoint.obtain(work)
    start = start_checkpoint.load(work)
    assert start is not None
    assert start.layout == "tf1"
    prefix = Path(start.prefix)
    assert prefix.with_name(f"{prefix.name}.data-00000-of-00001").read_bytes() == b"floats"
    assert (prefix.parent / "pipeline.config").read_bytes() == b"model { floats }"


def test_checkpoint_of_a_job_of_the_first_generation_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "ckpt-1000.index").write_bytes(b"names of slim layers")
    (tmp_path / "ckpt-1000.data-00000-of-00001").write_bytes(b"values")
    assert start_checkpoint.find_in_folder(tmp_path, tmp_path).layout == "tf1"


def test_server_that_ignores_range_is_read_from_the_start(tmp_path: Path) -> None:
    with serve(pack(TF2), Answer(send=0.5), Answer(ranges=False)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        start_checkpoint.obtain(work)
    assert kept_archive(work).read_bytes() == server.content


def test_file_that_changed_between_two_attempts_is_not_patched_together(tmp_path: Path) -> None:
    changed = pack({**TF2, f"{TOP}/pipeline.config": b"model { new }"})
    with serve(pack(TF2), Answer(send=0.5)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        url = f"{server.address}/{ARCHIVE}"
        target = work.zoo / Path(ARCHIVE).name
        target.parent.mkdir()
        with pytest.raises(download.TransientError):
            download.transfer(url, target, None)
        server.content = changed
        download.transfer(url, target, None)
    assert target.read_bytes() == changed


def test_retry_after_is_honoured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(pack(TF2), Answer(429, {"Retry-After": "3"})) as server:
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))
    assert waits(caplog) == [3.0]


def waits(caplog: pytest.LogCaptureFixture) -> list[float]:
    """The seconds that were waited between attempts."""
    return [float(seconds) for seconds in re.findall(r"trying again in ([\d.]+) s", caplog.text)]


@pytest.mark.parametrize("status", [404, 403, 401])
def test_what_no_retry_mends_fails_at_once_with_address_and_model(tmp_path: Path, status: int) -> None:
    with serve(b"", Answer(status), Answer(status)) as server, pytest.raises(UserError) as caught:
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))
    assert len(server.requests) == 1
    assert f"{server.address}/{ARCHIVE} answered {status}" in str(caught.value)
    assert "MODEL=ssd_mobilenet_v2_fpnlite_320x320" in str(caught.value)


def test_no_network_fails_within_the_budget_and_says_how_to_do_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(JobError, match=r"RETRY_SECONDS=2. Without network, put the archive.*ZOO_URL") as caught:
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url="http://127.0.0.1:9", retry_seconds=2))
    assert not isinstance(caught.value, UserError)
    found = waits(caplog)
    # The log rounds each to a tenth.
    assert sum(found) <= 2 + 0.051 * len(found)


def test_hash_announced_by_the_server_is_verified_and_the_file_fetched_once_more(tmp_path: Path) -> None:
    wrong = {"x-goog-hash": "crc32c=AAAAAA==,md5=AAAAAAAAAAAAAAAAAAAAAA=="}
    with serve(pack(TF2), Answer(headers=wrong)) as server:
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))
    assert len(server.requests) == 2


def test_wrong_hash_twice_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with serve(pack(TF2)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address, checkpoint_sha256="0" * 64)
        with pytest.raises(
            UserError, match=r"not 0000.*fetched twice: .* or CHECKPOINT_SHA256 belongs to another archive"
        ):
            start_checkpoint.obtain(work)
    assert len(server.requests) == 2
    assert not [path for path in work.zoo.rglob("*") if path.name.endswith((".tar.gz", ".part"))]


def test_right_hash_is_accepted(tmp_path: Path) -> None:
    content = pack(TF2)
    with serve(content) as server:
        settings = {"zoo_url": server.address, "checkpoint_sha256": hashlib.sha256(content).hexdigest()}
        start_checkpoint.obtain(workspace_for(tmp_path, **settings))


def test_kept_file_is_not_fetched_again_but_a_damaged_one_is(tmp_path: Path) -> None:
    with serve(pack(TF2)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        start_checkpoint.obtain(work)
        start_checkpoint.obtain(work)
        assert len(server.requests) == 1
        kept_archive(work).write_bytes(b"damaged")
        start_checkpoint.obtain(work)
        assert len(server.requests) == 2


@pytest.mark.parametrize("form", ["file://{}", "{}"])
def test_zoo_in_a_folder_needs_no_network(tmp_path: Path, form: str) -> None:
    archive = tmp_path / "mirror" / ARCHIVE
    archive.parent.mkdir(parents=True)
    archive.write_bytes(pack(TF2))
    work = workspace_for(tmp_path, zoo_url=form.format(tmp_path / "mirror"))
    start_checkpoint.obtain(work)
    assert layout_of(work) == "tf2"


def test_archive_fetched_by_hand_is_found_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / Path(ARCHIVE).name).write_bytes(pack(TF2))
    work = workspace_for(tmp_path, zoo_url=str(tmp_path / "downloads"))
    start_checkpoint.obtain(work)
    assert layout_of(work) == "tf2"


@pytest.mark.parametrize("address", ["http://", "http://[bad/x", "http://h:9x/a", "hdfs://host/a"])
def test_bad_address_is_a_named_error(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match=r"CHECKPOINT or ZOO_URL|ZOO_URL or CHECKPOINT"):
        start_checkpoint.obtain(workspace_for(tmp_path, checkpoint=address))


def test_addresses_that_differ_in_their_query_are_two(tmp_path: Path) -> None:
    with serve(pack(TF2)) as server:
        for number in (1, 2):
            start_checkpoint.obtain(workspace_for(tmp_path, checkpoint=f"{server.address}/get?id={number}"))
    assert len(server.requests) == 2


def test_damaged_archive_of_the_user_s_is_let_alone(tmp_path: Path) -> None:
    (tmp_path / "m.tar.gz").write_bytes(b"damaged")
    (tmp_path / "m.tar.gz.sha256").write_text("the user's own")
    with pytest.raises(UserError, match=r"m.tar.gz cannot be read .*: it is not an archive"):
        start_checkpoint.obtain(workspace_for(tmp_path, checkpoint=str(tmp_path / "m.tar.gz")))
    assert (tmp_path / "m.tar.gz.sha256").exists()


def test_folder_with_a_checkpoint_is_taken_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("ckpt-9.index", "ckpt-9.data-00000-of-00001", "ckpt-10.index", "ckpt-10.data-00000-of-00001"):
        (own / name).write_bytes(b"x")
    work = workspace_for(tmp_path, checkpoint=str(own))
    start_checkpoint.obtain(work)
    assert prefix_of(work) == str(own / "ckpt-10")
    before = start_checkpoint.fingerprint(work)
    (own / "ckpt-10.index").write_bytes(b"other")
    assert start_checkpoint.fingerprint(work) != before


def test_checkpoint_in_the_place_of_this_job_s_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lies in RESULT_DIR, CHECKPOINT_DIR or WORK_DIR"):
        start_checkpoint.obtain(workspace_for(tmp_path, checkpoint=str(tmp_path / "results" / "checkpoint")))


def test_archives_of_one_name_from_two_places_are_two(tmp_path: Path) -> None:
    first, second = pack(TF2), pack({**TF2, f"{TOP}/checkpoint/ckpt-0.index": b"another index"})
    found = []
    for content in (first, second):
        with serve(content) as server:
            work = workspace_for(tmp_path, checkpoint=f"{server.address}/m.tar.gz")
            found.append(start_checkpoint.obtain(work))
    assert found[0] != found[1]


def test_trickling_transfer_is_broken_off_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SLOWEST_SECONDS", 1)
    with serve(pack(TF2), Answer(pause=0.2)) as server:
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))
    assert len(server.requests) >= 2
    assert server.requests[1][1] is not None


def test_headers_that_trickle_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "HEADERS_SECONDS", 1)
    with serve(pack(TF2), Answer(headers_pause=0.2)) as server, caplog.at_level(logging.WARNING):
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))
    assert len(server.requests) == 2
    assert "no answer in 1 seconds; trying again" in caplog.text


@pytest.mark.parametrize("position", [200, 1000, 150_000, -6])
def test_archive_with_a_flipped_bit_is_refused(tmp_path: Path, position: int) -> None:
    content = bytearray(pack(TF2))
    content[position] ^= 4
    with serve(bytes(content)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        with pytest.raises(UserError, match="is not an archive, or it is damaged"):
            start_checkpoint.obtain(work)


def test_date_in_retry_after_is_understood() -> None:
    moment = datetime.now(timezone.utc) + timedelta(seconds=100)
    assert 95 < (download.seconds_to_wait(format_datetime(moment, usegmt=True)) or 0) <= 100
    assert download.seconds_to_wait("7") == 7
    assert download.seconds_to_wait("soon") is None


@pytest.mark.parametrize(("model", "choice"), [("smoke", "zoo"), ("ssd_mobilenet_v2_fpnlite_320x320", "none")])
def test_training_from_scratch_fetches_nothing(tmp_path: Path, model: str, choice: str) -> None:
    work = workspace_for(tmp_path, model=model, checkpoint=choice, zoo_url="http://127.0.0.1:9")
    assert start_checkpoint.run(work) == "none"
    assert start_checkpoint.load(work) is None


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../../escaped", tarfile.REGTYPE),
        member("/tmp/absolute", tarfile.REGTYPE),
        member(f"{TOP}/link", tarfile.SYMTYPE, "/etc/passwd"),
        member(f"{TOP}/pipeline.config", tarfile.SYMTYPE, "../../../etc/passwd"),
        member(f"{TOP}/hard", tarfile.LNKTYPE, "/etc/passwd"),
        member(f"{TOP}/device", tarfile.CHRTYPE),
        member(f"{TOP}/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda evil: evil.name,
)
def test_unsafe_archive_is_refused_and_nothing_is_left(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    with serve(pack(TF2, evil)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        with pytest.raises(UserError, match="the archive is refused"):
            start_checkpoint.obtain(work)
    assert not list(work.zoo.glob("*/*extracted*"))
    assert not work.start.exists()


def test_archive_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checkpoint, "MAX_EXTRACTED_BYTES", 1 << 20)
    with serve(pack({f"{TOP}/zeros": b"\0" * (2 << 20)})) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        with pytest.raises(UserError, match="more than a checkpoint can"):
            start_checkpoint.obtain(work)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pack({f"{TOP}/saved_model.pb": b"x"}), "holds no checkpoint"),
        (pack({f"{TOP}/checkpoint/ckpt-0.index": b"x"}), "has no data file beside it"),
        (pack(TF2)[:2000], "is not an archive, or it is damaged"),
        (b"<html>not found</html>", "is not an archive, or it is damaged"),
    ],
)
def test_archive_without_a_whole_checkpoint_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with serve(content) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        with pytest.raises(UserError, match=words):
            start_checkpoint.obtain(work)
    assert not list(work.zoo.glob("*/*extracted*"))


def test_credentials_of_an_address_are_in_no_message(tmp_path: Path) -> None:
    with serve(b"", Answer(404)) as server:
        address = server.address.replace("://", "://user:secret@")
        with pytest.raises(UserError) as caught:
            start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=address))
    assert "secret" not in str(caught.value)


def finish(work: Workspace, start: start_checkpoint.Start) -> None:
    """Leaves in RESULT_DIR what a finished job notes of its checkpoint."""
    work.results.mkdir(exist_ok=True)
    noted = {"archive": start.archive, "archive_sha256": start.archive_sha256}
    work.manifest.write_text(json.dumps({"start": noted}))


def test_archive_that_changed_since_the_last_job_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serve(pack(TF2)) as server, caplog.at_level(logging.INFO):
        first = workspace_for(tmp_path, zoo_url=server.address)
        start_checkpoint.obtain(first)
        start = start_checkpoint.load(first)
        assert start is not None
        assert start.archive_sha256 == hashlib.sha256(server.content).hexdigest()
        assert f"{start.archive} has SHA-256 {start.archive_sha256}; job.json will note it" in caplog.text
        finish(first, start)
        # On another machine, the same archive is accepted and another one is not, before and after job.json is removed.
        again = workspace_for(tmp_path, zoo_url=server.address, work_dir=tmp_path / "again")
        start_checkpoint.obtain(again)
        server.content = pack({**TF2, f"{TOP}/pipeline.config": b"model { evil }"})
        changed = hashlib.sha256(server.content).hexdigest()
        other = workspace_for(tmp_path, zoo_url=server.address, work_dir=tmp_path / "other")
        for _ in range(2):
            with pytest.raises(UserError, match=f"changed on its server.*CHECKPOINT_SHA256={changed}"):
                start_checkpoint.obtain(other)
            last_job.retract(other)
        pinned = {"zoo_url": server.address, "checkpoint_sha256": changed, "work_dir": tmp_path / "pinned"}
        start_checkpoint.obtain(workspace_for(tmp_path, **pinned))


def test_https_is_tried_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_tls(b"archive", tmp_path) as server:
        monkeypatch.setattr(download, "HTTPS_PORT", int(server.address.rpartition(":")[2]))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        assert download.prefer_https("http://localhost/a.tar.gz?x=1") == f"{server.address}/a.tar.gz?x=1"
        # A certificate that nobody signed is no reason to trust the host.
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        assert download.prefer_https("http://localhost/a.tar.gz") == "http://localhost/a.tar.gz"
        assert "is not served over https" in caplog.text
    assert download.prefer_https("http://localhost:80/a") == "http://localhost:80/a"
    assert download.prefer_https("https://localhost/a") == "https://localhost/a"


def test_sparse_member_is_refused(tmp_path: Path) -> None:
    sparse = member(f"{TOP}/checkpoint/ckpt-0.data-00000-of-00001", tarfile.GNUTYPE_SPARSE)
    with serve(pack(TF2, sparse)) as server, pytest.raises(UserError, match=r"refused|is not an archive"):
        start_checkpoint.obtain(workspace_for(tmp_path, zoo_url=server.address))


def test_server_that_sends_without_end_is_cut_off_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", 100_000)
    with serve(pack(TF2)) as server:
        work = workspace_for(tmp_path, zoo_url=server.address)
        with pytest.raises(UserError, match=rf"{server.address}.* sends more than 100,000 bytes to .*\.part"):
            start_checkpoint.obtain(work)
    assert len(server.requests) == 1
    assert not list(work.zoo.rglob("*.part"))
